//! Apps of the kinds that nobody had tried: what their authors type elsewhere serves them here.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use mfserv_testkit::{Client, Method, Node, until};

use crate::apps::edit;
use crate::newcomer::app;
use crate::{PATIENCE, Turn, node};

#[track_caller]
fn said(node: &Node, command: &str, dir: &Path, more: &[&str]) -> String {
    let mut args = vec![command, dir.to_str().unwrap()];
    args.extend(more);
    let ran = node.mfserv(&args).code(0);
    format!("{}{}", ran.stdout, ran.stderr)
}

/// What `/` of a host answers.
fn at_host(node: &Node, host: &str) -> String {
    let mut client = Client::new(node.address());
    client.ask(Method::Get, "/", &[("Host", host)], b"").unwrap().text()
}

const SERVER: &str = "\
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'one')

if __name__ == '__main__':
    http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()
";

#[test]
fn a_python_program_that_is_a_server_itself_is_developed_deployed_and_rolled_back() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = app(&node, "My Server.v2", &[("main.py", SERVER)]);
    let text = said(&node, "dev", &dir, &["--detach"]);
    assert!(text.contains("a Python program with a server of its own: main.py:10"), "{text}");
    assert_eq!(node.get("/").text(), "one");
    // Versions of our own packages would have others resolved to ancient ones (Sanic to 0.7).
    assert!(node.path("var/dev/My-Server-v2/python3_virtualenv_sources/override").exists());
    edit(&dir, "main.py", "b'one'", "b'two'");
    until("the edit is served", PATIENCE, || node.get("/").text() == "two");
    let text = said(&node, "deploy", &dir, &[]);
    assert!(!text.contains("warning: left out"), "nothing of ours is worth a word: {text}");
    edit(&dir, "main.py", "b'two'", "b'three'");
    said(&node, "deploy", &dir, &[]);
    assert_eq!(node.get("/").text(), "three");
    node.mfserv(&["rollback", "My-Server-v2"]).code(0);
    assert_eq!(node.get("/").text(), "two");
    node.stop();
}

const BELOW: &str = "\
from models import answer

def app(environ, start_response):
    start_response('200 OK', [])
    return [answer().encode()]
";
const MODELS: &str = "\
import os

def answer():
    return os.path.basename(os.getcwd())
";

#[test]
fn an_app_below_the_directory_is_imported_from_where_its_author_starts_it() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let files = [("api/app.py", BELOW), ("api/models.py", MODELS), ("README", "")];
    let dir = app(&node, "below", &files);
    said(&node, "dev", &dir, &["--detach"]);
    assert_eq!(node.get("/").text(), "api");
    said(&node, "deploy", &dir, &[]);
    assert_eq!(node.get("/").text(), "api");
    node.stop();
}

const WRITER: &str = "\
import os

HERE = os.path.dirname(os.path.abspath(__file__))

def app(environ, start_response):
    uploads = os.path.join(HERE, 'uploads')
    os.makedirs(uploads, exist_ok=True)
    if environ['PATH_INFO'] == '/add':
        open(os.path.join(uploads, 'f'), 'w').close()
    start_response('200 OK', [])
    return [str(len(os.listdir(uploads))).encode()]
";

#[test]
fn what_an_app_writes_into_its_own_directory_is_kept_by_the_option_that_the_warning_names() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = app(&node, "writer", &[("app.py", WRITER)]);
    said(&node, "deploy", &dir, &[]);
    assert_eq!(node.get("/add").text(), "1");
    let text = said(&node, "deploy", &dir, &["--force"]);
    assert!(text.contains("`mfserv deploy DIR --persist uploads`"), "{text}");
    node.mfserv(&["rollback", "writer"]).code(0);
    // The running release has it: it comes back, and stays from now on.
    said(&node, "deploy", &dir, &["--persist", "uploads/"]);
    assert_eq!(node.get("/").text(), "1");
    edit(&dir, "app.py", "import os\n", "import os  # changed\n");
    said(&node, "deploy", &dir, &[]);
    assert_eq!(node.get("/").text(), "1");
    node.stop();
}

