//! Variables of a plugin: set, unset, undone under load; and secrets, which are shown nowhere.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use mfserv_testkit::{Load, Node, Plugin, Ran, programs};
use rustix::fs::FlockOperation;
use serde_json::Value;

use crate::install::{edit, install, release, traces};
use crate::{Turn, node};

const SECRET: &str = "hush-4711-hush";
/// A program that does not start with such a variable.
const PICKY: &str = "import os, sys\nif os.environ.get('BREAKS'):\n    sys.exit('BREAKS is set')\n";

/// A node that runs with the plugin `vault`; its directory.
fn vault() -> (Node, PathBuf) {
    let node = node();
    node.start();
    let plugin = Plugin::python("vault", &format!("{PICKY}{}", programs::SERVES));
    let dir = plugin.key("app_main", "numprocesses", "2").write(&node.path("work"));
    install(&node, &release(&node, &dir));
    (node, dir)
}

/// What a worker has.
fn seen(node: &Node, name: &str) -> Option<String> {
    let all: BTreeMap<String, String> =
        serde_json::from_str(&node.get("/vault/env").text()).unwrap();
    all.get(name).cloned()
}

fn set_secret(node: &Node, name: &str) {
    set_secret_of(node, "vault", name, SECRET);
}

/// Sets a secret of a plugin as people do: no command line has it.
pub fn set_secret_of(node: &Node, plugin: &str, name: &str, value: &str) {
    let mut command = node.command(&["env", "set", plugin, name, "--secret"]);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{value}").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains(&format!("{plugin}: set {name}")), "{said}");
}

fn list(node: &Node) -> Value {
    let said = node.mfserv(&["env", "list", "vault", "--json"]).code(0).stdout;
    serde_json::from_str(&said).unwrap()
}

#[test]
fn variables_are_set_unset_carried_over_and_undone_without_a_lost_request() {
    let _turn = Turn::heavy();
    let (node, dir) = vault();
    let load = Load::new(node.address(), "/vault/pid").connections(4).start();
    load.answers(50);
    let said = node.mfserv(&["env", "set", "vault", "COLOUR=green", "EMPTY="]).code(0);
    assert!(said.stdout.contains("vault: set COLOUR, EMPTY"), "{said:?}");
    assert_eq!(
        (seen(&node, "COLOUR"), seen(&node, "EMPTY")),
        (Some("green".into()), Some("".into()))
    );
    let pids = node.pids("app.vault.main");
    for more in [&[][..], &["--json"]] {
        let again = [&["env", "set", "vault", "COLOUR=green"], more].concat();
        assert!(node.mfserv(&again).code(0).stdout.contains("nothing"), "no step to undo");
    }
    assert_eq!(node.pids("app.vault.main"), pids, "nothing has changed, nobody is replaced");

    // The hook of a new release has them, and the release too.
    let hook = dir.join("postinstall");
    std::fs::write(&hook, "#!/bin/sh\necho \"colour $COLOUR\" > seen-by-the-hook\n").unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    edit(&dir.join("config.ini"), "_version = 1.0.0", "_version = 1.0.1");
    install(&node, &release(&node, &dir));
    let by_hook = node.path("var/releases/vault/2/seen-by-the-hook");
    assert_eq!(std::fs::read_to_string(by_hook).unwrap(), "colour green\n");
    assert_eq!(seen(&node, "COLOUR").unwrap(), "green");
    node.mfserv(&["env", "set", "vault", "COLOUR=blue", "--json"]).code(0);
    node.mfserv(&["env", "unset", "vault", "EMPTY"]).code(0);
    assert_eq!((seen(&node, "COLOUR"), seen(&node, "EMPTY")), (Some("blue".into()), None));
    let shown = node.mfserv(&["releases", "vault"]).code(0).stdout;
    assert!(shown.contains("set COLOUR") && shown.contains("unset EMPTY"), "{shown}");

    // One step back each time: a change, a change, the release before, its change.
    let back = |wanted: [Option<&str>; 2], says: &str| {
        let ran = node.mfserv(&["rollback", "vault"]).code(0);
        assert!(ran.stdout.contains(says), "{ran:?}");
        let now = [seen(&node, "COLOUR"), seen(&node, "EMPTY")];
        assert_eq!(now, wanted.map(|one| one.map(str::to_owned)), "{ran:?}");
    };
    back([Some("blue"), Some("")], "vault: undone: unset EMPTY");
    back([Some("green"), Some("")], "vault: undone: set COLOUR");
    back([Some("green"), Some("")], "is current again");
    back([None, None], "vault: undone: set COLOUR, EMPTY");
    // Each release has what it had.
    node.mfserv(&["rollback", "vault", "2"]).code(0);
    assert_eq!(seen(&node, "COLOUR").unwrap(), "green");

    // One with which the app does not start is never in force.
    let ran = node.mfserv(&["env", "set", "vault", "BREAKS=1", "--timeout", "20"]);
    assert!(ran.code != 0 && !ran.stdout.contains("vault: set"), "{ran:?}");
    assert!(!list(&node).to_string().contains("BREAKS") && seen(&node, "BREAKS").is_none());
    load.answers(50);
    load.stop().assert_nothing_failed();

    they_outlive_the_node_and_the_plugin(&node, &dir);
}

