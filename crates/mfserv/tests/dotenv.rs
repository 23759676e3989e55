//! The `.env` file of a directory that is worked on: its app has the variables in `mfserv dev`, an
//! edit is served, and nobody else ever sees a value.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mfserv_core::event::Fact;
use mfserv_testkit::{Load, Node, Plugin, programs, until};

use crate::variables::{files_with, set_secret_of, show_nothing_of};
use crate::{PATIENCE, Turn, node};

const SECRET: &str = "hush-of-the-file-0815";
const OTHER_SECRET: &str = "hush-of-the-node-0816";

/// A running node, and a plugin that answers with its environment, served from its directory.
fn developed(name: &str, text: &str) -> (Node, PathBuf) {
    let node = node();
    node.set("autorestart.configuration", "1");
    node.start();
    let plugin = Plugin::python(name, programs::SERVES).key("app_main", "numprocesses", "2");
    let dir = plugin.write(&node.path("work"));
    std::fs::write(dir.join(".env"), text).unwrap();
    (node, dir)
}

fn dev(node: &Node, dir: &Path) -> String {
    let ran = node.mfserv(&["dev", "--detach", dir.to_str().unwrap()]).code(0);
    format!("{}{}", ran.stdout, ran.stderr)
}

/// What the workers of a plugin have.
fn seen(node: &Node, plugin: &str, name: &str) -> Option<String> {
    let text = node.get(&format!("/{plugin}/env")).text();
    let all: BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
    all.get(name).cloned()
}

fn until_seen(node: &Node, plugin: &str, name: &str, value: Option<&str>) {
    until(&format!("{name} is {value:?}"), PATIENCE, || {
        seen(node, plugin, name).as_deref() == value
    });
}

fn status(node: &Node) -> String {
    let ran = node.mfserv(&["status"]);
    ran.stdout + &ran.stderr
}

#[test]
fn an_app_in_development_has_the_variables_of_its_env_file_and_an_edit_loses_no_request() {
    let _turn = Turn::cheap();
    let long = "x".repeat(140_000);
    let text = format!("# ours\nexport GREETING='good day'\nPORT=3000\nBOTH=file\nLONG={long}\n");
    let (node, dir) = developed("jar", &text);
    let said = dev(&node, &dir);
    assert!(said.contains("variables of .env, for this directory alone: GREETING, BOTH"), "{said}");
    assert!(!said.contains("good day"), "{said}");
    assert_eq!(seen(&node, "jar", "GREETING").as_deref(), Some("good day"));
    let said = status(&node);
    assert!(said.contains("PORT of .env is not used") && said.contains(".env:3"), "{said}");
    // The kernel starts no process with it.
    assert!(said.contains("LONG of .env is not used") && !said.contains(&long), "{said}");

    // What is set on the node wins, and gives way again.
    node.mfserv(&["env", "set", "jar", "BOTH=node"]).code(0);
    assert_eq!(seen(&node, "jar", "BOTH").as_deref(), Some("node"));
    node.mfserv(&["env", "unset", "jar", "BOTH"]).code(0);
    assert_eq!(seen(&node, "jar", "BOTH").as_deref(), Some("file"));

    let load = Load::new(node.address(), "/jar/pid").connections(4).start();
    load.answers(50);
    std::fs::write(dir.join(".env"), "GREETING=\"${NAME:-hello}\nthere\"\n").unwrap();
    until_seen(&node, "jar", "GREETING", Some("hello\nthere"));
    until_seen(&node, "jar", "BOTH", None);

    // A bad line is named, not shown, and what ran before goes on.
    std::fs::write(dir.join(".env"), format!("GREETING=new\nTOKEN \"{SECRET}\n")).unwrap();
    until("the line is named", PATIENCE, || {
        status(&node).contains("line 2 of .env cannot be read")
    });
    assert!(!node.mfserv(&["events"]).stdout.contains(SECRET));
    assert_eq!(seen(&node, "jar", "GREETING").as_deref(), Some("hello\nthere"));
    std::fs::remove_file(dir.join(".env")).unwrap();
    until_seen(&node, "jar", "GREETING", None);
    std::fs::write(dir.join(".env"), "GREETING=again\n").unwrap();
    until_seen(&node, "jar", "GREETING", Some("again"));
    load.answers(50);
    load.stop().assert_nothing_failed();
    node.stop();
}

