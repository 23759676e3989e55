//! What the `php-fpm.conf` of a plugin says about how many requests its php-fpm handle at a time.

use std::path::Path;

use mfserv_core::Diagnostic;
use mfserv_core::plan::is_php_wrapper;
use mfserv_core::plugin_spec::PluginSpec;

/// The file of a plugin that php-fpm reads.
const OWN: &str = "php-fpm.conf";

/// Apps of php-fpm that do not say it themselves handle as many requests as the file of the plugin
/// has processes.
pub(super) fn with_own_numbers(
    dir: &Path,
    (mut spec, warnings): (PluginSpec, Vec<Diagnostic>),
) -> (PluginSpec, Vec<Diagnostic>) {
    let silent = spec.apps.iter_mut().filter(|app| app.requests_per_worker.is_none());
    let silent: Vec<_> = silent.filter(|app| is_php_wrapper(&app.command.command)).collect();
    if !silent.is_empty() {
        let children = own_children(dir);
        silent.into_iter().for_each(|app| app.requests_per_worker = children);
    }
    (spec, warnings)
}

/// What the file of a plugin says, in whichever encoding.
fn own_children(dir: &Path) -> Option<u32> {
    // A file that cannot be read is refused by the php-fpm that is started with it.
    let own = std::fs::read(dir.join(OWN)).unwrap_or_default();
    max_children(&String::from_utf8_lossy(&own))
}

/// The last `pm.max_children` counts, in whichever section: the generated file begins the one of the
/// pool that it is read in.
fn max_children(text: &str) -> Option<u32> {
    let lines = text.lines().rev().map(|line| line.split([';', '#']).next().unwrap_or_default());
    let values = lines.filter_map(|line| line.split_once('='));
    let mut values = values.filter(|(key, _)| key.trim() == "pm.max_children");
    values.next().and_then(|(_, value)| value.trim().trim_matches(['"', '\'']).parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_any_encoding_says_the_number_of_processes() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(OWN), b"; d\xe9j\xe0 vu\npm.max_children = 5\n").unwrap();
        assert_eq!(own_children(dir.path()), Some(5));
    }

    #[test]
    fn the_last_number_of_processes_counts() {
        for (text, number) in [
            ("", None),
            ("[www]\npm.max_children = 5\n", Some(5)),
            ("pm.max_children=5\n pm.max_children = \"7\" ; more", Some(7)),
            ("; pm.max_children = 5", None),
            ("pm.max_children = many", None),
        ] {
            assert_eq!(max_children(text), number, "{text}");
        }
    }
}
