//! Real frameworks that have the front send their files.

use std::path::{Path, PathBuf};
use std::process::Command;

use mfserv_testkit::{Client, Method, Node, Response, until};

use crate::{PATIENCE, Turn, node};

const FLASK: &str = r#"
import os
from flask import Flask, Response, send_file

app = Flask(__name__)
app.config["USE_X_SENDFILE"] = True
HERE = os.path.dirname(os.path.abspath(__file__))

@app.get("/version")
def version():
    return "one"

@app.get("/report")
def report():
    path = os.path.join(HERE, "private", "report.pdf")
    answer = send_file(path, as_attachment=True, conditional=True)
    answer.set_cookie("seen", "1")
    return answer

@app.get("/outside")
def outside():
    return send_file(os.path.join(HERE, "app.py"))

@app.get("/accel")
def accel():
    return Response(headers={"X-Accel-Redirect": "/protected/report.pdf"}, mimetype="x/y")
"#;

/// The example of Flask with another text, and a file that only the app may give away.
fn example(node: &Node) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/flask");
    let to = node.path("apps/flask");
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    assert!(Command::new("cp").arg("-r").arg(from).arg(&to).status().unwrap().success());
    std::fs::write(to.join("app.py"), FLASK).unwrap();
    std::fs::create_dir(to.join("private")).unwrap();
    std::fs::write(to.join("private/report.pdf"), b"x".repeat(100_000)).unwrap();
    to
}

fn ask(node: &Node, path: &str, fields: &[(&str, &str)]) -> Response {
    let path = format!("/flask{path}");
    Client::new(node.address()).ask(Method::Get, &path, fields, b"").unwrap()
}

#[test]
fn flask_with_use_x_sendfile_has_its_files_sent_by_the_front() {
    let _turn = Turn::cheap();
    let node = node();
    let overrides = node.path("config/plugins/flask.ini");
    std::fs::create_dir_all(overrides.parent().unwrap()).unwrap();
    std::fs::write(&overrides, "[app_main]\n_sendfile_roots=/protected=main/private\n").unwrap();
    node.start();
    let dir = example(&node);
    node.mfserv(&["deploy", dir.to_str().unwrap()]).code(0);
    for (path, content_type) in [("/report", "application/pdf"), ("/accel", "x/y")] {
        let answer = ask(&node, path, &[]);
        let why = || node.log_lines("nginx_error");
        assert_eq!((answer.status, answer.body.len()), (200, 100_000), "{path}: {:?}", why());
        assert_eq!(answer.field("content-type"), Some(content_type));
        assert_eq!(answer.field("content-length"), Some("100000"));
        assert_eq!(answer.field("x-sendfile"), None);
        let part = ask(&node, path, &[("Range", "bytes=10-19")]);
        assert_eq!((part.status, part.body.len()), (206, 10), "{path}: {part:?}");
        assert_eq!(part.field("content-range"), Some("bytes 10-19/100000"));
        let tag = answer.field("etag").unwrap();
        assert_eq!(ask(&node, path, &[("If-None-Match", tag)]).status, 304, "{path}");
    }
    let answer = ask(&node, "/report", &[]);
    assert_eq!(answer.field("content-disposition"), Some("attachment; filename=report.pdf"));
    assert!(answer.field("set-cookie").is_some_and(|cookie| cookie.starts_with("seen=1")));
    assert_eq!(ask(&node, "/outside", &[]).status, 404);
    until("the log says why", PATIENCE, || {
        let lines = node.log_lines("nginx_error");
        lines.iter().any(|line| line.contains("X-Sendfile: it is below none of the directories"))
    });
    // No worker has complained of an answer that is shorter than it says, or was replaced for it.
    let lines = node.log_lines("app_flask_main");
    assert!(!lines.iter().any(|line| line.contains("Content-Length")), "{lines:?}");
    assert!(node.status().notes.is_empty(), "{:?}", node.status().notes);
    node.stop();
}
