//! Files that an app has the front send: which of them it may name, and how.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::normalise;

/// What an app may have sent in place of its own answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sendfile {
    /// The home of its plugin: relative directories are below it.
    pub home: PathBuf,
    /// The directories; nothing outside of them is sent.
    pub roots: Vec<SendfileRoot>,
}

/// A directory of which files may be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendfileRoot {
    /// The path that stands for it in `X-Accel-Redirect`, without a `/` at its end; `None`: it is
    /// named by `X-Sendfile` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The directory, absolute or below the home of the plugin.
    pub dir: PathBuf,
}

impl SendfileRoot {
    /// Reads `DIRECTORY` or `/PATH=DIRECTORY`. An error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (path, dir) = match text.split_once('=') {
            Some((path, dir)) => (Some(path.trim()), dir.trim()),
            None => (None, text.trim()),
        };
        let is_path = |path: &str| {
            let is_odd = |c: char| c.is_whitespace() || c.is_control() || "?#%\\".contains(c);
            path.starts_with('/') && !path.contains("//") && !path.contains(is_odd)
        };
        if let Some(path) = path {
            if !is_path(path) || path.split('/').any(|part| part == "." || part == "..") {
                return Err(format!("{path:?} is not a path as /protected"));
            }
        }
        let mut parts = Path::new(dir).components();
        if !parts.any(|part| matches!(part, Component::Normal(_))) {
            return Err(format!("{dir:?} names no directory, or all of them"));
        }
        if Path::new(dir).components().any(|part| part == Component::ParentDir) {
            return Err(format!("{dir:?} leads upwards (..)"));
        }
        let path = path.map(|path| path.trim_end_matches('/').to_string());
        Ok(Self { path, dir: PathBuf::from(dir) })
    }
}

impl Sendfile {
    /// The directories, for a worker of the release in `home`.
    pub fn dirs<'a>(&'a self, home: &'a Path) -> impl Iterator<Item = PathBuf> + 'a {
        self.roots.iter().map(move |root| home.join(&root.dir))
    }

    /// The file that `X-Accel-Redirect` names, for a worker of the release in `home`: a directory
    /// and a path below it. As for nginx, the path is percent-encoded, and may have a query.
    pub fn by_path(&self, said: &[u8], home: &Path) -> Option<(PathBuf, String)> {
        let end = said.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(said.len());
        let path = normalise(&said[..end]).ok()?;
        let below = |root: &SendfileRoot| {
            let rest = path.strip_prefix(root.path.as_deref()?)?.strip_prefix('/')?;
            Some((root.path.as_deref()?.len(), home.join(&root.dir), rest.to_string()))
        };
        let named = self.roots.iter().filter_map(below).max_by_key(|(length, ..)| *length);
        named.map(|(_, dir, rest)| (dir, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sendfile(roots: &[&str]) -> Sendfile {
        let roots = roots.iter().map(|text| SendfileRoot::parse(text).unwrap()).collect();
        Sendfile { home: "/plugin".into(), roots }
    }

    #[test]
    fn a_path_belongs_to_the_longest_one_that_it_is_below() {
        let all = sendfile(&["/p=private", "/p/big = /data", "/x/=x", "other"]);
        for (said, expected) in [
            ("/p/a.pdf", Some(("/r/private", "a.pdf"))),
            ("/p/a%20b/c?query", Some(("/r/private", "a b/c"))),
            ("/p/big/film", Some(("/data", "film"))),
            ("/p/bigger", Some(("/r/private", "bigger"))),
            ("/x/y/../z", Some(("/r/x", "z"))),
            ("/p", None),
            ("/pp/a", None),
            ("/p/../secret", None),
            ("/p/%2e%2e/secret", None),
            ("/../p/a", None),
            ("/other/a", None),
            ("p/a", None),
            ("/p/%zz", None),
            ("/p/a%00b", None),
            ("", None),
        ] {
            let found = all.by_path(said.as_bytes(), Path::new("/r"));
            let expected = expected.map(|(dir, rest)| (PathBuf::from(dir), rest.to_string()));
            assert_eq!(found, expected, "{said}");
        }
        let everything = sendfile(&["/=files"]);
        let found = everything.by_path(b"/a/b", Path::new("/r"));
        assert_eq!(found, Some(("/r/files".into(), "a/b".into())));
    }

    #[test]
    fn what_names_no_directory_or_no_path_is_refused() {
        for wrong in
            ["/", ".", "../x", "a/../b", "", "x=/data", "/a b=c", "/a/../b=c", "/a%20=c", "/a=/"]
        {
            assert!(SendfileRoot::parse(wrong).is_err(), "{wrong}");
        }
    }
}
