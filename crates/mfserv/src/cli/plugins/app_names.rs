//! Names of plugins and apps on the command line.

use mfserv_core::names::WatcherName;
use mfserv_core::{Diagnostic, Kind};

/// True for the path of a directory, in place of a name.
pub fn is_directory(name: &str) -> bool {
    name.contains('/') || name == "."
}

/// The plugin and the app of `foo`, `foo.main`, `app.foo.main` or `extra.foo.job`.
pub fn parts(name: &str) -> (&str, Option<&str>) {
    let kinds = ["app.", "extra."].iter().find_map(|kind| name.strip_prefix(kind));
    let name = kinds.filter(|rest| rest.contains('.')).unwrap_or(name);
    name.split_once('.').map_or((name, None), |(plugin, app)| (plugin, Some(app)))
}

/// How a watcher is typed on a command line: `foo.main`, `extra.foo.job`.
pub fn typed(name: &WatcherName) -> &str {
    name.as_str().strip_prefix("app.").unwrap_or(name.as_str())
}

/// The error of an app that a plugin does not have.
pub fn no_app(plugin: &str, app: &str, names: &[&str]) -> Diagnostic {
    let error = Diagnostic::error(format!("{plugin} has no app {app}")).kind(Kind::Usage);
    match names.is_empty() {
        true => error.because("it has none: it is static files"),
        false => error.help(format!("it has {}", list(plugin, names))),
    }
}

/// The apps of a plugin, as they are named on a command line.
pub fn list(plugin: &str, names: &[&str]) -> String {
    names.iter().map(|name| format!("{plugin}.{name}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plugins_and_their_apps_in_one_spelling() {
        for (name, expected) in [
            ("shop", ("shop", None)),
            ("shop.main", ("shop", Some("main"))),
            ("app.shop.main", ("shop", Some("main"))),
            ("extra.shop.job", ("shop", Some("job"))),
            ("app.main", ("app", Some("main"))),
        ] {
            assert_eq!(parts(name), expected, "{name}");
        }
    }
}
