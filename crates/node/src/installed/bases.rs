//! Which base environment the programs of a plugin run with.

use std::path::Path;

use mfserv_core::plugin_spec::PluginSpec;
use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::base::BaseEnvironment;
use mfserv_plugin::python2;

/// The base environment of the Python that the plugin is built for, or asks for;
/// else the newest. For Python 2 it is one of Python 2, or none.
pub(super) fn base_for<'a>(
    spec: &PluginSpec,
    dir: &Path,
    bases: &'a [BaseEnvironment],
) -> Option<&'a BaseEnvironment> {
    let asked = spec.general.python.as_deref();
    let is_2 = asked.is_some_and(python2::is_python2);
    let mut fitting = bases.iter().filter(|base| base.interpreter.is_2() == is_2);
    let version = |base: &BaseEnvironment| base.interpreter.short_version.clone();
    let built =
        |base: &&BaseEnvironment| dir.join(format!("local/lib/python{}", version(base))).is_dir();
    let wanted = |base: &&BaseEnvironment| asked.is_some_and(|name| name.ends_with(&version(base)));
    let (found, asked) = (fitting.clone().find(built), fitting.clone().find(wanted));
    found.or(asked).or_else(|| fitting.next_back())
}

/// Refuses a plugin for Python 2 without a base environment: its programs would find the Python 3
/// of the host.
pub(super) fn refuse_without_base(spec: &PluginSpec) -> Result<(), Diagnostic> {
    match spec.general.python.as_deref().filter(|name| python2::is_python2(name)) {
        None => Ok(()),
        Some(name) => Err(Diagnostic::error(format!("plugin {} is refused", spec.name))
            .kind(Kind::BadConfiguration)
            .because(format!("it runs with {name}, and the base environment of that is not there"))
            .help(format!("mfserv setup --python {name}; or build or install the plugin again"))),
    }
}
