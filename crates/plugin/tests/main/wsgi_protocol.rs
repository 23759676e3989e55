//! What a WSGI app sees of a request, and what its client gets: PEP 3333, RFC 3875 and RFC 9110,
//! asked of the command that plugins run, whatever the server behind it.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use mfserv_plugin::base::BaseEnvironment;

use crate::Node;
use crate::wsgi::{HASTY, PATIENT, worker};
use crate::wsgi_client::{TERMINATED, connect, get, raw};

/// Each path of this app is one thing that apps do. `wsgiref.validate` judges the environment.
const APP: &str = r#"
import io, json, multiprocessing, os, signal, sys, time
from wsgiref.validate import validator

def plain(start_response, status="200 OK", *headers):
    start_response(status, [("Content-Type", "text/plain"), *headers])

def pieces_then_error():
    yield b"first"
    raise ValueError("while sending")

class Late(Exception):
    pass

def own_alarm():
    def late(*_):
        raise Late()
    old = signal.signal(signal.SIGALRM, late)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        time.sleep(5)
    except Late:
        pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)

def fork(path):
    if path == "/fork-multiprocessing":
        child = multiprocessing.get_context("fork").Process(target=sys.exit)
        child.start()
        child.join()
        return
    if path == "/fork-subprocess":
        import subprocess
        subprocess.run([sys.executable, "-c", "pass"], preexec_fn=os.getpid)
        return
    child = os.fork()
    if child == 0:
        if path == "/fork-os-exit":
            os._exit(0)
        if path == "/fork-atexit":
            import atexit
            atexit.register(time.sleep, 0.1)
        if path == "/fork-term":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
        sys.exit(0)
    os.waitpid(child, 0)

def fine(start_response, body):
    plain(start_response)
    return body

FORMS = {
    "/form/keyword": lambda start: (start("200 OK", [], exc_info=None), [b"fine"])[1],
    "/form/no-reason": lambda start: (start("200", []), [b"fine"])[1],
    "/form/tuple": lambda start: (start("200 OK", (("X-A", "1"),)), [b"fine"])[1],
    "/form/lists": lambda start: (start("200 OK", [["X-A", "1"]]), [b"fine"])[1],
    "/form/bytes": lambda start: fine(start, b"fine"),
    "/form/bytearray": lambda start: fine(start, [bytearray(b"fi"), b"ne"]),
    "/form/memoryview": lambda start: fine(start, (memoryview(part) for part in (b"fi", b"ne"))),
    "/form/pieces": lambda start: fine(start, [b"", b"f", b"i", b"n", b"e"]),
}

def child_writes(start_response):
    write = start_response("200 OK", [("Content-Length", "6")])
    child = os.fork()
    if child == 0:
        try:
            write(b"child!")
        except RuntimeError:
            os._exit(7)
        os._exit(0)
    return [b"parent" if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7 else b"silent"]

def child_returns(start_response):
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    plain(start_response)
    return [b"child" if child == 0 else b"parent"]

def as_files(body):
    wrapper = io.TextIOWrapper(body)
    text = wrapper.read()
    wrapper.detach()
    return repr([text, body.seekable() and body.seek(0), body.readinto(bytearray(9))]).encode()

def answer(environ, start_response):
    path = environ["PATH_INFO"]
    if path in FORMS:
        return FORMS[path](start_response)
    if path == "/child-writes":
        return child_writes(start_response)
    if path == "/child-returns":
        return child_returns(start_response)
    if path == "/terminate":
        return fine(start_response, [terminated()])
    if path == "/as-files":
        return fine(start_response, [as_files(environ["wsgi.input"])])
    if path == "/of-no-size":
        return fine(start_response, environ["wsgi.file_wrapper"](open("/proc/self/status", "rb")))
    if path == "/error":
        plain(start_response)
        return pieces_then_error()
    if path == "/short":
        plain(start_response, "200 OK", ("Content-Length", "100"))
        return [b"short"]
    if path == "/generator":
        plain(start_response)
        return (piece for piece in [b"a", b"", b"b"])
    if path == "/file":
        plain(start_response)
        return environ["wsgi.file_wrapper"](open(__file__, "rb"))
    if path == "/large":
        plain(start_response, "200 OK", ("Content-Length", str(20 << 20)))
        return [b"z" * (20 << 20)]
    if path == "/nothing":
        start_response("204 No Content", [])
        return [b"ignored"]
    if path == "/same":
        start_response("304 Not Modified", [("ETag", '"1"')])
        return [b"ignored"]
    if path.startswith("/fork"):
        fork(path)
    if path == "/alarm":
        own_alarm()
    if path == "/leaves-alarm-ignored":
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.alarm(0)
    if path == "/slow":
        time.sleep(30)
    body = str(os.getpid()).encode()
    plain(start_response, "200 OK", ("Content-Length", str(len(body))))
    return [body]

def environment(environ, start_response):
    shown = {key: value for key, value in environ.items() if isinstance(value, (str, bool))}
    body = json.dumps(shown, ensure_ascii=True).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]

