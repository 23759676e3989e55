//! Where a required package comes from when it is not the index: a git repository, a directory,
//! a file, an address.

use std::path::{Path, PathBuf};

/// A package from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// Its name, if the requirement says it.
    pub(super) name: Option<String>,
    /// Its extras, without brackets; empty if there are none.
    pub(super) extras: String,
    /// When it is wanted: the text after `;`; empty = always.
    pub(super) marker: String,
    /// The address, as written.
    pub(super) address: String,
    /// What the address is.
    pub(super) kind: Kind,
}

/// What an address is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// A git repository.
    Git(Git),
    /// A directory with a project, or a wheel or an archive of sources.
    Local(PathBuf),
    /// A wheel or an archive of sources.
    Remote,
}

/// A git repository and what of it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Git {
    /// The address of the repository as written, with `${NAME}`.
    pub(super) written: String,
    /// What git is given; `${NAME}` is still to be filled in.
    pub(super) url: String,
    /// A branch, tag or commit; `None` = the default branch.
    pub(super) reference: Option<String>,
    /// Where in it the project is.
    pub(super) subdirectory: Option<String>,
}

/// Endings of what pip takes for a file of a package.
const ARCHIVES: [&str; 6] = [".whl", ".tar.gz", ".zip", ".tgz", ".tar.bz2", ".tar.xz"];

/// The origin that a requirement names; `None` when it is the index. The error is the reason
/// why that origin is refused. `dirs`: where relative paths may begin, the first that has it.
pub(super) fn direct(text: &str, dirs: &[&Path]) -> Result<Option<Origin>, String> {
    let (wanted, marker) = match text.split_once(" ;").or_else(|| text.split_once("; ")) {
        Some((wanted, marker)) => (wanted.trim(), marker.trim()),
        None => (text.trim(), ""),
    };
    let (name, address) = match wanted.split_once('@') {
        Some((name, address)) if is_name(name.trim()) => (Some(name.trim()), address.trim()),
        _ => (None, wanted),
    };
    let is_git_like = ["git+", "hg+", "svn+", "bzr+"].iter().any(|kind| address.starts_with(*kind));
    let is_address = is_git_like || address.contains("://") || address.starts_with("file:");
    let is_path = address.starts_with(['.', '/']) || address.contains('/') || is_archive(address);
    if name.is_none() && !is_address && !is_path {
        return Ok(None);
    }
    let mut origin = Origin::remote(address, marker);
    if let Some(name) = name {
        origin.named(name);
    }
    if is_git_like {
        let (kind, egg) = git(address, dirs)?;
        if let (None, Some(egg)) = (&origin.name, egg) {
            origin.named(&egg);
        }
        origin.kind = Kind::Git(kind);
    } else if address.starts_with("file:") || !is_address {
        let (address, extras) = without_extras(address);
        origin.kind = Kind::Local(local(address, dirs)?);
        if origin.extras.is_empty() {
            origin.extras = extras.into();
        }
        origin.address = address.into();
    } else {
        check_remote(address)?;
        let egg = fragment(address).and_then(|fragment| value(fragment, "egg"));
        if let (None, Some(egg)) = (&origin.name, egg) {
            origin.named(&egg);
        }
    }
    Ok(Some(origin))
}

impl Origin {
    fn remote(address: &str, marker: &str) -> Origin {
        let (address, marker) = (address.to_string(), marker.to_string());
        Origin { name: None, extras: String::new(), marker, address, kind: Kind::Remote }
    }

    /// What a line says whose address we would not fetch from: its name, if it has one.
    pub(super) fn unusable(text: &str) -> Option<Origin> {
        let (address, marker) = text.split_once(" ;").unwrap_or((text, ""));
        let (address, marker) = (address.trim(), marker.trim());
        let mut origin = Origin::remote(address, marker);
        let before = address.split_once('@').map(|(name, _)| name.trim());
        let egg = fragment(address).and_then(|fragment| value(fragment, "egg"));
        match before.filter(|name| is_name(name)) {
            Some(name) => origin.named(name),
            None => origin.named(&egg.unwrap_or_default()),
        }
        Some(origin).filter(|_| address.contains(['/', ':']))
    }

