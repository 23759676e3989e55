//! The way of a point: from statsd, from `var/telegraf.socket` and from what mfserv counts
//! itself, through the three resolutions, to InfluxDB.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use mfserv_platform::clock::now_ms;
use mfserv_platform::sync::lock;
use rustix::event::{PollFd, PollFlags, poll};

use super::LOOK;
use super::basicstats::{BasicStats, FULLRES, RESOLUTION, known_resolution};
use super::host::Host;
use super::influx::Sender;
use super::listener::SocketListener;
use super::own::Own;
use super::point::{LINE_MAX, Point};
use super::registry::Registry;
use super::spool::{Batch, Spool};
use super::statsd::Statsd;

/// How often points are gathered, seconds: the window of the highest resolution.
const GATHER_S: u64 = 10;
/// The most points that wait to be sent as they came.
const RAW_MAX: usize = 20_000;
/// The most bytes of them, as lines.
const RAW_BYTES_MAX: usize = 16 << 20;
/// The largest batch, bytes.
const BATCH_MAX: usize = 1 << 20;
/// The largest datagram of statsd, bytes.
const DATAGRAM_MAX: usize = 64 * 1024;
/// The most connections to `var/telegraf.socket` at a time.
const CONNECTIONS_MAX: usize = 512;
/// The stack of a thread that reads one of them, bytes.
const STACK: usize = 256 * 1024;
/// Bytes of datagrams of statsd that may wait; the system may allow less.
const BURST: usize = 8 << 20;

/// Points that wait to be sent as they came.
#[derive(Default)]
struct Raw {
    points: Vec<Point>,
    /// Their size, as lines.
    bytes: usize,
}

impl Raw {
    /// Adds a point. Returns whether there was room for it.
    fn add(&mut self, point: Point) -> bool {
        let mut line = String::new();
        point.write(&mut line, 0);
        let fits = self.points.len() < RAW_MAX && self.bytes + line.len() <= RAW_BYTES_MAX;
        if fits {
            self.bytes += line.len();
            self.points.push(point);
        }
        fits
    }
}

/// What all threads share.
pub struct Shared {
    ends: Arc<AtomicBool>,
    host: String,
    statsd: Mutex<Statsd>,
    stats: Mutex<BasicStats>,
    raw: Mutex<Raw>,
    /// Points that were dropped: too many at a time.
    dropped: AtomicU64,
    /// Lines that were none.
    bad_lines: AtomicU64,
    /// Connections that were closed at once: too many at a time.
    connections: AtomicU64,
    /// The port where statsd is received now; 0: none.
    statsd_port: AtomicU16,
}

impl Shared {
    /// Nothing was received. `host`: the tag of every point.
    pub fn new(host: String, ends: Arc<AtomicBool>) -> Self {
        Self {
            ends,
            host,
            statsd: Mutex::default(),
            stats: Mutex::new(BasicStats::new(now_s())),
            raw: Mutex::default(),
            dropped: AtomicU64::new(0),
            bad_lines: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            statsd_port: AtomicU16::new(0),
        }
    }

    fn has_ended(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }

