//! The typed settings: what the rest of mfserv reads.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::reading::Read;
use crate::layers::Value;
use crate::output::Rotation;
use crate::route::{RealIp, ServerSettings, Symlinks};

/// The settings of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleConfig {
    /// The configuration name that chose the variants.
    pub config_name: String,
    /// `[startup]`.
    pub startup: Startup,
    /// `[autorestart]` `flag`: workers are renewed when files of their plugin change.
    #[serde(default)]
    pub autorestart: bool,
    /// `[general]`.
    pub general: General,
    /// `[nginx]`.
    pub nginx: Nginx,
    /// `[front]`.
    pub front: Front,
    /// `[log]`.
    pub log: Log,
    /// `[internal_plugins]`.
    pub internal_plugins: InternalPlugins,
}

/// `[startup]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Startup {
    /// `flag`: false = start and stop do nothing.
    pub enabled: bool,
}

/// `[general]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct General {
    /// `_python`: the interpreter of plugins that name none; `None` = the host's python3.
    pub python: Option<String>,
}

/// `[nginx]`: the front, whichever program it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nginx {
    /// `flag`: false = no front at all.
    pub enabled: bool,
    /// `port`; `None` = no plain listener.
    pub port: Option<u16>,
    /// `upload_max_body_size` in bytes; `u64::MAX` = no limit.
    pub upload_max_body_bytes: u64,
    /// `timeout`, seconds: of apps that set none.
    pub timeout_s: u64,
    /// `logging`: write the access log.
    pub access_log: bool,
    /// `clientbody_temp_path`; `None` = leave it to the caller.
    pub body_temp_dir: Option<PathBuf>,
    /// `add_request_id_header`.
    pub add_request_id: bool,
    /// `accept_incoming_request_id_header`.
    pub accept_request_id: bool,
    /// `add_x_forwarded_headers`.
    pub add_forwarded: bool,
    /// `uuid_endpoint_extra_allows`, in CIDR form.
    pub uuid_allows: Vec<String>,
    /// `health_location`.
    pub health_path: Option<String>,
    /// `health_access_log`.
    pub health_access_log: bool,
    /// `smart_stop_delay`, seconds.
    pub stop_delay_s: u64,
    /// `smart_start_delay`, seconds.
    pub start_delay_s: u64,
    /// `proxy_ignore_client_abort`.
    pub ignore_client_abort: bool,
    /// `server_tokens`.
    pub server_tokens: bool,
    /// `port_in_redirect`.
    pub port_in_redirect: bool,
    /// `real_ip` with the keys that belong to it; `None` = off.
    pub real_ip: Option<RealIp>,
    /// `max_size_before_rotation`, bytes; `None` = as `[log]`.
    pub rotation_max_bytes: Option<u64>,
}

/// `[front]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Front {
    /// `kind`.
    pub kind: FrontKind,
    /// `host`: the address to listen on.
    pub host: IpAddr,
    /// `threads` that forward requests.
    pub threads: u32,
    /// `max_connections` of clients at a time.
    pub max_connections: u32,
    /// `static_symlinks`.
    pub static_symlinks: Symlinks,
    /// `static_dotfiles`.
    pub static_dotfiles: bool,
    /// `header_timeout`, seconds.
    pub header_timeout_s: u64,
    /// `keepalive_timeout`, seconds.
    pub keepalive_timeout_s: u64,
    /// `client_timeout`, seconds.
    pub client_timeout_s: u64,
    /// `upgrade_drain_timeout`, seconds.
    pub upgrade_drain_timeout_s: u64,
    /// `queue_max`: waiting requests per app.
    pub queue_max: u32,
    /// `queue_timeout`, seconds; `None` = the app's timeout.
    pub queue_timeout_s: Option<u64>,
}

/// What listens for HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrontKind {
    /// mfserv itself.
    Embedded,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// `minimal_level`.
    pub minimal_level: Level,
    /// How log files are rotated.
    pub rotation: Rotation,
    /// `try_to_split_stdout_stderr`: what AUTO means for apps.
    pub split_streams: bool,
    /// `try_to_split_multiple_workers`: what AUTO means for apps.
    pub split_workers: bool,
}

