//! The WebSockets of an ASGI app, as Autobahn's fuzzing client finds them behind the front. Only
//! with `MFSERV_LONG`, where there is a Python 2.7, which that client needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mfserv_plugin::python;
use mfserv_testkit::{Node, Plugin, skipped};

use crate::{Turn, node};

const CLIENT: &str = "autobahntestsuite==0.8.2";

/// Its packages lie in a directory of their own, whose `.pth` files are obeyed.
const RUN: &str = "import site, sys
site.addsitedir(sys.argv.pop(1))
from autobahntestsuite.wstest import run
run()";

const ECHO: &str = r#"
async def app(scope, receive, send):
    assert scope["type"] == "websocket"
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
"#;

/// Groups of cases: framing, pings, reserved bits, opcodes, fragments, UTF-8, closes, the sizes of
/// messages, automatic fragments. The others are of compression, which the server has not.
const CASES: [&str; 10] =
    ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.1.*", "9.2.*", "10.*"];
/// How many cases those are.
const COUNT: usize = 259;

/// A message, then a violation: the client wants the echo of the message before the close, which
/// the RFC does not say. The server closes at the violation, and sends no answer after its close.
const AFTER_A_MESSAGE: [&str; 10] =
    ["3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15"];
/// The client only tells what becomes of them: frames after a close, and codes that nobody defines.
const TOLD: [&str; 3] = ["7.1.6", "7.13.1", "7.13.2"];

/// Installs the client once.
fn client(python: &Path) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("autobahn");
    if !place.is_dir() {
        let fresh = place.with_extension("fresh");
        let _ = fs::remove_dir_all(&fresh);
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "--disable-pip-version-check", "install", "-q", "--target"]);
        let ran = pip.arg(&fresh).arg(CLIENT).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        fs::rename(&fresh, &place).unwrap();
    }
    place
}

/// Runs the cases; what became of each, by its number.
fn fuzz(node: &Node, python: &Path) -> Vec<(String, String, String)> {
    let reports = node.path("tmp/autobahn");
    fs::create_dir_all(&reports).unwrap();
    let spec = serde_json::json!({
        "outdir": reports,
        "servers": [{"agent": "mfserv", "url": format!("ws://{}/echoes/x", node.address())}],
        "cases": CASES,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    });
    let spec_file = reports.join("spec.json");
    fs::write(&spec_file, spec.to_string()).unwrap();
    let mut command = Command::new(python);
    command.args(["-c", RUN]).arg(client(python)).args(["-m", "fuzzingclient", "-s"]);
    let ran = command.arg(&spec_file).current_dir(&reports).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    let index = fs::read_to_string(reports.join("index.json"));
    let index = index.unwrap_or_else(|why| panic!("{why}: {said}"));
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let word = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let cases = index["mfserv"].as_object().unwrap().iter();
    cases.map(|(id, it)| (id.clone(), word(&it["behavior"]), word(&it["behaviorClose"]))).collect()
}

#[test]
fn the_cases_of_autobahn_pass_through_the_front() {
    if std::env::var_os("MFSERV_LONG").is_none() {
        return skipped(
            "Autobahn's cases of WebSocket, through the front: MFSERV_LONG=1 runs them",
        );
    }
    let Ok(python) = python::find(Some("python2.7")) else {
        return skipped("Autobahn's cases of WebSocket: python2.7 is not on PATH");
    };
    let _turn = Turn::heavy();
    let node = node();
    let command = "mfserv_worker --asgi main:app {unix_socket_path}";
    node.add(&Plugin::new("echoes").file("main.py", ECHO).app("main", command));
    node.start();
    let cases = fuzz(&node, &python.path);
    assert_eq!(cases.len(), COUNT, "{cases:?}");
    let is_excused = |id: &str, behavior: &str| match behavior {
        "OK" => true,
        "NON-STRICT" => AFTER_A_MESSAGE.contains(&id),
        "INFORMATIONAL" => TOLD.contains(&id),
        _ => false,
    };
    let is_good = |(id, behavior, close): &&(String, String, String)| {
        is_excused(id, behavior) && is_excused(id, close)
    };
    let (good, bad): (Vec<_>, Vec<_>) = cases.iter().partition(is_good);
    let ok = good.iter().filter(|case| case.1 == "OK").count();
    println!("{} cases, {ok} of them OK without an excuse", cases.len());
    assert!(bad.is_empty(), "{bad:?}");
    node.stop();
}