fn they_outlive_the_node_and_the_plugin(node: &Node, dir: &Path) {
    // Where no node runs, it counts from the next start on. What is kept goes with --clean.
    node.stop();
    node.mfserv(&["env", "set", "vault", "COLOUR=red"]).code(0);
    node.start();
    assert_eq!(seen(node, "COLOUR").unwrap(), "red");
    node.mfserv(&["uninstall", "vault"]).code(0);
    assert!(node.path("var/env/vault.json").is_file());
    install(node, &release(node, dir));
    assert_eq!(seen(node, "COLOUR").unwrap(), "red", "as an override file it outlives that");
    node.mfserv(&["uninstall", "--clean", "vault"]).code(0);
    assert_eq!(traces(node, "vault"), [] as [PathBuf; 0]);
    node.stop();
}

#[test]
fn a_secret_is_in_the_worker_and_in_private_files_and_nowhere_else() {
    let _turn = Turn::cheap();
    let (node, _) = vault();
    node.mfserv(&["env", "set", "vault", "COLOUR=green"]).code(0);
    set_secret(&node, "TOKEN");
    assert_eq!(seen(&node, "TOKEN").as_deref(), Some(SECRET));
    let ran = node.mfserv(&["exec", "vault", "sh", "-c", "echo $TOKEN"]).code(0);
    assert_eq!(ran.stdout, format!("{SECRET}\n"));
    no_command_shows_it(&node);
    let shown = hidden(node.mfserv(&["env", "vault"]).code(0));
    assert!(shown.contains("# TOKEN is set, and secret"), "{shown}");
    let shown = hidden(node.mfserv(&["env", "list", "vault"]).code(0));
    assert!(shown.contains("COLOUR") && shown.contains("green"), "{shown}");
    assert!(shown.contains("TOKEN") && shown.contains("(secret)"), "{shown}");
    assert_eq!(
        list(&node)["variables"][1],
        serde_json::json!({"name": "TOKEN", "value": null, "secret": true})
    );
    // Said once, it stays one.
    node.mfserv(&["env", "set", "vault", &format!("TOKEN={SECRET}2")]).code(0);
    assert!(list(&node)["variables"][1]["value"].is_null());

    // What the disk says and what runs is not the same: it is shown, and a restart applies it.
    let file = node.path("var/env/vault.json");
    edit(&file, &format!("{SECRET}2"), &format!("{SECRET}3"));
    edit(&file, "green", "blue");
    let drift = hidden(node.mfserv(&["env", "list", "vault", "--json"]).code(0));
    for part in ["COLOUR is", "TOKEN, a secret, would be another one", "mfserv restart vault"] {
        assert!(drift.contains(part), "{part}: {drift}");
    }
    node.mfserv(&["restart", "vault"]).code(0);
    assert_eq!(seen(&node, "TOKEN"), Some(format!("{SECRET}3")));
    assert!(list(&node)["drift"].is_null());

    let place = node.home().to_owned();
    let found = files_with(&place, SECRET.as_bytes());
    assert!(found.iter().any(|(path, _)| path.ends_with("var/env/vault.json")), "{found:?}");
    for (file, mode) in found {
        let below = file.strip_prefix(&place).unwrap().to_string_lossy().into_owned();
        assert!(!below.starts_with("log/") && !below.starts_with("tmp/"), "{below}");
        assert_eq!(mode & 0o077, 0, "{below}");
    }
    node.stop();
}

/// What a command says, which has not said the secret.
fn hidden(ran: Ran) -> String {
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(SECRET), "{ran:?}");
    ran.stdout
}

fn no_command_shows_it(node: &Node) {
    show_nothing_of(node, "vault", SECRET);
}

