//! Staging for askers that have no process on this machine: the keeper starts `mfserv stage`,
//! contained like a worker, with a filtered environment; its output goes to `log/stage.log`.
//! Foreign code (the hooks of a package, pip, npm) never runs in the daemon.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::output::{Output, Rotation};
use mfserv_core::wire::keeper::{Answer, Ask, ProcessSpec, Scope};
use mfserv_platform::disk;
use mfserv_plugin::environment::PROXY;
use serde::{Deserialize, Serialize};

use super::node::Node;
use super::world::Keeper;
use crate::operations::{OperationId, Staging};

/// How often it is looked whether the process has ended.
const LOOK: Duration = Duration::from_millis(50);
/// The variables that the process gets, beside those of a proxy: what finds programs, a language.
const PASSED: &[&str] = &["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR"];

/// The environment of a process that is neither a worker nor a job.
pub(super) fn passed() -> BTreeMap<String, String> {
    PASSED
        .iter()
        .chain(&PROXY)
        .filter_map(|key| Some((key.to_string(), std::env::var(key).ok()?)))
        .collect()
}

/// What `mfserv stage` leaves for the daemon, as JSON in the file that `--result` names.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageResult {
    /// It is staged.
    Staged {
        /// The plugin.
        plugin: String,
        /// The number of the release.
        release: u32,
    },
    /// It is not.
    Failed(Diagnostic),
}

/// The process of a staging; ended, with all that it has started, if nobody waits any more.
struct Process {
    keeper: Arc<dyn Keeper>,
    id: String,
    ended: bool,
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended {
            let (id, scope) = (self.id.clone(), Scope::Tree);
            self.keeper.send(Ask::Signal { id, signal: 9, scope });
        }
        // Its exit is of no interest to anybody else.
        self.keeper.send(Ask::Forget { id: self.id.clone() });
    }
}

impl Node {
    pub(super) async fn stage_in_a_process(
        &self,
        operation: &OperationId,
        staging: Staging,
    ) -> Result<(String, u32), Diagnostic> {
        let result = self.parts.options.places.var().join(format!("operations/{operation}.stage"));
        disk::remove(&result)?;
        let keeper = self.parts.world.keeper.clone();
        let spec = self.stage_process(operation, &staging, &result);
        let mut process = Process { keeper, id: spec.id.clone(), ended: false };
        process.keeper.ask(Ask::Spawn { spec: Box::new(spec) }).await?;
        let failed = self.until_exited(&process.id).await?;
        process.ended = true;
        let said = std::fs::read(&result).ok().and_then(|text| serde_json::from_slice(&text).ok());
        disk::remove(&result)?;
        match said {
            Some(StageResult::Staged { plugin, release }) => Ok((plugin, release)),
            Some(StageResult::Failed(problem)) => Err(problem),
            None => Err(Diagnostic::error("staging failed")
                .because(failed)
                .help("log/stage.log in the runtime home says why")),
        }
    }

    fn stage_process(&self, id: &OperationId, staging: &Staging, result: &Path) -> ProcessSpec {
        let places = &self.parts.options.places;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut argv = vec![text(&crate::program()), "stage".into(), "--home".into()];
        argv.extend([text(places.home()), "--operation".into(), id.to_string()]);
        argv.extend(["--result".into(), text(result)]);
        match staging {
            Staging::Package { file, new_name, clean, replace, take_route } => {
                argv.extend(new_name.iter().flat_map(|name| ["--new-name".into(), name.clone()]));
                argv.extend(clean.then(|| "--clean".into()));
                argv.extend(replace.then(|| "--replace".into()));
                argv.extend(take_route.then(|| "--take-route".into()));
                argv.extend(["--package".into(), text(file)]);
            }
            Staging::Release { plugin, release, take_route } => {
                argv.extend(take_route.then(|| "--take-route".into()));
                argv.extend(["--release-of".into(), plugin.clone()]);
                let number = release.map(|number| number.to_string());
                argv.extend(number.into_iter().flat_map(|number| ["--number".into(), number]));
            }
        }
        ProcessSpec {
            id: format!("stage.{id}"),
            argv,
            env: passed(),
            cwd: places.home().to_owned(),
            rlimits: Default::default(),
            output: Output {
                stdout: places.log().join("stage.log"),
                stderr: None,
                rotation: Rotation { max_bytes: 16 << 20, ..Rotation::default() },
            },
            release: String::new(),
            listeners: Vec::new(),
            note: String::new(),
            stdin: String::new(),
            nice: 0,
            once: false,
        }
    }

    /// Waits until the process has ended; returns its last lines.
    async fn until_exited(&self, id: &str) -> Result<String, Diagnostic> {
        loop {
            if let Answer::Processes { alive, exits } =
                self.parts.world.keeper.ask(Ask::List).await?
            {
                if !alive.iter().any(|process| process.id == id) {
                    let exit = exits.into_iter().find(|exit| exit.id == id);
                    return Ok(exit.map_or_else(|| "it has ended".into(), |exit| exit.last_output));
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
