//! Which logs of a node are shipped, and where to.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::keys::{
    ADMIN_ELASTICSEARCH_PORT, ADMIN_HOST, ADMIN_LOKI_PORT, ADMIN_SEND_ACCESS_LOG, ADMIN_SEND_MFLOG,
    ELASTICSEARCH_API_KEY, ELASTICSEARCH_CA, ELASTICSEARCH_DATA_STREAM, ELASTICSEARCH_MFLOG_INDEX,
    ELASTICSEARCH_NGINX_INDEX, ELASTICSEARCH_PASSWORD, ELASTICSEARCH_URL, ELASTICSEARCH_USER, Key,
    LOG_MFADMIN_FLAG, LOKI_CA, LOKI_PASSWORD, LOKI_URL, LOKI_USER, NGINX_ACCESS_LOG,
    VECTOR_MFLOG_PORT,
};
use crate::module_config::ModuleConfig;

/// Which logs are shipped, and where to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShippingSettings {
    /// Elasticsearch, or OpenSearch.
    pub elasticsearch: Option<Elasticsearch>,
    /// Loki.
    pub loki: Option<Receiver>,
    /// The access log is shipped.
    pub access_log: bool,
    /// The UDP port of 127.0.0.1 where messages of mflog are received, to be shipped.
    pub mflog_port: Option<u16>,
}

/// A server that logs are shipped to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receiver {
    /// Its addresses, `http://HOST:PORT`: nodes of one cluster. At least one.
    pub urls: Vec<String>,
    /// The user of basic authentication.
    pub user: Option<String>,
    /// The password of that user.
    pub password: Option<String>,
    /// An API key of Elasticsearch.
    pub api_key: Option<String>,
    /// Certificates to trust instead of those of the system, a PEM file.
    pub ca: Option<PathBuf>,
}

/// An Elasticsearch, and what is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elasticsearch {
    /// The server.
    pub server: Receiver,
    /// The index of the access log.
    pub nginx_index: String,
    /// The index of messages of mflog.
    pub mflog_index: String,
    /// Both are data streams.
    pub data_stream: bool,
}

/// A port of the host of `[admin]`.
fn of_admin(config: &ModuleConfig, port: Key<Option<u16>>) -> Option<String> {
    let (host, port) = (config.get(ADMIN_HOST)?, config.get(port)?);
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Some(format!("http://{host}:{port}"))
}

impl Elasticsearch {
    /// What the configuration says: `[elasticsearch] url`, else the host of `[admin]`.
    pub(crate) fn new(config: &ModuleConfig) -> Option<Self> {
        let mut urls = config.get(ELASTICSEARCH_URL);
        if urls.is_empty() {
            urls.extend(of_admin(config, ADMIN_ELASTICSEARCH_PORT));
        }
        (!urls.is_empty()).then(|| Self {
            server: Receiver {
                urls,
                user: config.get(ELASTICSEARCH_USER),
                password: config.get(ELASTICSEARCH_PASSWORD),
                api_key: config.get(ELASTICSEARCH_API_KEY),
                ca: config.get(ELASTICSEARCH_CA),
            },
            nginx_index: config.get(ELASTICSEARCH_NGINX_INDEX),
            mflog_index: config.get(ELASTICSEARCH_MFLOG_INDEX),
            data_stream: config.get(ELASTICSEARCH_DATA_STREAM),
        })
    }
}

impl Receiver {
    /// The Loki that the configuration names: `[loki] url`, else the host of `[admin]`.
    pub(crate) fn loki(config: &ModuleConfig) -> Option<Self> {
        let url = config.get(LOKI_URL).or_else(|| of_admin(config, ADMIN_LOKI_PORT))?;
        let (user, password) = (config.get(LOKI_USER), config.get(LOKI_PASSWORD));
        Some(Self { urls: vec![url], user, password, api_key: None, ca: config.get(LOKI_CA) })
    }
}

impl ShippingSettings {
    /// What the configuration says; `None`: nothing is shipped.
    pub fn new(config: &ModuleConfig) -> Option<Self> {
        let wants_mflog = config.get(ADMIN_SEND_MFLOG)
            && config.get(LOG_MFADMIN_FLAG).eq_ignore_ascii_case("AUTO");
        let settings = Self {
            elasticsearch: Elasticsearch::new(config),
            loki: Receiver::loki(config),
            access_log: config.get(ADMIN_SEND_ACCESS_LOG) && config.get(NGINX_ACCESS_LOG),
            mflog_port: config.get(VECTOR_MFLOG_PORT).filter(|_| wants_mflog),
        };
        let has_receiver = settings.elasticsearch.is_some() || settings.loki.is_some();
        let has_log = settings.access_log || settings.mflog_port.is_some();
        (has_receiver && has_log).then_some(settings)
    }

    /// Where programs send messages of mflog to, `HOST:PORT`.
    pub fn mflog_address(&self) -> Option<String> {
        self.mflog_port.map(|port| format!("127.0.0.1:{port}"))
    }
}

/// What does not work of the telemetry role: what it ships, receives or sends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What: `logs, mflog to http://…`, `[metrics] port=9187`.
    pub what: String,
    /// It does not work: since when, milliseconds since the Unix epoch, and why.
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
        let elasticsearch = all.elasticsearch.clone().unwrap();
        assert_eq!(elasticsearch.server.urls, ["http://admin.example.org:15603"]);
        assert_eq!(elasticsearch.nginx_index, "nginx-%Y.%m.%d");
        assert_eq!(all.loki, None);
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

    #[test]
    fn servers_of_their_own_need_no_monitoring_server_and_take_its_place() {
        let urls = ("elasticsearch", "url", "https://a:9200, https://b:9200");
        let all = [
            ("admin", "hostname", "::1"),
            ("admin", "loki_http_port", "3100"),
            urls,
            ("elasticsearch", "user", "u"),
            ("elasticsearch", "_password", "p"),
            ("elasticsearch", "ca", "/ca.pem"),
            ("elasticsearch", "mflog_index", "logs-mflog"),
            ("elasticsearch", "nginx_index", "logs-nginx"),
            ("elasticsearch", "data_stream", "1"),
        ];
        let found = settings(&all[2..]).unwrap();
        assert_eq!(found.loki, None);
        let elasticsearch = found.elasticsearch.unwrap();
        assert_eq!(elasticsearch.server.urls, ["https://a:9200", "https://b:9200"]);
        assert_eq!(elasticsearch.server.user.as_deref(), Some("u"));
        assert_eq!(elasticsearch.server.password.as_deref(), Some("p"));
        assert_eq!(elasticsearch.server.ca, Some("/ca.pem".into()));
        assert!(elasticsearch.data_stream && elasticsearch.mflog_index == "logs-mflog");
        let found = settings(&all).unwrap();
        assert_eq!(found.elasticsearch.unwrap().server.urls.len(), 2);
        assert_eq!(found.loki.unwrap().urls, ["http://[::1]:3100"]);
    }
}
