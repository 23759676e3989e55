//! An existing app is served as it is: in development, deployed, updated under load, rolled back.
//! The apps are those of `examples/`.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use mfserv_testkit::websocket::{TEXT, frame, next, read_head, request};
use mfserv_testkit::{Client, Load, Method, Node, skipped, until};

use crate::{PATIENCE, Turn, node};

/// A copy of an example.
pub fn example(node: &Node, name: &str) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    let to = node.path("apps").join(name);
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    let copied = Command::new("cp").arg("-r").arg(from).arg(&to).status().unwrap();
    assert!(copied.success());
    to
}

/// The files of a directory, without what the app's own tools make.
pub fn files(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let of_tools = ["node_modules", "dist", ".next", "package-lock.json", "db.sqlite3"];
            if of_tools.contains(&name.as_str()) {
                continue;
            }
            found.insert(entry.path());
            if entry.path().is_dir() {
                todo.push(entry.path());
            }
        }
    }
    found
}

fn command(node: &Node, command: &str, dir: &Path, more: &[&str]) -> String {
    let mut args = vec![command, dir.to_str().unwrap()];
    args.extend(more);
    let ran = node.mfserv(&args).code(0);
    format!("{}{}", ran.stdout, ran.stderr)
}

pub fn edit(dir: &Path, file: &str, from: &str, to: &str) {
    let text = std::fs::read_to_string(dir.join(file)).unwrap();
    assert!(text.contains(from), "{file}");
    std::fs::write(dir.join(file), text.replace(from, to)).unwrap();
}

/// A WebSocket at this path of this host. Anything but that fails the test.
fn websocket(node: &Node, host: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(node.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let origin = format!("Origin: http://{host}\r\n");
    stream.write_all(request(host, path, &origin).as_bytes()).unwrap();
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
}

/// What a WebSocket of the examples says to `hello`.
fn echo(node: &Node, path: &str) -> String {
    let mut stream = websocket(node, "h", path);
    stream.write_all(&frame(TEXT, b"hello")).unwrap();
    String::from_utf8(next(&mut stream).1).unwrap()
}

/// The whole life of an app: `path` answers with `one`, which is in `file`.
fn lives(node: &Node, name: &str, says: &str, (path, file): (&str, &str)) -> PathBuf {
    let dir = example(node, name);
    let is = |what: &str| node.get(path).text().contains(what);
    lives_at(node, &dir, says, path, is, || edit(&dir, file, "one", "two"));
    dir
}

/// The same of an app in `dir`: `is` says whether it is of this version, `update` makes two of one.
fn lives_at(
    node: &Node,
    dir: &Path,
    says: &str,
    path: &str,
    is: impl Fn(&str) -> bool,
    update: impl Fn(),
) {
    let name = dir.file_name().unwrap().to_str().unwrap();
    let before = files(dir);
    let said = command(node, "dev", dir, &["--detach"]);
    assert!(said.contains(says), "{said}");
    // It was said to be served: it is, at once.
    assert!(is("one"), "{said}");
    assert_eq!(files(dir), before, "nothing is written into the app's directory");

    // The first release takes the place of what runs from the directory.
    let load = Load::new(node.address(), path).connections(4).start();
    command(node, "deploy", dir, &[]);
    update();
    let said = command(node, "deploy", dir, &[]);
    assert!(said.contains("is installed") && is("two"), "{said}");
    node.mfserv(&["rollback", name]).code(0);
    assert!(is("one"));
    load.answers(20);
    load.stop().assert_nothing_failed();
    assert_eq!(files(dir), before);
}

#[test]
fn a_flask_app_is_served_unchanged_deployed_updated_and_rolled_back_without_a_lost_request() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let says = "app.py:5 has app = Flask(__name__); requirements.txt:1 names Flask";
    let dir = lives(&node, "flask", says, ("/version", "app.py"));
    assert!(node.get("/").text().contains("/static/style.css"));
    assert_eq!(node.get("/static/style.css").status, 200);
    // A second app finds / taken, and is told so.
    let other = dir.with_file_name("second app");
    std::fs::rename(&dir, &other).unwrap();
    let said = command(&node, "dev", &other, &["--detach"]);
    assert!(said.contains("second-app is not served at /") && said.contains("flask is"), "{said}");
    node.stop();
}

#[test]
fn a_fastapi_app_with_pyproject_toml_is_served_unchanged_and_deployed() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    lives(&node, "fastapi", "main.py:6 has app = FastAPI", ("/version", "main.py"));
    let items = br#"[{"name": "a", "price": 1.5}, {"name": "b", "price": 2}]"#;
    let mut client = Client::new(node.address());
    let fields = [("Content-Type", "application/json")];
    let answer = client.ask(Method::Post, "/total", &fields, items).unwrap();
    assert_eq!(answer.text(), "{\"total\":3.5}");
    assert_eq!(echo(&node, "/echo"), "heard hello");
    assert_eq!(echo(&node, "/fastapi/echo"), "heard hello");
    node.stop();
}

