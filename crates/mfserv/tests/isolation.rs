//! Builds and installations disturb nobody, and leave nothing when they are ended.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use mfserv_testkit::{Node, Plugin, Signal, kill, process, until, until_some};

use crate::install::release;
use crate::{PATIENCE, PROGRAM, Turn, node, samples, tree};

/// A script that says its process id and then takes its time.
fn slow_script(node: &Node) -> String {
    format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000", node.path("script-pid").display())
}

/// A plugin whose build runs a script.
fn scripted(node: &Node, script: &str) -> PathBuf {
    let package = serde_json::json!({
        "name": "scripted", "version": "1.0.0", "scripts": {"preinstall": script},
    });
    Plugin::new("scripted").file("package.json", &package.to_string()).write(&node.path("work"))
}

/// Starts a command, waits until its script runs, and sends a signal to the command alone.
/// Returns what it has said and the script's process.
fn signalled(node: &Node, args: &[&str], signal: Signal) -> (String, u32) {
    let mut command = node.command(args);
    let mut child: Child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let script = until_some("the script runs", PATIENCE, || {
        std::fs::read_to_string(node.path("script-pid")).ok()?.trim().parse::<u32>().ok()
    });
    kill(child.id(), signal);
    let status = child.wait().unwrap();
    assert_eq!(status.code(), (signal != Signal::KILL).then_some(1), "{status:?}");
    let mut said = String::new();
    if signal == Signal::KILL {
        // nobody is left to end it
        kill(script, Signal::KILL);
    }
    let mut stderr = child.stderr.take().unwrap();
    std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
    until("the script is gone", PATIENCE, || process(script).is_none());
    std::fs::remove_file(node.path("script-pid")).unwrap();
    (said, script)
}

#[test]
fn a_build_that_is_ended_by_a_signal_leaves_the_directory_as_it_was() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = scripted(&node, &slow_script(&node));
    std::fs::create_dir(dir.join("node_modules")).unwrap();
    std::fs::write(dir.join("node_modules/mine"), "x").unwrap();
    let before = tree(&dir);
    let path = dir.to_string_lossy().into_owned();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        for verb in ["build", "release"] {
            let (said, _) = signalled(&node, &[verb, &path], signal);
            assert!(said.contains("was interrupted"), "{said}");
            assert_eq!(tree(&dir), before, "{verb} {signal:?}");
        }
    }
    // killed with -9, it can do nothing more: the next one does
    signalled(&node, &["build", &path], Signal::KILL);
    assert!(dir.join("node_modules/mine").is_file(), "what was there is there");
    let (said, _) = signalled(&node, &["build", &path], Signal::INT);
    assert!(said.contains("was interrupted"), "{said}");
    assert_eq!(tree(&dir), before);
}

#[test]
fn an_installation_that_is_ended_by_a_signal_leaves_what_was_installed() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = node.path("work/sample_static");
    samples().copy("sample_static", &dir);
    let first = release(&node, &dir);
    node.mfserv(&["install", &first.to_string_lossy()]).code(0);
    let hook = dir.join("postinstall");
    std::fs::write(&hook, format!("#!/bin/sh\n{}\n", slow_script(&node))).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&hook, mode).unwrap();
    let second = release(&node, &dir).to_string_lossy().into_owned();
    let releases = node.path("var/releases/sample_static");
    let before = tree(&releases);
    for signal in [Signal::INT, Signal::TERM] {
        let (said, _) = signalled(&node, &["install", &second], signal);
        assert!(said.contains("the postinstall hook was interrupted"), "{said}");
        assert_eq!(tree(&releases), before);
    }
    signalled(&node, &["install", &second], Signal::KILL);
    assert!(node.get("/sample_static/").text().contains("default home page"));
    node.stop();
    node.start();
    assert_eq!(tree(&releases), before, "the start of the node has tidied up");
    node.stop();
}

#[test]
fn a_build_is_nice_and_sees_no_secret() {
    let _turn = Turn::cheap();
    let node = node();
    let said = node.path("said").display().to_string();
    let dir = scripted(&node, &format!("(nice; env) > {said}"));
    let mut command = node.command(&["build", &dir.to_string_lossy()]);
    command
        .env("AWS_SECRET_ACCESS_KEY", "s3cr3t")
        .env("DATABASE_URL", "s3cr3t")
        .env("TOKEN", "s3cr3t");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = std::fs::read_to_string(node.path("said")).unwrap();
    assert_eq!(said.lines().next(), Some("10"), "{said}");
    assert!(!said.contains("s3cr3t") && said.contains("PATH="), "{said}");
}

/// In a mount namespace, where the system lets us make one.
#[test]
fn a_build_on_a_full_disk_says_so_and_leaves_nothing() {
    let _turn = Turn::cheap();
    let unshare = ["unshare", "--map-root-user", "--mount"];
    let can =
        Command::new(unshare[0]).args(&unshare[1..]).arg("true").stderr(Stdio::null()).status();
    if !can.is_ok_and(|status| status.success()) {
        println!("not tested: this system makes no mount namespace");
        return;
    }
    let node = node();
    let (dir, disk) = (node.path("work/sample_flask"), node.path("disk"));
    samples().copy("sample_flask", &dir);
    std::fs::create_dir(&disk).unwrap();
    let script = r#"mount -t tmpfs -o size=600k tmpfs "$0" && cp -a "$1" "$0/plugin" && cd "$0/plugin" &&
        find . | sort > "$1/before"; "$2" build; code=$?; find . | sort | diff "$1/before" - && exit $code"#;
    let mut command = Command::new(unshare[0]);
    command.args(&unshare[1..]).args(["sh", "-c", script]).args([&disk, &dir]).arg(PROGRAM);
    command.env("MFMODULE_RUNTIME_HOME", node.home()).env("METWORK_ALLOW_USAGE_BY_ROOT", "1");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said.contains("error: collecting the Python wheels failed"), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    assert!(said.contains("help: the disk is full"), "{said}");
}
