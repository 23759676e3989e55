//! The plan in force, kept on disk: a daemon that comes back must know what a plugin
//! was accepted with whose configuration is broken by now.

use std::path::PathBuf;

use mfserv_core::plan::Plan;
use mfserv_platform::disk::{self, Disk};
use serde::{Deserialize, Serialize};

use crate::places::Places;

const VERSION: u32 = 1;

#[derive(Serialize)]
struct Kept<'a> {
    version: u32,
    plan: &'a Plan,
}

#[derive(Deserialize)]
struct Found {
    version: u32,
    plan: Plan,
}

fn file(places: &Places) -> PathBuf {
    places.run().join("plan.json")
}

/// It was removed.
pub fn is_gone(places: &Places) -> bool {
    disk::is_gone(&file(places))
}

/// The last plan that was applied; `None` if there is none that this version understands.
pub fn load(disk: &dyn Disk, places: &Places) -> Option<Plan> {
    let text = disk.read(&file(places)).ok()?;
    let found: Found = serde_json::from_slice(&text).ok()?;
    (found.version == VERSION).then_some(found.plan)
}

/// Remembers a plan. Only this user may read it: environments may hold secrets. It is not
/// synced: a node that lost it in a power cut starts from its configuration alone.
pub fn store(disk: &dyn Disk, places: &Places, plan: &Plan) -> std::io::Result<()> {
    let text = serde_json::to_vec(&Kept { version: VERSION, plan })?;
    disk.replace(&file(places), 0o600, &text)
}