#[test]
fn a_django_project_keeps_its_data_over_releases_and_leaves_the_developers_data_at_home() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = lives(
        &node,
        "django",
        "manage.py:6 names bookshelf.settings",
        ("/version", "bookshelf/urls.py"),
    );
    assert!(node.get("/admin/login/").text().contains("Django administration"));
    assert_eq!(node.get("/static/admin/css/base.css").status, 200);
    let add = |title: &str| {
        let mut client = Client::new(node.address());
        let fields = [("Content-Type", "application/x-www-form-urlencoded")];
        client.ask(Method::Post, "/books", &fields, format!("title={title}").as_bytes()).unwrap()
    };
    assert_eq!(add("Faust").text(), "{\"books\": [\"Faust\"]}");
    command(&node, "deploy", &dir, &[]);
    assert_eq!(node.get("/books").text(), "{\"books\": [\"Faust\"]}");
    assert!(node.path("var/data/django/main/db.sqlite3").is_file());
    node.stop();
}

#[test]
fn an_express_app_with_a_build_step_is_served_unchanged_and_deployed() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = lives(
        &node,
        "express",
        "package.json:7 has start: node dist/server.js",
        ("/version", "src/server.ts"),
    );
    assert!(node.get("/").text().contains("An Express app"));
    let modules = node.path("var/releases/express/2/main/node_modules");
    assert!(modules.join("express").is_dir() && !modules.join("typescript").exists());
    // What is deployed is built from the sources of now.
    edit(&dir, "src/text.ts", "An Express app", "Another text");
    command(&node, "deploy", &dir, &[]);
    assert!(node.get("/").text().contains("Another text"));
    node.stop();
}

/// An example with the packages that it needs, which take their time: no session waits for them.
pub fn example_with_packages(node: &Node, name: &str) -> PathBuf {
    let dir = example(node, name);
    command(node, "dev", &dir, &["--detach"]);
    node.mfserv(&["uninstall", name]).code(0);
    assert!(dir.join("node_modules").is_dir());
    dir
}

/// The script of the page at `/`, whose name the build has made.
pub fn built_script(node: &Node) -> String {
    let page = node.get("/").text();
    let path = page.split("src=\"").nth(1).and_then(|rest| rest.split('"').next());
    let path = path.unwrap_or_else(|| panic!("no script: {page}"));
    // Between the two another one may have taken its place.
    node.get(path).text()
}

#[test]
fn a_single_page_app_is_built_and_its_routes_are_answered_with_its_page() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = example(&node, "spa");
    let is = |what: &str| built_script(&node).contains(what);
    let update = || edit(&dir, "src/routes.js", "one", "two");
    lives_at(&node, &dir, "a site that Vite builds", "/", is, update);
    for path in ["/", "/about/us", "/spa/about/us", "/about/"] {
        let answer = node.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.text().contains("<div id=\"page\">"), "{path}");
    }
    assert_eq!(node.get("/missing.js").status, 404);
    let packed = node.path("var/releases/spa/1/main");
    let names: Vec<_> =
        std::fs::read_dir(packed).unwrap().flatten().map(|one| one.file_name()).collect();
    assert_eq!(names, ["dist"], "only what is served is packed");
    node.stop();
}

#[test]
fn the_programs_of_a_procfile_run_each_in_its_way() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    lives(&node, "procfile", "Procfile:1 has web: gunicorn web:app", ("/version", "web.py"));
    until("the worker runs", PATIENCE, || {
        node.log_lines("extra_procfile_worker").iter().any(|line| line.contains("the worker runs"))
    });
    let jobs = node.mfserv(&["jobs"]).code(0).stdout;
    assert!(jobs.contains("cron_night"), "{jobs}");
    node.stop();
}

/// A program that takes nothing but a number, as those of Go, Rust and Java do.
const BY_NUMBER: &str = "\
#!/usr/bin/env python3
import http.server, sys

class Exchange(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'one')
    def log_message(self, *args):
        pass

assert sys.argv[1] == '--port'
http.server.ThreadingHTTPServer.request_queue_size = 128
http.server.ThreadingHTTPServer(('', int(sys.argv[2])), Exchange).serve_forever()
";

const NODE_BY_NUMBER: &str = "\
require('http').createServer((request, answer) => answer.end('one')).listen(Number(process.env.PORT));
";

