//! Options of `mfserv deploy` and `mfserv dev` that stay in force: later commands have them, too.

use std::path::{Component, Path};

use mfserv_core::route::host;
use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::disk;

use crate::label::read_small;

/// In the directory of the plugin that is made.
const FILE: &str = ".mfserv-lasting";

/// Options that stay in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lasting {
    /// Host names at whose `/` the app answers, besides its own.
    pub hosts: Vec<String>,
    /// Paths below the app's directory that outlive its releases.
    pub persistent: Vec<String>,
    /// It is not served at `/` of the node.
    pub no_root: bool,
    /// What somebody has chosen it to be run as (`--as`).
    pub read_as: Option<String>,
}

/// What a command asks for.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Host names, in place of those of before.
    pub hosts: Vec<String>,
    /// Host names that are taken back.
    pub no_hosts: Vec<String>,
    /// Paths, besides those of before.
    pub persistent: Vec<String>,
    /// Paths that are taken back.
    pub no_persistent: Vec<String>,
    /// Files that are deployed whatever they are.
    pub packed: Vec<String>,
    /// Whether it may be served at `/` of the node; `None`: as before.
    pub root: Option<bool>,
}

impl Lasting {
    /// The options of now, with those of before. Hosts replace those of before, paths join them:
    /// data that was kept is not lost by a shorter command. What is taken back goes.
    pub fn with(place: &Path, asked: &Asked) -> Result<Lasting, Diagnostic> {
        let mut lasting = Lasting::read(place);
        if let Some(root) = asked.root {
            lasting.no_root = !root;
        }
        for name in &asked.no_hosts {
            let host = host::configured(name).map_err(|why| refused_host("--no-host", why))?;
            take_back(("--no-host", "host name"), &mut lasting.hosts, &host)?;
        }
        for path in &asked.no_persistent {
            let path = checked("--no-persist", path)?;
            take_back(("--no-persist", "path"), &mut lasting.persistent, &path)?;
        }
        if !asked.hosts.is_empty() {
            let checked =
                |name: &String| host::configured(name).map_err(|why| refused_host("--host", why));
            lasting.hosts = asked.hosts.iter().map(checked).collect::<Result<_, _>>()?;
        }
        for path in &asked.persistent {
            add(&mut lasting.persistent, checked("--persist", path)?);
        }
        Ok(lasting)
    }

    /// Later commands keep this path, too.
    pub(super) fn add(&mut self, path: String) {
        add(&mut self.persistent, path);
    }

    /// The options of commands before this one.
    pub fn read(place: &Path) -> Lasting {
        let text = read_small(&place.join(FILE)).unwrap_or_default();
        let all = |key: &str| {
            let values = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            values.map(str::to_string).collect::<Vec<_>>()
        };
        let no_root = all("root").iter().any(|value| value == "no");
        let read_as = all("as").pop();
        Lasting { hosts: all("host"), persistent: all("persist"), no_root, read_as }
    }

    /// Later commands have these: what they are of has succeeded.
    pub fn keep(&self, place: &Path) -> Result<(), Diagnostic> {
        if *self == Lasting::read(place) {
            return Ok(());
        }
        disk::write(&place.join(FILE), self.text().as_bytes())
    }

    fn text(&self) -> String {
        let hosts = self.hosts.iter().map(|host| format!("host={host}\n"));
        let paths = self.persistent.iter().map(|path| format!("persist={path}\n"));
        let root = self.no_root.then(|| "root=no\n".to_string());
        let read_as = self.read_as.iter().map(|kind| format!("as={kind}\n"));
        hosts.chain(paths).chain(root).chain(read_as).collect()
    }
}

/// Adds a path to persistent ones, none of which is in another one: a directory has what is below it.
pub(super) fn add(paths: &mut Vec<String>, path: String) {
    if !paths.iter().any(|there| Path::new(&path).starts_with(there)) {
        paths.retain(|there| !Path::new(there).starts_with(&path));
        paths.push(path);
    }
}

/// Removes what an earlier command has asked for.
fn take_back(
    (option, what): (&str, &str),
    all: &mut Vec<String>,
    one: &str,
) -> Result<(), Diagnostic> {
    let before = all.len();
    all.retain(|there| there != one);
    if all.len() < before {
        return Ok(());
    }
    let problem = Diagnostic::error(format!("{option} {one} takes nothing back"))
        .kind(Kind::Usage)
        .because(format!("no earlier command has asked for this {what}"));
    Err(match all.is_empty() {
        true => problem.help(format!("there is no {what} to take back: leave the option out")),
        false => problem.help(format!("there are {}", all.join(", "))),
    })
}

