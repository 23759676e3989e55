//! What workers make of a prefix that the front has stripped, whichever server they have.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use mfserv_plugin::base::BaseEnvironment;

use serde_json::{Value, json};

use crate::Node;
use crate::asgi::in_environment;
use crate::wsgi::End;
use crate::wsgi_client::get;

const APPS: &str = r#"
import json

def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    keys = ("SCRIPT_NAME", "PATH_INFO", "RAW_URI", "REQUEST_URI", "QUERY_STRING")
    return [json.dumps([environ[key] for key in keys]).encode()]

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    query, raw = scope["query_string"].decode(), scope["raw_path"].decode()
    body = json.dumps([scope.get("root_path"), scope["path"], raw, query]).encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})
"#;

const PREFIX: &str = "X-Forwarded-Prefix: /out/caf%C3%A9\r\n";

/// Called by tests that have made a base environment.
pub fn wsgi_apps_are_told_what_was_stripped(node: &Node, (base, server): (&BaseEnvironment, &str)) {
    let by = ("MFSERV_PYTHON_SERVER", server);
    let latin = "/out/caf\u{c3}\u{a9}";
    let whole = "/out/caf%C3%A9/a%2Fb?q";
    let plain = json!(["", "/a", "/a?q", "/a?q", "q"]);
    let (_worker, socket) = worker(node, base, by, ["--wsgi", "1"]);
    assert_eq!(said(&socket, "/a%2Fb?q", PREFIX), json!([latin, "/a/b", whole, whole, "q"]));
    assert_eq!(said(&socket, "/a?q", ""), plain);
    // Where the front strips nothing, the field is a client's.
    let (_worker, socket) = worker(node, base, by, ["--wsgi", "0"]);
    assert_eq!(said(&socket, "/a?q", PREFIX), plain);
}

/// The same.
pub fn asgi_apps_are_told_what_was_stripped(node: &Node, base: &BaseEnvironment, server: &str) {
    let by = ("MFSERV_PYTHON_ASGI_SERVER", server);
    let plain = json!(["", "/a", "/a", "q"]);
    let (_worker, socket) = worker(node, base, by, ["--asgi", "1"]);
    let told = ["/out/caf\u{e9}", "/out/caf\u{e9}/a/b", "/out/caf%C3%A9/a%2Fb", "q"];
    assert_eq!(said(&socket, "/a%2Fb?q", PREFIX), json!(told));
    assert_eq!(said(&socket, "/a?q", ""), plain);
    let (_worker, socket) = worker(node, base, by, ["--asgi", "0"]);
    assert_eq!(said(&socket, "/a?q", PREFIX), plain);
}

/// A worker whose front strips prefixes (`1`) or not (`0`).
fn worker(
    node: &Node,
    base: &BaseEnvironment,
    by: (&str, &str),
    [kind, strips]: [&str; 2],
) -> (End, PathBuf) {
    let template = if kind == "--wsgi" { "python3_raw_wsgi" } else { "python3_raw_asgi" };
    let name = format!("prefix_{}{strips}", by.1);
    let dir = node.plugin(template, &name);
    fs::write(dir.join("main/apps.py"), APPS).unwrap();
    let socket = node.work().join(&name).with_extension("s");
    let mut command = in_environment(node, base, &dir, "mfserv_worker");
    let app = format!("main.apps:{}", &kind[2..]);
    command.args([kind, &app]).arg(&socket).stdout(Stdio::null()).stderr(Stdio::null());
    let worker = command.envs([by, ("MFSERV_STRIP_PREFIX", strips)]).spawn().unwrap();
    (End(worker), socket)
}

fn said(socket: &Path, path: &str, fields: &str) -> Value {
    let (head, body) = get(socket, path, fields);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    serde_json::from_str(&body).unwrap()
}