/// How severe a log message is, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "the variants are their own descriptions")]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
    Critical,
}

/// `[internal_plugins]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InternalPlugins {
    /// The X of every `install_X` that is 1.
    pub install: Vec<String>,
}

impl ModuleConfig {
    /// Where the front listens; `None` when there is no front or no plain listener.
    pub fn listen_address(&self) -> Option<SocketAddr> {
        let port = self.nginx.port.filter(|_| self.nginx.enabled)?;
        Some(SocketAddr::new(self.front.host, port))
    }

    /// How the front's logs are rotated.
    pub fn front_rotation(&self) -> Rotation {
        let max_bytes = self.nginx.rotation_max_bytes.unwrap_or(self.log.rotation.max_bytes);
        Rotation { max_bytes, ..self.log.rotation }
    }

    /// The settings of the listening side of a route table, for a node with this
    /// `uuid`. `body_temp_dir` is used when the configuration names none.
    pub fn server_settings(&self, uuid: &str, body_temp_dir: PathBuf) -> ServerSettings {
        let Self { nginx, front, .. } = self;
        ServerSettings {
            max_body_bytes: nginx.upload_max_body_bytes,
            access_log: nginx.access_log,
            add_request_id: nginx.add_request_id,
            accept_request_id: nginx.accept_request_id,
            add_forwarded: nginx.add_forwarded,
            ignore_client_abort: nginx.ignore_client_abort,
            health_path: nginx.health_path.clone(),
            health_access_log: nginx.health_access_log,
            server_tokens: nginx.server_tokens,
            port_in_redirect: nginx.port_in_redirect,
            uuid: uuid.to_string(),
            uuid_allows: nginx.uuid_allows.clone(),
            body_temp_dir: nginx.body_temp_dir.clone().unwrap_or(body_temp_dir),
            threads: front.threads,
            max_connections: front.max_connections,
            static_symlinks: front.static_symlinks,
            static_dotfiles: front.static_dotfiles,
            header_timeout_ms: front.header_timeout_s * 1000,
            keepalive_timeout_ms: front.keepalive_timeout_s * 1000,
            client_timeout_ms: front.client_timeout_s * 1000,
            upgrade_drain_timeout_ms: front.upgrade_drain_timeout_s * 1000,
            real_ip: nginx.real_ip.clone(),
        }
    }

    pub(super) fn from_readings(config_name: &str, read: &Readings, values: &[Value]) -> Self {
        Self {
            config_name: config_name.to_string(),
            startup: Startup { enabled: read.flag("startup", "flag") },
            autorestart: read.flag("autorestart", "flag"),
            general: General { python: read.text("general", "_python") },
            nginx: Nginx::from_readings(read),
            front: Front::from_readings(read),
            log: Log::from_readings(read),
            internal_plugins: InternalPlugins { install: installed(values) },
        }
    }
}

impl Nginx {
    fn from_readings(read: &Readings) -> Self {
        let flag = |key| read.flag("nginx", key);
        let count = |key| read.count("nginx", key);
        Self {
            enabled: flag("flag"),
            port: u16::try_from(count("port")).ok().filter(|port| *port != 0),
            upload_max_body_bytes: match count("upload_max_body_size") {
                0 => u64::MAX,
                megabytes => megabytes.saturating_mul(1024 * 1024),
            },
            timeout_s: count("timeout"),
            access_log: flag("logging"),
            body_temp_dir: read.text("nginx", "clientbody_temp_path").map(PathBuf::from),
            add_request_id: flag("add_request_id_header"),
            accept_request_id: flag("accept_incoming_request_id_header"),
            add_forwarded: flag("add_x_forwarded_headers"),
            uuid_allows: read.list("nginx", "uuid_endpoint_extra_allows"),
            health_path: read.text("nginx", "health_location"),
            health_access_log: flag("health_access_log"),
            stop_delay_s: count("smart_stop_delay"),
            start_delay_s: count("smart_start_delay"),
            ignore_client_abort: flag("proxy_ignore_client_abort"),
            server_tokens: flag("server_tokens"),
            port_in_redirect: flag("port_in_redirect"),
            real_ip: flag("real_ip").then(|| RealIp {
                header: read.text("nginx", "real_ip_header").unwrap_or_default(),
                recursive: flag("real_ip_recursive"),
                proxies: read.list("nginx", "real_ip_set_from"),
            }),
            rotation_max_bytes: Some(count("max_size_before_rotation")).filter(|max| *max > 0),
        }
    }
}

