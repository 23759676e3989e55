//! The way of a point: from statsd, from `var/telegraf.socket` and from what mfserv counts
//! itself, through the three resolutions, to InfluxDB.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use mfserv_platform::clock::now_ms;
use mfserv_platform::sync::lock;

use super::LOOK;
use super::app_series::AppSeries;
use super::basicstats::{BasicStats, FULLRES, RESOLUTION, known_resolution};
use super::host::Host;
use super::influx::Sender;
use super::own::Own;
use super::point::Point;
use super::receive::datagrams_dropped;
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
    pub(super) ends: Arc<AtomicBool>,
    host: String,
    /// Points go on to InfluxDB.
    forwards: bool,
    /// What has come by statsd.
    pub(super) statsd: Mutex<Statsd>,
    /// What Prometheus is told of what apps send.
    apps: Arc<Mutex<AppSeries>>,
    stats: Mutex<BasicStats>,
    raw: Mutex<Raw>,
    /// Points that were dropped: too many at a time.
    dropped: AtomicU64,
    /// Lines that were none.
    pub(super) bad_lines: AtomicU64,
    /// Connections that were closed at once: too many at a time.
    pub(super) connections: AtomicU64,
    /// The port where statsd is received now; 0: none.
    pub(super) statsd_port: AtomicU16,
}

impl Shared {
    /// Nothing was received. `host`: the tag of every point; `forwards`: points go on to InfluxDB;
    /// `apps`: what Prometheus is told of them.
    pub fn new(
        host: String,
        forwards: bool,
        apps: Arc<Mutex<AppSeries>>,
        ends: Arc<AtomicBool>,
    ) -> Self {
        Self {
            ends,
            host,
            forwards,
            statsd: Mutex::new(Statsd::new(apps.clone())),
            apps,
            stats: Mutex::new(BasicStats::new(now_s())),
            raw: Mutex::default(),
            dropped: AtomicU64::new(0),
            bad_lines: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            statsd_port: AtomicU16::new(0),
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }

    /// Receives a point of an app.
    pub(super) fn receive(&self, point: Point) {
        lock(&self.apps).line(&point);
        if self.forwards {
            self.add(point);
        }
    }

    /// Takes a point that is sent.
    pub(super) fn add(&self, mut point: Point) {
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

/// Gathers what was received, and sends it if there is an InfluxDB.
pub struct Pipeline {
    shared: Arc<Shared>,
    registry: Arc<Mutex<Registry>>,
    outlet: Option<Outlet>,
}

/// The way to InfluxDB, and the points that mfserv adds.
pub struct Outlet {
    own: Own,
    /// `None`: its points are not sent.
    host: Option<Host>,
    spool: Arc<Mutex<Spool>>,
    /// Wakes the sender.
    wake: SyncSender<()>,
    debug: bool,
    said: String,
}

impl Outlet {
    /// One whose points are sent by this sender, in a thread of its own. `spool`: what it sends;
    /// `debug`: each point is written to the log too.
    pub fn start(
        (own, host): (Own, Option<Host>),
        (spool, sender): (Arc<Mutex<Spool>>, Sender),
        debug: bool,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (wake, woken) = sync_channel(1);
        let thread = std::thread::Builder::new().name("influxdb".into());
        let thread = thread.spawn(move || sender.run(&woken))?;
        Ok((Self { own, host, spool, wake, debug, said: String::new() }, thread))
    }
}

impl Pipeline {
    /// One that has gathered nothing.
    pub fn new(
        shared: Arc<Shared>,
        registry: Arc<Mutex<Registry>>,
        outlet: Option<Outlet>,
    ) -> Self {
        Self { shared, registry, outlet }
    }

    /// Gathers and sends until it is to end; then what is there.
    pub fn run(mut self) {
        let mut next = (now_s() / GATHER_S + 1) * GATHER_S;
        loop {
            std::thread::sleep(LOOK);
            let (now, is_end) = (now_s(), self.shared.has_ended());
            let changes = self.outlet.as_mut().map(|outlet| outlet.own.changes(is_end));
            let changes = changes.unwrap_or_default();
            // A turn that is too far away was chosen before the clock went back.
            let is_due = now >= next || next > now + GATHER_S || is_end;
            if is_due {
                self.gather();
                next = (now / GATHER_S + 1) * GATHER_S;
            }
            if is_due || !changes.is_empty() {
                changes.into_iter().for_each(|point| self.shared.add(point));
                if let Some(outlet) = &mut self.outlet {
                    outlet.send(&self.shared, now, is_end);
                }
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
        let mut dropped = BTreeMap::from([
            ("raw_points", shared.dropped.load(Ordering::Relaxed)),
            ("bad_lines", shared.bad_lines.load(Ordering::Relaxed)),
            ("datagrams", datagrams_dropped(shared.statsd_port.load(Ordering::Relaxed))),
            ("connections", shared.connections.load(Ordering::Relaxed)),
            ("series", stats),
            ("late_points", late),
            ("bad_statsd", bad_statsd),
            ("set_members", members),
            ("statsd_tags", beyond),
            ("app_series", lock(&shared.apps).dropped),
        ]);
        if let Some(outlet) = &self.outlet {
            let spool = lock(&outlet.spool);
            dropped.extend([("batches", spool.dropped), ("refused_batches", spool.refused)]);
        }
        dropped
    }

    fn gather(&mut self) {
        let dropped = self.dropped();
        let mut registry = lock(&self.registry);
        registry.dropped.extend(dropped);
        let mut points = match &mut self.outlet {
            Some(outlet) => {
                let (snapshot, timings) = (registry.snapshot(), registry.take_timings());
                drop(registry);
                let mut points = outlet.own.points(&snapshot, timings);
                points.extend(outlet.host.iter_mut().flat_map(Host::points));
                points
            }
            None => Vec::new(),
        };
        // Datagrams are received while the points are made.
        let statsd = lock(&self.shared.statsd).take();
        if self.shared.forwards {
            points.extend(statsd.points());
        }
        points.into_iter().for_each(|point| self.shared.add(point));
    }
}

impl Outlet {
    fn send(&mut self, shared: &Shared, now: u64, is_end: bool) {
        let mut points = lock(&shared.stats).take(now, is_end);
        points.append(&mut std::mem::take(&mut *lock(&shared.raw)).points);
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
        let shared = Shared::new("h".into(), true, Arc::default(), Arc::default());
        let text = Value::Text("x".repeat(60_000));
        let point = Point::new("m").tag(BYPASS, "1").field("t", text);
        (0..300).for_each(|_| shared.add(point.clone()));
        let kept = lock(&shared.raw).points.len();
        assert!((200..=RAW_BYTES_MAX / 60_000).contains(&kept), "{kept}");
        assert_eq!(shared.dropped.load(Ordering::Relaxed), 300 - kept as u64);
    }
}