/// No command says this, and no process has it among its arguments.
pub fn show_nothing_of(node: &Node, plugin: &str, secret: &str) {
    for words in [
        "status",
        "status --json",
        "ps",
        "env PLUGIN --json",
        "releases PLUGIN --json",
        "events --json",
        "operations --json",
        "operations",
        "plan",
        "plan --json",
        "check",
        "info PLUGIN",
        "list --json",
        "config",
        "logs PLUGIN",
    ] {
        let words = words.replace("PLUGIN", plugin);
        let ran = node.mfserv(&words.split(' ').collect::<Vec<_>>());
        assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(secret), "{ran:?}");
    }
    for process in node.processes(None) {
        let words = std::fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&words).contains(secret), "{process:?}");
    }
}

/// The files below a directory that have these bytes in them, and their modes.
pub fn files_with(dir: &Path, bytes: &[u8]) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_dir() && !path.ends_with("base") {
                todo.push(path);
            } else if kind.is_file() {
                let text = std::fs::read(&path).unwrap_or_default();
                if text.windows(bytes.len()).any(|part| part == bytes) {
                    found.push((path, entry.metadata().unwrap().permissions().mode()));
                }
            }
        }
    }
    found
}

#[test]
fn names_that_belong_to_mfserv_and_names_that_nobody_has_set_are_refused_with_the_reason() {
    let _turn = Turn::cheap();
    let (node, _) = vault();
    for (words, says) in [
        ("set vault PORT=1", "where the app listens"),
        ("set vault HOST=0.0.0.0", "where an app on a port listens"),
        ("set vault MFSERV_X=1", "names that begin with MFSERV_ are mfserv's own"),
        ("set vault PATH=/x", ".layerapi2_extra_env"),
        ("set vault 1A=1", "no name of a variable"),
        ("set vault.nothing A=1", "vault has no app nothing"),
        ("set nobody A=1", "mfserv deploy DIR --env KEY=VALUE"),
        ("unset vault A", "none was set"),
        ("set vault A B", "another value is read from there"),
    ] {
        let words: Vec<&str> = ["env"].into_iter().chain(words.split(' ')).collect();
        let ran = node.mfserv(&words);
        assert!(ran.code != 0 && ran.stderr.contains(says), "{words:?}: {ran:?}");
    }
    node.mfserv(&["env", "set", "vault", "COLOUR=green"]).code(0);
    an_undoing_waits_for_who_changes_the_plugin_as_a_change_does(&node);
    let ran = node.mfserv(&["env", "unset", "vault", "COLOR"]).code(2);
    assert!(ran.stderr.contains("did you mean COLOUR?"), "{ran:?}");
    let ran = node.mfserv(&["env", "unset", "vault", "ELSE"]).code(2);
    assert!(ran.stderr.contains("there are COLOUR"), "{ran:?}");
    // Without its variables an app is not started: what runs goes on.
    let file = node.path("var/env/vault.json");
    std::fs::write(&file, "{\n\"latest\": ").unwrap();
    let ran = node.mfserv(&["env", "list", "vault"]).code(4);
    assert!(ran.stderr.contains("the file is damaged at line 2"), "{ran:?}");
    node.mfserv(&["reload"]);
    assert_eq!(seen(&node, "COLOUR").unwrap(), "green");
    let checked = node.mfserv(&["check"]);
    assert!(checked.code != 0, "{checked:?}");
    assert!(format!("{}{}", checked.stdout, checked.stderr).contains("variables of vault"));
    node.stop();
}

fn an_undoing_waits_for_who_changes_the_plugin_as_a_change_does(node: &Node) {
    node.mfserv(&["env", "set", "vault", "COLOUR=blue"]).code(0);
    let locks = std::fs::read_dir(node.path("var/releases/.locks")).unwrap().flatten();
    let locks: Vec<_> = locks.map(|lock| std::fs::File::open(lock.path()).unwrap()).collect();
    let held = |how| locks.iter().for_each(|lock| rustix::fs::flock(lock, how).unwrap());
    held(FlockOperation::LockExclusive);
    let mut command = node.command(&["rollback", "vault", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let waits = lines.any(|line| line.contains("which changes vault"));
    held(FlockOperation::Unlock);
    assert!(waits, "it ended before it waited");
    assert!(lines.any(|line| line.contains("outcome")) && child.wait().unwrap().success());
    assert_eq!(seen(node, "COLOUR").unwrap(), "green");
}
