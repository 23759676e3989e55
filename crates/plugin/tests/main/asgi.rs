//! The server of mfserv with ASGI apps: what it promises.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mfserv_plugin::base::BaseEnvironment;
use mfserv_plugin::environment::{Placed, environment};

use crate::asgi_faults::asgi_apps_and_clients_that_misbehave_harm_nobody_else;
use crate::asgi_lifespan::lifespans_that_fail_are_told_once;
use crate::asgi_limits::what_runs_out_harms_no_other_request;
use crate::asgi_loop::no_request_keeps_the_event_loop_for_itself;
use crate::asgi_websocket::websockets_are_served_as_they_are_promised;
use crate::prefix::asgi_apps_are_told_what_was_stripped;
use crate::templates::with_base;
use crate::wsgi::End;
use crate::wsgi_client::{connect, get, raw_text as raw, told_to_go_on};
use crate::{Node, spec_of, until};

/// Each path of this app is one thing that apps do.
const APP: &str = r#"
import asyncio, contextvars, json, os, sys, time
from mfserv_worker import request_id

mine = contextvars.ContextVar("mine", default="nothing")
tasks = set()

async def answer(send, body, *headers):
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
    await send({"type": "http.response.body", "body": str(body).encode()})

async def body_of(receive):
    body, pieces = b"", 0
    while True:
        message = await receive()
        body, pieces = body + message["body"], pieces + 1
        if not message["more_body"]:
            return body, pieces

async def lifespan(scope, receive, send):
    assert (await receive())["type"] == "lifespan.startup"
    scope["state"]["made"] = "at the start"
    await asyncio.sleep(0)
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    with open("shut-down", "w") as file:
        file.write(str(len(tasks)))
    await send({"type": "lifespan.shutdown.complete"})

def shown(value):
    if isinstance(value, bytes):
        return "b:" + value.decode("latin-1")
    if isinstance(value, (list, tuple)):
        return [shown(item) for item in value]
    return value

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return await lifespan(scope, receive, send)
    path = scope["path"]
    if path.startswith("/scope"):
        scope["state"]["of this request"] = 1
        return await answer(send, json.dumps({key: shown(value) for key, value in scope.items()}))
    if path == "/task":
        task = asyncio.current_task()
        await asyncio.wait_for(asyncio.sleep(0.05), 10)
        assert asyncio.current_task() is task and task in asyncio.all_tasks()
        is_new = task not in tasks
        tasks.add(task)
        return await answer(send, is_new)
    if path == "/context":
        before, _ = mine.get(), mine.set("of an earlier request")
        await asyncio.sleep(0)
        return await answer(send, f"{before} {request_id.get()}")
    if path == "/nap":
        await asyncio.sleep(float(scope["query_string"]))
        return await answer(send, "rested")
    if path == "/background":
        await answer(send, "early")
        await asyncio.sleep(1)
        return open("afterwards", "w").close()
    if path == "/body":
        return await answer(send, await body_of(receive))
    if path == "/as-tasks":
        message = await asyncio.create_task(receive())
        await asyncio.gather(asyncio.create_task(answer(send, message["body"])))
        return await asyncio.ensure_future(receive())
    if path == "/pathsend":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        return await send({"type": "http.response.pathsend", "path": os.path.abspath(scope["query_string"].decode())})
    if path == "/zerocopysend":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with open("digits", "rb") as file:
            file.read(2)
            await send({"type": "http.response.zerocopysend", "file": file, "count": 3, "more_body": True})
            return await send({"type": "http.response.zerocopysend", "file": file, "offset": 7})
    if path == "/hint":
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
    await answer(send, os.getpid(), (b"X-Own", b"1"), (b"Connection", b"keep-alive"))

def plain(scope, receive, send):
    mine.set("set by a function that is no coroutine")
    return app(scope, receive, send)

async def without_lifespan(scope, receive, send):
    assert scope["type"] == "http"
    await app(scope, receive, send)

