//! HAProxy as Debian has it, with a directory of its own.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use mfserv_core::Diagnostic;
use tempfile::TempDir;

use super::Backend;
use crate::child::Running;
use crate::{interrupt, node};

/// Where Debian has it.
pub const PROGRAM: &str = "/usr/sbin/haproxy";
/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running HAProxy; it ends and its files are removed when this is dropped.
#[derive(Debug)]
pub struct Haproxy {
    // In this order: it ends before its directory is removed.
    running: Running,
    address: SocketAddr,
    _dir: TempDir,
}

impl Haproxy {
    /// Starts it, with one thread, in front of the upstream. Returns when it listens.
    pub fn start(backend: &Backend<'_>) -> Result<Self, Diagnostic> {
        let failed = |e: std::io::Error| Diagnostic::error("HAProxy cannot start").because(e);
        let dir = tempfile::Builder::new().prefix("mfb-haproxy-").tempdir().map_err(failed)?;
        let port = node::free_port()?;
        let place = dir.path().join("haproxy.cfg");
        std::fs::write(&place, configuration(backend, port)).map_err(failed)?;
        let log = File::create(dir.path().join("access.log")).map_err(failed)?;
        let mut command = Command::new(PROGRAM);
        command.arg("-db").arg("-f").arg(&place).stdin(Stdio::null()).stdout(log);
        let mut running = Running::start(&mut command)
            .map_err(|problem| problem.help("install it: apt-get install haproxy"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listens = interrupt::until("HAProxy listens", PATIENCE, || {
            let ended = running.ended().is_some();
            (ended || TcpStream::connect(address).is_ok()).then_some(!ended)
        })?;
        match listens {
            true => Ok(Self { running, address, _dir: dir }),
            false => {
                Err(Diagnostic::error("HAProxy ended at once")
                    .because("it says why on standard error"))
            }
        }
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }
}

fn configuration(backend: &Backend<'_>, port: u16) -> String {
    let named = (1..).zip(backend.sockets);
    let servers: String = named
        .map(|(n, socket)| format!("  server s{n} unix@{} pool-max-conn 512\n", socket.display()))
        .collect();
    format!(
        "global\n  nbthread 1\n  maxconn 4096\n  log stdout format raw local0\n  \
         tune.bufsize 65536\n  tune.pipesize 262144\n\
         defaults\n  mode http\n  log global\n  option httplog\n  option forwardfor\n  \
         option splice-auto\n  http-reuse always\n  timeout connect 60s\n  timeout client 60s\n  \
         timeout server 60s\n  unique-id-format %{{+X}}o%ci%cp%Ts%rt%pid\n  \
         unique-id-header X-Request-ID\n\
         frontend f\n  bind 127.0.0.1:{port}\n  default_backend b\n\
         backend b\n  balance leastconn\n{servers}"
    )
}
