//! A directory whose name is taken by an installed release is served by a node of its own: the
//! release, its data and its routes stay as they are.

use std::path::Path;

use mfserv_core::Diagnostic;
use mfserv_plugin::Home;
use mfserv_plugin::store::{self, Origin};

use mfserv_node::places::Places;
use mfserv_platform::disk;

/// Its home, below the one of the node.
const HOME: &str = "var/dev-node";

/// A node of its own.
pub struct OwnNode {
    /// Its home.
    pub places: Places,
    /// What is installed in the home of the node.
    installed: String,
}

/// The node of its own that serves the directory of this name; `None` where the name is free, or
/// a directory is linked.
pub fn wanted(places: &Places, name: &str) -> Result<Option<OwnNode>, Diagnostic> {
    let home = Home::new(places.home());
    let link = home.link(name);
    if std::fs::symlink_metadata(&link).is_err() {
        return Ok(None);
    }
    let there = store::current(&home, name)?;
    let installed = match there.origin {
        Origin::Packed(number) => format!("release {number}"),
        _ if link.is_symlink() => return Ok(None),
        // MFSERV installs into a directory.
        _ => link.display().to_string(),
    };
    let own = places.home().join(HOME);
    disk::create_dir(&own.join("var"))?;
    disk::create_dir(&home.base())?;
    let base = own.join("var/base");
    if std::fs::symlink_metadata(&base).is_err() {
        disk::relink(&base, &home.base())?;
    }
    Ok(Some(OwnNode { places: Places::choose(Some(&own))?, installed }))
}

impl OwnNode {
    /// What is served where, and why.
    pub fn sentence(&self, name: &str) -> String {
        let (list, stop) = (command(&self.places, "status"), command(&self.places, "stop"));
        format!(
            "{name} is deployed here ({}) and stays as it is: the directory is served by a node of \
             its own, with data and variables of its own\n(`{list}`, `{stop}`)\n",
            self.installed
        )
    }
}

/// Whether this is the home of a node of that kind.
pub fn is_own(places: &Places) -> bool {
    places.home().ends_with(Path::new(HOME))
}

/// How a command is typed for a node.
pub fn command(places: &Places, command: &str) -> String {
    match is_own(places) {
        true => format!("mfserv --home {} {command}", places.home().display()),
        false => format!("mfserv {command}"),
    }
}
