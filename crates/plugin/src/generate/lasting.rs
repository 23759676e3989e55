//! Options of `mfserv deploy` that stay in force: later deployments of the app have them, too.

use std::path::{Component, Path};

use mfserv_core::route::host;
use mfserv_core::{Diagnostic, Kind};

use crate::label::read_small;

/// In the directory of the plugin that is made.
pub(super) const FILE: &str = ".mfserv-lasting";

/// Options that stay in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lasting {
    /// Host names at whose `/` the app answers, besides its own.
    pub hosts: Vec<String>,
    /// Paths below the app's directory that outlive its releases.
    pub persistent: Vec<String>,
}

impl Lasting {
    /// The options of now, with those of before. Hosts replace those of before, paths join them:
    /// data that was kept is not lost by a shorter command.
    pub fn with(
        place: &Path,
        hosts: &[String],
        persistent: &[String],
    ) -> Result<Lasting, Diagnostic> {
        let mut lasting = Lasting::read(place);
        if !hosts.is_empty() {
            let checked = hosts.iter().map(|name| host::configured(name).map_err(refused_host));
            lasting.hosts = checked.collect::<Result<_, _>>()?;
        }
        for path in persistent {
            let path = checked(path)?;
            if !lasting.persistent.contains(&path) {
                lasting.persistent.push(path);
            }
        }
        Ok(lasting)
    }

    fn read(place: &Path) -> Lasting {
        let text = read_small(&place.join(FILE)).unwrap_or_default();
        let all = |key: &str| {
            let values = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            values.map(str::to_string).collect()
        };
        Lasting { hosts: all("host"), persistent: all("persist") }
    }

    pub(super) fn text(&self) -> String {
        let hosts = self.hosts.iter().map(|host| format!("host={host}\n"));
        let paths = self.persistent.iter().map(|path| format!("persist={path}\n"));
        hosts.chain(paths).collect()
    }
}

fn refused_host((because, help): (String, String)) -> Diagnostic {
    Diagnostic::error("--host can't have that name").kind(Kind::Usage).because(because).help(help)
}

/// A path below the app's directory.
fn checked(path: &str) -> Result<String, Diagnostic> {
    let trimmed = path.trim_start_matches("./").trim_end_matches('/');
    let below = |part: Component<'_>| matches!(part, Component::Normal(_));
    if !trimmed.is_empty()
        && Path::new(trimmed).components().all(below)
        && !trimmed.contains([';', '\n', '{', '}'])
    {
        return Ok(trimmed.into());
    }
    Err(Diagnostic::error(format!("--persist can't have {path}"))
        .kind(Kind::Usage)
        .because("it is no path below the app's directory (without ; { } in it)")
        .help("name a file or directory as the app sees it: `--persist uploads --persist data.db`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stay_in_force_hosts_are_replaced_and_paths_join() {
        let place = tempfile::tempdir().unwrap();
        let words = |all: &[&str]| all.iter().map(|one| one.to_string()).collect::<Vec<_>>();
        let mut lasting = Lasting::default();
        for (hosts, paths, wanted) in [
            (&["A.org", "b.org"][..], &["./up/", "x.db"][..], (&["a.org", "b.org"][..], 2)),
            (&[], &["x.db"], (&["a.org", "b.org"], 2)),
            (&["c.org"], &["y.db"], (&["c.org"], 3)),
        ] {
            lasting = Lasting::with(place.path(), &words(hosts), &words(paths)).unwrap();
            assert_eq!((&lasting.hosts, lasting.persistent.len()), (&words(wanted.0), wanted.1));
            std::fs::write(place.path().join(FILE), lasting.text()).unwrap();
        }
        assert_eq!(lasting.persistent, ["up", "x.db", "y.db"]);
        for (hosts, paths, says) in [
            (&["http://a.org/"][..], &[][..], "without http://"),
            (&[], &["../x"], "--persist uploads"),
            (&[], &["/x"], "--persist uploads"),
            (&[], &["./"], "--persist uploads"),
        ] {
            let problem = Lasting::with(place.path(), &words(hosts), &words(paths)).unwrap_err();
            assert_eq!(problem.kind, Kind::Usage);
            assert!(problem.to_string().contains(says), "{problem}");
        }
    }
}
