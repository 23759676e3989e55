//! Metrics: what fronts and the daemon count, summed, and given to whoever asks.
//!
//! Data flows one way. Fronts and the daemon push their counters once a second ([`intake`]) into
//! the [`registry`]; a scrape ([`serve`]) is a reading of it ([`collect`]) in the text formats of
//! Prometheus ([`exposition`]). The names are in one table, [`names`].

mod ask;
mod collect;
mod exposition;
mod intake;
mod listener;
mod names;
mod processes;
mod registry;
mod serve;

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use mfserv_core::telemetry::MetricsSettings;
use rustix::time::Timespec;

pub use ask::ask;
pub use exposition::Format;
use intake::Intake;
use registry::Registry;
use serve::Server;

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

/// What metrics are started with.
#[derive(Debug)]
pub struct Options {
    /// Where counters are received.
    pub metrics_socket: PathBuf,
    /// Where they are asked for.
    pub ask_socket: PathBuf,
    /// What the configuration says.
    pub settings: MetricsSettings,
}

/// Metrics, received and given in threads of their own.
pub struct Service {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Service {
    /// Starts to receive and to answer.
    pub fn start(options: Options) -> std::io::Result<Self> {
        let ends = Arc::<AtomicBool>::default();
        let registry = Arc::new(Mutex::new(Registry::new()));
        let intake = Intake::new(options.metrics_socket, registry.clone(), ends.clone());
        let mut server = Server::new(registry, ends.clone());
        server.on_socket(options.ask_socket);
        if let Some(port) = options.settings.port {
            server.on_port(port);
        }
        let mut service = Self { ends, threads: Vec::new() };
        service.spawn("metrics-in", move || intake.run())?;
        service.spawn("metrics-out", move || server.run())?;
        Ok(service)
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
    }
}