valid = validator(environment)

def application(environ, start_response):
    if environ["PATH_INFO"].startswith("/env"):
        return valid(environ, start_response)
    return answer(environ, start_response)
"#;

fn ask(socket: &Path, method: &str, target: &[u8], headers: &str) -> (String, Vec<u8>) {
    let mut request = format!("{method} ").into_bytes();
    request.extend_from_slice(target);
    request
        .extend_from_slice(format!(" HTTP/1.1\r\nConnection: close\r\n{headers}\r\n").as_bytes());
    let answer = raw(socket, &request);
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    (String::from_utf8_lossy(&answer[..end]).into_owned(), answer[end + 4..].to_vec())
}

fn environ(socket: &Path, target: &[u8], headers: &str) -> serde_json::Value {
    let (head, body) = ask(socket, "GET", target, headers);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    serde_json::from_slice(&body).unwrap()
}

/// Called by the test that has made a base environment.
pub fn the_protocol_is_kept(node: &Node, base: (&BaseEnvironment, &str)) {
    let dir = node.plugin("python3_raw_wsgi", &format!("protocol_{}", base.1));
    fs::write(dir.join("main/wsgi.py"), TERMINATED.to_owned() + APP).unwrap();
    let arguments = [HASTY, "main.wsgi:application"];
    let socket = node.work().join(format!("ph{}", &base.1[..1]));
    let hasty = worker(&node.home, base, &dir, &arguments, &socket);
    an_alarm_of_the_app_switches_no_timeout_off(&socket);
    drop(hasty);

    let socket = node.work().join(format!("pp{}", &base.1[..1]));
    let arguments = [PATIENT, "main.wsgi:application"];
    let mut app = worker(&node.home, base, &dir, &arguments, &socket);
    get(&socket, "/", "");

    the_environment_is_that_of_the_clients_request(&socket);
    no_body_follows_a_head_that_has_none(&socket);
    an_answer_that_breaks_off_is_seen_to_be_cut(&socket);
    a_large_answer_waits_for_nobody(&socket);
    a_forked_child_takes_nothing_with_it(&socket);
    what_apps_do_besides_the_letter_of_wsgi_works(&socket);

    app.signal("TERM");
    assert_eq!(app.ended().code(), Some(0));
}

fn the_environment_is_that_of_the_clients_request(socket: &Path) {
    let seen = environ(
        socket,
        b"/env/a%2Fb?q=1",
        "Host: www.example.org:8443\r\nX-Forwarded-Proto: https\r\nX-Real-IP: 2001:db8::1\r\n\
         X-Real-Port: 4711\r\n",
    );
    for (key, value) in [
        ("SERVER_NAME", "www.example.org"),
        ("SERVER_PORT", "8443"),
        ("REMOTE_ADDR", "2001:db8::1"),
        ("REMOTE_PORT", "4711"),
        ("wsgi.url_scheme", "https"),
        ("HTTPS", "on"),
        ("PATH_INFO", "/env/a/b"),
        ("RAW_URI", "/env/a%2Fb?q=1"),
        ("REQUEST_URI", "/env/a%2Fb?q=1"),
        ("QUERY_STRING", "q=1"),
        ("SCRIPT_NAME", ""),
        ("HTTP_HOST", "www.example.org:8443"),
    ] {
        assert_eq!(seen[key], value, "{key} of {seen}");
    }
    assert_eq!(seen["wsgi.multithread"], false, "one request at a time");
    assert_eq!(seen["wsgi.multiprocess"], true, "several workers");

    // name and port from what is there: headers of the front, Host, the scheme
    for (headers, name, port) in [
        ("Host: h\r\n", "h", "80"),
        ("Host: h\r\nX-Forwarded-Proto: https\r\n", "h", "443"),
        ("Host: h\r\nX-Forwarded-Port: 8080\r\n", "h", "8080"),
        ("Host: h\r\nX-Forwarded-Host: a.example:1234, b\r\n", "a.example", "1234"),
        ("Host: [::1]:81\r\n", "[::1]", "81"),
        ("Host: [::1]\r\n", "[::1]", "80"),
        ("Host: h\r\nX-Forwarded-Proto: gopher\r\nX-Forwarded-Port: x\r\n", "h", "80"),
    ] {
        let seen = environ(socket, b"/env", headers);
        assert_eq!((&seen["SERVER_NAME"], &seen["SERVER_PORT"]), (&name.into(), &port.into()));
        assert_eq!(seen["REMOTE_ADDR"], "127.0.0.1", "{headers}");
        assert!(seen.get("REMOTE_PORT").is_none(), "{seen}");
    }

    // bytes that are not ASCII, as browsers and scripts send them
    let seen = environ(socket, "/env/café?n=é".as_bytes(), "Host: h\r\n");
    let latin = |text: &str| text.bytes().map(char::from).collect::<String>();
    assert_eq!(seen["PATH_INFO"], latin("/env/café"));
    assert_eq!(seen["RAW_URI"], latin("/env/café?n=é"));
    assert_eq!(seen["QUERY_STRING"], "n=%C3%A9");
}