#[test]
fn host_names_of_a_deployment_stay_until_others_are_given() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    app(&node, "first", &[("index.html", "first")]);
    said(&node, "deploy", &node.path("apps/first"), &[]);
    let dir = app(&node, "site", &[("index.html", "one")]);
    said(&node, "deploy", &dir, &["--host", "shop.example.org", "--host", "www.example.org"]);
    for host in ["shop.example.org", "www.example.org", "site.localhost"] {
        assert_eq!(at_host(&node, host), "one", "{host}");
    }
    edit(&dir, "index.html", "one", "two");
    said(&node, "deploy", &dir, &[]);
    assert_eq!(at_host(&node, "shop.example.org"), "two");
    said(&node, "deploy", &dir, &["--host", "new.example.org"]);
    assert_eq!(at_host(&node, "new.example.org"), "two");
    assert_eq!(at_host(&node, "shop.example.org"), "first");
    let path = dir.to_str().unwrap();
    let text = node.mfserv(&["deploy", path, "--host", "http://a.org/"]).code(2).stderr;
    assert!(text.contains("without http://"), "{text}");
    node.stop();
}

#[test]
fn a_file_that_cannot_be_deployed_is_named_where_its_author_has_it() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = app(&node, "links", &[("index.html", "x"), ("a/x.txt", "x")]);
    let latin = OsStr::from_bytes(b"caf\xe9.txt");
    std::fs::write(dir.join(latin), "x").unwrap();
    let text = said(&node, "deploy", &dir, &[]);
    assert!(text.contains("not deployed: caf") && text.contains("not UTF-8"), "{text}");
    std::os::unix::fs::symlink("/etc/hostname", dir.join("host")).unwrap();
    let text = node.mfserv(&["deploy", dir.to_str().unwrap()]);
    let link = dir.canonicalize().unwrap().join("host");
    assert!(text.code != 0 && text.stderr.contains(link.to_str().unwrap()), "{text:?}");
    assert!(text.stderr.contains("put what the link leads to"), "{text:?}");
}

#[test]
fn an_app_that_lacks_a_library_or_a_variable_is_told_how_it_gets_it() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let wsgi = "def app(environ, start_response):\n    pass\n";
    for (name, line, wanted) in [
        ("lib", "import ctypes\nctypes.CDLL('libnever9.so.1')\n", "apt-file search libnever9.so.1"),
        ("var", "import os\nos.environ['SECRET_KEY']\n", "`mfserv env set var SECRET_KEY=VALUE`"),
    ] {
        let dir = app(&node, name, &[("app.py", &format!("{line}{wsgi}"))]);
        let text = node.mfserv(&["dev", dir.to_str().unwrap(), "--detach"]).code(1).stderr;
        assert!(text.contains(wanted), "{text}");
    }
    // What is not deployed yet gets its variables when it is.
    let early = node.mfserv(&["env", "set", "early", "A=1"]);
    assert!(early.stderr.contains("`mfserv deploy DIR --env KEY=VALUE`"), "{early:?}");
    let needs = format!("import os\nos.environ['A_KEY']\n{wsgi}");
    let dir = app(&node, "early", &[("app.py", &needs)]);
    let text = node.mfserv(&["deploy", dir.to_str().unwrap()]).code(1).stderr;
    assert!(text.contains("`mfserv deploy … --env A_KEY=VALUE`"), "{text}");
    said(&node, "deploy", &dir, &["--env", "A_KEY=1"]);
    let go = app(&node, "go", &[("go.mod", "module x\n"), ("main.go", "package main\n")]);
    let text = node.mfserv(&["dev", go.to_str().unwrap(), "--no-wait"]);
    assert!(text.stderr.contains("go build -o server"), "{text:?}");
    let missing =
        [("app.py", "import nowhere9, yaml\n\ndef app(environ, start_response):\n    pass\n")];
    let dir = app(&node, "imports", &missing);
    let text = node.mfserv(&["deploy", dir.to_str().unwrap()]).code(1).stderr;
    assert!(text.contains("requirements.txt, one on each line, with: PyYAML, nowhere9"), "{text}");
    node.stop();
}

#[test]
fn a_release_step_that_fails_is_named_as_such_and_what_serves_goes_on() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let good = "web: python3 main.py\n";
    let dir = app(&node, "steps", &[("main.py", SERVER), ("Procfile", good)]);
    said(&node, "deploy", &dir, &[]);
    std::fs::write(dir.join("Procfile"), format!("{good}release: echo no table; exit 3\n"))
        .unwrap();
    edit(&dir, "main.py", "b'one'", "b'two'");
    let ran = node.mfserv(&["deploy", dir.to_str().unwrap()]);
    let text = ran.code(1).stderr.clone();
    for word in ["the release step of the app failed", "no table", "deploy again"] {
        assert!(text.contains(word), "{text}");
    }
    assert!(!text.contains("postinstall"), "{text}");
    assert_eq!(node.get("/").text(), "one");
    node.stop();
}
