//! TLS of a node: it is served as asked for, or the node says that it is not.

mod testssl;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use mfserv_testkit::{Node, Plugin, Ran, programs, until};

use crate::compat::OldNames;
use crate::{PATIENCE, Turn, node};

/// A port that nobody has.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Makes `cert.pem` and `key.pem` for `localhost`, with this common name.
#[expect(clippy::disallowed_methods, reason = "OpenSSL makes the certificates")]
fn certificate(dir: &Path, name: &str) {
    let done = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "30", "-subj", &format!("/CN={name}")])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-keyout", "key.new", "-out", "cert.new"])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    // In the order of certbot: for a moment they do not fit.
    std::fs::rename(dir.join("cert.new"), dir.join("cert.pem")).unwrap();
    std::fs::rename(dir.join("key.new"), dir.join("key.pem")).unwrap();
}

/// What curl gets over TLS: head and content.
#[expect(clippy::disallowed_methods, reason = "a client of another maker")]
fn curl(node: &Node, port: u16, path: &str) -> Result<String, String> {
    let done = Command::new("curl")
        .args(["-sSi", "--max-time", "30", "--cacert"])
        .arg(node.path("cert.pem"))
        .arg(format!("https://localhost:{port}{path}"))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
}

#[track_caller]
fn says(ran: &Ran, text: &str) {
    assert!(ran.stdout.contains(text) || ran.stderr.contains(text), "{text}: {ran:?}");
}

fn configured(node: &Node, port: u16) -> String {
    let file = node.path("config/config.ini");
    let before = std::fs::read_to_string(&file).unwrap();
    let (cert, key) = (node.path("cert.pem"), node.path("key.pem"));
    let keys = format!(
        "[nginx]\nhttps_port = {port}\nssl_certificate = {}\nssl_certificate_key = {}",
        cert.display(),
        key.display()
    );
    let text = before.replace("[nginx]", &keys);
    std::fs::write(&file, &text).unwrap();
    before
}

#[test]
fn a_node_that_cannot_serve_tls_does_not_start_and_says_why() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&Plugin::python("good", programs::SERVES));
    let old = OldNames::new(&node);
    let file = node.path("config/config.ini");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, good.replace("[nginx]", "[nginx]\nhttps_port = 28443")).unwrap();
    for command in [&["start"][..], &["run"], &["check"]] {
        says(&node.mfserv(command).code(4), "https_port is set, and ssl_certificate is not");
    }
    says(&old.run(&["mfserv.start"]).code(1), "https_port is set, and ssl_certificate is not");
    node.mfserv(&["status"]).code(3);
    std::fs::write(&file, &good).unwrap();
    let port = free_port();
    configured(&node, port);
    for command in [&["start"][..], &["run"], &["check"], &["plan"]] {
        says(&node.mfserv(command).code(4), "cert.pem: No such file");
    }
    says(&old.run(&["mfserv.start"]).code(1), "cert.pem: No such file");
    node.mfserv(&["status"]).code(3);
    certificate(node.home(), "one");
    std::fs::write(node.path("key.pem"), "broken").unwrap();
    says(&node.mfserv(&["start"]).code(4), "key.pem: it has no private key");
    certificate(node.home(), "one");
    node.mfserv(&["check"]).code(0);
    let started = node.mfserv(&["start"]).code(0);
    says(&started, &format!(" and https://127.0.0.1:{port}"));
    let answer = curl(&node, port, "/good").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let status = node.mfserv(&["status"]).code(0);
    says(&status, &format!(" and https://127.0.0.1:{port}"));
    says(&status, "note: apps run as the user of the front, and could read the keys of TLS");
    says(&old.run(&["mfserv.status"]).code(0), "");

    node.stop();
}

#[test]
fn files_that_are_broken_while_a_node_runs_are_said_and_what_was_there_serves() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&Plugin::python("good", programs::SERVES));
    let file = node.path("config/config.ini");
    let port = free_port();
    configured(&node, port);
    certificate(node.home(), "one");
    node.start();

    std::fs::write(node.path("key.pem"), "broken").unwrap();
    until("status tells", PATIENCE, || {
        let status = node.status();
        status
            .front_warnings
            .iter()
            .any(|(text, warned)| warned.is_fault && text.contains("key.pem"))
    });
    let ran = node.mfserv(&["status"]).code(1);
    says(&ran, "RUNNING, 1 fault of the front at");
    says(&ran, "the certificate before is used");
    assert!(curl(&node, port, "/good").unwrap().starts_with("HTTP/1.1 200"));
    says(&node.mfserv(&["check"]).code(4), "key.pem");
    says(&OldNames::new(&node).run(&["mfserv.status"]).code(1), "key.pem");
    let front = node.role_pid("front");
    says(&node.mfserv(&["upgrade"]).code(4), "key.pem");
    assert_eq!(node.role_pid("front"), front, "the next one could not serve TLS");
    // A deployment and a reload do not fail for it.
    node.add(&Plugin::python("more", programs::SERVES));
    let _ = node.mfserv(&["reload"]);
    assert_eq!(node.get("/more").status, 200);
    // A front that is started anew has nothing from before: the rest serves.
    node.kill(node.role_pid("front"));
    until("another front serves", PATIENCE, || {
        node.status().front_warnings.keys().any(|text| text.contains("every TLS client is refused"))
    });
    assert_eq!(node.get("/good").status, 200);
    assert!(curl(&node, port, "/good").is_err());
    certificate(node.home(), "two");
    until("TLS serves again", PATIENCE, || curl(&node, port, "/good").is_ok());
    node.mfserv(&["status"]).code(0);
    // Settings that cannot be used are refused, and those before go on.
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, good.replace("cert.pem", "gone.pem")).unwrap();
    says(&node.mfserv(&["reload"]).code(4), "gone.pem: No such file");
    assert!(curl(&node, port, "/good").unwrap().starts_with("HTTP/1.1 200"));
    std::fs::write(&file, good).unwrap();
    node.mfserv(&["reload"]).code(0);
    node.stop();
}

