//! The crate as its users see it, with the real python, pip and npm.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::disallowed_methods,
    reason = "a test starts programs and stops at the first thing that is wrong"
)]

mod archive;
mod asgi;
mod asgi_eager;
mod asgi_faults;
mod asgi_frameworks;
mod asgi_lifespan;
mod asgi_limits;
mod asgi_loop;
mod asgi_websocket;
mod build;
mod command;
mod environment;
mod git;
mod hostile;
mod imports;
mod interpreters;
mod locks;
mod node;
mod prefix;
mod python;
mod requirements;
mod store;
mod suites;
mod tar_stream;
mod templates;
mod wsgi;
mod wsgi_client;
mod wsgi_cost;
mod wsgi_faults;
mod wsgi_limits;
mod wsgi_protocol;
mod wsgi_pull;
mod wsgi_pull_ends;
mod wsgi_pull_front;
mod wsgi_stop;

mod wsgi_threads;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mfserv_core::Diagnostic;
use mfserv_core::ini::{Dialect, parse};
use mfserv_core::plugin_config::resolve;
use mfserv_core::plugin_spec::PluginSpec;
use mfserv_plugin::store::{Claim, InstallOptions, Installed, NotClaimed, Owner, Prepared};
use mfserv_plugin::templates::{Answers, create};
use mfserv_plugin::{Cancel, Home, Progress};
use tempfile::TempDir;

/// A runtime home in a temporary directory, and a place for plugins beside it.
struct Node {
    folder: TempDir,
    home: Home,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().join("home"));
        fs::create_dir(folder.path().join("work")).unwrap();
        Self { folder, home }
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    fn plugin(&self, template: &str, name: &str) -> PathBuf {
        create(template, name, &Answers::default(), &self.work()).unwrap()
    }
}

/// Records what is reported: steps and log lines, notices.
#[derive(Debug, Default)]
struct Reported(Vec<String>, Vec<String>);

impl Progress for Reported {
    fn step(&mut self, what: &str) {
        self.0.push(what.into());
    }

    fn line(&mut self, _text: &str) {}

    fn log(&mut self, text: &str) {
        self.0.push(text.into());
    }

    fn notice(&mut self, notice: Diagnostic) {
        self.1.push(notice.what);
    }
}

/// The configuration of a plugin directory, without overrides.
fn spec_of(dir: &Path) -> PluginSpec {
    let text = fs::read_to_string(dir.join("config.ini")).unwrap();
    let own = parse(&text, "config.ini", Dialect::Plugin).unwrap();
    let name = mfserv_plugin::label::read_name(dir).unwrap();
    let env = BTreeMap::from([
        ("MFHARDWARE_NUMBER_OF_CPU_CORES_MULTIPLIED_BY_2".to_string(), "4".to_string()),
        ("MFSERV_NGINX_TIMEOUT".to_string(), "60".to_string()),
        ("MFMODULE_VERSION".to_string(), "1.2.3".to_string()),
    ]);
    let is_file = |path: &str| dir.join(path).is_file();
    resolve(&name, &own, &[], &env, "default", &is_file).unwrap().0
}

fn prepare(dir: &Path) -> Result<Prepared, Diagnostic> {
    let module = BTreeMap::from([("MFMODULE".to_string(), "MFSERV".to_string())]);
    Ok(Prepared { spec: spec_of(dir), warnings: Vec::new(), dependencies: Vec::new(), module })
}

fn options(replace: bool) -> InstallOptions<'static> {
    InstallOptions {
        replace_link: None,
        replace,
        new_name: None,
        clean: false,
        variables: Default::default(),
        limits: Default::default(),
        cancel: Cancel::default(),
        owner: Owner::this_process("test"),
        patience: Duration::ZERO,
        prepare: &prepare,
    }
}

/// The right to change a plugin.
fn claim(home: &Home, plugin: &str) -> Claim {
    match mfserv_plugin::store::claim(home, plugin, &Owner::this_process("test")) {
        Ok(claim) => claim,
        Err(NotClaimed::Busy(owner)) => panic!("{owner} has {plugin}"),
        Err(NotClaimed::Failed(problem)) => panic!("{problem}"),
    }
}

/// Makes a directory the current plugin of its name.
fn dev_link(home: &Home, dir: &Path) -> Result<Installed, Diagnostic> {
    claim(home, &mfserv_plugin::label::read_name(dir)?).link(dir)
}

/// Uninstalls a plugin that nothing runs.
fn uninstall(
    home: &Home,
    plugin: &str,
    clean: bool,
) -> Result<(Installed, Vec<Diagnostic>), Diagnostic> {
    let claim = claim(home, plugin);
    let installed = claim.unlink()?;
    let kept = claim.remove_unlinked(installed.origin, clean)?;
    Ok((installed, kept))
}

/// Waits until something is so.
#[track_caller]
fn until(what: &str, mut so: impl FnMut() -> bool) {
    assert!(becomes(&mut so), "never: {what}");
}

/// Whether something comes to be so, however busy the machine is.
fn becomes(mut so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !so() {
        if Instant::now() > deadline {
            return false;
        }
        // the pause between two looks
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Every path below a directory, sorted, links not followed.
fn tree(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(one) = todo.pop() {
        for entry in fs::read_dir(one).into_iter().flatten().flatten() {
            found.push(entry.path().strip_prefix(dir).unwrap().to_string_lossy().into_owned());
            if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// The SHA-256 of some bytes.
fn digest(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