fn no_body_follows_a_head_that_has_none(socket: &Path) {
    for path in ["/", "/generator", "/file", "/large", "/env"] {
        let (head, body) = ask(socket, "HEAD", path.as_bytes(), "Host: h\r\n");
        assert!(head.starts_with("HTTP/1.1 200") && body.is_empty(), "{path}: {head}");
    }
    let (head, _) = ask(socket, "HEAD", b"/large", "Host: h\r\n");
    assert!(head.contains(&format!("Content-Length: {}", 20 << 20)), "that of a GET: {head}");
    for (path, status) in [("/nothing", "204"), ("/same", "304")] {
        let (head, body) = ask(socket, "GET", path.as_bytes(), "Host: h\r\n");
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
        assert!(body.is_empty() && !head.contains("Transfer-Encoding"), "{head}");
    }
    // what comes next on the connection is the next answer, or its end (waitress)
    let two = b"HEAD /generator HTTP/1.1\r\nHost: h\r\n\r\n\
        GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let answers = String::from_utf8(raw(socket, two)).unwrap();
    let (_, next) = answers.split_once("\r\n\r\n").unwrap();
    assert!(next.is_empty() || next.starts_with("HTTP/1.1 200"), "{answers}");
    let kept =
        b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let answers = String::from_utf8(raw(socket, kept)).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{answers}");
}

fn an_answer_that_breaks_off_is_seen_to_be_cut(socket: &Path) {
    let (_, body) = ask(socket, "GET", b"/error", "Host: h\r\n");
    assert_eq!(body, b"5\r\nfirst\r\n", "no last chunk");
    let (head, body) = ask(socket, "GET", b"/short", "Host: h\r\n");
    assert!(head.contains("Content-Length: 100") && body == b"short", "{head}");
}

fn a_large_answer_waits_for_nobody(socket: &Path) {
    let mut slow = connect(socket);
    slow.write_all(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    slow.read_exact(&mut [0; 1]).unwrap();
    // No more of it is read before another client has its answer.
    let (head, _) = ask(socket, "GET", b"/", "Host: h\r\n");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    slow.read_exact(&mut vec![0; 20 << 20]).unwrap();
}

fn a_forked_child_takes_nothing_with_it(socket: &Path) {
    let before = get(socket, "/", "").1;
    for end in ["exit", "os-exit", "atexit", "term", "multiprocessing", "subprocess"] {
        assert_eq!(get(socket, &format!("/fork-{end}"), "").1, before, "{end}");
        assert!(socket.exists(), "{end}: the child has ended and removed nothing");
        assert_eq!(get(socket, "/", "").1, before, "{end}");
    }
    assert_eq!(get(socket, "/terminate", "").1, "-15", "SIGTERM ends a child");
    assert_eq!(get(socket, "/child-writes", "").1, "parent");
    let two = b"GET /child-returns HTTP/1.1\r\nHost: h\r\n\r\n\
        GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let answers = String::from_utf8(raw(socket, two)).unwrap();
    assert!(answers.contains("parent") && !answers.contains("child"), "{answers}");
    assert!(answers.ends_with(&before), "{answers}");
}

/// As the servers allow that apps ran behind before.
fn what_apps_do_besides_the_letter_of_wsgi_works(socket: &Path) {
    for form in
        ["keyword", "no-reason", "tuple", "lists", "bytes", "bytearray", "memoryview", "pieces"]
    {
        let (head, body) = get(socket, &format!("/form/{form}"), "");
        assert!(head.starts_with("HTTP/1.1 200"), "{form}: {head}");
        let whole = match head.contains("chunked") {
            true => body.split("\r\n").skip(1).step_by(2).collect(),
            false => body,
        };
        assert_eq!(whole, "fine", "{form}");
    }
    let status = get(socket, "/of-no-size", "").1;
    assert!(status.contains("VmRSS:") && status.contains("nonvoluntary"), "whole: {status}");
    // a body that comes in two parts, as a file that can be read again
    let mut stream = connect(socket);
    let head = "POST /as-files HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 4\r\n";
    write!(stream, "{head}\r\na\n").unwrap();
    assert!(get(socket, "/", "").0.starts_with("HTTP/1.1 200"), "others are served meanwhile");
    stream.write_all(b"bc").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with(r"['a\nbc', 0, 4]"), "{answer}");
}

fn an_alarm_of_the_app_switches_no_timeout_off(socket: &Path) {
    let before = get(socket, "/", "").1;
    for path in ["/alarm", "/leaves-alarm-ignored"] {
        assert!(get(socket, path, "").0.starts_with("HTTP/1.1 200"), "{path}");
        let (head, _) = get(socket, "/slow", "");
        assert!(head.starts_with("HTTP/1.1 504"), "after {path}: {head}");
        assert_eq!(get(socket, "/", "").1, before, "the process lives on after {path}");
    }
}