    fn named(&mut self, text: &str) {
        let (name, extras) = without_extras(text);
        self.name = Some(name.trim().to_string()).filter(|name| !name.is_empty());
        self.extras = extras.into();
    }

    /// The requirement as it is written into a list of exact versions, with another address.
    pub(super) fn frozen(&self, name: &str, address: &str) -> String {
        let extras = match self.extras.is_empty() {
            true => String::new(),
            false => format!("[{}]", self.extras),
        };
        let marker = match self.marker.is_empty() {
            true => String::new(),
            false => format!(" ; {}", self.marker),
        };
        format!("{name}{extras} @ {address}{marker}")
    }
}

impl Git {
    /// The address of exactly this commit, as pip and uv write it.
    pub(super) fn at(&self, commit: &str) -> String {
        let fragment = self.subdirectory.as_ref();
        let fragment = fragment.map_or(String::new(), |path| format!("#subdirectory={path}"));
        format!("git+{}@{commit}{fragment}", self.written)
    }
}

/// `NAME` or `NAME[EXTRAS]`.
fn is_name(text: &str) -> bool {
    let (name, extras) = without_extras(text);
    let good = |text: &str, more: &str| {
        text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && good(name.trim_end(), "-_.")
        && good(extras, "-_., ")
}

/// A text and what is in brackets at its end.
fn without_extras(text: &str) -> (&str, &str) {
    let rest = text.strip_suffix(']').and_then(|rest| rest.rsplit_once('['));
    rest.unwrap_or((text, ""))
}

fn is_archive(text: &str) -> bool {
    ARCHIVES.iter().any(|ending| text.ends_with(ending))
}

fn fragment(address: &str) -> Option<&str> {
    address.split_once('#').map(|(_, fragment)| fragment)
}

/// The value of a key in `egg=x&subdirectory=y`.
fn value(fragment: &str, key: &str) -> Option<String> {
    let mut pairs = fragment.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == key).map(|(_, value)| value.to_string())
}

/// The file or directory of `file:` addresses and of paths.
fn local(address: &str, dirs: &[&Path]) -> Result<PathBuf, String> {
    let path = match address.strip_prefix("file:") {
        Some(path) => decoded(path.strip_prefix("//localhost").unwrap_or(path)),
        None => address.to_string(),
    };
    let path = path.split('#').next().unwrap_or_default();
    // Three slashes of an address are one of a path; two are a relative path of some tools.
    let path = match (address.starts_with("file:"), path.strip_prefix("//")) {
        (true, Some(rest)) => rest,
        _ => path,
    };
    let path = in_plugin(path, dirs);
    let found = dirs.iter().map(|dir| dir.join(&path)).find(|path| path.exists());
    found.ok_or_else(|| {
        format!("{path} is not there (relative paths begin at the plugin's directory)")
    })
}

/// A path whose variables for the directory of the project are filled in.
fn in_plugin(path: &str, dirs: &[&Path]) -> String {
    let dir = dirs.first().map(|dir| dir.to_string_lossy()).unwrap_or_default();
    ["${PWD}", "${PROJECT_ROOT}", "${CURDIR}"]
        .iter()
        .fold(path.to_string(), |path, name| path.replace(name, &dir))
}

