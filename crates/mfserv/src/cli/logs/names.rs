//! Which logs are meant by the names of a command line.

use std::path::Path;

use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_logfile::Index;
use mfserv_node::places::Places;
use mfserv_plugin::Home;
use mfserv_plugin::store;

/// The names that were given, and the plugins that there are.
pub struct Meant {
    names: Vec<String>,
    plugins: Vec<String>,
}

impl Meant {
    /// `names`: plugins (`foo`), apps (`foo.main`), logs (`app_foo_main`, `daemon`); all apps without
    /// any.
    pub fn new(names: &[String], places: &Places) -> Self {
        let installed = match names.is_empty() {
            true => Vec::new(),
            false => store::list(&Home::new(places.home())).unwrap_or_default(),
        };
        let plugins = installed.into_iter().map(|plugin| plugin.name).collect();
        Self { names: names.to_vec(), plugins }
    }

    /// A live log file is meant. `stem`: its name without its end.
    pub fn has_log(&self, stem: &str, log: &Path) -> bool {
        let Some(rest) = of_plugin(stem) else {
            return self.names.iter().any(|name| match name.as_str() {
                "front" => stem == "nginx_access",
                "errors" => stem == "nginx_error",
                name => stem == name,
            });
        };
        self.names.is_empty() || self.names.iter().any(|name| self.is_of(name, stem, rest, log))
    }

    /// A log of this name may come into being.
    pub fn may_be_log(&self, name: &str) -> bool {
        let rest = of_plugin(name).unwrap_or(name);
        let is_of = |plugin: &String| begins(rest, plugin);
        ["nginx_access", "nginx_error"].contains(&name) || self.plugins.iter().any(is_of)
    }

    /// A log of a plugin is meant by this name. File names do not say where the name of a plugin
    /// ends: `app_foo_bar_main` may be of `foo` or of `foo_bar`.
    fn is_of(&self, name: &str, stem: &str, rest: &str, log: &Path) -> bool {
        let plain = name.replace(['.', '/'], "_");
        let is_plugin = self.plugins.iter().any(|plugin| plugin == name);
        if stem == plain || rest == plain && !is_plugin {
            return true;
        }
        if !rest.strip_prefix(&plain).is_some_and(|end| end.is_empty() || end.starts_with('_')) {
            return false;
        }
        let writer = Index::first_source(log).and_then(|it| it.worker.parse::<WorkerId>().ok());
        if let Some(watcher) = writer.map(|writer| writer.watcher) {
            return self.is_named(name, &watcher);
        }
        // Nobody is known who wrote it: the longest plugin whose name it begins with.
        let plugins = self.plugins.iter().filter(|plugin| begins(rest, plugin));
        let owner = plugins.max_by_key(|plugin| plugin.len());
        match name.split_once(['.', '/']) {
            Some((plugin, _)) => owner.is_none_or(|owner| owner == plugin) && is_app(rest, &plain),
            None if is_plugin => owner.is_some_and(|owner| owner == name),
            None => owner.is_none() || is_app(rest, &plain),
        }
    }

    /// A worker is meant.
    pub fn has_worker(&self, worker: &WorkerId) -> bool {
        let watcher = &worker.watcher;
        let is_named = |name: &String| self.is_named(name, watcher);
        watcher.plugin().is_some() && (self.names.is_empty() || self.names.iter().any(is_named))
    }

    /// A watcher has this name: that of its plugin, its own (`foo.main`, also `foo/main` and
    /// `app.foo.main`), or that of its log (`foo_main`), unless a plugin is called so.
    fn is_named(&self, name: &str, watcher: &WatcherName) -> bool {
        let full = watcher.as_str();
        let short = full.split_once('.').map_or(full, |(_, short)| short);
        let dotted = name.replace('/', ".");
        let is_log = name == watcher.file_stem() || name == short.replace('.', "_");
        watcher.plugin() == Some(name)
            || dotted == full
            || dotted == short
            || is_log && !self.plugins.iter().any(|plugin| plugin == name)
    }
}

