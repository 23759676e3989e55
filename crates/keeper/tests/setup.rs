//! What the tests tell the keeper that they start.

use std::path::PathBuf;

use mfserv_core::wire::keeper::ProcessSpec;
use serde::{Deserialize, Serialize};

/// The variable that holds a [`Setup`] as JSON.
pub const SETUP: &str = "MFSERV_TEST_SETUP";

#[derive(Serialize, Deserialize)]
pub struct Setup<D = ProcessSpec> {
    pub home: PathBuf,
    pub daemon: Option<D>,
    pub grace_ms: u64,
    pub cgroups: bool,
}

impl Default for Setup<&str> {
    fn default() -> Self {
        Self { home: PathBuf::new(), daemon: None, grace_ms: 60_000, cgroups: true }
    }
}
