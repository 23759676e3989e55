//! What the telemetry role is started with.

use serde::{Deserialize, Serialize};

use crate::keys::METRICS_PORT;
use crate::module_config::ModuleConfig;
use crate::shipping::ShippingSettings;

/// The variable of its environment that has the [`TelemetrySettings`] as JSON. (Not its command
/// line, which every user of the machine can read.)
pub const SETTINGS_VARIABLE: &str = "MFSERV_TELEMETRY_SETTINGS";

/// The settings of the role. A role with other settings is another process: it is replaced when
/// they change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TelemetrySettings {
    /// Metrics.
    pub metrics: MetricsSettings,
    /// Logs that are shipped, if any are.
    #[serde(default)]
    pub shipping: Option<ShippingSettings>,
}

/// The settings of metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MetricsSettings {
    /// The port of `/metrics` on 127.0.0.1.
    pub port: Option<u16>,
}

impl TelemetrySettings {
    /// What the configuration says.
    pub fn new(config: &ModuleConfig) -> Self {
        Self {
            metrics: MetricsSettings { port: config.get(METRICS_PORT) },
            shipping: ShippingSettings::new(config),
        }
    }
}
