//! A Flask plugin from template to running app, with the real pip (or uv) and
//! its index; and the worker of WSGI apps on its own.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use mfserv_plugin::archive::pack;
use mfserv_plugin::base::{self, BaseEnvironment};
use mfserv_plugin::build::{BuildOptions, build};
use mfserv_plugin::environment::{Placed, environment};
use mfserv_plugin::store::{self, install};
use mfserv_plugin::{Cancel, Home, Silent, python};

use crate::prefix::wsgi_apps_are_told_what_was_stripped;
use crate::templates::with_base;
use crate::wsgi_client::{answer, connect, get, until_it_listens};
use crate::wsgi_faults::apps_and_clients_that_misbehave_harm_nobody_else;
use crate::wsgi_limits::what_runs_out_harms_nobody_else;
use crate::wsgi_protocol::the_protocol_is_kept;
use crate::wsgi_stop::a_worker_ends_as_it_should;
use crate::{Node, Reported, options, spec_of, tree, until};

/// A child that does not outlive its test.
pub struct End(pub Child);

impl End {
    pub fn signal(&mut self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// How it has ended, once it has.
    pub fn ended(&mut self) -> ExitStatus {
        until("the worker has ended", || self.0.try_wait().unwrap().is_some());
        self.0.wait().unwrap()
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The servers behind `bjoern_wrapper.py`, each of which keeps all its promises.
pub const SERVERS: [&str; 2] = ["waitress", "mfserv"];
/// The second of them, with several threads.
pub const THREADS: &str = "threads";

/// The time limit of workers whose requests are to be in time, however busy the machine is.
pub const PATIENT: &str = "--timeout=60";
/// The time limit of workers whose requests are to be late: other requests of theirs are short.
pub const HASTY: &str = "--timeout=2";

/// Starts `bjoern_wrapper.py` with a server in the environment of a plugin.
pub fn worker(
    home: &Home,
    (base, server): (&BaseEnvironment, &str),
    dir: &Path,
    arguments: &[&str],
    socket: &Path,
) -> End {
    let spec = spec_of(dir);
    let variables =
        environment(home, Placed { dir, spec: &spec }, &[], Some(base), &Default::default())
            .unwrap();
    let mut command = Command::new(base.bin().join("bjoern_wrapper.py"));
    command.args(arguments).arg(socket).current_dir(dir).env_clear().envs(variables);
    match server {
        THREADS => command.env("MFSERV_PYTHON_THREADS", "4"),
        server => command.env("MFSERV_PYTHON_SERVER", server),
    };
    let log = fs::File::create(socket.with_extension("log")).unwrap();
    End(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
}

/// One test, as the base environment takes a while to make.
#[test]
fn a_flask_plugin_goes_from_template_to_running_app() {
    let node = Node::new();
    let interpreter = python::find(None).unwrap();
    let shared = with_base(&node);
    let base = shared.environment.clone();
    assert_eq!(base::find(&node.home, &interpreter.short_version).unwrap(), base);
    let mut reported = Reported::default();
    base::ensure(&node.home, &interpreter, None, &Cancel::default(), &mut reported).unwrap();
    assert!(reported.0.is_empty(), "made once: {:?}", reported.0);

    let dir = node.plugin("python3_flask", "sample");
    let build_options = BuildOptions::new(node.home.clone());
    let report = build(&dir, &build_options, &mut Reported::default()).unwrap().python.unwrap();
    assert!(!report.unchanged && report.packages >= 6, "{report:?}");
    let site = dir.join(format!("local/lib/python{}/site-packages", interpreter.short_version));
    assert!(site.join("flask/__init__.py").is_file());
    assert!(fs::read_dir(site.join("flask/__pycache__")).unwrap().count() > 5, "compiled");
    let program = fs::read_to_string(dir.join("local/bin/flask")).unwrap();
    assert!(
        program.starts_with(&format!("#!{}\n", dir.join("local/bin/python").display())),
        "{program}"
    );
    assert!(build(&dir, &build_options, &mut Silent).unwrap().python.unwrap().unchanged);
    assert!(!tree(&dir).iter().any(|path| path.contains(".stage.")), "nothing is left");

    let file = pack(&dir, &spec_of(&dir).general, &node.work(), &mut Silent).unwrap();
    install_without_a_network(&node.home, &file);
    let installed = store::current(&node.home, "sample").unwrap();
    assert!(base::is_wanted(&installed.dir, &spec_of(&installed.dir)));
    for server in SERVERS {
        the_installed_app_answers(&node, (&base, server), &installed.dir);
    }

    the_plugins_own_packages_win(&node, &base, &installed.dir);
    // They wait for time limits, most of the time: beside each other.
    let (node, base) = (&node, &base);
    std::thread::scope(|scope| {
        for server in SERVERS {
            scope.spawn(move || the_worker_keeps_its_promises(node, (base, server)));
            scope.spawn(move || the_protocol_is_kept(node, (base, server)));
            scope.spawn(move || a_worker_ends_as_it_should(node, (base, server)));
            scope.spawn(move || wsgi_apps_are_told_what_was_stripped(node, (base, server)));
        }
        scope.spawn(|| a_server_that_does_not_load_is_replaced(node, base));
        for server in ["mfserv", THREADS] {
            scope.spawn(move || {
                apps_and_clients_that_misbehave_harm_nobody_else(node, (base, server));
            });
            scope.spawn(move || what_runs_out_harms_nobody_else(node, (base, server)));
        }
        scope.spawn(|| a_worker_ends_as_it_should(node, (base, THREADS)));
    });
}

fn the_installed_app_answers(node: &Node, base: (&BaseEnvironment, &str), dir: &Path) {
    let socket = node.work().join("s");
    let mut app = worker(&node.home, base, dir, &["--timeout=60", "main.wsgi:app"], &socket);
    let (head, body) = get(&socket, "/sample/", "");
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("text/html"), "{head}");
    assert_eq!(body, "Hello World !");
    assert!(get(&socket, "/sample", "").0.starts_with("HTTP/1.1 308"));
    app.signal("INT");
    assert_eq!(app.ended().code(), Some(0));
    assert!(!socket.exists());
}

const HOME: &str = "MFSERV_TEST_HOME";
const FILE: &str = "MFSERV_TEST_FILE";

/// Installs in a process of its own, in a network namespace with nothing in it
/// where the system lets us make one.
fn install_without_a_network(home: &Home, file: &Path) {
    let unshare = ["unshare", "--map-root-user", "--net"];
    let can =
        Command::new(unshare[0]).args(&unshare[1..]).arg("true").stderr(Stdio::null()).status();
    let mut command = match can.is_ok_and(|status| status.success()) {
        true => {
            let mut command = Command::new(unshare[0]);
            command.args(&unshare[1..]).arg(std::env::current_exe().unwrap());
            command
        }
        false => Command::new(std::env::current_exe().unwrap()),
    };
    command.args(["--exact", "--ignored", "wsgi::installs_what_another_test_names"]);
    let said = command.env(HOME, home.root()).env(FILE, file).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
}

#[test]
#[ignore = "it is a part of another test, run without a network"]
fn installs_what_another_test_names() {
    let (Some(home), Some(file)) = (std::env::var_os(HOME), std::env::var_os(FILE)) else { return };
    install(&Home::new(home), Path::new(&file), &options(false), &mut Silent).unwrap();
}

/// A module of the plugin and a package of its environment hide those of the base.
fn the_plugins_own_packages_win(node: &Node, base: &BaseEnvironment, dir: &Path) {
    let version = &base.interpreter.short_version;
    let own = dir.join(format!("local/lib/python{version}/site-packages/requests"));
    fs::create_dir(&own).unwrap();
    fs::write(own.join("__init__.py"), "").unwrap();
    let spec = spec_of(dir);
    let variables =
        environment(&node.home, Placed { dir, spec: &spec }, &[], Some(base), &Default::default())
            .unwrap();
    for program in ["python", base.bin().join("python").to_str().unwrap()] {
        let script = "import requests, flask, werkzeug, mflog, mfutil, tornado, uvicorn, mfext.mflog_addon, aiohttp_metwork_middlewares; print(requests.__file__, flask.__file__, mflog.__file__)";
        let mut command = Command::new("/usr/bin/env");
        let said =
            command.args([program, "-c", script]).env_clear().envs(&variables).output().unwrap();
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        let files: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(files.len(), 3, "{}", String::from_utf8_lossy(&said.stderr));
        assert!(files[0].starts_with(dir.to_str().unwrap()), "{text}");
        assert!(files[1].starts_with(dir.to_str().unwrap()), "{text}");
        assert!(files[2].starts_with(base.dir.to_str().unwrap()), "{text}");
    }
}

const APP: &str = r#"
import os, subprocess, time

import mfserv_wsgi

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/slow":
        time.sleep(1000)
    if path == "/deaf":
        while True:
            try:
                time.sleep(1000)
            except BaseException:
                pass
    if path == "/nap":
        open("napping", "w").close()
        while not os.path.exists("wake"):
            time.sleep(0.02)
    if path == "/boom":
        raise ValueError("eels in the disk")
    if path == "/child":
        body = subprocess.check_output(["printenv", "MFSERV_CURRENT_REQUEST_ID"])
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    if path == "/memory":
        def resident():
            return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        before = resident()
        for number in range(200000):
            mfserv_wsgi.put_variable("MFSERV_CURRENT_REQUEST_ID", "%032d" % number)
        body = b"%d" % (resident() - before)
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    if path == "/pieces":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (piece for piece in [b"a", b"b", b"c"])
    body = os.environ["MFSERV_CURRENT_REQUEST_ID"].encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"#;

/// The extension module is missing as it is on a system that it can not be built for.
fn a_server_that_does_not_load_is_replaced(node: &Node, base: &BaseEnvironment) {
    let dir = node.plugin("python3_raw_wsgi", "fallback");
    fs::write(dir.join("_mfserv_worker.py"), "raise ImportError('no such module')").unwrap();
    let socket = node.work().join("f");
    let arguments = ["main.wsgi:application"];
    let mut app = worker(&node.home, (base, "mfserv"), &dir, &arguments, &socket);
    let (head, _) = get(&socket, "/", "");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("Date: "), "of waitress: {head}");
    app.signal("TERM");
    assert_eq!(app.ended().code(), Some(0));
    let log = fs::read_to_string(socket.with_extension("log")).unwrap();
    assert!(log.contains("waitress serves instead: no such module"), "{log}");
    assert!(!log.contains("Traceback"), "one line: {log}");
}

fn the_id_of_a_request_is_in_the_environment(socket: &Path) {
    let long = "l".repeat(2000);
    for id in ["first", "a-longer-one", "x", &long, "after"] {
        for path in ["/", "/child"] {
            let (_, body) = get(socket, path, &format!("X-Request-Id: {id}\r\n"));
            assert_eq!(body.trim_end(), id, "{path}");
        }
    }
    // Each value was kept for ever: 15 MB of so many.
    let grown: i64 = get(socket, "/memory", "").1.parse().unwrap();
    assert!(grown < 4_000_000, "{grown} bytes");
}

fn the_worker_keeps_its_promises(node: &Node, base: (&BaseEnvironment, &str)) {
    let dir = node.plugin("python3_raw_wsgi", &format!("raw_{}", base.1));
    fs::write(dir.join("main/wsgi.py"), APP).unwrap();
    let socket = node.work().join(format!("w{}", &base.1[..1]));
    let start =
        |limit: &str| worker(&node.home, base, &dir, &[limit, "main.wsgi:application"], &socket);
    let mut app = start(PATIENT);
    assert_eq!(get(&socket, "/", "X-Request-Id: abc\r\n").1, "abc");
    the_id_of_a_request_is_in_the_environment(&socket);
    let (head, body) = get(&socket, "/boom", "");
    assert!(head.starts_with("HTTP/1.1 500") && head.contains("text/plain"), "{head}");
    assert_eq!(body, "HTTP/500 Internal Server Error");
    // The connection is closed once the error is logged.
    let log = fs::read_to_string(socket.with_extension("log")).unwrap();
    assert!(log.contains("ValueError: eels in the disk"), "{log}");
    assert!(get(&socket, "/pieces", "").1.contains('c'));
    an_idle_connection_blocks_nobody(&socket);

    // a successor has taken the path: its socket stays
    fs::remove_file(&socket).unwrap();
    let mut successor = start(HASTY);
    until_it_listens(&socket);
    app.signal("TERM");
    assert_eq!(app.ended().code(), Some(0));
    assert_eq!(get(&socket, "/", "X-Request-Id: new\r\n").1, "new");

    assert!(get(&socket, "/slow", "").0.starts_with("HTTP/1.1 504 Gateway Time-out"));
    assert_eq!(get(&socket, "/", "X-Request-Id: after\r\n").1, "after");
    // a request that swallows the soft timeout ends the process
    let mut stream = connect(&socket);
    stream.write_all(b"GET /deaf HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(successor.ended().signal(), Some(9));

    // its socket is dead: the next one takes its place
    let mut next = start(PATIENT);
    assert_eq!(get(&socket, "/", "X-Request-Id: again\r\n").1, "again");
    next.signal("TERM");
    assert_eq!(next.ended().code(), Some(0));

    who_had_connected_is_served_before_the_end(&dir, &mut start(PATIENT), &socket);

    let mut broken = worker(&node.home, base, &dir, &["main.nope:application"], &socket);
    assert_eq!(broken.ended().code(), Some(1));
}

fn an_idle_connection_blocks_nobody(socket: &Path) {
    let mut idle = connect(socket);
    for _ in 0..2 {
        idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert!(answer(&mut idle).starts_with("HTTP/1.1 200"));
        // while this one stays open, others are served
        assert!(get(socket, "/", "").0.starts_with("HTTP/1.1 200"));
    }
}

fn who_had_connected_is_served_before_the_end(dir: &Path, app: &mut End, socket: &Path) {
    until_it_listens(socket);
    let send = |path: &str| {
        let mut stream = connect(socket);
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        stream
    };
    let mut streams = vec![send("/nap")];
    until("the app naps", || dir.join("napping").exists());
    streams.extend((0..20).map(|_| send("/")));
    app.signal("TERM");
    fs::write(dir.join("wake"), "").unwrap();
    for mut stream in streams {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(app.ended().code(), Some(0));
    assert!(!socket.exists());
}