    /// Receives a point.
    fn add(&self, mut point: Point) {
        for (name, value) in [("module", "mfserv"), ("host", &self.host)] {
            if !point.tags.contains_key(name) {
                point = point.tag(name, value);
            }
        }
        let Some(mut point) = lock(&self.stats).add(point) else { return };
        point.at_ns = point.at_ns.or(Some(now_ns()));
        if !lock(&self.raw).add(point) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Gathers and sends.
pub struct Pipeline {
    shared: Arc<Shared>,
    registry: Arc<Mutex<Registry>>,
    own: Own,
    /// `None`: its points are not sent.
    host: Option<Host>,
    spool: Arc<Mutex<Spool>>,
    /// Wakes the sender.
    wake: SyncSender<()>,
    debug: bool,
    said: String,
}

impl Pipeline {
    /// One whose points are sent by this sender, in a thread of its own. `spool`: what it sends.
    pub fn start(
        shared: Arc<Shared>,
        registry: Arc<Mutex<Registry>>,
        (own, host): (Own, Option<Host>),
        (spool, sender): (Arc<Mutex<Spool>>, Sender),
        debug: bool,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (wake, woken) = sync_channel(1);
        let thread = std::thread::Builder::new().name("influxdb".into());
        let thread = thread.spawn(move || sender.run(&woken))?;
        let said = String::new();
        Ok((Self { shared, registry, own, host, spool, wake, debug, said }, thread))
    }

    /// Gathers and sends until it is to end; then what is there.
    pub fn run(mut self) {
        let mut next = (now_s() / GATHER_S + 1) * GATHER_S;
        loop {
            std::thread::sleep(LOOK);
            let (now, is_end) = (now_s(), self.shared.has_ended());
            let changes = self.own.changes(is_end);
            // A turn that is too far away was chosen before the clock went back.
            let is_due = now >= next || next > now + GATHER_S || is_end;
            if is_due {
                self.gather();
                next = (now / GATHER_S + 1) * GATHER_S;
            }
            if is_due || !changes.is_empty() {
                changes.into_iter().for_each(|point| self.shared.add(point));
                self.send(now, is_end);
            }
            if is_end {
                return;
            }
        }
    }

    /// What was dropped until now, by what.
    fn dropped(&self) -> BTreeMap<&'static str, u64> {
        let shared = &self.shared;
        let (stats, late) = {
            let stats = lock(&shared.stats);
            (stats.dropped, stats.late)
        };
        let (bad_statsd, members, beyond) = {
            let statsd = lock(&shared.statsd);
            (statsd.bad_lines, statsd.members, statsd.beyond)
        };
        let (batches, refused) = {
            let spool = lock(&self.spool);
            (spool.dropped, spool.refused)
        };
        BTreeMap::from([
            ("raw_points", shared.dropped.load(Ordering::Relaxed)),
            ("bad_lines", shared.bad_lines.load(Ordering::Relaxed)),
            ("datagrams", datagrams_dropped(shared.statsd_port.load(Ordering::Relaxed))),
            ("connections", shared.connections.load(Ordering::Relaxed)),
            ("series", stats),
            ("late_points", late),
            ("bad_statsd", bad_statsd),
            ("set_members", members),
            ("statsd_tags", beyond),
            ("batches", batches),
            ("refused_batches", refused),
        ])
    }

    fn gather(&mut self) {
        let dropped = self.dropped();
        let (snapshot, timings) = {
            let mut registry = lock(&self.registry);
            registry.dropped = dropped;
            (registry.snapshot(), registry.take_timings())
        };
        let mut points = self.own.points(&snapshot, timings);
        points.extend(self.host.iter_mut().flat_map(Host::points));
        // Datagrams are received while the points are made.
        let statsd = lock(&self.shared.statsd).take();
        points.extend(statsd.points());
        points.into_iter().for_each(|point| self.shared.add(point));
    }

    fn send(&mut self, now: u64, is_end: bool) {
        let mut points = lock(&self.shared.stats).take(now, is_end);
        points.append(&mut std::mem::take(&mut *lock(&self.shared.raw)).points);
        let at_ns = now as i64 * 1_000_000_000;
        let mut batches: Vec<Batch> = Vec::new();
        for point in points {
            let resolution = point.tags.get(RESOLUTION).and_then(|name| known_resolution(name));
            let resolution = resolution.unwrap_or(FULLRES);
            let fits = |batch: &&mut Batch| {
                batch.resolution == resolution && batch.lines.len() < BATCH_MAX
            };
            match batches.iter_mut().find(fits) {
                Some(batch) => point.write(&mut batch.lines, at_ns),
                None => {
                    let mut batch = Batch { resolution, lines: String::new() };
                    point.write(&mut batch.lines, at_ns);
                    batches.push(batch);
                }
            }
        }
        for batch in batches {
            if self.debug {
                // The log of the role; who closes it loses the lines.
                let _ = std::io::stderr().write_all(batch.lines.as_bytes());
            }
            if let Err(why) = lock(&self.spool).push(batch) {
                super::report_once(&mut self.said, format!("points are lost: {why}"));
            }
        }
        // It is awake already if this is refused.
        let _ = self.wake.try_send(());
    }
}

/// Receives statsd on a port of 127.0.0.1, until it is to end. A port that is taken is tried again.
pub fn receive_statsd(shared: &Shared, port: u16) {
    let mut said = String::new();
    let mut datagram = vec![0; DATAGRAM_MAX];
    while !shared.has_ended() {
        let socket = match UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(socket) if socket.set_read_timeout(Some(LOOK)).is_ok() => {
                // A burst waits here while points are gathered.
                let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, BURST);
                shared.statsd_port.store(port, Ordering::Relaxed);
                socket
            }
            other => {
                let why = other.err().map_or_else(String::new, |why| why.to_string());
                let text = format!("[telegraf] statsd_port={port} cannot be used: {why}");
                super::report_once(&mut said, text);
                std::thread::sleep(LOOK);
                continue;
            }
        };
        while !shared.has_ended() {
            if let Ok(length) = socket.recv(&mut datagram) {
                lock(&shared.statsd).receive(&datagram[..length]);
            }
        }
    }
}

/// Datagrams that the kernel has dropped since the socket of a port of 127.0.0.1 was bound, for want of
/// room. (`/proc/net/udp`: the address is that of the kernel's own byte order.)
fn datagrams_dropped(port: u16) -> u64 {
    let text = std::fs::read_to_string("/proc/net/udp").unwrap_or_default();
    let address = u32::from_ne_bytes(Ipv4Addr::LOCALHOST.octets());
    let own = format!("{address:08X}:{port:04X}");
    let mut lines = text.lines().map(|line| line.split_ascii_whitespace());
    lines
        .find_map(|mut line| {
            (line.nth(1) == Some(&own)).then(|| line.last()?.parse().ok()).flatten()
        })
        .unwrap_or(0)
}