/// `%20` and the like.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let code = code.filter(|_| *first == b'%').and_then(|two| u8::from_str_radix(two, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A git repository, and the name that `#egg=` says. https and ssh are allowed; http to this
/// machine only; a local repository only inside the plugin.
fn git(address: &str, dirs: &[&Path]) -> Result<(Git, Option<String>), String> {
    let url = address.strip_prefix("git+").ok_or("only git is supported, with git+https://…")?;
    let (url, fragment) = url.split_once('#').unwrap_or((url, ""));
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err("write the address as git+https://HOST/PATH or git+ssh://USER@HOST/PATH".into());
    };
    let (host, path) = rest.split_once('/').ok_or("the address has no path")?;
    let (path, reference) = match path.rsplit_once('@') {
        Some((path, reference)) => (path, Some(reference.to_string())),
        None => (path, None),
    };
    let bare = host.rsplit('@').next().unwrap_or_default();
    if [host, bare].iter().any(|name| name.starts_with('-'))
        || reference.as_ref().is_some_and(|name| name.starts_with('-') || name.is_empty())
    {
        return Err("no host, branch or tag is empty or begins with -".into());
    }
    let written = format!("{scheme}://{host}/{path}");
    let mut url = written.clone();
    match scheme {
        "https" | "ssh" => {}
        "http" if is_this_machine(bare) => {}
        "http" => return Err("http is not encrypted: use git+https:// or git+ssh://".into()),
        "file" => {
            let path = in_plugin(&decoded(&format!("{host}/{path}")), dirs);
            let inside = |dir: &&Path| {
                let dir = dir.canonicalize().ok()?;
                let place = Path::new(&path).canonicalize().ok()?;
                (path.starts_with('/') && place.starts_with(&dir)).then_some(place)
            };
            let place = dirs.first().and_then(inside);
            let place = place.ok_or("a local repository is only taken from inside the plugin")?;
            url = format!("file://{}", place.display());
        }
        _ => return Err(format!("{scheme} is not allowed: use git+https:// or git+ssh://")),
    }
    let subdirectory = value(fragment, "subdirectory");
    let outside = |path: &String| path.starts_with('/') || path.split('/').any(|part| part == "..");
    if subdirectory.as_ref().is_some_and(outside) {
        return Err("the subdirectory leads out of the repository".into());
    }
    Ok((Git { written, url, reference, subdirectory }, value(fragment, "egg")))
}

/// Addresses of packages are encrypted, or have a sum, or are of this machine.
fn check_remote(address: &str) -> Result<(), String> {
    let (scheme, rest) = address.split_once("://").unwrap_or_default();
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    let summed = fragment(address).is_some_and(|all| all.contains("sha256="));
    match scheme {
        "https" => Ok(()),
        "http" if summed || is_this_machine(host) => Ok(()),
        "http" => Err("http is not encrypted: use https, or add #sha256=…".into()),
        "ssh" | "git" => Err(format!("write git+{address} for a git repository")),
        _ => Err(format!("{scheme} is not allowed: use https")),
    }
}

