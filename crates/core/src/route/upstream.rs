//! What the front needs to know of an app.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Affinity, Sendfile};
use crate::maintenance::Maintenance;

/// How many requests a worker takes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "policy", rename_all = "snake_case")]
pub enum Slots {
    /// Exactly this many; idle and busy connections to a worker never exceed it.
    Finite {
        /// Requests at a time per worker, at least 1.
        per_worker: u32,
    },
    /// As many as come; the worker with the fewest in flight is next.
    Unlimited,
}

/// What the front needs to know of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamSpec {
    /// How many requests a worker takes at a time.
    pub slots: Slots,
    /// Connections to workers are kept for further requests.
    pub keep_alive: bool,
    /// Connect, send and read (between two reads) timeout, milliseconds.
    pub timeout_ms: u64,
    /// At most this many requests wait for a slot.
    pub queue_max: u32,
    /// A request waits at most this long for a slot or for a worker to come back, milliseconds.
    pub queue_timeout_ms: u64,
    /// Requests of kinds that are rare and take far longer than the others leave one slot to
    /// these, until they have waited so long, milliseconds; 0: first come, first served.
    #[serde(default)]
    pub slow_lane_wait_ms: u64,
    /// Its workers are asked to pull: to take requests from a queue by themselves. Those that do
    /// not know how are given requests as any server.
    #[serde(default)]
    pub pulls: bool,
    /// Largest request body, bytes; `None`: that of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u64>,
    /// It is in maintenance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
    /// Its workers speak FastCGI: the directory of the scripts that they run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fastcgi: Option<PathBuf>,
    /// The files that it may have sent in place of its answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sendfile: Option<Sendfile>,
    /// nginx obeys its `X-Accel-Redirect`: its plugin brings along locations for that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accel_by_nginx: bool,
    /// Requests of one client go to the same worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
}

impl UpstreamSpec {
    /// An app whose workers take so many requests, without anything that its configuration may ask
    /// for.
    pub fn new(slots: Slots) -> Self {
        Self {
            slots,
            keep_alive: true,
            timeout_ms: 60_000,
            queue_max: 10_000,
            queue_timeout_ms: 60_000,
            slow_lane_wait_ms: 0,
            pulls: false,
            max_body_bytes: None,
            maintenance: None,
            fastcgi: None,
            sendfile: None,
            accel_by_nginx: false,
            affinity: None,
        }
    }

    /// True if a worker that waits for a client would be missed: it takes a finite number of
    /// requests, or is a FastCGI server with a finite number of processes.
    pub fn is_finite(&self) -> bool {
        matches!(self.slots, Slots::Finite { .. }) || self.fastcgi.is_some()
    }
}
