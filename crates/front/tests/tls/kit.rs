//! Certificates made by OpenSSL, and clients.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mfserv_core::route::RouteTable;
use mfserv_core::tls::{ClientCertificates, SUITES, TlsSettings, Version};

use crate::world::{Front, ONE, Worker, World, table};

/// An authority that signs certificates.
pub struct Authority {
    pub certificate: PathBuf,
    key: PathBuf,
}

pub fn openssl(arguments: &[&str]) -> String {
    let done = Command::new("openssl").args(arguments).stdin(Stdio::null()).output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "openssl {arguments:?}: {errors}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

const EC: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

impl Authority {
    pub fn new(world: &World) -> Self {
        Self::named(world, "authority")
    }

    pub fn named(world: &World, name: &str) -> Self {
        let (certificate, key) =
            (world.path(&format!("{name}.ca.pem")), world.path(&format!("{name}.ca.key")));
        let subject = format!("/CN={name}");
        let to = ["-keyout", text(&key), "-out", text(&certificate), "-subj", &subject];
        let what = ["req", "-x509", "-days", "30"];
        openssl(&[&what[..], &EC, &to].concat());
        Self { certificate, key }
    }

    /// Makes `NAME.pem` and `NAME.key` in the directory of the world, for these hosts.
    pub fn issue(&self, world: &World, name: &str, hosts: &[&str]) {
        self.issue_into(&world.path(name), hosts, &EC, "30");
    }

    /// The same as `STEM.pem` and `STEM.key`, with another kind of key or another end.
    pub fn issue_into(&self, stem: &Path, hosts: &[&str], kind: &[&str], days: &str) {
        let (key, certificate) = (stem.with_extension("key"), stem.with_extension("pem"));
        let (authority, its_key) = (text(&self.certificate), text(&self.key));
        let hosts: Vec<String> = hosts.iter().map(|host| format!("DNS:{host}")).collect();
        let names = format!("subjectAltName={}", hosts.join(","));
        let subject = format!("/O=Tests/CN={}", stem.file_stem().unwrap().to_str().unwrap());
        let from = ["req", "-x509", "-CA", authority, "-CAkey", its_key, "-days", days];
        let mut to = vec!["-keyout", text(&key), "-out", text(&certificate), "-subj", &subject];
        to.extend(["-addext", "basicConstraints=critical,CA:FALSE"]);
        if !hosts.is_empty() {
            to.extend(["-addext", &names]);
        }
        openssl(&[&from[..], kind, &to].concat());
    }
}

impl Authority {
    /// The same for one host, valid between two times from now, seconds.
    pub fn issue_between(&self, stem: &Path, host: &str, from_s: i64, to_s: i64) {
        let (key, request) = (stem.with_extension("key"), stem.with_extension("csr"));
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("ca.cnf");
        std::fs::write(dir.path().join("index"), "").unwrap();
        let own = dir.path().display();
        let lines = format!(
            "[ca]\ndefault_ca=own\n[own]\ndatabase={own}/index\nnew_certs_dir={own}\nrand_serial=yes\n\
             default_md=sha256\npolicy=any\nx509_extensions=with\n[any]\ncommonName=supplied\n\
             [with]\nbasicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:{host}\n"
        );
        std::fs::write(&config, lines).unwrap();
        let subject = format!("/CN={}", stem.file_stem().unwrap().to_str().unwrap());
        let to = ["-keyout", text(&key), "-out", text(&request), "-subj", &subject];
        openssl(&[&["req", "-new"][..], &EC, &to].concat());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let at = |after: i64| {
            let at = jiff::Timestamp::from_second(now.as_secs() as i64 + after).unwrap();
            at.strftime("%Y%m%d%H%M%SZ").to_string()
        };
        let (from, to) = (at(from_s), at(to_s));
        let certificate = stem.with_extension("pem");
        let (authority, its_key) = (text(&self.certificate), text(&self.key));
        openssl(&[
            "ca",
            "-batch",
            "-notext",
            "-config",
            text(&config),
            "-cert",
            authority,
            "-keyfile",
            its_key,
            "-in",
            text(&request),
            "-out",
            text(&certificate),
            "-startdate",
            &from,
            "-enddate",
            &to,
        ]);
    }
}

/// Replaces a file by a copy of another one, in one step.
pub fn replace(path: &Path, with: &Path) {
    let beside = path.with_extension("new");
    std::fs::copy(with, &beside).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// An authority that has issued the certificate `server` of localhost, and an empty directory for
/// the certificates of other names.
pub fn with_directory(world: &World) -> (Authority, PathBuf) {
    let ca = Authority::new(world);
    ca.issue(world, "server", &["localhost"]);
    let directory = world.path("certificates");
    std::fs::create_dir(&directory).unwrap();
    (ca, directory)
}

/// The settings of a listener with `NAME.pem` and `NAME.key`.
pub fn settings(world: &World, name: &str) -> TlsSettings {
    TlsSettings {
        port: world.secure_port(),
        certificate: world.path(&format!("{name}.pem")),
        key: world.path(&format!("{name}.key")),
        directory: None,
        versions: vec![Version::V1_2, Version::V1_3],
        ciphers: SUITES.map(String::from).to_vec(),
        client_certificates: ClientCertificates::Off,
        client_authorities: None,
        redirect: false,
        strict_transport: None,
        ticket_keys: Some(world.path("tickets.json")),
    }
}

/// The usual table with these settings.
pub fn tls_table(_world: &World, settings: TlsSettings) -> RouteTable {
    let mut table = table(ONE, true);
    table.server.tls = Some(settings);
    table
}

/// A front with a certificate for `localhost`, and the authority that has signed it.
pub fn serving(world: &World, workers: &[&Worker]) -> (Front, Authority) {
    let authority = Authority::new(world);
    authority.issue(world, "server", &["localhost"]);
    (world.serving(tls_table(world, settings(world, "server")), workers), authority)
}

/// What curl gets: the head and the content.
pub fn curl(world: &World, ca: &Authority, host: &str, path: &str, more: &[&str]) -> String {
    let done = try_curl(world, ca, host, path, more);
    done.unwrap_or_else(|why| panic!("{host}{path}: {why}"))
}

pub fn try_curl(
    world: &World,
    ca: &Authority,
    host: &str,
    path: &str,
    more: &[&str],
) -> Result<String, String> {
    let port = world.secure_port();
    let to = format!("{host}:{port}:127.0.0.1");
    let done = Command::new("curl")
        .args(["-sSi", "--http1.1", "--max-time", "60", "--cacert", text(&ca.certificate)])
        .args(["--resolve", &to])
        .args(more)
        .arg(format!("https://{host}:{port}{path}"))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
}

/// What `openssl s_client` says of a connection for this name.
pub fn connect(world: &World, ca: &Authority, name: &str, more: &[&str]) -> String {
    let to = format!("127.0.0.1:{}", world.secure_port());
    let done = Command::new("openssl")
        .args(["s_client", "-connect", &to, "-CAfile", text(&ca.certificate)])
        .args(if name.is_empty() { vec!["-noservername"] } else { vec!["-servername", name] })
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    said(&done.stdout) + &said(&done.stderr)
}

const PRELUDE: &str = r#"
import os, select, socket, ssl, struct, sys, time, threading
port, ca = int(os.environ["PORT"]), os.environ["CA"]
def context():
    c = ssl.create_default_context(cafile=ca)
    return c
def connect(c=None, name="localhost", session=None, **how):
    s = socket.create_connection(("127.0.0.1", port), timeout=60)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return (c or context()).wrap_socket(s, server_hostname=name, session=session, **how)
def read(f):
    head = b""
    while True:
        line = f.readline()
        if not line: raise EOFError(head)
        head += line
        if line == b"\r\n": break
    length = [l.split(b":")[1] for l in head.split(b"\r\n") if l.lower().startswith(b"content-length:")]
    return head, f.read(int(length[0])) if length else b""
def pump(s, body):
    "Sends a body while as much is read: one thread, since a session of OpenSSL has one."
    s.setblocking(False)
    sent, got = 0, b""
    while sent < len(body) or len(got) < len(body):
        try:
            if sent < len(body): sent += s.send(body[sent:sent + 65536])
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError): pass
        try: got += s.recv(65536)
        except ssl.SSLWantReadError: select.select([s], [s] if sent < len(body) else [], [], 60)
    s.setblocking(True)
    return got
def answer(s):
    return read(s.makefile("rb"))
"#;

/// Runs a program of Python, which must succeed; returns what it prints.
pub fn python(world: &World, ca: &Authority, code: &str, arguments: &[&str]) -> String {
    let done = Command::new("python3")
        .args(["-c", &format!("{PRELUDE}{code}")])
        .args(arguments)
        .env("PORT", world.secure_port().to_string())
        .env("CA", &ca.certificate)
        .env("DIR", world.dir.path())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&done.stderr);
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}{errors}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}
