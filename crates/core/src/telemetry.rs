//! What the telemetry role is started with.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::alerts::Alert;
use crate::keys::{
    ADMIN_HOST, ADMIN_INFLUXDB_PORT, INFLUXDB_BUCKET, INFLUXDB_DATABASE, INFLUXDB_ORG,
    INFLUXDB_PASSWORD, INFLUXDB_TOKEN, INFLUXDB_URL, INFLUXDB_USERNAME, METRICS_HISTORY_MAX_BYTES,
    METRICS_PORT, NGINX_PORT, TELEGRAF_AGENT, TELEGRAF_DEBUG, TELEGRAF_HOST, TELEGRAF_STATSD_PORT,
};
use crate::log_outputs::LogOutputs;
use crate::module_config::ModuleConfig;
use crate::shipping::ShippingSettings;

/// The variable of its environment that has the [`TelemetrySettings`] as JSON. (Not its command
/// line, which every user of the machine can read.)
pub const SETTINGS_VARIABLE: &str = "MFSERV_TELEMETRY_SETTINGS";

/// The socket on which the role is asked, in the directory of sockets (`var/run`).
pub fn ask_socket(run_dir: &Path) -> PathBuf {
    run_dir.join("telemetry.sock")
}

/// The settings of the role. A role with other settings is another process: it is replaced when
/// they change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TelemetrySettings {
    /// Metrics.
    pub metrics: MetricsSettings,
    /// Logs that are shipped, if any are.
    #[serde(default)]
    pub shipping: Option<ShippingSettings>,
    /// Where lines of logs go besides their files.
    #[serde(default)]
    pub outputs: LogOutputs,
}

/// The settings of metrics.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetricsSettings {
    /// The port of `/metrics` on 127.0.0.1.
    pub port: Option<u16>,
    /// The size of the history; 0: none is kept on the disk.
    pub history_max_bytes: u64,
    /// Where points are sent; `None`: nowhere.
    pub influxdb: Option<InfluxSettings>,
    /// Points are handed to Telegraf, which receives, aggregates and sends them.
    pub telegraf: bool,
    /// The port of statsd on 127.0.0.1.
    pub statsd_port: Option<u16>,
    /// That port is another than the built-in one, or points of it are sent: it is wrong if it
    /// cannot be had. (Of several nodes on one machine, one has the built-in port.)
    pub is_statsd_wanted: bool,
    /// Write each point to the log too.
    pub debug: bool,
    /// Send points of this machine too: `cpu`, `mem`, `disk`…
    pub host_points: bool,
    /// The port of the front, a tag of its points.
    pub front_port: Option<u16>,
    /// The alerts.
    pub alerts: Vec<Alert>,
}

/// An InfluxDB. With a token it is one of version 2.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InfluxSettings {
    /// Its address, `http://HOST:PORT`.
    pub url: String,
    /// The database.
    pub database: String,
    /// The user of version 1.
    pub username: Option<String>,
    /// The password of that user.
    pub password: Option<String>,
    /// The organisation of version 2.
    pub org: Option<String>,
    /// The bucket of version 2.
    pub bucket: Option<String>,
    /// The token of version 2.
    pub token: Option<String>,
}

impl InfluxSettings {
    /// What the configuration says: `[influxdb] url`, else the host of `[admin]`.
    pub(crate) fn new(config: &ModuleConfig) -> Option<Self> {
        let of_admin = || {
            let (host, port) = (config.get(ADMIN_HOST)?, config.get(ADMIN_INFLUXDB_PORT)?);
            let host = if host.contains(':') { format!("[{host}]") } else { host };
            Some(format!("http://{host}:{port}"))
        };
        Some(Self {
            url: config.get(INFLUXDB_URL).or_else(of_admin)?,
            database: config.get(INFLUXDB_DATABASE),
            username: config.get(INFLUXDB_USERNAME),
            password: config.get(INFLUXDB_PASSWORD),
            org: config.get(INFLUXDB_ORG),
            bucket: config.get(INFLUXDB_BUCKET),
            token: config.get(INFLUXDB_TOKEN),
        })
    }
}

impl TelemetrySettings {
    /// What the configuration says.
    pub fn new(config: &ModuleConfig) -> Self {
        let influxdb = InfluxSettings::new(config);
        let statsd_port = config.get(TELEGRAF_STATSD_PORT);
        let metrics = MetricsSettings {
            port: config.get(METRICS_PORT),
            history_max_bytes: config.get(METRICS_HISTORY_MAX_BYTES),
            statsd_port,
            is_statsd_wanted: influxdb.is_some() || statsd_port != built_in_statsd_port(),
            telegraf: influxdb.is_some() && config.get(TELEGRAF_AGENT) == "telegraf",
            debug: config.get(TELEGRAF_DEBUG),
            host_points: config.get(TELEGRAF_HOST),
            front_port: config.get(NGINX_PORT),
            alerts: config.alerts.iter().map(without_command).collect(),
            influxdb,
        };
        let shipping = ShippingSettings::new(config);
        Self { metrics, shipping, outputs: LogOutputs::new(config) }
    }
}

fn built_in_statsd_port() -> Option<u16> {
    TELEGRAF_STATSD_PORT.row().default?.parse().ok()
}

/// The role reads the network: it learns no command.
fn without_command(alert: &Alert) -> Alert {
    Alert { command: None, ..alert.clone() }
}
