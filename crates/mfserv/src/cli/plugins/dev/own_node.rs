//! A directory whose name is taken by an installed release is served by a node of its own: the
//! release, its data and its routes stay as they are.

use std::path::Path;

use mfserv_core::Diagnostic;
use mfserv_plugin::Home;
use mfserv_plugin::generate;
use mfserv_plugin::store::{self, Origin};

use crate::cli::plugins::is_running;
use crate::cli::{print, start};
use mfserv_node::configure;
use mfserv_node::places::{LONGEST_HOME, Places};
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
    sweep(&own)?;
    disk::create_dir(&own.join("var"))?;
    disk::create_dir(&home.base())?;
    let base = own.join("var/base");
    if std::fs::symlink_metadata(&base).is_err() {
        disk::relink(&base, &home.base())?;
    }
    let chosen = Places::choose(Some(&own)).map_err(|problem| {
        let longest = LONGEST_HOME - HOME.len() - 1;
        Diagnostic::error(format!("{name} is deployed here, and its directory cannot be served"))
            .kind(problem.kind)
            .because(format!("it is served by a node of its own in {}", own.display()))
            .because("that path is too long for unix sockets")
            .help(format!(
                "`--name OTHER` serves it by this node, under another name; or choose a home whose \
                 path has at most {longest} bytes"
            ))
    })?;
    Ok(Some(OwnNode { places: chosen, installed }))
}

/// Forgets the directories that are not there any more: their apps would be started with the node.
fn sweep(own: &Path) -> Result<(), Diagnostic> {
    let home = Home::new(own);
    let links = std::fs::read_dir(own.join("var/plugins")).into_iter().flatten().flatten();
    let gone = |link: &Path| link.is_symlink() && !link.exists();
    links
        .map(|link| link.path())
        .filter(|link| gone(link))
        .try_for_each(|link| disk::remove(&link))?;
    for made in std::fs::read_dir(own.join("var/dev")).into_iter().flatten().flatten() {
        let name = made.file_name().to_string_lossy().into_owned();
        if generate::made_of(&made.path()).is_some_and(|source| !source.is_dir()) {
            disk::remove(&home.link(&name))?;
            disk::remove(&made.path())?;
        }
    }
    Ok(())
}

/// Ends what a session has begun in a node of its own: the next one starts with its directory
/// alone. What was built stays.
pub fn unlink(places: &Places, name: &str) -> Result<(), Diagnostic> {
    let link = Home::new(places.home()).link(name);
    if link.is_symlink() { disk::remove(&link) } else { Ok(()) }
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

/// What a node that is started for a directory is told, so that it can listen. One of its own leaves
/// the port of the node beside it alone, also while that one is stopped; `says`: on standard output.
pub fn port(places: &Places, says: bool) -> Result<Vec<String>, Diagnostic> {
    let mut reserved = Vec::new();
    if is_own(places) {
        let beside = places.home().ancestors().nth(Path::new(HOME).components().count());
        let beside = beside.map(|home| Places::choose(Some(home))).transpose()?;
        if let Some(beside) = &beside {
            // One whose configuration cannot be read says so when it is started.
            if let Ok(module) = configure::module(beside, &[]) {
                let config = module.resolution.config;
                reserved = [config.listen_addresses(), config.tls_addresses()].concat();
            }
        }
    }
    let Some((configured, free)) = start::free_port(places, &reserved)? else {
        return Ok(Vec::new());
    };
    if says && reserved.iter().any(|one| one.port() == configured) {
        print(&format!("it listens on port {free}: {configured} is for `mfserv start`\n"));
    }
    Ok(vec![format!("nginx.port={free}")])
}

/// Whether this is the home of a node of that kind.
pub fn is_own(places: &Places) -> bool {
    places.home().ends_with(Path::new(HOME))
}

/// The node of its own beside a node, if it runs.
pub fn running(places: &Places) -> Option<Places> {
    let own = Places::choose(Some(&places.home().join(HOME))).ok()?;
    is_running(&own).then_some(own)
}

/// How a command is typed for a node.
pub fn command(places: &Places, command: &str) -> String {
    match is_own(places) {
        true => format!("mfserv --home {} {command}", places.home().display()),
        false => format!("mfserv {command}"),
    }
}
