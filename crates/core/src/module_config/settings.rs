//! The settings of a node: the value of each key, in its Rust type.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::alerts::Alert;
use crate::keys::*;
use crate::output::{LogCare, Rotation};
use crate::route::{HeadLimits, RealIp, ServerSettings, SpoolLimits};
use crate::tls::{TlsSettings, strict_transport};

/// The settings of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct ModuleConfig {
    /// By section and key: what was read.
    read: BTreeMap<(&'static str, &'static str), Read>,
    /// The X of each `[internal_plugins] install_X` that is 1: plugins to install at a start.
    pub internal_plugins: Vec<String>,
    /// The alerts.
    pub alerts: Vec<Alert>,
}

impl ModuleConfig {
    pub(super) fn new(internal_plugins: Vec<String>, alerts: Vec<Alert>) -> Self {
        Self { read: BTreeMap::new(), internal_plugins, alerts }
    }

    pub(super) fn insert(&mut self, row: &Row, read: Read) {
        self.read.insert((row.section, row.key), read);
    }

    /// The value of a key.
    pub fn get<T>(&self, key: Key<T>) -> T {
        let row = key.row();
        key.take(self.read.get(&(row.section, row.key)).unwrap_or(&Read::Nothing))
    }

    /// The addresses of the listeners in clear, `[nginx] port` at each `[front] host`; none when there
    /// is no front, or no such listener.
    pub fn listen_addresses(&self) -> Vec<SocketAddr> {
        self.at_hosts(self.get(NGINX_PORT))
    }

    /// Those of the TLS listeners.
    pub fn tls_addresses(&self) -> Vec<SocketAddr> {
        self.at_hosts(self.get(NGINX_HTTPS_PORT))
    }

    fn at_hosts(&self, port: Option<u16>) -> Vec<SocketAddr> {
        let Some(port) = port.filter(|_| self.get(NGINX_ENABLED)) else { return Vec::new() };
        self.get(FRONT_HOST).into_iter().map(|host| SocketAddr::new(host, port)).collect()
    }

    /// The certificate and the key of the TLS listener; `/dev/null` is none, as MFSERV has it.
    pub fn certificate(&self) -> (Option<PathBuf>, Option<PathBuf>) {
        let set = |path: Option<PathBuf>| path.filter(|path| *path != Path::new("/dev/null"));
        (set(self.get(NGINX_CERTIFICATE)), set(self.get(NGINX_CERTIFICATE_KEY)))
    }

    /// The settings of the TLS listener, if there is one. A listener without a certificate is
    /// refused where the configuration is read.
    pub fn tls_settings(&self) -> Option<TlsSettings> {
        let address = *self.tls_addresses().first()?;
        let (Some(certificate), Some(key)) = self.certificate() else { return None };
        Some(TlsSettings {
            port: address.port(),
            certificate,
            key,
            directory: self.get(FRONT_CERTIFICATES),
            versions: self.get(NGINX_TLS_VERSIONS),
            ciphers: self.get(NGINX_CIPHERS),
            client_certificates: self.get(FRONT_CLIENT_CERTIFICATES),
            client_authorities: self.get(FRONT_CLIENT_AUTHORITIES),
            redirect: self.get(FRONT_HTTPS_REDIRECT),
            strict_transport: strict_transport(
                self.get(FRONT_HSTS_MAX_AGE_S),
                self.get(FRONT_HSTS_SUBDOMAINS),
            ),
            ticket_keys: None,
        })
    }

    /// How log files are rotated.
    pub fn rotation(&self) -> Rotation {
        Rotation {
            max_bytes: self.get(LOG_ROTATION_MAX_BYTES),
            max_age_s: self.get(LOG_ROTATION_MAX_AGE_S),
            keep: self.get(LOG_ROTATED_FILES),
            mode: self.get(LOG_FILE_MODE),
        }
    }

    /// What is done with rotated log files.
    pub fn log_care(&self) -> LogCare {
        LogCare { compress: self.get(LOG_COMPRESS), max_bytes: self.get(LOG_MAX_TOTAL_BYTES) }
    }

