//! Receivers other than a search engine, TLS, and who asks.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mfserv_testkit::until;
use serde_json::{Value, json};

use super::{append, ship, succeeds, text};
use crate::{PATIENCE, Turn};

/// Writes each request as a line of JSON to `requests.jsonl`, and answers with 204. With a
/// certificate it speaks TLS.
const SERVER: &str = r#"
import gzip, http.server, json, ssl, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request = {"path": self.path, "authorization": self.headers.get("Authorization"),
                   "body": json.loads(body)}
        with open("requests.jsonl", "a") as file:
            file.write(json.dumps(request) + "\n")
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
if len(sys.argv) > 1:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("cert.pem", "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

pub(crate) struct Server {
    child: Child,
    pub port: u16,
}

impl Server {
    pub fn start(dir: &Path, args: &[&str]) -> Self {
        let mut python = Command::new("python3");
        python.args(["-c", SERVER]).args(args).current_dir(dir).stdout(Stdio::piped());
        let mut child = python.spawn().unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Self { child, port: port.trim().parse().unwrap() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn requests(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("requests.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A certificate for `localhost` that nobody has signed: `cert.pem` and `key.pem`.
pub(crate) fn make_certificate(dir: &Path) {
    let openssl = Command::new("openssl")
        .args("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost".split(' '))
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(openssl.status.success(), "{}", text(&openssl.stderr));
}

const LINE: &str = "{\"timestamp\":\"2026-01-31T12:00:00Z\",\"level\":\"error\",\"name\":\"n\",\
                    \"event\":\"x\"}\n";

#[test]
fn loki_gets_labels_and_lines_and_a_receiver_of_json_gets_ids() {
    let _turn = Turn::cheap();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let server = Server::start(dir, &[]);
    let url = format!("http://127.0.0.1:{}", server.port);
    append(&dir.join("a.log"), &format!("{LINE}plain\n"));
    let loki = ["a.log", "--to", &url, "--as", "loki", "--source", "mflog", "--once"];
    succeeds(ship(dir, &[&loki[..], &["--state", "loki", "--transform", "set:module=M"]].concat()));
    let json = format!("{url}/take");
    succeeds(ship(dir, &["a.log", "--to", &json, "--as", "json", "--once", "--state", "json"]));
    let requests = requests(dir);
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0]["path"], "/loki/api/v1/push");
    let streams = requests[0]["body"]["streams"].as_array().unwrap();
    let labels = json!({"source": "mflog", "level": "error", "name": "n", "module": "M"});
    let stream = streams.iter().find(|stream| stream["stream"] == labels).unwrap();
    assert_eq!(stream["values"][0][0], "1769860800000000000");
    let line: Value = serde_json::from_str(stream["values"][0][1].as_str().unwrap()).unwrap();
    assert_eq!(line, json!({"timestamp": "2026-01-31T12:00:00Z", "event": "x"}));
    assert_eq!(requests[1]["path"], "/take");
    let documents = requests[1]["body"].as_array().unwrap();
    assert_eq!((&documents[0]["event"], &documents[1]["message"]), (&json!("x"), &json!("plain")));
    let id = |at: usize| documents[at]["_id"].as_str().unwrap().split_once('-').unwrap();
    assert_eq!((id(0).0, id(0).1, id(1).1), (id(1).0, "0", &*LINE.len().to_string()));
}

#[test]
fn lines_that_come_one_by_one_are_sent_in_few_requests() {
    let _turn = Turn::cheap();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let server = Server::start(dir, &[]);
    append(&dir.join("a.log"), "");
    let url = format!("http://127.0.0.1:{}", server.port);
    let mut following = ship(dir, &["a.log", "--to", &url, "--as", "json"]).spawn().unwrap();
    for _ in 0..300 {
        append(&dir.join("a.log"), LINE);
        // The lines of an app that serves a few hundred requests in a second.
        std::thread::sleep(Duration::from_millis(4));
    }
    let sent =
        || requests(dir).iter().map(|it| it["body"].as_array().unwrap().len()).sum::<usize>();
    until("all lines have arrived", PATIENCE, || sent() == 300);
    following.kill().unwrap();
    following.wait().unwrap();
    assert!(requests(dir).len() < 60, "{} requests for 300 lines", requests(dir).len());
}

#[test]
fn a_certificate_is_checked_and_secrets_are_no_arguments() {
    let _turn = Turn::cheap();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    make_certificate(dir);
    let server = Server::start(dir, &["tls"]);
    let url = format!("https://localhost:{}", server.port);
    append(&dir.join("a.log"), LINE);
    let args = ["a.log", "--to", &url, "--as", "json", "--once"];
    let unknown = ship(dir, &[&args[..], &["--patience", "0"]].concat()).output().unwrap();
    assert_eq!(unknown.status.code(), Some(6));
    assert!(
        text(&unknown.stderr).to_lowercase().contains("certificate"),
        "{}",
        text(&unknown.stderr)
    );
    assert!(requests(dir).is_empty());

    let mut basic = ship(dir, &[&args[..], &["--ca", "cert.pem", "--user", "u"]].concat());
    basic.env("MFSERV_SHIP_PASSWORD", "p");
    succeeds(basic);
    append(&dir.join("a.log"), LINE);
    std::fs::write(dir.join("key"), "abc\n").unwrap();
    let key = ["--ca", "cert.pem", "--api-key-file", "key"];
    succeeds(ship(dir, &[&args[..], &key].concat()));
    let asked: Vec<Value> = requests(dir).iter().map(|it| it["authorization"].clone()).collect();
    assert_eq!(asked, [json!("Basic dTpw"), json!("ApiKey abc")]);

    for (bad, why) in [
        (vec!["a.log", "--to", "http://u:p@localhost", "--index", "x"], "password"),
        (vec!["a.log", "--to", &url, "--index", "x", "--user", "u"], "MFSERV_SHIP_PASSWORD"),
        (vec!["a.log", "--to", &url], "--index"),
        (vec!["a.log", "--to", &url, "--index", "X"], "capital letters"),
    ] {
        let ran = ship(dir, &bad).output().unwrap();
        assert_eq!(ran.status.code(), Some(2), "{bad:?}");
        assert!(text(&ran.stderr).contains(why), "{bad:?}: {}", text(&ran.stderr));
    }
    let directory = ship(dir, &[".", "--to", &url, "--index", "x"]).output().unwrap();
    assert_eq!(directory.status.code(), Some(1));
    assert!(text(&directory.stderr).contains("it is no file"), "{}", text(&directory.stderr));
    let gone = ship(dir, &["gone.log", "--to", &url, "--index", "x", "--once"]).output().unwrap();
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone.stderr).contains("No such file"), "{}", text(&gone.stderr));
    let none = ship(dir, &["none*.log", "--to", &url, "--index", "x", "--once"]).output().unwrap();
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("no file matches none*.log"), "{}", text(&none.stderr));
}
