//! Each template from its files to its answers: made, built, packed, installed,
//! its command really run on a unix socket.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Weak};

use mfserv_core::plan::split_command;
use mfserv_plugin::archive::pack;
use mfserv_plugin::base::{self, BaseEnvironment};
use mfserv_plugin::build::{BuildOptions, build};
use mfserv_plugin::environment::{Placed, environment};
use mfserv_plugin::store::{Installed, install};
use mfserv_plugin::{Cancel, Home, Silent, python};
use tempfile::TempDir;

use crate::wsgi::End;
use crate::wsgi_client::get;
use crate::{Node, options, spec_of, until};

/// One base environment for all tests that run at the same time; it goes with the
/// last of them.
pub struct Base {
    pub environment: BaseEnvironment,
    folder: TempDir,
}

static BASE: Mutex<Weak<Base>> = Mutex::new(Weak::new());

/// Gives a node the shared base environment.
pub fn with_base(node: &Node) -> Arc<Base> {
    let mut shared = BASE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let base = shared.upgrade().unwrap_or_else(|| {
        let folder = tempfile::tempdir().unwrap();
        let python = python::find(None).unwrap();
        let home = Home::new(folder.path());
        let environment =
            base::ensure(&home, &python, None, &Cancel::default(), &mut Silent).unwrap();
        Arc::new(Base { environment, folder })
    });
    *shared = Arc::downgrade(&base);
    fs::create_dir_all(node.home.base().parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(base.folder.path().join("var/base"), node.home.base()).unwrap();
    base
}

/// Builds, packs and installs the plugin in a directory.
pub fn deploy(node: &Node, dir: &Path) -> Installed {
    build(dir, &BuildOptions::new(node.home.clone()), &mut Silent).unwrap();
    let file = pack(dir, &spec_of(dir).general, &node.work(), &mut Silent).unwrap();
    install(&node.home, &file, &options(true), &mut Silent).unwrap().0
}

/// Runs the command of the first app of a plugin directory as a worker would.
pub fn serve(
    node: &Node,
    dir: &Path,
    base: Option<&BaseEnvironment>,
    debug: bool,
) -> (End, PathBuf) {
    let spec = spec_of(dir);
    let app = &spec.apps[0];
    let mut variables =
        environment(&node.home, Placed { dir, spec: &spec }, &[], base, &Default::default())
            .unwrap();
    variables.insert("MFSERV_CURRENT_APP_DEBUG".into(), if debug { "1" } else { "0" }.into());
    let socket = node.work().join("s");
    let debug_options = if debug { app.debug_extra_options.as_str() } else { "" };
    let argv = split_command(
        &app.command.command,
        &[("{debug_extra_options}", debug_options)],
        &[
            ("{timeout}", "10"),
            ("{plugin_name}", &spec.name),
            ("{app_name}", &app.command.name),
            ("{plugin_dir}", dir.to_str().unwrap()),
            ("{unix_socket_path}", socket.to_str().unwrap()),
        ],
    )
    .unwrap();
    let mut places = variables["PATH"].split(':').map(|place| Path::new(place).join(&argv[0]));
    let program = places.find(|file| file.is_file()).unwrap();
    let log = fs::File::create(socket.with_extension("log")).unwrap();
    let mut command = Command::new(program);
    command.args(&argv[1..]).current_dir(dir).env_clear().envs(variables);
    command.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
    (End(command.spawn().unwrap()), socket)
}

fn log(node: &Node) -> String {
    fs::read_to_string(node.work().join("s.log")).unwrap()
}

#[track_caller]
fn ends_well(node: &Node, app: &mut End, signal: &str) {
    app.signal(signal);
    let status = app.ended();
    assert!(status.code() == Some(0), "{status}: {}", log(node));
    assert!(!log(node).contains("Traceback"), "{}", log(node));
}

#[test]
fn the_raw_asgi_template_answers_at_any_path() {
    let node = Node::new();
    let base = with_base(&node);
    let installed = deploy(&node, &node.plugin("python3_raw_asgi", "foo"));
    let (mut app, socket) = serve(&node, &installed.dir, Some(&base.environment), false);
    for path in ["/foo", "/foo/any/path"] {
        let (head, body) = get(&socket, path, "");
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain"), "{head}");
        assert_eq!(body, "Hello, world!");
    }
    ends_well(&node, &mut app, "TERM");
}

#[test]
fn the_fastapi_template_answers_in_json_and_shows_its_documentation() {
    let node = Node::new();
    let base = with_base(&node);
    let installed = deploy(&node, &node.plugin("python3_fastapi", "foo"));
    let (mut app, socket) = serve(&node, &installed.dir, Some(&base.environment), true);
    for path in ["/foo", "/foo/"] {
        let (head, body) = get(&socket, path, "");
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("application/json"), "{head}");
        assert_eq!(body, r#"{"message":"Hello World from foo!"}"#);
    }
    assert!(get(&socket, "/foo/docs", "").1.contains("/foo/openapi.json"));
    assert!(get(&socket, "/foo/other", "").0.starts_with("HTTP/1.1 404"));
    assert!(log(&node).contains("this is an info message"), "{}", log(&node));
    ends_well(&node, &mut app, "TERM");
}

#[test]
fn the_tornado_template_answers_at_any_path() {
    let node = Node::new();
    let base = with_base(&node);
    let installed = deploy(&node, &node.plugin("python3_tornado", "foo"));
    assert_eq!(spec_of(&installed.dir).apps[0].keep_alive, Some(true));
    let (mut app, socket) = serve(&node, &installed.dir, Some(&base.environment), false);
    for path in ["/foo", "/foo/any/path"] {
        let (head, body) = get(&socket, path, "");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(body, "Hello, world");
    }
    ends_well(&node, &mut app, "TERM");
}

#[test]
fn the_aiohttp_template_answers_and_its_middlewares_limit_the_time_and_log_with_the_request() {
    let node = Node::new();
    let base = with_base(&node);
    let installed = deploy(&node, &node.plugin("python3_aiohttp", "foo"));
    let file = installed.dir.join("main/application.py");
    let own = "    if request.path == \"/slow\":\n        import asyncio\n        await asyncio.sleep(1000)\n    if request.path == \"/boom\":\n        raise ValueError(\"eels in the disk\")\n    if request.path == \"/gone\":\n        raise web.HTTPGone()\n";
    let text = fs::read_to_string(&file).unwrap();
    let (before, after) = text.split_once("    # this logger").unwrap();
    fs::write(&file, format!("{before}{own}    # this logger{after}")).unwrap();
    let (mut app, socket) = serve(&node, &installed.dir, Some(&base.environment), false);
    for path in ["/foo", "/foo/any/path"] {
        let (head, body) = get(&socket, path, "X-Request-Id: abc123\r\n");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(body, "Hello World from aiohttp app");
    }
    until("the message is logged with its request", || {
        log(&node)
            .lines()
            .any(|line| line.contains("this is an info message") && line.contains("abc123"))
    });
    assert!(get(&socket, "/slow", "").0.starts_with("HTTP/1.1 504"));
    let (head, body) = get(&socket, "/boom", "X-Request-Id: def456\r\n");
    assert!(head.starts_with("HTTP/1.1 500") && !body.contains("eels"), "{head} {body}");
    until("the exception is logged", || log(&node).contains("eels in the disk"));
    assert!(get(&socket, "/gone", "").0.starts_with("HTTP/1.1 410"));
    app.signal("TERM");
    assert_eq!(app.ended().code(), Some(0), "{}", log(&node));
}

#[test]
fn the_django_template_answers_and_loses_neither_data_nor_code_at_an_installation() {
    let node = Node::new();
    let base = with_base(&node);
    let dir = node.plugin("python3_django", "foo");
    let installed = deploy(&node, &dir);
    let (mut app, socket) = serve(&node, &installed.dir, Some(&base.environment), false);
    let (head, _) = get(&socket, "/foo", "");
    assert!(head.starts_with("HTTP/1.1 301") && head.contains("Location: /foo/"), "{head}");
    for path in ["/foo/", "/foo/main/"] {
        let (head, body) = get(&socket, path, "");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(body, "Hello World from django main app");
    }
    let (head, _) = get(&socket, "/foo/admin/", "");
    assert!(head.contains("/foo/admin/login/"), "{head}");
    assert!(get(&socket, "/foo/admin/login/", "").1.contains("/foo/static/admin/"));
    assert!(installed.dir.join("main/static/admin/css/base.css").is_file());
    assert!(log(&node).matches("this is an info message").count() == 2, "{}", log(&node));
    ends_well(&node, &mut app, "INT");

    // what a user and a developer have done is still there after the next installation
    let data = node.home.plugin_data("foo");
    let key = fs::read_to_string(data.join("secret_key")).unwrap();
    let user = "from django.contrib.auth.models import User; User.objects.create_user('eel')";
    assert_eq!(manage(&node, &installed.dir, &base, &["shell", "-v", "0", "-c", user]), "");
    let view = dir.join("main/views.py");
    let text = fs::read_to_string(&view).unwrap().replace("Hello World from", "Changed by");
    fs::write(&view, text).unwrap();
    let installed = deploy(&node, &dir);
    let (mut app, socket) = serve(&node, &installed.dir, Some(&base.environment), false);
    assert_eq!(get(&socket, "/foo/", "").1, "Changed by django main app");
    ends_well(&node, &mut app, "INT");
    let count = "from django.contrib.auth.models import User; print(User.objects.count())";
    assert_eq!(
        manage(&node, &installed.dir, &base, &["shell", "-v", "0", "-c", count]).trim(),
        "1"
    );
    assert_eq!(fs::read_to_string(data.join("secret_key")).unwrap(), key);
}

/// Runs manage.py in the environment of a plugin; returns its output.
fn manage(node: &Node, dir: &Path, base: &Base, arguments: &[&str]) -> String {
    let spec = spec_of(dir);
    let placed = Placed { dir, spec: &spec };
    let variables =
        environment(&node.home, placed, &[], Some(&base.environment), &Default::default()).unwrap();
    let mut command = Command::new(dir.join("local/bin/python"));
    command.arg("manage.py").args(arguments).current_dir(dir).env_clear().envs(variables);
    let said = command.output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap()
}

#[test]
fn the_templates_without_web_build_and_install_and_have_no_app() {
    let node = Node::new();
    for template in ["python3_noweb", "node_noweb"] {
        let dir = node.plugin(template, template);
        let installed = deploy(&node, &dir);
        let spec = spec_of(&installed.dir);
        assert!(spec.apps.is_empty() && spec.extra_daemons.is_empty());
        assert!(installed.dir.join("bin/README").is_file());
        assert_eq!(installed.dir.join("node_modules").is_dir(), template == "node_noweb");
    }
}

#[test]
fn the_debug_mode_of_the_wsgi_templates_shows_the_debugger_and_its_console() {
    let node = Node::new();
    let base = with_base(&node);
    let dir = node.plugin("python3_raw_wsgi", "foo");
    let app = "def application(environ, start_response):\n    eels = 41\n    raise ValueError('eels in the disk')\n";
    fs::write(dir.join("main/wsgi.py"), app).unwrap();
    let (mut worker, socket) = serve(&node, &dir, Some(&base.environment), true);
    let (head, page) = get(&socket, "/foo", "");
    assert!(head.starts_with("HTTP/1.1 500") && head.contains("text/html"), "{head}");
    assert!(page.contains("eels in the disk") && page.contains("EVALEX = true"), "{page}");
    let between = |before: &str, after: &str| {
        let rest = page.split_once(before).unwrap().1;
        rest.split_once(after).unwrap().0.to_string()
    };
    let secret = between("SECRET = \"", "\"");
    let frame = page.rsplit_once("id=\"frame-").unwrap().1.split_once('"').unwrap().0;
    // the pin of the console is in the log, for who can read it
    let ask = |rest: &str, cookie: &str| {
        get(&socket, &format!("/foo?__debugger__=yes&s={secret}&{rest}"), cookie)
    };
    ask("cmd=printpin", "");
    let mut pin = None;
    until("the pin is logged", || {
        pin = pin_in(&log(&node));
        pin.is_some()
    });
    let pin = pin.unwrap();
    let (head, body) = ask(&format!("cmd=pinauth&pin={pin}"), "");
    assert!(body.contains("\"auth\": true"), "{body}");
    let cookie = head.lines().find_map(|line| line.strip_prefix("Set-Cookie: ")).unwrap();
    let cookie = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
    let (_, said) = ask(&format!("frm={frame}&cmd=eels%2B1"), &cookie);
    assert!(said.contains("42"), "{said}");
    // who does not know the pin gets nothing of it
    let (_, denied) = ask(&format!("frm={frame}&cmd=eels%2B1"), "");
    // The page of the error has numbers of its own.
    assert!(!denied.contains(said.trim()), "{denied}");
    worker.signal("INT");
    assert_eq!(worker.ended().code(), Some(0));
}

fn pin_in(log: &str) -> Option<String> {
    let is_pin = |word: &&str| {
        let mut letters = word.chars();
        word.len() >= 11 && word.contains('-') && letters.all(|c| c.is_ascii_digit() || c == '-')
    };
    let mut lines = log.lines().rev().filter(|line| line.to_lowercase().contains("pin"));
    lines.find_map(|line| line.split_whitespace().find(is_pin)).map(str::to_string)
}

#[test]
fn without_debug_mode_an_exception_shows_nothing_of_itself() {
    let node = Node::new();
    let base = with_base(&node);
    let dir = node.plugin("python3_raw_wsgi", "foo");
    let app =
        "def application(environ, start_response):\n    raise ValueError('eels in the disk')\n";
    fs::write(dir.join("main/wsgi.py"), app).unwrap();
    let (_worker, socket) = serve(&node, &dir, Some(&base.environment), false);
    let (head, body) = get(&socket, "/foo?__debugger__=yes&cmd=printpin", "");
    assert!(head.starts_with("HTTP/1.1 500") && !body.contains("eels"), "{head} {body}");
}
