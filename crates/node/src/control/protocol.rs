//! What can be asked of the daemon: `POST /v1/ask` with an [`Ask`] as its JSON
//! body; the answer is JSON, or a [`mfserv_core::Diagnostic`] with status 4xx/5xx.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use crate::operations::Applied;

/// The largest body of a request or an answer, bytes.
pub const MAX_BODY: usize = 16 * 1024 * 1024;

/// A request to the daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// The observed node: a [`mfserv_core::status::Status`].
    Status,
    /// Read everything again and apply what changed: an [`Applied`].
    Reload {
        /// Wait at most this long until what changed is served, seconds; 0 = do not wait.
        wait_s: u64,
    },
    /// Replace the workers of these apps, one after the other: an [`Applied`].
    Restart {
        /// Plugins (`foo`), apps (`foo.main`, `foo/main`) or watchers; empty = every app.
        apps: Vec<String>,
        /// Wait at most this long, seconds; 0 = do not wait.
        wait_s: u64,
    },
    /// Keep this many workers of an app from now on: an [`Applied`].
    Scale {
        /// The app, as in `Restart`.
        app: String,
        /// How many; `None` = what its configuration says.
        count: Option<u32>,
        /// Wait at most this long, seconds; 0 = do not wait.
        wait_s: u64,
    },
    /// Start the workers of a staged release beside those that serve, and wait until all
    /// are ready: an [`Applied`]. After the release is committed, `Reload` lets them
    /// take over at once. If one fails, nothing has changed.
    Prepare {
        /// The plugin.
        plugin: String,
        /// The staged release.
        dir: PathBuf,
        /// Wait at most this long, seconds.
        wait_s: u64,
    },
    /// Stop everything in order; answered when nothing but keeper and daemon is left,
    /// which end right after: an [`Applied`].
    Stop,
}
