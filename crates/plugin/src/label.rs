//! Who a plugin directory says it is: `.layerapi2_label` and its dependencies.

use std::fs;
use std::path::Path;

use mfserv_core::diagnostic::Location;
use mfserv_core::names::check_plugin_name;
use mfserv_core::plugin_config;
use mfserv_core::{Diagnostic, Kind};

/// The longest label or dependencies file that is read, bytes.
const LONGEST: u64 = 64 * 1024;

/// The plugin name in the text of a `.layerapi2_label`: `plugin_NAME@mfserv`.
/// The error is the reason.
pub fn name_in_label(text: &str) -> Result<String, String> {
    plugin_config::label(text)
        .map_err(|problem| format!("{}: {}", problem.what, problem.because.join(": ")))
}

/// What somebody does whose directory is no plugin.
const HOW_TO_MAKE_ONE: &str = "`mfserv dev DIR` and `mfserv deploy DIR` take an app as it is; `mfserv \
     init DIR` makes a plugin of it, `mfserv new NAME` a new one (its --help lists the templates)";

/// The name of the plugin in a directory.
pub fn read_name(dir: &Path) -> Result<String, Diagnostic> {
    let file = dir.join(".layerapi2_label");
    let refused = |because: String| {
        Diagnostic::error(format!("{} is not a plugin", dir.display()))
            .kind(Kind::BadConfiguration)
            .because(because)
            .at(Location::new(file.display().to_string(), 0))
    };
    let text = read_small(&file).map_err(|e| {
        let problem = refused(format!("can't read {} file: {e}", file.display()));
        match e.kind() {
            std::io::ErrorKind::NotFound => problem.help(HOW_TO_MAKE_ONE),
            _ => problem,
        }
    })?;
    name_in_label(&text).map_err(refused)
}

/// The other plugins that a plugin depends on (`plugin_OTHER@mfserv` lines of
/// `.layerapi2_dependencies`), in file order, with whether each is optional
/// (a leading `-`). A missing file means none.
pub fn plugin_dependencies(dir: &Path) -> Vec<(String, bool)> {
    read_small(&dir.join(".layerapi2_dependencies"))
        .map_or_else(|_| Vec::new(), |text| dependencies_in(&text))
}

/// The same, in the text of that file.
pub fn dependencies_in(text: &str) -> Vec<(String, bool)> {
    plugin_config::dependencies(text)
        .iter()
        .filter_map(|one| Some((one.plugin()?.to_string(), one.optional)))
        .filter(|(name, _)| check_plugin_name(name).is_ok())
        .collect()
}

/// Reads a small text file; a larger one is an error.
pub(crate) fn read_small(file: &Path) -> std::io::Result<String> {
    read_bounded(file, LONGEST)
}

/// Reads a text file of at most so many bytes; a longer one is an error.
pub(crate) fn read_bounded(file: &Path, longest: u64) -> std::io::Result<String> {
    if fs::metadata(file)?.len() > longest {
        return Err(std::io::Error::other(format!("longer than {longest} bytes")));
    }
    fs::read_to_string(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_gives_the_name_or_the_reason() {
        assert_eq!(name_in_label("plugin_foo@mfserv\n"), Ok("foo".to_string()));
        assert!(name_in_label("foo@mfserv").unwrap_err().contains("is it really a plugin"));
        assert!(name_in_label("plugin_foo@mfdata").is_err());
        assert!(name_in_label("plugin_../x@mfserv").is_err());
    }
}
