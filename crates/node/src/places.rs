//! The paths of the runtime home that the node uses.

use std::path::{Path, PathBuf};

use mfserv_core::{Diagnostic, Kind};

/// The directories of a node that others may read.
const OPEN_DIRS: [&str; 5] = ["config", "config/plugins", "log", "tmp", "tmp/config_auto"];
/// Those that are private.
const PRIVATE_DIRS: [&str; 5] = ["var", "var/run", "var/plugins", "var/releases", "var/jobs"];

/// The longest path of a runtime home, bytes: the sockets in it have addresses of 107.
pub const LONGEST_HOME: usize = 75;

/// The paths of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    home: PathBuf,
}

impl Places {
    /// The runtime home: `--home`, else `MFMODULE_RUNTIME_HOME`, else `~` if the user
    /// is mfserv and `~/config/config.ini` exists, else `~/metwork/mfserv` if it
    /// exists, else `~/mfserv`.
    pub fn choose(asked: Option<&Path>) -> Result<Places, Diagnostic> {
        let home = match asked {
            Some(path) => path.to_owned(),
            None => match std::env::var_os("MFMODULE_RUNTIME_HOME").filter(|v| !v.is_empty()) {
                Some(path) => path.into(),
                None => Self::by_user()?,
            },
        };
        let home = std::path::absolute(&home)
            .map_err(|e| Diagnostic::error("the runtime home has no usable path").because(e))?;
        // /proc and other programs show the target of a link.
        let home = home.canonicalize().unwrap_or(home);
        // var/run/control.sock must fit into a socket address.
        if home.as_os_str().len() > LONGEST_HOME {
            return Err(Diagnostic::error("the runtime home's path is too long for unix sockets")
                .kind(Kind::Usage)
                .because(format!("{} has {} bytes", home.display(), home.as_os_str().len()))
                .help(format!(
                    "choose a home whose path has at most {LONGEST_HOME} bytes (`--home`)"
                )));
        }
        Ok(Places { home })
    }

    fn by_user() -> Result<PathBuf, Diagnostic> {
        let home = std::env::var_os("HOME").map(PathBuf::from).ok_or_else(|| {
            Diagnostic::error("no runtime home is known")
                .kind(Kind::Usage)
                .because("neither MFMODULE_RUNTIME_HOME nor HOME is set")
                .help("say where it is with `--home DIR`")
        })?;
        if std::env::var("USER").is_ok_and(|u| u == "mfserv")
            && home.join("config/config.ini").exists()
        {
            return Ok(home);
        }
        let metwork = home.join("metwork/mfserv");
        Ok(if metwork.is_dir() { metwork } else { home.join("mfserv") })
    }

    /// The runtime home.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// `config/config.ini`.
    pub fn config_file(&self) -> PathBuf {
        self.home.join("config/config.ini")
    }

    /// `var`.
    pub fn var(&self) -> PathBuf {
        self.home.join("var")
    }

    /// `var/run`: sockets, FIFOs and state of the roles.
    pub fn run(&self) -> PathBuf {
        self.home.join("var/run")
    }

    /// `log`.
    pub fn log(&self) -> PathBuf {
        self.home.join("log")
    }

    /// `tmp`.
    pub fn tmp(&self) -> PathBuf {
        self.home.join("tmp")
    }

    /// The keeper's socket.
    pub fn keep_socket(&self) -> PathBuf {
        self.run().join("keep.sock")
    }

    /// The daemon's socket.
    pub fn control_socket(&self) -> PathBuf {
        self.run().join("control.sock")
    }

    /// The socket on which the telemetry role receives counters.
    pub fn metrics_socket(&self) -> PathBuf {
        self.run().join("metrics.sock")
    }

    /// The socket on which the telemetry role is asked for metrics.
    pub fn telemetry_socket(&self) -> PathBuf {
        mfserv_core::telemetry::ask_socket(&self.run())
    }

