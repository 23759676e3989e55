//! PM2 in cluster mode.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mfserv_core::Diagnostic;

use super::kit::Kit;
use crate::child;

/// How long its commands may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// PM2 in the background with its servers; ended when it is dropped.
#[derive(Debug)]
pub struct Pm2 {
    program: PathBuf,
    node_modules: PathBuf,
    dir: PathBuf,
    pid: u32,
}

impl Pm2 {
    /// Runs `server.js` of a directory on a port.
    pub fn start(kit: &Kit, dir: &Path, port: u16, workers: u32) -> Result<Self, Diagnostic> {
        let failed = |why: &dyn std::fmt::Display| Diagnostic::error("no PM2").because(why);
        let apps = serde_json::json!({ "apps": [{
            "name": "app", "script": "./server.js", "args": [port.to_string()],
            "instances": workers, "exec_mode": "cluster",
        }]});
        fs::write(dir.join("apps.json"), apps.to_string()).map_err(|why| failed(&why))?;
        // From here on it is ended, also when it has only half begun.
        let mut pm2 =
            Self { program: kit.pm2(), node_modules: kit.node_modules(), dir: dir.into(), pid: 0 };
        child::run(&mut pm2.command(&["start", "apps.json"]), PATIENCE)?;
        let pid = fs::read_to_string(dir.join("pm2/pm2.pid")).map_err(|why| failed(&why))?;
        pm2.pid = pid.trim().parse().map_err(|why| failed(&why))?;
        Ok(pm2)
    }

    /// The process that runs in the background.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env("PM2_HOME", self.dir.join("pm2")).env("PM2_DISABLE_VERSION_CHECK", "true");
        command.env("NODE_PATH", &self.node_modules).args(args).current_dir(&self.dir);
        command
    }
}

impl Drop for Pm2 {
    fn drop(&mut self) {
        let mut kill = self.command(&["kill"]);
        // Not `child::run`: it must go on after an interruption.
        kill.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Err(why) = kill.status() {
            eprintln!("cannot end PM2, process {}: {why}", self.pid);
        }
    }
}