/// `127.0.0.1:8000`, `[::1]`, `localhost`.
fn is_this_machine(host: &str) -> bool {
    let without_port = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    without_port == "localhost"
        || without_port.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        direct(text, &[Path::new("/")]).unwrap().expect(text)
    }

    #[test]
    fn a_package_of_the_index_has_no_origin() {
        for text in [
            "flask",
            "Flask[async]>=2,<3 ; python_version < '3.13'",
            "zope.interface===5",
            "a==1; sys_platform == 'linux'",
        ] {
            assert_eq!(direct(text, &[]), Ok(None), "{text}");
        }
    }

    #[test]
    fn git_is_read_in_all_its_spellings() {
        for (text, name, url, reference, subdirectory) in [
            ("x @ git+https://h/a/x.git@v1", Some("x"), "https://h/a/x.git", Some("v1"), None),
            ("git+https://h/x#egg=x", Some("x"), "https://h/x", None, None),
            (
                "git+ssh://git@h/a/x.git@main#egg=x[b]&subdirectory=py/lib",
                Some("x"),
                "ssh://git@h/a/x.git",
                Some("main"),
                Some("py/lib"),
            ),
            ("git+https://${TOKEN}@h/x.git", None, "https://${TOKEN}@h/x.git", None, None),
            ("git+http://127.0.0.1:80/x.git", None, "http://127.0.0.1:80/x.git", None, None),
            (
                "x[a] @git+http://[::1]:8/x ; os_name=='nt'",
                Some("x"),
                "http://[::1]:8/x",
                None,
                None,
            ),
        ] {
            let found = origin(text);
            let Kind::Git(git) = &found.kind else { panic!("{text}") };
            assert_eq!(found.name.as_deref(), name, "{text}");
            assert_eq!(git.url, url);
            assert_eq!(git.reference.as_deref(), reference, "{text}");
            assert_eq!(git.subdirectory.as_deref(), subdirectory, "{text}");
        }
        let found = origin("git+https://h/x@v1#egg=x[b,c]&subdirectory=d");
        let Kind::Git(git) = &found.kind else { panic!() };
        let exact = "x[b,c] @ git+https://h/x@0a1b#subdirectory=d";
        assert_eq!(found.frozen("x", &git.at("0a1b")), exact);
        assert_eq!(origin(exact).kind, origin("git+https://h/x@0a1b#subdirectory=d").kind);
    }

    #[test]
    fn addresses_that_are_not_safe_are_refused() {
        for text in [
            "x @ git+http://example.org/x.git",
            "x @ git+git://example.org/x.git",
            "x @ git+ext::sh -c true",
            "x @ git+file:///etc",
            "git+ssh://-oProxyCommand=x/y",
            "git+https://h/x@--upload-pack=x",
            "git+https://h/x#subdirectory=../..",
            "git+git@github.com:a/b.git",
            "hg+https://h/x",
            "x @ http://example.org/x-1.whl",
            "x @ ftp://example.org/x-1.whl",
        ] {
            assert!(direct(text, &[Path::new("/nowhere")]).is_err(), "{text}");
        }
        assert!(direct("x @ http://h/x-1.whl#sha256=00", &[]).is_ok());
        assert_eq!(origin("https://h/x-1-py3-none-any.whl").kind, Kind::Remote);
    }

    #[test]
    fn a_path_begins_at_the_directory_of_the_plugin_however_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().canonicalize().unwrap();
        let lib = dir.join("libs/my lib");
        std::fs::create_dir_all(&lib).unwrap();
        for (text, extras) in [
            ("./libs/my lib".to_string(), ""),
            ("libs/my lib[fast]".to_string(), "fast"),
            ("mylib @ ./libs/my lib".to_string(), ""),
            ("mylib[fast] @ file:libs/my%20lib".to_string(), "fast"),
            ("mylib @ file://${PWD}/libs/my%20lib".to_string(), ""),
            (format!("mylib @ file://{}", lib.display()), ""),
        ] {
            let found = direct(&text, &[&dir]).unwrap().expect(&text);
            let Kind::Local(place) = &found.kind else { panic!("{text}") };
            assert_eq!(place.canonicalize().unwrap(), lib, "{text}");
            assert_eq!(found.extras, extras, "{text}");
        }
        assert!(direct("./libs/other", &[&dir]).unwrap_err().contains("plugin's directory"));
    }

    #[test]
    fn a_local_repository_is_only_taken_from_inside_the_plugin() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(dir.join("plugin/vendor/x.git")).unwrap();
        std::fs::create_dir_all(dir.join("other.git")).unwrap();
        let plugin = dir.join("plugin");
        let at = |place: &str| direct(&format!("x @ git+file://{place}"), &[&plugin]);
        let inside = plugin.join("vendor/x.git");
        assert!(at(&format!("{}@v1", inside.display())).is_ok());
        assert!(at("${PWD}/vendor/x.git").is_ok());
        assert!(at(&dir.join("other.git").to_string_lossy()).is_err());
        assert!(at(&plugin.join("../other.git").to_string_lossy()).is_err());
    }
}
