//! The telemetry role: a process that reads what the others send and write, and speaks with the
//! network. It can start no process, and asks the keeper for nothing.

use std::path::PathBuf;
use std::sync::Arc;

use mfserv_core::Diagnostic;
use mfserv_core::telemetry::TelemetrySettings;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::metrics::{self, Service};
use crate::ship::{NodeLogs, NodeOutputs, Notice, Reports};
use crate::troubles::Troubles;

/// What the role is started with.
pub struct RoleOptions {
    /// Where counters are received.
    pub metrics_socket: PathBuf,
    /// Where metrics are asked for.
    pub ask_socket: PathBuf,
    /// Where points are received, lines of InfluxDB.
    pub points_socket: PathBuf,
    /// The directory of what could not be sent yet.
    pub spool: PathBuf,
    /// The directory of the history.
    pub history: PathBuf,
    /// The file of the alerts that fire.
    pub alerts_state: PathBuf,
    /// The file of what was counted.
    pub counters: PathBuf,
    /// The name of this host.
    pub host: String,
    /// The home of the node.
    pub home: PathBuf,
    /// What the configuration says.
    pub settings: TelemetrySettings,
    /// The directory of the logs.
    pub log_dir: PathBuf,
    /// The directory of what is shipped: positions, received messages.
    pub ship_dir: PathBuf,
    /// Says something to the operator.
    pub notice: Notice,
}

/// Runs the role until SIGTERM or SIGINT.
pub fn run(options: RoleOptions) -> Result<(), Diagnostic> {
    let failed = |why| Diagnostic::error("the telemetry role cannot start").because(why);
    // SIGHUP is received and not obeyed: who sends it to every process of a node wants it to
    // reload. The daemon replaces this process if its settings have changed.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(failed)?;
    let (settings, hostname) = (options.settings, std::env::var("MFHOSTNAME").unwrap_or_default());
    let reports = options.ship_dir.join("reports.json");
    let troubles = Arc::new(Troubles::new(reports, options.notice.clone()));
    let service = Service::start(metrics::Options {
        metrics_socket: options.metrics_socket,
        ask_socket: options.ask_socket,
        points_socket: options.points_socket,
        spool: options.spool,
        history: options.history,
        alerts_state: options.alerts_state,
        counters: options.counters,
        host: options.host,
        home: options.home.clone(),
        settings: settings.metrics,
        troubles: troubles.clone(),
    })?;
    let reports = Reports::new(troubles, options.notice.clone(), service.count_shipped());
    let reports = Arc::new(reports);
    let outputs = NodeOutputs {
        outputs: settings.outputs,
        logs: options.log_dir.clone(),
        state: options.ship_dir.clone(),
        home: options.home,
        hostname: hostname.clone(),
    };
    let mut started = outputs.start(&reports);
    if let Some(settings) = settings.shipping {
        let logs = NodeLogs {
            settings,
            access_log: options.log_dir.join("nginx_access.log"),
            state: options.ship_dir,
            hostname,
            version: env!("CARGO_PKG_VERSION").into(),
        };
        started = started.and(logs.start(&options.notice, &reports));
    }
    // Metrics are more than nothing.
    if let Err(error) = started {
        (options.notice)(&format!("no logs are shipped: {error}"));
    }
    signals.forever().find(|signal| *signal != SIGHUP);
    service.end();
    Ok(())
}
