//! From a watcher's spec to the process of one worker.

use std::path::{Path, PathBuf};

use mfserv_core::names::WorkerId;
use mfserv_core::open_telemetry;
use mfserv_core::output::Output;
use mfserv_core::watcher::{Probe, WatcherSpec};
use mfserv_core::wire::keeper::ProcessSpec;
use serde::{Deserialize, Serialize};

/// The socket on which a worker with [`Probe::Notify`] reports readiness (sd_notify(3)).
pub(crate) fn notify_path(run_dir: &Path, id: &WorkerId) -> PathBuf {
    // A hash, because the name of a plugin may be longer than the path of a socket can be.
    let number = mfserv_core::fingerprint::of(id.to_string().as_bytes());
    run_dir.join(format!("{number:016x}.notify"))
}

/// The address of ports.
const HOST: &str = "127.0.0.1";

/// The note that the keeper holds beside a process: it tells the next daemon what runs there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Note {
    /// What it runs, without the environment.
    pub spec: WatcherSpec,
    /// The fingerprint of the whole spec.
    pub fingerprint: u64,
    /// It was started for a plan that was not in force yet.
    #[serde(default)]
    pub prepared: bool,
    /// The port that it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl Note {
    fn of(spec: &WatcherSpec, prepared: bool, port: Option<u16>) -> Self {
        let fingerprint = spec.fingerprint();
        let (env, secrets) = Default::default();
        let spec = WatcherSpec { env, secrets, ..spec.clone() };
        Note { spec, fingerprint, prepared, port }
    }
}

/// What the keeper is asked to start.
pub(crate) fn process_spec(
    spec: &WatcherSpec,
    id: &WorkerId,
    run_dir: &Path,
    prepared: bool,
    port: Option<u16>,
) -> ProcessSpec {
    let socket = spec.socket_of(id).unwrap_or_default();
    let fill_port = |text: &str| match port {
        Some(port) => text.replace("{port}", &port.to_string()).replace("{host}", HOST),
        None => text.into(),
    };
    let fill = |text: &String| {
        fill_port(text)
            .replace("{unix_socket_path}", &socket.to_string_lossy())
            .replace("$(circus.wid)", &id.slot.to_string())
            .replace("{worker_slot}", &id.slot.to_string())
            .replace("{worker_incarnation}", &id.incarnation.to_string())
    };
    let mut env = spec.secrets.with(&spec.env);
    env.values_mut().for_each(|value| *value = fill(value));
    if let Some(port) = port {
        env.insert("PORT".into(), port.to_string());
        env.insert("HOST".into(), HOST.into());
    }
    // Added here and not in the plan: no worker is replaced for them.
    let telemetry = open_telemetry::variables(&env, id, (&spec.version, spec.release()));
    env.extend(telemetry.into_iter().map(|(key, value)| (key.into(), value)));
    if spec.probe == Probe::Notify {
        env.insert("NOTIFY_SOCKET".into(), notify_path(run_dir, id).to_string_lossy().into());
    }
    ProcessSpec {
        id: id.to_string(),
        argv: spec.argv.iter().map(fill).collect(),
        env,
        cwd: spec.cwd.clone(),
        rlimits: spec.rlimits,
        output: if spec.output_per_worker {
            per_worker(&spec.output, id.slot)
        } else {
            spec.output.clone()
        },
        release: spec.release().to_owned(),
        listeners: spec.listeners.clone(),
        note: serde_json::to_string(&Note::of(spec, prepared, port)).unwrap_or_default(),
        stdin: String::new(),
        nice: 0,
        once: false,
    }
}

/// `app_P_A.log` → `app_P_A_workerN.log`, as MFSERV (MetWork) splits logs.
fn per_worker(output: &Output, slot: u32) -> Output {
    let rename = |path: &PathBuf| {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let end = path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
        path.with_file_name(format!("{stem}_worker{slot}{end}"))
    };
    Output {
        stdout: rename(&output.stdout),
        stderr: output.stderr.as_ref().map(rename),
        rotation: output.rotation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mfserv_core::output::Rotation;

    #[test]
    fn the_note_holds_no_variable_and_stays_short_with_a_long_secret() {
        let mut spec = crate::tests::kit::app(1);
        let pair = |name: &str| (name.to_string(), "hush".repeat(2500));
        spec.env.extend([pair("OPEN")]);
        spec.secrets = [pair("KEY")].into_iter().collect();
        let id = WorkerId { watcher: spec.name.clone(), slot: 1, incarnation: 1 };
        let process = process_spec(&spec, &id, Path::new("/run"), false, None);
        assert_eq!(process.env["KEY"].len(), 10_000);
        assert!(process.note.len() < 2048 && !process.note.contains("hush"), "{}", process.note);
        let note: Note = serde_json::from_str(&process.note).unwrap();
        assert_eq!(note.fingerprint, spec.fingerprint());
    }

    #[test]
    fn a_log_split_by_worker_carries_the_slot_before_its_ending() {
        let output = Output {
            stdout: "/l/app_p_main.stdout".into(),
            stderr: Some("/l/app_p_main.stderr".into()),
            rotation: Rotation::default(),
        };
        let split = per_worker(&output, 3);
        assert_eq!(split.stdout, PathBuf::from("/l/app_p_main_worker3.stdout"));
        assert_eq!(split.stderr, Some("/l/app_p_main_worker3.stderr".into()));
    }
}
