//! What somebody meets whose app does not run: each message says what to do.

use std::path::{Path, PathBuf};

use mfserv_testkit::{Node, Plugin, programs};

use crate::{Turn, node};

/// A directory with these files.
pub fn app(node: &Node, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let dir = node.path("apps").join(name);
    for (file, text) in files {
        let path = dir.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

/// What `mfserv dev` says of a directory.
#[track_caller]
fn said(node: &Node, dir: &Path, args: &[&str], code: i32) -> String {
    let dir = dir.to_str().unwrap();
    node.mfserv(&[&["dev", dir], args].concat()).code(code).stderr
}

const START: &str =
    r#"{"name": "a", "engines": {"node": ">=99"}, "scripts": {"start": "node s.js"}}"#;

#[test]
fn a_directory_that_cannot_be_served_says_what_to_write() {
    let _turn = Turn::cheap();
    let node = node();
    let no_start = [("package.json", "{\n\"scripts\": {\"test\": \"true\"}}")];
    let text = said(&node, &app(&node, "no_start", &no_start), &["--no-wait"], 4);
    assert!(text.contains("no script `start` (it has test)"), "{text}");
    assert!(text.contains("package.json:2") && text.contains("process.env.PORT"), "{text}");
    let text = said(&node, &app(&node, "bad", &[("package.json", "{\n]")]), &["--no-wait"], 4);
    assert!(text.contains("not valid JSON") && text.contains("package.json:2"), "{text}");
    let workspace = [
        ("package.json", r#"{"workspaces": ["packages/*"]}"#),
        ("package-lock.json", "{}"),
        ("packages/web/package.json", START),
    ];
    let root = app(&node, "all", &workspace);
    let text = said(&node, &root.join("packages/web"), &["--no-wait"], 2);
    let command =
        format!("mfserv dev {} --as packages/web", root.canonicalize().unwrap().display());
    assert!(text.contains(&command), "{text}");
}

#[test]
fn an_app_that_gets_another_version_than_it_asks_for_is_tried_and_that_is_said() {
    let _turn = Turn::cheap();
    let node = node();
    let text = said(&node, &app(&node, "engine", &[("package.json", START)]), &["--no-wait"], 0);
    assert!(text.contains("it asks for Node >=99, and v"), "{text}");
    let asgi = "async def app(scope, receive, send):\n    pass\n";
    let python = app(&node, "asked", &[("app.py", asgi), (".python-version", "3.99\n")]);
    let text = said(&node, &python, &["--no-wait"], 0);
    assert!(text.contains("no python3.99 is on PATH") && text.contains("pyenv"), "{text}");
}

#[test]
fn a_script_of_an_installation_has_the_files_beside_it_and_one_that_fails_is_named() {
    let _turn = Turn::cheap();
    let node = node();
    let package = r#"{"name": "a", "scripts": {"postinstall": "node setup.js", "build": "true",
        "start": "node s.js"}}"#;
    let setup = "require('fs').writeFileSync('made', process.argv[1])\n";
    let dir = app(&node, "hooked", &[("package.json", package), ("setup.js", setup)]);
    said(&node, &dir, &["--no-wait"], 0);
    assert!(dir.join("made").exists());
    let fails = [("package.json", package), ("setup.js", "throw new Error('no libfoo')\n")];
    let text = said(&node, &app(&node, "fails", &fails), &["--no-wait"], 1);
    assert!(text.contains("no libfoo") && text.contains("a script of package.json"), "{text}");
}

#[test]
fn an_app_that_does_not_become_ready_is_told_what_its_server_should_do() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let silent = [("package.json", START), ("s.js", "setInterval(() => {}, 1000)\n")];
    let args = ["--detach", "--timeout", "5"];
    let text = said(&node, &app(&node, "silent", &silent), &args, 6);
    assert!(text.contains("not listening on its port"), "{text}");
    assert!(text.contains("listen on the port that the variable PORT names"), "{text}");
    // Where it listens is said while somebody waits, not only when the time is over.
    let fixed = "require('http').createServer(() => {}).listen(0, '127.0.0.1')\n";
    let dir = app(&node, "fixed", &[("package.json", START), ("s.js", fixed)]);
    let text = said(&node, &dir, &["--detach", "--timeout", "8"], 6);
    let step = |line: &str| line.starts_with("- 0 of 1 workers are ready: app.fixed.main: not");
    assert!(text.lines().any(step) && text.contains("it listens on 127.0.0.1:"), "{text}");
    let ends = [("package.json", START), ("s.js", "console.log(\"done\")\n")];
    let text = said(&node, &app(&node, "ends", &ends), &args, 1);
    assert!(text.contains("exited with code 0") && text.contains("a server goes on"), "{text}");
    let missing = [("Procfile", "web: no-such-program --port $PORT\n")];
    let text = said(&node, &app(&node, "missing", &missing), &args, 1);
    assert!(text.contains("no-such-program") && text.contains("install it"), "{text}");
    node.stop();
}

#[test]
fn another_address_of_the_port_that_a_node_has_needs_a_stop_and_a_start_and_check_says_so() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&Plugin::python("one", programs::SERVES));
    node.start();
    assert!(!node.mfserv(&["check"]).code(0).stderr.contains("mfserv stop"));
    let now = node.mfserv(&["config", "explain", "front.host"]).code(0).stdout;
    let other = if now.starts_with("[front] host = 0.0.0.0") { "127.0.0.1" } else { "0.0.0.0" };
    node.set("front.host", other);
    let text = node.mfserv(&["check"]).code(0).stderr;
    assert!(text.contains("this node listens on port"), "{text}");
    assert!(text.contains("`mfserv stop`, then `mfserv start` takes the new address"), "{text}");
    let text = node.mfserv(&["reload"]).code(5).stderr;
    assert!(text.contains("`mfserv stop`, then `mfserv start` takes the new address"), "{text}");
    assert!(node.get("/one").status < 400, "it goes on as it was");
    node.stop();
}

#[test]
fn what_is_installed_and_is_no_package_is_told_what_is_meant() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = app(&node, "site", &[("index.html", "x")]);
    for (file, says) in [
        (dir.to_str().unwrap(), "`mfserv deploy DIR` deploys a directory"),
        ("nowhere.plugin", "`mfserv release DIR` makes a package"),
        ("-", "not read from standard input"),
    ] {
        let ran = node.mfserv(&["install", file]);
        assert!(ran.code != 0 && ran.stderr.contains(says), "{ran:?}");
    }
    let home = node.home().to_str().unwrap();
    let ran = node.mfserv(&["--home", home, "env", "shop", "K=V"]).code(2);
    assert!(ran.stderr.contains("`mfserv env set shop K=VALUE`"), "{ran:?}");
}
