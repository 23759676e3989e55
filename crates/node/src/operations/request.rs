//! What can be asked for, and by whom.

use std::fmt;
use std::path::PathBuf;

use mfserv_core::plan::HeldOptions;
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
        /// Take routes from other plugins that have them.
        #[serde(default)]
        take_route: bool,
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
        /// Take routes from other plugins that have them.
        #[serde(default)]
        take_route: bool,
    },
    /// Make an earlier release of a plugin the current one again.
    Rollback {
        /// The plugin.
        plugin: String,
        /// The release; `None` = the last one before the current.
        #[serde(default)]
        release: Option<u32>,
        /// The asker has checked its configuration and environment already; else a process of
        /// its own does so first (`mfserv stage`).
        #[serde(default)]
        checked: bool,
        /// Take routes from other plugins that have them.
        #[serde(default)]
        take_route: bool,
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
        /// Take routes from other plugins that have them.
        #[serde(default)]
        take_route: bool,
    },
    /// Put the change of a plugin's variables in force that this operation has staged: values are
    /// in no request.
    Env {
        /// The plugin.
        plugin: String,
        /// What is changed, without values.
        what: String,
    },
    /// Read the configuration and the plugins again, and apply what changed.
    Reload,
    /// Read the configuration as `Reload` does, and replace the workers of some apps, one after
    /// the other.
    Restart {
        /// Plugins (`foo`), apps (`foo.main`, `foo/main`), watchers or `front`; empty = every
        /// app, then the front.
        #[serde(default)]
        apps: Vec<String>,
    },
    /// Change the number of workers of an app; 0 = stop it until it is started again.
    Scale {
        /// The app, as in `Restart`.
        app: String,
        /// How many; `None` = what its configuration says.
        #[serde(default)]
        count: Option<u32>,
        /// Write it into the plugin's override file, where it stays; else it holds until the
        /// configuration of the app changes, the node reloads it or starts again.
        #[serde(default)]
        keep: bool,
    },
    /// Let the workers of an app run with other options until its configuration changes, the node
    /// reloads it or starts again.
    Set {
        /// The app, as in `Restart`.
        app: String,
        /// The options.
        options: HeldOptions,
    },
    /// Have the fronts answer in place of apps for a time, or not any more.
    Maintenance {
        /// The plugin or the app, as in `Restart`; `None` = all.
        #[serde(default)]
        app: Option<String>,
        /// It begins, or it ends.
        on: bool,
        /// Requests wait until it is over; else they get 503 and a page.
        #[serde(default)]
        hold: bool,
        /// The file with the page, an absolute path on this machine; `None` = a small one.
        #[serde(default)]
        page: Option<PathBuf>,
    },
    /// Stop the node in order. Nothing comes after it.
    Stop,
}

impl Request {
    /// It may take routes from other plugins.
    pub fn may_take_routes(&self) -> bool {
        match self {
            Request::Deploy { take_route, .. }
            | Request::DeployPackage { take_route, .. }
            | Request::Rollback { take_route, .. }
            | Request::Link { take_route, .. } => *take_route,
            Request::Uninstall { .. }
            | Request::Env { .. }
            | Request::Reload
            | Request::Restart { .. }
            | Request::Scale { .. }
            | Request::Set { .. }
            | Request::Maintenance { .. }
            | Request::Stop => false,
        }
    }

    /// It changes what runs and nothing on disk: without a node there is nothing to do.
    pub fn needs_node(&self) -> bool {
        match self {
            Request::Reload
            | Request::Restart { .. }
            | Request::Scale { .. }
            | Request::Set { .. }
            | Request::Stop
            | Request::DeployPackage { .. } => true,
            Request::Deploy { .. }
            | Request::Rollback { .. }
            | Request::Uninstall { .. }
            | Request::Env { .. }
            | Request::Maintenance { .. }
            | Request::Link { .. } => false,
        }
    }
}

/// In a few words, for events and lists.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Deploy { plugin, release, .. } => write!(f, "deploy {plugin} {release}"),
            Request::DeployPackage { file, .. } => write!(f, "deploy {}", file.display()),
            Request::Rollback { plugin, release: None, .. } => write!(f, "rollback {plugin}"),
            Request::Rollback { plugin, release: Some(release), .. } => {
                write!(f, "rollback {plugin} {release}")
            }
            Request::Uninstall { plugin, .. } => write!(f, "uninstall {plugin}"),
            Request::Link { plugin, dir, .. } => write!(f, "link {plugin} to {}", dir.display()),
            Request::Env { plugin, what } => write!(f, "variables of {plugin}: {what}"),
            Request::Reload => f.write_str("reload"),
            Request::Restart { apps } if apps.is_empty() => f.write_str("restart everything"),
            Request::Restart { apps } => write!(f, "restart {}", apps.join(", ")),
            Request::Scale { app, count: None, .. } => write!(f, "scale {app} as configured"),
            Request::Scale { app, count: Some(count), .. } => write!(f, "scale {app} to {count}"),
            Request::Set { app, options } => write!(f, "set {options} of {app}"),
            Request::Maintenance { app, on, .. } => {
                let (app, on) =
                    (app.as_deref().unwrap_or("every app"), if *on { "on" } else { "off" });
                write!(f, "maintenance {on} of {app}")
            }
            Request::Stop => f.write_str("stop"),
        }
    }
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

impl Who {
    /// This process, as what it calls itself.
    pub fn this_process(command: impl Into<String>) -> Who {
        let uid = rustix::process::getuid().as_raw();
        let user = crate::host::user_name(uid).unwrap_or_default();
        Who { command: command.into(), user, uid, pid: std::process::id() }
    }
}

/// `mfserv install (user alice, process 123)`, as far as it is known.
impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command = if self.command.is_empty() { "another client" } else { &self.command };
        let user = if self.user.is_empty() { self.uid.to_string() } else { self.user.clone() };
        write!(f, "{command} (user {user}, process {})", self.pid)
    }
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