/// Receives lines on a unix socket until it is to end.
pub fn receive_lines(shared: &Arc<Shared>, socket: PathBuf) {
    let mut listener = SocketListener::new(socket);
    let (mut said, connections) = (String::new(), Arc::<AtomicUsize>::default());
    while !shared.has_ended() {
        if let Err(why) = listener.look_after() {
            super::report_once(&mut said, format!("no socket for points: {why}"));
        }
        let timeout = super::timespec(LOOK);
        let mut all: Vec<PollFd<'_>> = Vec::new();
        all.extend(listener.socket().map(|socket| PollFd::new(socket, PollFlags::IN)));
        // Interrupted or not: everything is looked at again.
        let _ = poll(&mut all, Some(&timeout));
        while let Some(stream) = listener.accept() {
            if connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
                connections.fetch_sub(1, Ordering::Relaxed);
                shared.connections.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let (shared, open) = (shared.clone(), connections.clone());
            let thread = std::thread::Builder::new().name("points-from".into()).stack_size(STACK);
            let spawned = thread.spawn(move || {
                read_lines(&shared, stream);
                open.fetch_sub(1, Ordering::Relaxed);
            });
            if spawned.is_err() {
                connections.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

fn read_lines(shared: &Shared, stream: UnixStream) {
    if stream.set_read_timeout(Some(LOOK)).is_err() {
        return;
    }
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while !shared.has_ended() {
        let room = (LINE_MAX - line.len()) as u64 + 1;
        match reader.by_ref().take(room).read_until(b'\n', &mut line) {
            // The last line may have no end.
            Ok(0) if line.is_empty() => return,
            Ok(0) => {}
            Ok(_) if line.ends_with(b"\n") => {}
            // Whoever writes a line without an end is not listened to.
            Ok(_) if line.len() > LINE_MAX => return,
            Ok(_) => continue,
            // What was read of the line stays.
            Err(why) if is_timeout(&why) => continue,
            Err(_) => return,
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        if !text.is_empty() && !text.starts_with('#') {
            match Point::read(text) {
                Some(point) => shared.add(point),
                None => drop(shared.bad_lines.fetch_add(1, Ordering::Relaxed)),
            }
        }
        line.clear();
    }
}

fn is_timeout(why: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(why.kind(), Interrupted | TimedOut | WouldBlock)
}

fn now_s() -> u64 {
    now_ms() / 1000
}

fn now_ns() -> i64 {
    now_ms() as i64 * 1_000_000
}

#[cfg(test)]
mod tests {
    use super::super::basicstats::BYPASS;
    use super::super::point::Value;
    use super::*;

    #[test]
    fn points_that_wait_as_they_came_are_bounded_in_bytes() {
        let shared = Shared::new("h".into(), Arc::default());
        let text = Value::Text("x".repeat(60_000));
        let point = Point::new("m").tag(BYPASS, "1").field("t", text);
        (0..300).for_each(|_| shared.add(point.clone()));
        let kept = lock(&shared.raw).points.len();
        assert!((200..=RAW_BYTES_MAX / 60_000).contains(&kept), "{kept}");
        assert_eq!(shared.dropped.load(Ordering::Relaxed), 300 - kept as u64);
    }

    #[test]
    fn datagrams_that_the_kernel_has_dropped_are_counted() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert_eq!(datagrams_dropped(address.port()), 0);
        until("the buffer is full", || {
            sender.send_to(&[b'x'; 1000], address).unwrap();
            datagrams_dropped(address.port()) > 10
        });
    }

    #[test]
    fn as_many_clients_may_send_lines_as_there_are_workers_and_more_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("points");
        let shared = Arc::new(Shared::new("h".into(), Arc::default()));
        let (receiving, socket) = (shared.clone(), path.clone());
        let receiver = std::thread::spawn(move || receive_lines(&receiving, socket));
        let mut clients = Vec::new();
        until("more than fit have connected", || {
            clients.extend(UnixStream::connect(&path));
            clients.len() > CONNECTIONS_MAX + 5
        });
        let refused = || shared.connections.load(Ordering::Relaxed);
        until("those beyond are counted", || {
            refused() == clients.len() as u64 - CONNECTIONS_MAX as u64
        });
        clients[CONNECTIONS_MAX - 1].write_all(b"m,module=x v=1\nnone\n").unwrap();
        until("the last that fits is heard", || shared.bad_lines.load(Ordering::Relaxed) == 1);
        shared.ends.store(true, Ordering::Relaxed);
        receiver.join().unwrap();
    }

    fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        let began = std::time::Instant::now();
        while !is_so() {
            assert!(began.elapsed() < std::time::Duration::from_secs(30), "never: {what}");
            // Not all of the processor: others are to get on.
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
    }
}