async def refuses(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
"#;

/// Starts `mfserv_worker` in the environment of a plugin.
pub fn worker(
    node: &Node,
    base: &BaseEnvironment,
    dir: &Path,
    arguments: &[&str],
    socket: &Path,
) -> End {
    let mut command = in_environment(node, base, dir, "mfserv_worker");
    command.args(arguments).arg(socket);
    let log = fs::File::create(socket.with_extension("log")).unwrap();
    End(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
}

/// A program of the base environment, in the environment of a plugin.
pub fn in_environment(node: &Node, base: &BaseEnvironment, dir: &Path, program: &str) -> Command {
    let spec = spec_of(dir);
    let placed = Placed { dir, spec: &spec };
    let variables = environment(&node.home, placed, &[], Some(base), &Default::default()).unwrap();
    let mut command = Command::new(base.bin().join(program));
    command.current_dir(dir).env_clear().envs(variables);
    command
}

pub fn log(socket: &Path) -> String {
    fs::read_to_string(socket.with_extension("log")).unwrap()
}

#[test]
fn asgi_apps_are_served_as_they_are_promised() {
    let node = Node::new();
    let shared = with_base(&node);
    let base = &shared.environment;
    let (_fallback, mut idle, since) = uvicorn_serves_where_the_module_does_not_load(&node, base);
    asgi_is_served_as_it_is_promised(&node, base);
    asgi_apps_are_told_what_was_stripped(&node, base, "mfserv");
    asgi_apps_are_told_what_was_stripped(&node, base, "uvicorn");

    // uvicorn alone would have closed it after 5 s.
    assert!(since.elapsed() > Duration::from_secs(6), "the rest of the test takes longer");
    idle.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    idle.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
}

/// All but uvicorn, which a base environment need not have.
pub fn asgi_is_served_as_it_is_promised(node: &Node, base: &BaseEnvironment) {
    let dir = node.plugin("python3_raw_asgi", "own");
    fs::write(dir.join("main/application.py"), APP).unwrap();
    fs::write(dir.join("digits"), "0123456789").unwrap();
    let socket = node.work().join("a");
    // what it is needs no option
    let mut app = worker(node, base, &dir, &["main.application:app"], &socket);
    get(&socket, "/", "");
    the_scope_is_that_of_the_request(&socket);
    each_request_is_a_task_of_its_own(&socket);
    bodies_are_received_in_pieces(&socket);
    files_and_hints_are_sent(&socket);
    requests_of_a_connection_are_answered_in_turn(&dir, &socket);
    app.signal("TERM");
    assert_eq!(app.ended().code(), Some(0), "{}", log(&socket));
    assert!(dir.join("shut-down").exists(), "{}", log(&socket));
    assert_eq!(log(&socket), "");

    the_lifespan_is_as_the_command_says(node, base, &dir);
    a_stop_loses_no_request(node, base, &dir);
    asgi_apps_and_clients_that_misbehave_harm_nobody_else(node, base);
    what_runs_out_harms_no_other_request(node, base);
    websockets_are_served_as_they_are_promised(node, base);
    no_request_keeps_the_event_loop_for_itself(node, base);
    lifespans_that_fail_are_told_once(node, base);
}

fn the_scope_is_that_of_the_request(socket: &Path) {
    let ask = |target: &str, headers: &str| -> serde_json::Value {
        serde_json::from_str(&get(socket, target, headers).1).unwrap()
    };
    let seen = ask(
        "/scope/a%2Fb%C3%A9?q=%20",
        "X-Real-IP: 2001:db8::1\r\nX-Real-Port: 4711\r\nX-Forwarded-Proto: https\r\n\
         X-Forwarded-Host: www.example.org:8443\r\nX-Multi: a\r\nX-MULTI: b\r\nX_Under: c\r\n",
    );
    for (key, value) in [
        ("type", serde_json::json!("http")),
        ("http_version", "1.1".into()),
        ("method", "GET".into()),
        ("scheme", "https".into()),
        ("path", "/scope/a/bé".into()),
        ("raw_path", "b:/scope/a%2Fb%C3%A9".into()),
        ("query_string", "b:q=%20".into()),
        ("root_path", "".into()),
        ("client", serde_json::json!(["2001:db8::1", 4711])),
        ("server", serde_json::json!(["www.example.org", 8443])),
        ("state", serde_json::json!({"made": "at the start", "of this request": 1})),
    ] {
        assert_eq!(seen[key], value, "{key} of {seen}");
    }
    let headers = seen["headers"].to_string();
    assert!(headers.contains(r#"["b:x-multi","b:a"],["b:x-multi","b:b"]"#), "{headers}");
    assert!(!headers.contains("under"), "not to be told apart by some: {headers}");
    let seen = ask("/scope", "");
    assert!(seen["client"].is_null() && seen["scheme"] == "http", "of this request: {seen}");
    assert_eq!(seen["server"], serde_json::json!(["localhost", 80]));
}

fn each_request_is_a_task_of_its_own(socket: &Path) {
    let mut streams: Vec<_> = (0..50).map(|_| connect(socket)).collect();
    let began = Instant::now();
    for stream in &mut streams {
        stream.write_all(b"GET /nap?1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    }
    for mut stream in streams {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("rested"), "{text}");
    }
    assert!(began.elapsed() < Duration::from_secs(25), "side by side: {:?}", began.elapsed());
    for _ in 0..3 {
        assert_eq!(get(socket, "/task", "").1, "True");
    }
    assert_eq!(get(socket, "/context", "X-Request-Id: one\r\n").1, "nothing one");
    assert_eq!(get(socket, "/context", "").1, "nothing ", "of this request alone");
}

fn bodies_are_received_in_pieces(socket: &Path) {
    assert_eq!(get(socket, "/body", "").1, "(b'', 1)");
    let ask = |head: &str, body: &str| {
        let head = format!("POST {head}\r\nHost: h\r\nConnection: close\r\n\r\n{body}");
        raw(socket, head.as_bytes())
    };
    let answer = ask("/body HTTP/1.1\r\nContent-Length: 5", "12345");
    assert!(answer.ends_with("(b'12345', 1)"), "{answer}");
    let chunks = "2\r\n12\r\n3;x=y\r\n345\r\n0\r\nT: x\r\n\r\n";
    let answer = ask("/body HTTP/1.1\r\nTransfer-Encoding: chunked", chunks);
    assert!(answer.contains("(b'12345', "), "{answer}");
    let answer = ask("/as-tasks HTTP/1.1\r\nContent-Length: 2", "ab");
    assert!(answer.ends_with("b'ab'"), "receive and send are coroutines: {answer}");
    let answer = told_to_go_on(socket, "/body");
    assert!(answer.contains("(b'abc', "), "{answer}");
}

fn files_and_hints_are_sent(socket: &Path) {
    let (head, body) = get(socket, "/pathsend?digits", "");
    assert!(head.contains("Content-Length: 10") && body == "0123456789", "{head}");
    assert!(get(socket, "/zerocopysend", "").1.contains("3\r\n234\r\n3\r\n789\r\n0\r\n"));
    let (head, rest) = get(socket, "/hint", "");
    assert_eq!(head, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload");
    assert!(rest.starts_with("HTTP/1.1 200 OK\r\nX-Own: 1\r\n") && !rest.contains("keep-alive"));
}

fn requests_of_a_connection_are_answered_in_turn(dir: &Path, socket: &Path) {
    let three = "GET /nap?0.3 HTTP/1.1\r\nHost: h\r\n\r\nHEAD / HTTP/1.1\r\nHost: h\r\n\r\n\
                 GET /background HTTP/1.1\r\nHost: h\r\n\r\n\
                 GET /context HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let answers = raw(socket, three.as_bytes());
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 4, "{answers}");
    let place = |text: &str| answers.find(text).unwrap_or_else(|| panic!("{text}: {answers}"));
    assert!(place("rested") < place("early") && place("early") < place("nothing"), "{answers}");
    assert!(!dir.join("afterwards").exists(), "the next request waits for the answer alone");
    until("the app went on", || dir.join("afterwards").exists());
}

fn the_lifespan_is_as_the_command_says(node: &Node, base: &BaseEnvironment, dir: &Path) {
    let socket = node.work().join("l");
    let start = |mode: &str, name: &str| {
        let mode = format!("--lifespan={mode}");
        let app = format!("main.application:{name}");
        worker(node, base, dir, &["--asgi", &mode, &app], &socket)
    };
    for (mode, name, why) in [
        ("on", "without_lifespan", "AssertionError"),
        ("on", "refuses", "no database"),
        ("auto", "refuses", "no database"),
    ] {
        let mut app = start(mode, name);
        assert_eq!(app.ended().code(), Some(1), "{mode} {name}");
        assert!(!socket.exists() && log(&socket).contains(why), "{mode} {name}: {}", log(&socket));
    }
    for (mode, name, state) in [
        ("auto", "without_lifespan", "{\"of this request\": 1}"),
        ("off", "app", "{\"of this request\": 1}"),
        ("on", "plain", "at the start"),
    ] {
        let _ = fs::remove_file(dir.join("shut-down"));
        let mut app = start(mode, name);
        let seen = get(&socket, "/scope", "").1;
        assert!(seen.contains(state), "{mode} {name}: {seen}");
        if name == "plain" {
            let set = get(&socket, "/context", "").1;
            assert_eq!(set, "set by a function that is no coroutine ");
        }
        app.signal("INT");
        assert_eq!(app.ended().code(), Some(0), "{mode} {name}");
        assert_eq!(dir.join("shut-down").exists(), state == "at the start", "{mode} {name}");
        assert_eq!(log(&socket), "", "{mode} {name}");
    }
}

/// Requests that run, that have arrived, and connections that have only begun.
fn a_stop_loses_no_request(node: &Node, base: &BaseEnvironment, dir: &Path) {
    let socket = node.work().join("t");
    let _ = fs::remove_file(dir.join("shut-down"));
    let mut app = worker(node, base, dir, &["--asgi", "main.application:app"], &socket);
    get(&socket, "/", "");
    let mut idle = connect(&socket);
    let send = |path: &str| {
        let mut stream = connect(&socket);
        write!(stream, "GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        stream
    };
    let mut streams: Vec<_> = (0..50).map(|_| send("/nap?1")).collect();
    let mut half = connect(&socket);
    half.write_all(b"GET /nap?0.1 HTTP/1.1\r\n").unwrap();
    until("all that is before the answer has arrived", || get(&socket, "/task", "").1 == "True");
    streams.extend((0..50).map(|_| send("/")));
    app.signal("TERM");
    until("nobody else can connect", || !socket.exists());
    half.write_all(b"Host: h\r\n\r\n").unwrap();
    streams.push(half);
    for mut stream in streams {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer:?} {}", log(&socket));
    }
    assert_eq!(idle.read(&mut [0; 10]).unwrap(), 0, "an idle connection is closed");
    assert_eq!(app.ended().code(), Some(0), "{}", log(&socket));
    assert!(dir.join("shut-down").exists());
}

const OF_UVICORN: &str = r#"
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"15")]})
        body = "%s %s" % (scope["scheme"], (scope["client"] or [""])[0])
        await send({"type": "http.response.body", "body": body.ljust(15).encode()})
"#;

/// Returns uvicorn, a connection that is idle, and since when.
fn uvicorn_serves_where_the_module_does_not_load(
    node: &Node,
    base: &BaseEnvironment,
) -> (End, UnixStream, Instant) {
    let dir = node.plugin("python3_raw_asgi", "fallback");
    fs::write(dir.join("_mfserv_worker.py"), "raise ImportError('no such module')").unwrap();
    let socket = node.work().join("u");
    fs::write(dir.join("main/application.py"), OF_UVICORN).unwrap();
    let uvicorn = worker(node, base, &dir, &["--asgi", "main.application:app"], &socket);
    let forwarded = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n";
    let (head, body) = get(&socket, "/", forwarded);
    assert!(head.contains("server: uvicorn") && body == "https 192.0.2.1", "{head} {body}");
    assert!(log(&socket).contains("uvicorn serves instead: no such module"), "{}", log(&socket));
    let mut idle = connect(&socket);
    idle.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let mut text = String::new();
    while !text.ends_with("http           ") {
        let mut space = [0; 1000];
        let count = idle.read(&mut space).unwrap();
        assert!(count > 0, "{text}");
        text += std::str::from_utf8(&space[..count]).unwrap();
    }
    let since = Instant::now();

    let socket = node.work().join("r");
    let refused = |arguments: &[&str]| {
        let mut app = worker(node, base, &dir, arguments, &socket);
        assert_eq!(app.ended().code(), Some(1), "{arguments:?}");
        log(&socket)
    };
    let said = refused(&["--asgi", "--server=waitress", "main.application:app"]);
    assert!(said.contains("waitress serves no ASGI app"), "{said}");
    let said = refused(&["--wsgi", "--server=uvicorn", "main.application:app"]);
    assert!(said.contains("uvicorn serves no WSGI app"), "{said}");

    let mut chosen = in_environment(node, base, &dir, "mfserv_worker");
    chosen.args(["--asgi", "main.application:app"]).arg(&socket).stderr(Stdio::null());
    let _chosen = End(chosen.env("MFSERV_PYTHON_ASGI_SERVER", "uvicorn").spawn().unwrap());
    assert!(get(&socket, "/", "").0.contains("server: uvicorn"), "by [python] asgi_server");
    (uvicorn, idle, since)
}
