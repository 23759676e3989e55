//! What TLS costs: processor time of handshakes and requests, beside nginx in the same run.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mfserv_core::route::Target;

use super::kit::{Authority, python, settings, text, tls_table};
use crate::world::{World, route, until};

/// nginx with the same certificate and files, one worker.
struct Nginx {
    child: Child,
    port: u16,
}

impl Nginx {
    fn start(world: &World, kind: &str) -> Option<Self> {
        let program = std::env::var_os("NGINX").map_or("/usr/sbin/nginx".into(), PathBuf::from);
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let dir = world.dir.path().display();
        let configuration = format!(
            "daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/nginx.log; \
             events {{ worker_connections 1000; }} http {{ access_log {dir}/access.log; \
             sendfile on; keepalive_requests 1000000; open_file_cache max=100; \
             client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; \
             uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s; \
             server {{ listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.2 TLSv1.3; \
             ssl_certificate {dir}/{kind}.pem; ssl_certificate_key {dir}/{kind}.key; \
             ssl_session_cache shared:s:10m; location /s {{ alias {dir}/files; }} }} }}"
        );
        let path = world.path("nginx.conf");
        std::fs::write(&path, configuration).unwrap();
        let child = Command::new(program)
            .args(["-c", text(&path), "-p", text(world.dir.path())])
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        until("nginx listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(Self { child, port })
    }

    /// The process that serves.
    fn worker(&self) -> u32 {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        std::fs::read_to_string(children).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

/// The processor time of a process, microseconds.
fn cpu_us(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<u64> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    (fields[11] + fields[12]) * 10_000
}

const LOADS: [(&str, &str); 4] = [
    (
        "full handshake",
        r#"
def once():
    s = connect(c); s.close()
"#,
    ),
    (
        "resumed handshake",
        r#"
s = connect(c)
s.sendall(b"GET /s/1k HTTP/1.1\r\nHost: h\r\n\r\n"); answer(s)
session = s.session; s.close()
def once():
    s = connect(c, session=session); assert s.session_reused; s.close()
"#,
    ),
    (
        "request of 1 kB",
        r#"
s = connect(c); f = s.makefile("rb")
def once():
    s.sendall(b"GET /s/1k HTTP/1.1\r\nHost: h\r\n\r\n"); read(f)
"#,
    ),
    (
        "request of 1 MB",
        r#"
s = connect(c)
f = s.makefile("rb")
def once():
    s.sendall(b"GET /s/1m HTTP/1.1\r\nHost: h\r\n\r\n"); read(f)
"#,
    ),
];

const LOOP: &str = r#"
n, end = 0, time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    once(); n += 1
print(n)
"#;

#[test]
#[ignore = "a measurement: it takes both processors for a minute, a release build and nginx (NGINX=)"]
fn handshakes_and_requests_cost_no_more_than_with_nginx() {
    for (kind, options) in [
        ("ec", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"][..]),
        ("rsa", &["-newkey", "rsa:2048", "-nodes"]),
    ] {
        let world = World::with_tls();
        let ca = Authority::new(&world);
        ca.issue_into(&world.path(kind), &["localhost"], options, "30");
        let root = world.path("files");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("1k"), vec![b'x'; 1000]).unwrap();
        std::fs::write(root.join("1m"), vec![b'x'; 1_000_000]).unwrap();
        let mut table = tls_table(&world, settings(&world, kind));
        table.routes.push(route("/s", Target::Static { root }));
        let front = world.serving(table, &[]);
        let Some(nginx) = Nginx::start(&world, kind) else { panic!("there is no nginx") };
        for version in ["TLSv1_2", "TLSv1_3"] {
            for (name, load) in LOADS {
                let code = format!(
                    "port = int(sys.argv[1])\nc = context()\nc.minimum_version = c.maximum_version \
                     = ssl.TLSVersion.{version}\n{load}{LOOP}"
                );
                let mut costs = Vec::new();
                // Alternated, so that other load on the machine meets both.
                for _ in 0..2 {
                    let front = (front.child.id(), world.secure_port());
                    for (pid, port) in [front, (nginx.worker(), nginx.port)] {
                        let before = cpu_us(pid);
                        let said = python(&world, &ca, &code, &[&port.to_string(), "2"]);
                        let count: u64 = said.trim().parse().unwrap();
                        // The last connection is closed after the client has gone.
                        std::thread::sleep(Duration::from_millis(50));
                        costs.push((cpu_us(pid) - before) as f64 / count as f64);
                    }
                }
                let (ours, theirs) = ((costs[0] + costs[2]) / 2.0, (costs[1] + costs[3]) / 2.0);
                let ratio = ours / theirs;
                println!("{kind} {version} {name}: {ours:.1} µs, nginx {theirs:.1} µs, {ratio:.2}");
            }
        }
    }
}
