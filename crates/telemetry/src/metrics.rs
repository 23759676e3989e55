//! Metrics: what fronts and the daemon count, summed, and given to whoever asks.
//!
//! Data flows one way. Fronts and the daemon push their counters once a second ([`intake`]) into
//! the [`registry`]; a scrape ([`serve`]) is a reading of it ([`collect`]) in the text formats of
//! Prometheus ([`exposition`]). The names are in one table, [`names`]. [`history`] remembers what was.

pub mod alerts;
mod app_series;
mod ask;
mod basicstats;
mod changes;
mod collect;
mod exposition;
mod handover;
mod history;
mod host;
mod influx;
mod intake;
mod listener;
mod names;
mod own;
mod pipeline;
mod point;
mod processes;
mod receive;
mod registry;
mod serve;
mod spool;
mod statsd;
mod table;

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mfserv_core::Diagnostic;
use mfserv_core::telemetry::{InfluxSettings, MetricsSettings};
use mfserv_platform::sync::lock;
use rustix::time::Timespec;

use crate::ship::{Count, Progress};
use crate::troubles::Troubles;
use app_series::AppSeries;
pub use ask::{ask, ask_alerts, ask_history};
pub use exposition::Format;
use handover::Handover;
pub use history::{Answer, Series, Values};
use history::{History, Recorder};
use host::{Host, Sources};
use influx::Sender;
use intake::Intake;
use own::Own;
use pipeline::{Outlet, Pipeline, Shared};
use registry::{Registry, Store};
use serve::{Known, Server};
use spool::Spool;

/// How often a listener looks whether it is to end, and whether its socket is still there.
const LOOK: Duration = Duration::from_millis(500);

/// Says in the log of the role what is wrong, unless that was the last thing said of it.
fn report_once(last: &mut String, text: String) {
    if *last != text {
        // Standard error is `log/telemetry.log`; who closes it loses the message.
        let _ = writeln!(std::io::stderr(), "{text}");
        *last = text;
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) }
}

/// The values of the label `what` for bytes of logs, by the kind of their receiver.
const LOST_BYTES: [(&str, &str); 5] = [
    ("elasticsearch", "elasticsearch_bytes"),
    ("loki", "loki_bytes"),
    ("journald", "journald_bytes"),
    ("syslog", "syslog_bytes"),
    ("json_file", "json_file_bytes"),
];

/// How long the last points may take to be sent at the end.
const LAST_BATCH: Duration = Duration::from_secs(2);

/// What metrics are started with.
pub struct Options {
    /// Where counters are received.
    pub metrics_socket: PathBuf,
    /// Where they are asked for.
    pub ask_socket: PathBuf,
    /// Where points are received, lines of InfluxDB.
    pub points_socket: PathBuf,
    /// The directory of points that could not be sent.
    pub spool: PathBuf,
    /// The directory of the history.
    pub history: PathBuf,
    /// The file of the alerts that fire.
    pub alerts_state: PathBuf,
    /// The file of what was counted.
    pub counters: PathBuf,
    /// The name of this host.
    pub host: String,
    /// The home of the node: its file system is looked at.
    pub home: PathBuf,
    /// What the configuration says.
    pub settings: MetricsSettings,
    /// Where it is said what does not work.
    pub troubles: Arc<Troubles>,
}

/// Metrics, received and given in threads of their own.
pub struct Service {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    registry: Arc<Mutex<Registry>>,
    /// It may wait for InfluxDB; and what it is to send.
    sender: Option<(JoinHandle<()>, Arc<Mutex<Spool>>)>,
}

/// Counts the work of shippers.
struct Shipped(Arc<Mutex<Registry>>);

impl Count for Shipped {
    fn lost(&self, receiver: &'static str, bytes: u64) {
        let what = LOST_BYTES.iter().find(|(name, _)| *name == receiver);
        if let Some((_, what)) = what {
            *lock(&self.0).dropped.entry(what).or_default() += bytes;
        }
    }

    fn is_at(&self, log: &str, receiver: &'static str, progress: Progress) {
        lock(&self.0).shipped.insert((log.into(), receiver), progress);
    }
}