#[test]
fn a_bad_line_refuses_dev_with_its_number_until_it_is_mended() {
    let _turn = Turn::cheap();
    let (node, dir) = developed("jar", &format!("A=1\n\nTOKEN='{SECRET}\n"));
    let ran = node.mfserv(&["dev", "--detach", dir.to_str().unwrap()]);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(ran.code != 0 && said.contains("line 3 of .env cannot be read"), "{ran:?}");
    assert!(said.contains("its quote is not closed") && !said.contains(SECRET), "{ran:?}");
    std::fs::write(dir.join(".env"), "A=1\n\nTOKEN=x\n").unwrap();
    until("it is served", PATIENCE, || node.get("/jar/env").status == 200);
    assert_eq!(seen(&node, "jar", "TOKEN").as_deref(), Some("x"));
    node.stop();
}

/// An app that is no plugin. Its release phase needs its variables, as migrations do.
const WEB: &str = "\
import http.server, os, sys

class Exchange(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        text = 'set' if os.environ.get('TOKEN') else 'not set'
        self.wfile.write(f'{text} {os.environ.get(\"MODE\")}'.encode())
    def log_message(self, *args):
        pass

http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Exchange).serve_forever()
";
const PROCFILE: &str = "web: python3 web.py\nrelease: test -n \"$TOKEN\" || echo none > without\n";

fn existing_app(node: &Node) -> PathBuf {
    let dir = node.path("apps/shop");
    std::fs::create_dir_all(&dir).unwrap();
    for (file, text) in [
        ("web.py", WEB),
        ("Procfile", PROCFILE),
        (".env", &format!("TOKEN={SECRET}\nMODE=dev\n")),
        (".env.production", &format!("TOKEN={SECRET}\n")),
        (".env.example", "TOKEN=\n"),
    ] {
        std::fs::write(dir.join(file), text).unwrap();
    }
    dir
}

#[test]
fn an_existing_app_has_them_in_development_and_a_deployed_one_has_neither_them_nor_the_files() {
    let _turn = Turn::cheap();
    let node = node();
    node.set("autorestart.configuration", "1");
    node.start();
    let dir = existing_app(&node);
    dev(&node, &dir);
    assert_eq!(node.get("/shop").text(), "set dev");
    assert!(!dir.join("without").exists(), "the release phase has them");
    std::fs::write(dir.join(".env"), "TOKEN=x\nMODE=edited\n").unwrap();
    until("the edit is served", PATIENCE, || node.get("/shop").text() == "set edited");

    let ran = node.mfserv(&["deploy", dir.to_str().unwrap()]).code(0);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert_eq!(said.matches("not deployed: .env, .env.production").count(), 1, "{said}");
    assert_eq!(node.get("/shop").text(), "not set None");
    let packed = node.path("var/releases/shop/1/main");
    assert!(packed.join(".env.example").is_file() && packed.join("without").is_file());
    assert!(!packed.join(".env").exists() && !packed.join(".env.production").exists());

    // One that is packed on purpose is a file of the app, which reads it itself.
    node.mfserv(&["deploy", dir.to_str().unwrap(), "--pack", ".env"]).code(0);
    assert!(node.path("var/releases/shop/2/main/.env").is_file());
    assert_eq!(node.get("/shop").text(), "not set None");
    node.stop();
}

#[test]
fn secrets_of_the_file_and_of_the_node_are_in_no_archive_log_output_and_list_of_processes() {
    let _turn = Turn::cheap();
    let (node, dir) = developed("vault", &format!("TOKEN={SECRET}\nURL=db://u:${{TOKEN}}@h/d\n"));
    std::fs::write(dir.join(".env.local"), format!("TOKEN={SECRET}\n")).unwrap();
    dev(&node, &dir);
    set_secret_of(&node, "vault", "NODES", OTHER_SECRET);
    let url = format!("db://u:{SECRET}@h/d");
    assert_eq!(seen(&node, "vault", "URL"), Some(url));
    assert_eq!(seen(&node, "vault", "NODES").as_deref(), Some(OTHER_SECRET));
    std::fs::write(dir.join(".env"), format!("TOKEN={SECRET}2\n")).unwrap();
    until_seen(&node, "vault", "TOKEN", Some(&format!("{SECRET}2")));
    let facts = node.events().into_iter().map(|event| event.fact);
    let notes = facts.filter(|fact| matches!(fact, Fact::Note { text } if text.contains(".env")));
    assert_eq!(notes.count(), 1, "the edit is said");

    for secret in [SECRET, OTHER_SECRET] {
        show_nothing_of(&node, "vault", secret);
        for (file, mode) in files_with(node.home(), secret.as_bytes()) {
            let below = file.strip_prefix(node.home()).unwrap().to_string_lossy().into_owned();
            assert!(!below.starts_with("log/") && !below.starts_with("tmp/"), "{below}");
            let is_developers = file.starts_with(&dir);
            assert!(is_developers || mode & 0o077 == 0, "{below}: {mode:o}");
        }
    }
    let shown = node.mfserv(&["env", "vault"]).code(0).stdout;
    assert!(shown.contains("# TOKEN is set, and secret"), "{shown}");
    is_in_no_archive(&node, &dir);
    node.stop();
}

