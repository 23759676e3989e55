//! The embedded front as it is shipped, without a node: the bench is its daemon.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::output::Rotation;
use mfserv_core::route::{Route, RouteTable, ServerSettings, Slots, Target, UpstreamSpec};
use mfserv_core::wire::front::{Address, FromFront, Peer, ToFront};
use mfserv_core::wire::{VERSION, frame};
use tempfile::TempDir;

use super::Backend;
use crate::child::Running;
use crate::interrupt;

/// How long it may take to listen, and to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The app's name.
const APP: &str = "bench/main";

/// A running front; it ends and its files are removed when this is dropped.
#[derive(Debug)]
pub struct Embedded {
    // In this order: the front ends before its home is removed.
    running: Running,
    address: SocketAddr,
    _control: UnixStream,
    _home: TempDir,
}

impl Embedded {
    /// Starts it in front of the upstream and the files. Returns when it serves.
    pub fn start(program: &Path, backend: &Backend<'_>) -> Result<Self, Diagnostic> {
        let failed = |e: std::io::Error| Diagnostic::error("the front cannot start").because(e);
        let home = tempfile::Builder::new().prefix("mfb-front-").tempdir().map_err(failed)?;
        // A copy of its own: another process of the same program would share its memory.
        let own = home.path().join("mfserv");
        std::fs::copy(program, &own).map_err(failed)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        rustix::net::listen(&listener, 1024).map_err(|e| failed(e.into()))?;
        rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty())
            .map_err(|e| failed(e.into()))?;
        let socket = home.path().join("control.socket");
        let rotation = serde_json::to_string(&Rotation::default())
            .map_err(|e| Diagnostic::error("the front cannot start").because(e))?;
        let mut command = Command::new(&own);
        command.arg("--home").arg(home.path()).args(["front", "--rotation", &rotation]);
        command.arg("--control").arg(&socket).stdin(Stdio::null()).stdout(Stdio::null());
        command.env("MFSERV_LISTEN", format!("http={}", listener.as_raw_fd()));
        command.env("METWORK_ALLOW_USAGE_BY_ROOT", "1");
        let running = Running::start(&mut command)?;
        drop(listener);
        let control = connect(&socket)?;
        publish(&control, backend, home.path())?;
        Ok(Self { running, address, _control: control, _home: home })
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

fn connect(socket: &Path) -> Result<UnixStream, Diagnostic> {
    let stream =
        interrupt::until("the front listens", PATIENCE, || UnixStream::connect(socket).ok())?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .map_err(|e| Diagnostic::error("cannot speak with the front").because(e))?;
    Ok(stream)
}

/// Says what it serves, and waits until it does.
fn publish(mut control: &UnixStream, of: &Backend<'_>, home: &Path) -> Result<(), Diagnostic> {
    let failed = |why: String| Diagnostic::error("the front takes no routes").because(why);
    let peers = BTreeMap::from([(APP.to_string(), peers(of.sockets))]);
    let table = Box::new(table(of, home));
    for message in
        [ToFront::Hello { version: VERSION }, ToFront::Publish { generation: 1, table, peers }]
    {
        let frame = frame::encode(&message).map_err(|e| failed(e.to_string()))?;
        control.write_all(&frame).map_err(|e| failed(e.to_string()))?;
    }
    let mut heard = Vec::new();
    let mut room = [0; 4096];
    loop {
        match frame::decode(&mut heard).map_err(|e| failed(e.to_string()))? {
            Some(FromFront::Published { .. }) => return Ok(()),
            Some(FromFront::Refused { reason, .. }) => return Err(failed(reason)),
            Some(_) => {}
            None => match control.read(&mut room) {
                Ok(count) if count > 0 => heard.extend_from_slice(&room[..count]),
                Ok(_) => return Err(failed("it closed the connection".into())),
                Err(why) => return Err(failed(why.to_string())),
            },
        }
    }
}

fn peers(sockets: &[PathBuf]) -> Vec<Peer> {
    let worker = |slot| WorkerId::new(WatcherName::app("bench", "main"), slot, 1);
    (1..)
        .zip(sockets)
        .map(|(slot, s)| Peer {
            worker: worker(slot),
            address: Address::Socket(s.clone()),
            dir: None,
            pid: None,
        })
        .collect()
}

/// As a node with one app like a server of Node and one with static files has it.
fn table(of: &Backend<'_>, home: &Path) -> RouteTable {
    let spec = UpstreamSpec {
        queue_max: 1000,
        slow_lane_wait_ms: 1000,
        ..UpstreamSpec::new(Slots::Unlimited)
    };
    let route = |prefix: &str, target| Route {
        host: None,
        prefix: prefix.into(),
        pattern: false,
        strip_prefix: false,
        maintenance: None,
        error_pages: None,
        target,
        plugin: "bench".into(),
        app: "main".into(),
    };
    RouteTable {
        server: server(home),
        routes: vec![
            route("/app", Target::Upstream { name: APP.into() }),
            route("/static", Target::Static { root: of.files.into() }),
        ],
        upstreams: BTreeMap::from([(APP.to_string(), spec)]),
        not_found_page: None,
        fragments: BTreeMap::new(),
    }
}

fn server(home: &Path) -> ServerSettings {
    ServerSettings {
        ignore_client_abort: false,
        uuid: "bench".into(),
        body_temp_dir: home.join("tmp"),
        max_connections: 10_000,
        keepalive_timeout_ms: 60_000,
        ..ServerSettings::default()
    }
}