fn refused_host(option: &str, (because, help): (String, String)) -> Diagnostic {
    let what = format!("{option} can't have that name");
    Diagnostic::error(what).kind(Kind::Usage).because(because).help(help)
}

/// A path below the app's directory.
fn checked(option: &str, path: &str) -> Result<String, Diagnostic> {
    let trimmed = path.trim_start_matches("./").trim_end_matches('/');
    let below = |part: Component<'_>| matches!(part, Component::Normal(_));
    if !trimmed.is_empty()
        && Path::new(trimmed).components().all(below)
        && !trimmed.contains([';', '\n', '{', '}'])
    {
        return Ok(trimmed.into());
    }
    Err(Diagnostic::error(format!("{option} can't have {path}"))
        .kind(Kind::Usage)
        .because("it is no path below the app's directory (without ; { } in it)")
        .help(format!(
            "name a file or directory as the app sees it: `{option} uploads {option} data.db`"
        )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stay_in_force_hosts_are_replaced_and_paths_join() {
        let place = tempfile::tempdir().unwrap();
        let words = |all: &[&str]| all.iter().map(|one| one.to_string()).collect::<Vec<_>>();
        let asked = |hosts: &[&str], paths: &[&str]| Asked {
            hosts: words(hosts),
            persistent: words(paths),
            ..Asked::default()
        };
        let mut lasting = Lasting::default();
        for (hosts, paths, wanted) in [
            (&["A.org", "b.org"][..], &["./up/", "x.db"][..], (&["a.org", "b.org"][..], 2)),
            (&[], &["x.db"], (&["a.org", "b.org"], 2)),
            (&["c.org"], &["y.db"], (&["c.org"], 3)),
        ] {
            lasting = Lasting::with(place.path(), &asked(hosts, paths)).unwrap();
            assert_eq!((&lasting.hosts, lasting.persistent.len()), (&words(wanted.0), wanted.1));
            lasting.keep(place.path()).unwrap();
        }
        assert_eq!(lasting.persistent, ["up", "x.db", "y.db"]);
        for (hosts, paths, says) in [
            (&["http://a.org/"][..], &[][..], "without http://"),
            (&[], &["../x"], "--persist uploads"),
            (&[], &["/x"], "--persist uploads"),
            (&[], &["./"], "--persist uploads"),
        ] {
            let problem = Lasting::with(place.path(), &asked(hosts, paths)).unwrap_err();
            assert_eq!(problem.kind, Kind::Usage);
            assert!(problem.to_string().contains(says), "{problem}");
        }
    }

    #[test]
    fn what_an_app_is_run_as_stays_with_the_other_options() {
        let place = tempfile::tempdir().unwrap();
        let kept = Lasting { no_root: true, read_as: Some("a.b:app".into()), ..Lasting::default() };
        kept.keep(place.path()).unwrap();
        assert_eq!(Lasting::read(place.path()), kept);
        assert_eq!(Lasting::with(place.path(), &Asked::default()).unwrap(), kept);
    }

    #[test]
    fn no_persistent_path_is_in_another_one() {
        let mut paths = Vec::new();
        for path in ["up", "up/x", "a/b", "a/c/d", "a", "ab", "a"] {
            add(&mut paths, path.into());
        }
        assert_eq!(paths, ["up", "a", "ab"]);
    }

    #[test]
    fn one_option_is_taken_back_and_the_others_stay() {
        let place = tempfile::tempdir().unwrap();
        let text = "host=a.org\nhost=b.org\npersist=up\npersist=x.db\n";
        std::fs::write(place.path().join(FILE), text).unwrap();
        let asked = |host: &str, path: &str| {
            let words = |word: &str| word.split_whitespace().map(str::to_string).collect();
            let asked =
                Asked { no_hosts: words(host), no_persistent: words(path), ..Asked::default() };
            Lasting::with(place.path(), &asked)
        };
        let lasting = asked("A.org.", "./up/").unwrap();
        assert_eq!(
            (lasting.hosts, lasting.persistent),
            (vec!["b.org".into()], vec!["x.db".into()])
        );
        for (host, path, says) in [
            ("c.org", "", "there are a.org, b.org"),
            ("", "y.db", "there are up, x.db"),
            ("", "/x.db", "--no-persist uploads"),
            ("a.org b.org a.org", "", "leave the option out"),
        ] {
            let problem = asked(host, path).unwrap_err();
            assert_eq!(problem.kind, Kind::Usage);
            assert!(problem.to_string().contains(says), "{problem}");
        }
    }
}
