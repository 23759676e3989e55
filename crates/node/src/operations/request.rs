//! What can be asked for, and by whom.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::OperationId;

/// A change of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub enum Request {
    /// Make a staged release the current one of its plugin.
    Deploy {
        /// The plugin.
        plugin: String,
        /// The number of the staged release: `var/releases/PLUGIN/NUMBER`.
        release: u32,
        /// Remove the oldest releases even if the app has left files in them.
        #[serde(default)]
        clean: bool,
    },
    /// Stage a package in a process of its own (`mfserv stage`), then deploy it: for askers
    /// that have no process on this machine.
    DeployPackage {
        /// The package, an absolute path on this machine.
        file: PathBuf,
        /// Install it under this name instead of its own.
        #[serde(default)]
        new_name: Option<String>,
        /// Remove the oldest releases even if the app has left files in them.
        #[serde(default)]
        clean: bool,
        /// Accept that a packed plugin of that name is installed.
        #[serde(default)]
        replace: bool,
    },
    /// Make an earlier release of a plugin the current one again.
    Rollback {
        /// The plugin.
        plugin: String,
        /// The release; `None` = the last one before the current.
        #[serde(default)]
        release: Option<u32>,
    },
    /// Remove a plugin: its link first, then its workers, then its files.
    Uninstall {
        /// The plugin.
        plugin: String,
        /// Remove its data, its overrides and the files that it has left in its releases too.
        #[serde(default)]
        clean: bool,
    },
    /// Make a developer's directory the current plugin of its name. It is built already.
    Link {
        /// The plugin's name.
        plugin: String,
        /// The directory, an absolute path.
        dir: PathBuf,
    },
    /// Read the configuration and the plugins again, and apply what changed.
    Reload,
    /// Replace the workers of some apps, one after the other.
    Restart {
        /// Plugins (`foo`), apps (`foo.main`, `foo/main`), watchers or `front`; empty = every
        /// app, then the front.
        #[serde(default)]
        apps: Vec<String>,
    },
    /// Keep this many workers of an app from now on; 0 = stop it until it is started again.
    Scale {
        /// The app, as in `Restart`.
        app: String,
        /// How many; `None` = what its configuration says.
        #[serde(default)]
        count: Option<u32>,
    },
    /// Stop the node in order. Nothing comes after it.
    Stop,
}

/// Who asked for an operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The command: `mfserv install`, `plugins.install`, or what another client calls itself.
    #[serde(default)]
    pub command: String,
    /// The name of the user, if it is known.
    #[serde(default)]
    pub user: String,
    /// The user. The daemon takes it from the socket (SO_PEERCRED), never from the request.
    #[serde(default)]
    pub uid: u32,
    /// The process, in the same way.
    #[serde(default)]
    pub pid: u32,
}

/// A request as it is submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// The id, if the asker chooses it.
    #[serde(default)]
    pub id: Option<OperationId>,
    /// What is asked for.
    #[serde(flatten)]
    pub request: Request,
    /// Who asks.
    #[serde(default)]
    pub who: Who,
    /// How long the new workers may take to be ready, and how long the operation waits for
    /// another one on the same plugin, seconds; 0 = do not wait until it is served.
    #[serde(default = "default_patience_s")]
    pub patience_s: u64,
}

fn default_patience_s() -> u64 {
    120
}