/// Packs the directory, and looks into what is installed of it.
fn is_in_no_archive(node: &Node, dir: &Path) {
    let ran = node.mfserv(&["release", dir.to_str().unwrap()]).code(0);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert_eq!(said.matches("left out of the package: .env, .env.local").count(), 1, "{said}");
    let package = std::fs::read_dir(node.home()).unwrap().flatten().map(|entry| entry.path());
    let package = package.into_iter().find(|path| path.extension().is_some_and(|e| e == "plugin"));
    node.mfserv(&["uninstall", "vault"]).code(0);
    node.mfserv(&["install", package.unwrap().to_str().unwrap()]).code(0);
    let unpacked = node.path("var/releases/vault/1");
    assert!(unpacked.join("config.ini").is_file() && !unpacked.join(".env").exists());
    for secret in [SECRET, OTHER_SECRET] {
        assert_eq!(files_with(&unpacked, secret.as_bytes()), []);
    }
    assert_eq!(seen(node, "vault", "TOKEN"), None);
    assert_eq!(seen(node, "vault", "NODES").as_deref(), Some(OTHER_SECRET));
}

/// Reads texts, one per line as JSON, and writes the variables of each.
const PYTHON_DOTENV: &str = "import io, json, sys
from dotenv import dotenv_values
for line in sys.stdin:
    found = dotenv_values(stream=io.StringIO(json.loads(line)))
    print(json.dumps({name: value for name, value in found.items() if value is not None}))
";

#[test]
fn values_are_those_of_python_dotenv_but_for_the_differences_that_are_written_down() {
    let target = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let Some(python) = mfserv_testkit::servers::of_pypi(target, "python-dotenv", "1.2.4") else {
        return;
    };
    let texts = [
        "A=1\nexport B = two words # said\nC='x \\n \\' \\\\'\nD=\"a\\nb \\\"c\\\" \\a\\b\\f\\v\\r\\t\\d\"",
        "A= # nothing\nB=#x\nC=a#b\nD=\nE=it's\nF=x\r\nG=1",
        "A=${HOME}/x\nB=\"${A}/y\"\nC=$HOME\nD=${NONE:-else}\nE=${EMPTY:-else}\nF=${NONE}",
        "A=\"${HOME\"\nB=2}\nC=${HOME\nD=3}",
        "A=\"x ${N:-a\"\nB=\"}\"",
        "A=\"${NONE:-a \\\"b\\\"}\"\nB=${A:-${HOME}}",
        "A.B=1\n1A=2\nA-B=3\nA\nexport C\nD=4",
        "A=\"over\nlines\"\n# a comment\n'B'=x\nC=\"é ${A}\"",
    ];
    let mut command = std::process::Command::new(python);
    command.args(["-c", PYTHON_DOTENV]).env("HOME", "/home/me").env("EMPTY", "");
    command.env_remove("NONE").env_remove("N");
    let pipe = std::process::Stdio::piped;
    let mut child = command.stdin(pipe()).stdout(pipe()).spawn().unwrap();
    let lines: Vec<String> =
        texts.iter().map(|text| serde_json::to_string(text).unwrap() + "\n").collect();
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), lines.concat().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let theirs = String::from_utf8(output.stdout).unwrap();
    assert_eq!(theirs.lines().count(), texts.len());
    let env = [("HOME", "/home/me"), ("EMPTY", "")];
    let env = env.map(|(name, value)| (name.to_string(), value.to_string())).into();
    for (text, line) in texts.iter().zip(theirs.lines()) {
        let found = mfserv_core::dotenv::parse(text, &env).unwrap();
        let ours: BTreeMap<String, String> =
            found.into_iter().filter_map(|one| Some((one.name, one.value?))).collect();
        let theirs: BTreeMap<String, String> = serde_json::from_str(line).unwrap();
        assert_eq!(ours, theirs, "{text}");
    }
}