    /// How the front's logs are rotated.
    pub fn front_rotation(&self) -> Rotation {
        let rotation = self.rotation();
        match self.get(NGINX_ROTATION_MAX_BYTES) {
            0 => rotation,
            max_bytes => Rotation { max_bytes, ..rotation },
        }
    }

    /// The settings of the listening side of a route table, for a node with this
    /// `uuid`. `body_temp_dir` is used when the configuration names none.
    pub fn server_settings(&self, uuid: &str, body_temp_dir: PathBuf) -> ServerSettings {
        ServerSettings {
            max_body_bytes: match self.get(NGINX_UPLOAD_MAX_BODY_MB) {
                0 => u64::MAX,
                megabytes => megabytes.saturating_mul(1024 * 1024),
            },
            access_log: self.get(NGINX_ACCESS_LOG),
            add_request_id: self.get(NGINX_ADD_REQUEST_ID),
            accept_request_id: self.get(NGINX_ACCEPT_REQUEST_ID),
            trace_sample: self.get(FRONT_TRACE_CONTEXT).then(|| self.get(FRONT_TRACE_SAMPLE)),
            server_timing: self.get(FRONT_SERVER_TIMING),
            add_forwarded: self.get(NGINX_ADD_FORWARDED),
            ignore_client_abort: self.get(NGINX_IGNORE_CLIENT_ABORT),
            unknown_host: self.get(FRONT_UNKNOWN_HOST),
            health_path: self.get(NGINX_HEALTH_PATH),
            health_access_log: self.get(NGINX_HEALTH_ACCESS_LOG),
            server_tokens: self.get(NGINX_SERVER_TOKENS),
            port_in_redirect: self.get(NGINX_PORT_IN_REDIRECT),
            uuid: uuid.to_string(),
            uuid_allows: self.get(NGINX_UUID_ALLOWS),
            body_temp_dir: self.get(NGINX_BODY_TEMP_DIR).unwrap_or(body_temp_dir),
            spool: SpoolLimits {
                per_answer: self.get(FRONT_SPOOL_PER_ANSWER_MB).saturating_mul(1024 * 1024),
                per_app: self.get(FRONT_SPOOL_PER_APP_MB).saturating_mul(1024 * 1024),
                all: self.get(FRONT_SPOOL_ALL_MB).saturating_mul(1024 * 1024),
            },
            request_head: HeadLimits {
                bytes: self.get(FRONT_REQUEST_HEAD_KB) * 1024,
                fields: self.get(FRONT_REQUEST_FIELDS),
            },
            answer_head: HeadLimits {
                bytes: self.get(FRONT_ANSWER_HEAD_KB) * 1024,
                fields: self.get(FRONT_ANSWER_FIELDS),
            },
            threads: self.get(FRONT_THREADS).max(1),
            max_connections: self.get(FRONT_MAX_CONNECTIONS),
            static_symlinks: self.get(FRONT_STATIC_SYMLINKS),
            static_dotfiles: self.get(FRONT_STATIC_DOTFILES),
            static_compression: self.get(FRONT_STATIC_COMPRESSION),
            header_timeout_ms: self.get(FRONT_HEADER_TIMEOUT_S) * 1000,
            keepalive_timeout_ms: self.get(FRONT_KEEPALIVE_TIMEOUT_S) * 1000,
            client_timeout_ms: self.get(FRONT_CLIENT_TIMEOUT_S) * 1000,
            upgrade_drain_timeout_ms: self.get(FRONT_UPGRADE_DRAIN_TIMEOUT_S) * 1000,
            real_ip: self.get(NGINX_REAL_IP).then(|| RealIp {
                header: self.get(NGINX_REAL_IP_HEADER),
                recursive: self.get(NGINX_REAL_IP_RECURSIVE),
                proxies: self.get(NGINX_REAL_IP_PROXIES),
            }),
            tls: self.tls_settings(),
            stopping: false,
        }
    }
}

impl Default for ServerSettings {
    /// The settings of a node without any configuration, with request bodies in `/tmp`.
    fn default() -> Self {
        let config = super::resolve(&[], &[], &BTreeMap::new(), "").config;
        Self { body_temp_dir: "/tmp".into(), ..config.server_settings("", PathBuf::new()) }
    }
}