#[test]
fn tls_is_turned_on_by_a_reload_and_off_again_and_a_refused_one_leaves_no_port_open() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&Plugin::python("good", programs::SERVES));
    node.start();
    let port = free_port();
    let before = configured(&node, port);
    for command in [&["plan"][..], &["reload", "--dry-run"], &["reload"]] {
        says(&node.mfserv(command).code(4), "cert.pem: No such file");
    }
    assert_eq!(node.get("/good").status, 200);
    until("nobody listens", PATIENCE, || TcpListener::bind(("0.0.0.0", port)).is_ok());
    certificate(node.home(), "one");
    node.mfserv(&["reload"]).code(0);
    let answer = curl(&node, port, "/good").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(node.get("/good").status, 200);
    std::fs::write(node.path("config/config.ini"), before).unwrap();
    node.mfserv(&["reload"]).code(0);
    until("nobody listens", PATIENCE, || TcpListener::bind(("0.0.0.0", port)).is_ok());
    assert_eq!(node.get("/good").status, 200);
    node.stop();
}

/// Connects anew for each request until the file `stop` is there, and counts what becomes of them.
const LOAD: &str = r#"
import os, socket, ssl, sys
port, home = int(sys.argv[1]), sys.argv[2]
c = ssl.create_default_context(cafile=os.path.join(home, "cert.pem"))
good = refused = failed = 0
while not os.path.exists(os.path.join(home, "stop")):
    try:
        s = socket.create_connection(("127.0.0.1", port), timeout=30)
    except ConnectionRefusedError:
        refused += 1
        continue
    try:
        s = c.wrap_socket(s, server_hostname="localhost", suppress_ragged_eofs=False)
        s.sendall(b"GET /good HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        answer = b""
        while True:
            more = s.recv(65536)
            if not more: break
            answer += more
        good += answer.startswith(b"HTTP/1.1 200")
        failed += not answer.startswith(b"HTTP/1.1 200")
    except OSError as why:
        failed += 1
        print(why, file=sys.stderr)
    s.close()
print(good, refused, failed)
"#;

/// Runs clients over TLS while `change` happens: how many requests were answered, how many
/// connections refused, how many requests failed.
#[expect(clippy::disallowed_methods, reason = "a client of another maker")]
fn under_load(node: &Node, port: u16, change: impl FnOnce()) -> [u64; 3] {
    let stop = node.path("stop");
    let _ = std::fs::remove_file(&stop);
    let home = node.home().to_string_lossy().into_owned();
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let mut command = Command::new("python3");
            command.args(["-c", LOAD, &port.to_string(), &home]).stdout(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    let requests = || node.status().requests.values().map(|app| app.by_class[1]).sum::<u64>();
    let before = requests();
    until("requests are answered", PATIENCE, || requests() > before + 100);
    change();
    // Another front counts from 0.
    until("requests are answered again", PATIENCE, || requests() > 100);
    std::fs::write(&stop, "").unwrap();
    let mut sums = [0; 3];
    for client in clients {
        let done = client.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        let counts = said.split_whitespace().map(|count| count.parse::<u64>().unwrap());
        sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    println!("answered, refused, failed: {sums:?}");
    sums
}

#[test]
fn an_upgrade_fails_no_handshake_and_a_killed_front_refuses_no_connection() {
    let _turn = Turn::heavy();
    let node = node();
    node.add(&Plugin::python("good", programs::SERVES));
    let port = free_port();
    configured(&node, port);
    certificate(node.home(), "one");
    node.start();
    let [good, refused, failed] = under_load(&node, port, || {
        let before = node.role_pid("front");
        node.mfserv(&["upgrade"]).code(0);
        node.settled("front");
        assert_ne!(node.role_pid("front"), before);
    });
    assert!(good > 50 && (refused, failed) == (0, 0), "{good} {refused} {failed}");
    let [good, refused, failed] = under_load(&node, port, || {
        node.kill(node.role_pid("front"));
        node.settled("front");
    });
    // Each client loses the request that it had when the front was killed, and those that were
    // accepted and not answered.
    assert!(good > 50 && refused == 0 && failed <= 6, "{good} {refused} {failed}");
    node.stop();
}

#[test]
fn a_node_may_listen_for_tls_alone() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&Plugin::python("good", programs::SERVES));
    let port = free_port();
    configured(&node, port);
    certificate(node.home(), "one");
    node.set("nginx.port", "0");
    let old = OldNames::new(&node);
    says(&old.run(&["mfserv.start"]).code(0), "OK !");
    says(&old.run(&["mfserv.status"]).code(0), "OK !");
    says(&node.mfserv(&["status"]).code(0), &format!("RUNNING at https://127.0.0.1:{port} ("));
    assert!(curl(&node, port, "/good").unwrap().starts_with("HTTP/1.1 200"));
    assert!(std::net::TcpStream::connect(node.address()).is_err(), "nobody listens in clear");
    node.mfserv(&["check"]).code(0);
    // The port of TLS is looked at as the other one is.
    node.mfserv(&["stop"]).code(0);
    let taken = TcpListener::bind(("0.0.0.0", port)).unwrap();
    says(&node.mfserv(&["check"]).code(4), "[nginx] https_port");
    says(&node.mfserv(&["start"]).code(5), "cannot listen on");
    drop(taken);
}