#[test]
fn apps_that_insist_on_the_number_of_a_port_are_served_unchanged() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let program = ("server", BY_NUMBER, "Procfile", "web: ./server --port $PORT\n");
    let package = "{\"scripts\": {\"start\": \"PATH=$PATH node web.js\"}}";
    let script = ("web.js", NODE_BY_NUMBER, "package.json", package);
    for (name, (file, text, list, line)) in [("program", program), ("script", script)] {
        let dir = node.path("apps").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(file), text).unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.join(file), executable).unwrap();
        std::fs::write(dir.join(list), line).unwrap();
        let path = format!("/{name}");
        command(&node, "dev", &dir, &["--detach", "--name", name]);
        assert_eq!(node.get(&path).text(), "one");
        let load = Load::new(node.address(), &path).connections(4).start();
        command(&node, "deploy", &dir, &["--name", name]);
        edit(&dir, file, "'one'", "'two'");
        command(&node, "deploy", &dir, &["--name", name]);
        assert_eq!(node.get(&path).text(), "two");
        load.answers(20);
        load.stop().assert_nothing_failed();
    }
    node.stop();
}

#[test]
fn a_directory_with_two_readings_is_refused_with_the_choices_unless_one_is_named() {
    let node = node();
    let dir = node.path("apps/two");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("app.py"), "app = Flask(__name__)\n").unwrap();
    std::fs::write(dir.join("main.py"), "app = FastAPI()\n").unwrap();
    for command in ["dev", "deploy", "init"] {
        let ran = node.mfserv(&[command, dir.to_str().unwrap()]).code(2);
        assert!(ran.stderr.contains("--as app:app or --as main:app"), "{ran:?}");
    }
    node.mfserv(&["init", dir.to_str().unwrap(), "--as", "main:app"]).code(0);
    let config = std::fs::read_to_string(dir.join("config.ini")).unwrap();
    assert!(config.contains("mfserv_worker --timeout={timeout} --asgi main:app"), "{config}");
    let ran = node.mfserv(&["dev", dir.to_str().unwrap(), "--as", "app:app"]).code(2);
    assert!(ran.stderr.contains("is a plugin"), "{ran:?}");
}

#[test]
fn secrets_stay_at_home_unless_they_are_named() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = node.path("apps/site");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("index.html"), "<p>one").unwrap();
    std::fs::write(dir.join(".env"), "PASSWORD=x\n").unwrap();
    let said = command(&node, "deploy", &dir, &[]);
    assert!(said.contains("not deployed: .env"), "{said}");
    assert!(!node.path("var/releases/site/1/main/.env").exists());
    let said = command(&node, "deploy", &dir, &["--pack", ".env"]);
    assert!(!said.contains("not deployed"), "{said}");
    assert!(node.path("var/releases/site/2/main/.env").exists());
    let ran = node.mfserv(&["dev", node.path("nowhere").to_str().unwrap()]);
    assert!(ran.code != 0 && ran.stderr.contains("name the directory of an app"), "{ran:?}");
    let empty = node.path("apps/empty");
    std::fs::create_dir_all(&empty).unwrap();
    let ran = node.mfserv(&["deploy", empty.to_str().unwrap()]);
    assert!(ran.code != 0 && ran.stderr.contains("a Procfile"), "{ran:?}");
}

#[test]
fn six_more_kinds_of_apps_are_served_unchanged_deployed_updated_and_rolled_back() {
    if std::env::var_os("MFSERV_LONG").is_none() {
        skipped(
            "apps of Starlette, Litestar, aiohttp, Rust, Streamlit and Next.js, whose packages are \
             large: MFSERV_LONG=1 serves them",
        );
        return;
    }
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let says = "src/bookmarks/app.py:17 has app = Starlette";
    lives(&node, "starlette", says, ("/version", "src/bookmarks/text.py"));
    let says = "app.py:16 has app = Litestar";
    lives(&node, "litestar", says, ("/litestar/version", "app.py"));
    lives(&node, "aiohttp", "Procfile:1 has web: python main.py", ("/aiohttp/version", "main.py"));
    assert_eq!(echo(&node, "/aiohttp/echo"), "heard hello");
    let says = "package.json:8 has start: node .next/standalone/server.js";
    lives(&node, "next", says, ("/next/version", "app/version/route.js"));

    let dir = example(&node, "binary");
    let make = || {
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition=2021", "-O", "server.rs"]).current_dir(&dir);
        assert!(rustc.status().unwrap().success());
    };
    make();
    let is = |what: &str| node.get("/binary/version").text().contains(what);
    let update = || {
        edit(&dir, "server.rs", "\"one", "\"two");
        make();
    };
    lives_at(&node, &dir, "server", "/binary/version", is, update);

    // Its text goes over its WebSocket, as messages of its own format: that is not read here.
    let dir = example(&node, "streamlit");
    let health = "/streamlit/_stcore/health";
    let serves = |_: &str| {
        drop(websocket(&node, "streamlit.localhost", "/_stcore/stream"));
        node.get(health).text() == "ok"
    };
    let update = || edit(&dir, "app.py", "one", "two");
    lives_at(&node, &dir, "Procfile:1 has web: streamlit run", health, serves, update);
    node.stop();
}