impl Service {
    /// Starts to receive and to answer.
    pub fn start(options: Options) -> Result<Self, Diagnostic> {
        let failed = |why| Diagnostic::error("the telemetry role has no thread").because(why);
        let ends = Arc::<AtomicBool>::default();
        let times = options.settings.influxdb.is_some();
        let registry = Arc::new(Mutex::new(Registry::restored(times, &options.counters)));
        let store = Store::new(options.counters.clone(), options.home.join("var/status"));
        let socket = options.metrics_socket.clone();
        let intake = Intake::new(socket, registry.clone(), ends.clone(), store);
        let addresses = (options.ask_socket.clone(), options.settings.port);
        let bytes_max = options.settings.history_max_bytes;
        let dir = Some(options.history.clone()).filter(|_| bytes_max > 0);
        let history = Arc::new(History::new(dir));
        let shown = alerts::Shown::default();
        let apps = Arc::<Mutex<AppSeries>>::default();
        let known = Known {
            registry: registry.clone(),
            apps: apps.clone(),
            history: history.clone(),
            alerts: shown.clone(),
            sources: Sources::new(options.home.clone()),
            troubles: options.troubles.clone(),
        };
        let server = Server::new(addresses, known, ends.clone());
        let recorder = Recorder::new(history.clone(), registry.clone(), ends.clone(), bytes_max);
        let mut service =
            Self { ends, threads: Vec::new(), registry: registry.clone(), sender: None };
        // One that fired may have been removed from the configuration.
        if !options.settings.alerts.is_empty() || options.alerts_state.exists() {
            service.watch(&options, (history, registry.clone()), shown).map_err(failed)?;
        }
        service.spawn("metrics-in", move || intake.run()).map_err(failed)?;
        service.spawn("metrics-out", move || server.run()).map_err(failed)?;
        service.spawn("history", move || recorder.run()).map_err(failed)?;
        if options.settings.telegraf {
            let own = Own::new(options.settings.front_port, options.home.join("var/status"));
            let (ends, socket) = (service.ends.clone(), options.points_socket);
            let handover = Handover { ends, registry, own, socket };
            service.spawn("points-to", move || handover.run()).map_err(failed)?;
        } else {
            service.receive_points(options, registry, apps).map_err(failed)?;
        }
        Ok(service)
    }

    /// Counts what is shipped, and lost on the way.
    pub fn count_shipped(&self) -> Box<dyn Count> {
        Box::new(Shipped(self.registry.clone()))
    }

    /// Looks at the conditions of alerts.
    fn watch(
        &mut self,
        options: &Options,
        (history, registry): (Arc<History>, Arc<Mutex<Registry>>),
        shown: alerts::Shown,
    ) -> std::io::Result<()> {
        let watch = alerts::Watch {
            alerts: options.settings.alerts.clone(),
            host: options.host.clone(),
            state: options.alerts_state.clone(),
            history,
            registry,
            shown,
            ends: self.ends.clone(),
        };
        self.spawn("alerts", move || watch.run())
    }

    /// Receives points, and sends them if there is an InfluxDB.
    fn receive_points(
        &mut self,
        options: Options,
        registry: Arc<Mutex<Registry>>,
        apps: Arc<Mutex<AppSeries>>,
    ) -> std::io::Result<()> {
        let outlet = match options.settings.influxdb.clone() {
            Some(influxdb) => self.outlet(&options, influxdb)?,
            None => None,
        };
        let forwards = outlet.is_some();
        let shared = Arc::new(Shared::new(options.host, forwards, apps, self.ends.clone()));
        let pipeline = Pipeline::new(shared.clone(), registry, outlet);
        self.spawn("points", move || pipeline.run())?;
        if let Some(port) = options.settings.statsd_port {
            let (shared, is_wanted) = (shared.clone(), options.settings.is_statsd_wanted);
            let troubles = Some(options.troubles).filter(|_| is_wanted);
            self.spawn("statsd", move || receive::statsd(&shared, port, troubles.as_deref()))?;
        }
        let socket = options.points_socket;
        self.spawn("points-in", move || receive::lines(&shared, socket))
    }

    /// The way to InfluxDB; `None` if there can be none, which is said.
    fn outlet(
        &mut self,
        options: &Options,
        influxdb: InfluxSettings,
    ) -> std::io::Result<Option<Outlet>> {
        let (settings, url) = (&options.settings, influxdb.url.clone());
        let spool = Spool::open(options.spool.clone()).map(|spool| Arc::new(Mutex::new(spool)));
        let sending = spool.and_then(|spool| {
            let sender = Sender::new(influxdb, spool.clone(), options.troubles.clone())?;
            Ok((spool, sender))
        });
        let (spool, sender) = match sending {
            Ok(sending) => sending,
            // What is counted can be read all the same.
            Err(problem) => {
                options.troubles.say(&format!("points to {url}"), &problem.to_string());
                return Ok(None);
            }
        };
        let own = Own::new(settings.front_port, options.home.join("var/status"));
        let sources = || Sources::new(options.home.clone());
        let host = settings.host_points.then(|| Host::new(sources()));
        let sending = (spool.clone(), sender);
        let (outlet, thread) = Outlet::start((own, host), sending, settings.debug)?;
        self.sender = Some((thread, spool));
        Ok(Some(outlet))
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        self.threads.push(std::thread::Builder::new().name(name.into()).spawn(run)?);
        Ok(())
    }

    /// Ends; the sockets are removed.
    pub fn end(self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // A thread that panicked has ended as well.
            let _ = thread.join();
        }
        let Some((sender, spool)) = self.sender else { return };
        let end = Instant::now() + LAST_BATCH;
        while !sender.is_finished() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        // InfluxDB may not have answered yet.
        if let Err(why) = lock(&spool).store() {
            report_once(&mut String::new(), format!("points are lost: {why}"));
        }
    }
}
