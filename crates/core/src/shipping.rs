//! Which logs of a node are shipped, and where to.

use serde::{Deserialize, Serialize};

use crate::keys::{
    ADMIN_ELASTICSEARCH_PORT, ADMIN_HOST, ADMIN_LOKI_PORT, ADMIN_SEND_ACCESS_LOG, ADMIN_SEND_MFLOG,
    LOG_MFADMIN_FLAG, NGINX_ACCESS_LOG, VECTOR_MFLOG_PORT,
};
use crate::module_config::ModuleConfig;

/// Which logs are shipped, and where to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShippingSettings {
    /// The monitoring server: a name, or an address.
    pub host: String,
    /// The port of Elasticsearch there.
    pub elasticsearch_port: Option<u16>,
    /// The port of Loki there.
    pub loki_port: Option<u16>,
    /// The access log is shipped.
    pub access_log: bool,
    /// The UDP port of 127.0.0.1 where messages of mflog are received, to be shipped.
    pub mflog_port: Option<u16>,
}

impl ShippingSettings {
    /// What the configuration says; `None`: nothing is shipped.
    pub fn new(config: &ModuleConfig) -> Option<Self> {
        let host = config.get(ADMIN_HOST)?;
        let wants_mflog = config.get(ADMIN_SEND_MFLOG)
            && config.get(LOG_MFADMIN_FLAG).eq_ignore_ascii_case("AUTO");
        let settings = Self {
            host,
            elasticsearch_port: config.get(ADMIN_ELASTICSEARCH_PORT),
            loki_port: config.get(ADMIN_LOKI_PORT),
            access_log: config.get(ADMIN_SEND_ACCESS_LOG) && config.get(NGINX_ACCESS_LOG),
            mflog_port: config.get(VECTOR_MFLOG_PORT).filter(|_| wants_mflog),
        };
        let has_receiver = settings.elasticsearch_port.is_some() || settings.loki_port.is_some();
        let has_log = settings.access_log || settings.mflog_port.is_some();
        (has_receiver && has_log).then_some(settings)
    }

    /// Where programs send messages of mflog to, `HOST:PORT`.
    pub fn mflog_address(&self) -> Option<String> {
        self.mflog_port.map(|port| format!("127.0.0.1:{port}"))
    }
}

/// What is wrong with something that a node ships.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What, and where to: `mflog to http://…`.
    pub what: String,
    /// Nothing arrives: since when, milliseconds since the Unix epoch, and why.
    pub trouble: Option<(u64, String)>,
    /// Bytes of lines that were lost since the telemetry role was started.
    pub lost_bytes: u64,
    /// When the last of them were lost, milliseconds since the Unix epoch.
    pub lost_ms: u64,
}

impl Report {
    /// There is something to report.
    pub fn is_bad(&self) -> bool {
        self.trouble.is_some() || self.lost_bytes > 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn settings(sets: &[(&str, &str, &str)]) -> Option<ShippingSettings> {
        let set = |(section, key, value): &(&str, &str, &str)| {
            (section.to_string(), key.to_string(), value.to_string())
        };
        let sets: Vec<_> = sets.iter().map(set).collect();
        let resolution = crate::module_config::resolve(&[], &sets, &BTreeMap::new(), "GENERIC");
        assert!(!resolution.has_errors(), "{:?}", resolution.diagnostics);
        ShippingSettings::new(&resolution.config)
    }

    #[test]
    fn nothing_is_shipped_without_a_host_a_receiver_and_a_log() {
        assert_eq!(settings(&[]), None);
        let host = ("admin", "hostname", "admin.example.org");
        let all = settings(&[host]).unwrap();
        assert_eq!((all.elasticsearch_port, all.loki_port), (Some(15603), None));
        assert_eq!(all.mflog_address().as_deref(), Some("127.0.0.1:5144"));
        assert_eq!(settings(&[host, ("admin", "elasticsearch_http_port", "0")]), None);
        let no_access_log = ("nginx", "logging", "0");
        let no_mflog = ("log", "mfadmin_flag", "null");
        assert!(!settings(&[host, no_access_log]).unwrap().access_log);
        assert_eq!(settings(&[host, no_mflog]).unwrap().mflog_address(), None);
        assert_eq!(settings(&[host, no_access_log, no_mflog]), None);
        let off = [("admin", "send_nginx_logs", "0"), ("admin", "send_mflog_logs", "0")];
        assert_eq!(settings(&[host, off[0], off[1]]), None);
    }
}