impl Front {
    fn from_readings(read: &Readings) -> Self {
        let count = |key| read.count("front", key);
        let small = |key| u32::try_from(count(key)).unwrap_or(u32::MAX);
        let host = read.text("front", "host").and_then(|host| host.parse().ok());
        Self {
            kind: FrontKind::Embedded,
            host: host.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            threads: small("threads").max(1),
            max_connections: small("max_connections"),
            static_symlinks: match read.text("front", "static_symlinks").as_deref() {
                Some("beneath") => Symlinks::Beneath,
                _ => Symlinks::Follow,
            },
            static_dotfiles: read.flag("front", "static_dotfiles"),
            header_timeout_s: count("header_timeout"),
            keepalive_timeout_s: count("keepalive_timeout"),
            client_timeout_s: count("client_timeout"),
            upgrade_drain_timeout_s: count("upgrade_drain_timeout"),
            queue_max: small("queue_max"),
            queue_timeout_s: Some(count("queue_timeout")).filter(|seconds| *seconds > 0),
        }
    }
}

impl Log {
    fn from_readings(read: &Readings) -> Self {
        let count = |key| read.count("log", key);
        Self {
            minimal_level: match read.text("log", "minimal_level").as_deref() {
                Some("DEBUG") => Level::Debug,
                Some("WARNING") => Level::Warning,
                Some("ERROR") => Level::Error,
                Some("CRITICAL") => Level::Critical,
                _ => Level::Info,
            },
            rotation: Rotation {
                max_bytes: count("max_size_before_rotation"),
                max_age_s: count("max_age_before_rotation"),
                keep: u32::try_from(count("number_of_rotated_files")).unwrap_or(u32::MAX),
                mode: read.number("log", "chmod").and_then(|mode| u32::try_from(mode).ok()),
            },
            split_streams: read.flag("log", "try_to_split_stdout_stderr"),
            split_workers: read.flag("log", "try_to_split_multiple_workers"),
        }
    }
}

fn installed(values: &[Value]) -> Vec<String> {
    let wanted = |value: &&Value| value.section == "internal_plugins" && value.value == "1";
    let names = values.iter().filter(wanted).filter_map(|v| v.key.strip_prefix("install_"));
    names.filter(|name| !name.is_empty()).map(str::to_string).collect()
}

/// The values of known keys, as read.
#[derive(Debug, Default)]
pub(super) struct Readings(BTreeMap<(String, String), Read>);

impl Readings {
    pub(super) fn insert(&mut self, section: &str, key: &str, read: Read) {
        self.0.insert((section.to_string(), key.to_string()), read);
    }

    fn get(&self, section: &str, key: &str) -> Option<&Read> {
        debug_assert!(crate::keys::find(section, key).is_some(), "no key {section}.{key}");
        self.0.get(&(section.to_string(), key.to_string()))
    }

    fn flag(&self, section: &str, key: &str) -> bool {
        matches!(self.get(section, key), Some(Read::Flag(true)))
    }

    fn number(&self, section: &str, key: &str) -> Option<i64> {
        match self.get(section, key) {
            Some(Read::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// The number; 0 when it is not set or negative.
    fn count(&self, section: &str, key: &str) -> u64 {
        self.number(section, key).and_then(|number| u64::try_from(number).ok()).unwrap_or(0)
    }

    fn text(&self, section: &str, key: &str) -> Option<String> {
        match self.get(section, key) {
            Some(Read::Text(text)) if !text.eq_ignore_ascii_case("null") => Some(text.clone()),
            _ => None,
        }
    }

    fn list(&self, section: &str, key: &str) -> Vec<String> {
        match self.get(section, key) {
            Some(Read::List(items)) => items.clone(),
            _ => Vec::new(),
        }
    }
}