    /// The socket on which points are received, lines of InfluxDB.
    pub fn points_socket(&self) -> PathBuf {
        self.var().join("telegraf.socket")
    }

    /// The configuration of Telegraf, if it is used.
    pub fn telegraf_config(&self) -> PathBuf {
        self.tmp().join("config_auto/telegraf.conf")
    }

    /// `var/jobs`: what is remembered of jobs and their runs.
    pub fn jobs(&self) -> PathBuf {
        self.var().join("jobs")
    }

    /// The resolved configuration, for people.
    pub fn shown_config(&self) -> PathBuf {
        self.tmp().join("config_auto/config.ini")
    }

    /// The jobs as a crontab, for people.
    pub fn shown_crontab(&self) -> PathBuf {
        self.tmp().join("config_auto/crontab")
    }

    /// The watchers as a configuration of Circus, for people.
    pub fn shown_circus(&self) -> PathBuf {
        self.tmp().join("config_auto/circus.ini")
    }

    /// `var/status`: the node's state in one word.
    pub fn status_file(&self) -> PathBuf {
        self.var().join("status")
    }

    /// What the front has answered, a line of JSON for each request.
    pub fn access_log(&self) -> PathBuf {
        self.log().join("nginx_access.log")
    }

    /// `log/events.jsonl`: what happened, one JSON object a line.
    pub fn events_file(&self) -> PathBuf {
        self.log().join("events.jsonl")
    }

    /// `var/uuid`: the identifier of the node.
    pub fn uuid_file(&self) -> PathBuf {
        self.var().join("uuid")
    }

    /// `var/scale.json`: worker counts set by `mfserv scale`.
    pub fn scale_file(&self) -> PathBuf {
        self.var().join("scale.json")
    }

    /// `var/maintenance.json`: what is in maintenance.
    pub fn maintenance_file(&self) -> PathBuf {
        self.var().join("maintenance.json")
    }

    /// `var/maintenance`: the pages that are shown meanwhile.
    pub fn maintenance_pages(&self) -> PathBuf {
        self.var().join("maintenance")
    }

    /// `var/taken-routes.json`: routes that plugins were allowed to take from others.
    pub fn takers_file(&self) -> PathBuf {
        self.var().join("taken-routes.json")
    }

    /// A private directory with a short path, for sockets whose path below the home
    /// would be too long.
    pub fn short_dir(&self) -> PathBuf {
        let uid = rustix::process::getuid().as_raw();
        let hash = mfserv_core::fingerprint::of(self.home.as_os_str().as_encoded_bytes());
        PathBuf::from(format!("/tmp/mfserv-{uid}-{hash:016x}"))
    }

    /// A directory of [`Places::create`] is missing.
    pub fn are_incomplete(&self) -> bool {
        let mut dirs = OPEN_DIRS.iter().chain(&PRIVATE_DIRS);
        dirs.any(|dir| !self.home.join(dir).is_dir())
    }

    /// Creates the directories of a node; `var` and everything below is private.
    pub fn create(&self) -> Result<(), Diagnostic> {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        let failed = |path: &Path, error: std::io::Error| {
            Diagnostic::error(format!("cannot create {}", path.display()))
                .because(error)
                .help("check that the disk is not full and that this user may write there")
        };
        for dir in OPEN_DIRS {
            let path = self.home.join(dir);
            std::fs::create_dir_all(&path).map_err(|e| failed(&path, e))?;
        }
        for dir in PRIVATE_DIRS {
            let path = self.home.join(dir);
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|e| failed(&path, e))?;
        }
        let var = self.var();
        std::fs::set_permissions(&var, std::fs::Permissions::from_mode(0o700))
            .map_err(|e| failed(&var, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_with_a_path_too_long_for_sockets_is_refused_with_help() {
        let long = format!("/tmp/{}", "x".repeat(100));
        let problem = Places::choose(Some(Path::new(&long))).unwrap_err();
        assert_eq!(problem.kind, Kind::Usage);
        assert!(problem.help.is_some());
    }
}
