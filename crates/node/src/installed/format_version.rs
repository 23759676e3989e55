//! The format of a plugin: `.plugin_format_version`.

use std::path::Path;

use mfserv_core::ini::Document;
use mfserv_core::{Diagnostic, Kind, Location, plugin_config};

use super::Texts;

/// Refuses a plugin whose format is not known, or not said.
pub(super) fn check(name: &str, texts: &Texts) -> Result<(), Vec<Diagnostic>> {
    let path = texts.dir.join(".plugin_format_version");
    let at = Location::new(path.to_string_lossy(), 1);
    let checked = match &texts.format_version {
        Some(text) => plugin_config::format_version(text).map(drop).map_err(|wrong| wrong.at(at)),
        None => Err(without_format_version(name, &path, texts.config.as_ref())),
    };
    checked.map_err(|problem| vec![problem.kind(Kind::BadConfiguration)])
}

/// The file is missing: the format of the configuration tells what is to be done.
fn without_format_version(name: &str, path: &Path, config: Option<&Document>) -> Diagnostic {
    let missing = Diagnostic::error(format!("plugin {name} is refused")).because(format!(
        "{} is missing => this is probably an old and incompatible plugin => please migrate it!",
        path.display()
    ));
    match config.and_then(plugin_config::of_before_1_0) {
        Some(at) => missing.because("its config.ini has the format of before 1.0").at(at).help(
            "make a plugin with `mfserv new`, move the code and the values of the old one there, and \
             ask `mfserv check`: it names what is called otherwise now",
        ),
        None => missing
            .at(Location::new(path.to_string_lossy(), 0))
            .help("write the version of the framework that it was made with, for example 2.0.0"),
    }
}
