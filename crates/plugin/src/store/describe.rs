//! An installed plugin in the terms of MFSERV's commands.

use mfserv_core::Diagnostic;
use mfserv_core::plugin_spec::General;

use super::links::{Installed, Origin, current};
use crate::archive::{Metadata, Package, read_installed};
use crate::home::Home;

/// What an installed plugin says about itself: its package for a release. A
/// directory that is linked has no package: version and release are those of
/// [`Installed`] (`dev_link`), what only a build knows is `unknown`, the rest is in
/// `general` (its own `config.ini`), and there is no list of files.
pub fn describe(installed: &Installed, general: &General) -> Result<Package, Diagnostic> {
    if let Origin::Packed(_) = installed.origin {
        return read_installed(&installed.dir);
    }
    let unknown = || "unknown".to_string();
    let metadata = Metadata {
        version: installed.version.clone(),
        release: installed.release.clone(),
        build_host: unknown(),
        build_date: unknown(),
        size: unknown(),
        summary: general.summary.clone(),
        license: general.license.clone(),
        packager: general.maintainer.clone(),
        vendor: general.vendor.clone(),
        url: general.url.clone(),
    };
    Ok(Package { name: installed.name.clone(), metadata, files: Vec::new(), manifest: None })
}

/// The hash of an installed plugin's build (see [`Package::hash`]).
pub fn hash(home: &Home, plugin: &str) -> Result<String, Diagnostic> {
    let installed = current(home, plugin)?;
    if let Some(problem) = installed.problem {
        return Err(problem);
    }
    let general = General {
        version: String::new(),
        release: String::new(),
        summary: String::new(),
        license: String::new(),
        url: String::new(),
        maintainer: String::new(),
        vendor: String::new(),
        add_plugin_dir_to_python_path: false,
        python: None,
        persistent_paths: Vec::new(),
        nginx: Default::default(),
    };
    // the hash has nothing of what the configuration says
    describe(&installed, &general).map(|package| package.hash())
}