/// A log of this plugin may have this name, without `app_` or `extra_`.
fn begins(rest: &str, plugin: &str) -> bool {
    rest.strip_prefix(plugin).is_some_and(|end| end.starts_with('_'))
}

/// The log of this app, or of one of its workers: `foo_main`, `foo_main_worker2`.
fn is_app(rest: &str, plain: &str) -> bool {
    rest.strip_prefix(plain).is_some_and(|end| end.is_empty() || end.starts_with("_worker"))
}

/// What follows `app_` or `extra_` in the name of a log of workers.
pub fn of_plugin(stem: &str) -> Option<&str> {
    stem.strip_prefix("app_").or_else(|| stem.strip_prefix("extra_"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mfserv_core::output::Rotation;
    use mfserv_logfile::{LogFile, Mark, MarkKind, Source};

    /// Logs of these workers, and of those that no index names.
    fn found(meant: &Meant, workers: &[&str]) -> Vec<String> {
        let home = tempfile::tempdir().unwrap();
        let is_meant = |worker: &&&str| {
            let (worker, has_index) =
                worker.strip_suffix('?').map_or((**worker, true), |it| (it, false));
            let id: WorkerId = worker.parse().unwrap();
            let stem = id.watcher.file_stem();
            let log = home.path().join(format!("{stem}.log"));
            let source = Source { worker: worker.into(), ..Source::default() };
            let mark = Mark { at: 0, source: &source, kind: MarkKind::Output(1) };
            if has_index {
                let rotation = Rotation { max_bytes: 0, max_age_s: 0, keep: 0, mode: None };
                LogFile::new(&log, rotation).append_marked(b"x\n", &[mark]).unwrap();
                assert_eq!(meant.has_log(&stem, &log), meant.has_worker(&id), "{worker}");
            }
            meant.has_log(&stem, &log)
        };
        workers.iter().filter(is_meant).map(|worker| (*worker).to_owned()).collect()
    }

    #[test]
    fn a_plugin_is_not_taken_for_another_one_whose_name_goes_on() {
        let workers = [
            "app.foo.main.1.1",
            "app.foo.main_2.1.1",
            "app.foo.other.1.1?",
            "extra.foo.job.1.1",
            "app.foo_bar.main.1.1",
            "app.foo_bar.side.1.1?",
            "app.foo_gone.main.1.1",
            "app.foobar.main.1.1",
        ];
        for (name, expected) in [
            ("foo", &[0, 1, 2, 3][..]),
            ("foo_bar", &[4, 5]),
            ("foo.main", &[0]),
            ("foo/main", &[0]),
            ("app.foo.main", &[0]),
            ("foo_main", &[0]),
            ("app_foo_main", &[0]),
            ("foo.other", &[2]),
            ("foo_bar.side", &[5]),
            ("foo.bar", &[]),
            ("foo_gone", &[6]),
            ("fo", &[]),
            ("daemon", &[]),
        ] {
            let plugins = vec!["foo".to_owned(), "foo_bar".to_owned()];
            let meant = Meant { names: vec![name.to_owned()], plugins };
            let expected: Vec<_> = expected.iter().map(|at| workers[*at].to_owned()).collect();
            assert_eq!(found(&meant, &workers), expected, "{name}");
        }
    }

    #[test]
    fn a_log_that_is_not_there_yet_is_no_unknown_name() {
        let meant = Meant { names: Vec::new(), plugins: vec!["foo".into()] };
        for name in ["foo_main", "app_foo_main", "extra_foo_beat", "nginx_access", "nginx_error"] {
            assert!(meant.may_be_log(name), "{name}");
        }
        for name in ["nobody", "app_nobody_main", "foobar_main", "foo"] {
            assert!(!meant.may_be_log(name), "{name}");
        }
    }
}
