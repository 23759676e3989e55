//! Where lines of logs go besides their files: journald, syslog, the JSON file of mflog.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::http_url;
use crate::keys::{
    LOG_JOURNALD, LOG_JOURNALD_SOCKET, LOG_JSON_FILE, LOG_JSON_MINIMAL_LEVEL, LOG_SYSLOG,
    LOG_SYSLOG_FACILITY,
};
use crate::module_config::ModuleConfig;

/// Where lines of logs go besides their files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOutputs {
    /// The socket of journald.
    pub journald: Option<PathBuf>,
    /// A syslog server.
    pub syslog: Option<SyslogAddress>,
    /// The code of the facility of lines, RFC 5424 section 6.2.1.
    pub facility: u8,
    /// The JSON file of mflog, for the logs of mfserv itself.
    pub json_file: Option<JsonFile>,
}

/// The JSON file of mflog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JsonFile {
    /// The file.
    pub path: PathBuf,
    /// The least severe level that is written, `WARNING`.
    pub minimal_level: String,
}

/// Where a syslog server listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SyslogAddress {
    /// `HOST:PORT`, one datagram a message (RFC 5426).
    Udp(String),
    /// `HOST:PORT`, messages with their length before them (RFC 6587, octet counting).
    Tcp(String),
    /// A socket of datagrams, as `/dev/log`.
    Unix(PathBuf),
}

impl SyslogAddress {
    /// Reads an address as it is written in the configuration. `Err` is (reason, help).
    pub(crate) fn parse(text: &str) -> Result<Self, (String, String)> {
        let bad = |why: &str| {
            let help = "write udp://HOST:PORT, tcp://HOST:PORT or unix:///dev/log; null for none";
            Err((why.to_string(), help.to_string()))
        };
        let Some((scheme, rest)) = text.split_once("://") else {
            return bad("it is not the address of a syslog server");
        };
        if scheme == "unix" {
            return match rest.starts_with('/') {
                true => Ok(Self::Unix(rest.into())),
                false => bad("the path of its socket is not absolute"),
            };
        }
        let (host, port) = rest.rsplit_once(':').unwrap_or((rest, ""));
        let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => !host.contains(':') && http_url::check_host(host).is_ok(),
        };
        if !is_host || !port.parse::<u16>().is_ok_and(|port| port > 0) {
            return bad("it has no host and port");
        }
        match scheme {
            "udp" => Ok(Self::Udp(rest.into())),
            "tcp" => Ok(Self::Tcp(rest.into())),
            _ => bad("it is neither UDP nor TCP nor a unix socket"),
        }
    }
}

impl fmt::Display for SyslogAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "udp://{address}"),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// The facilities that `[log] syslog_facility` may name.
pub const FACILITIES: &[&str] = &[
    "user", "daemon", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];

/// The code of a facility, RFC 5424 section 6.2.1.
fn facility(name: &str) -> u8 {
    let local = name.strip_prefix("local").and_then(|number| number.parse::<u8>().ok());
    match local {
        Some(number) => 16 + number,
        None if name == "user" => 1,
        None => 3,
    }
}

impl LogOutputs {
    /// What the configuration says.
    pub fn new(config: &ModuleConfig) -> Self {
        let json_file = json_file(&config.get(LOG_JSON_FILE)).map(|path| JsonFile {
            path: path.into(),
            minimal_level: config.get(LOG_JSON_MINIMAL_LEVEL),
        });
        Self {
            journald: config.get(LOG_JOURNALD_SOCKET).filter(|_| config.get(LOG_JOURNALD)),
            syslog: config.get(LOG_SYSLOG),
            facility: facility(&config.get(LOG_SYSLOG_FACILITY)),
            json_file,
        }
    }
}

/// The JSON file of mflog that a value of `[log] json_file` names; `AUTO` is MFSERV's word for
/// none.
pub fn json_file(value: &str) -> Option<&str> {
    let is_none = value.is_empty() || ["AUTO", "null"].contains(&value);
    (!is_none).then_some(value)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn an_address_of_syslog_is_read_or_refused_with_the_way_to_write_one() {
        for text in [
            "udp://logs.example.org:514",
            "tcp://[::1]:601",
            "tcp://127.0.0.1:601",
            "unix:///dev/log",
        ] {
            assert_eq!(SyslogAddress::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "logs:514",
            "udp://logs",
            "udp://:514",
            "tcp://a:0",
            "tcp://a:99999",
            "tcp://::1:514",
            "http://a:1",
            "unix://dev/log",
            "/dev/log",
            "udp://u@h:1",
            "udp://h:1/x",
        ] {
            let (_, help) = SyslogAddress::parse(text).unwrap_err();
            assert!(help.contains("udp://HOST:PORT"), "{text}");
        }
    }

    #[test]
    fn outputs_are_off_until_they_are_named() {
        let outputs = |sets: &[(&str, &str)]| {
            let set =
                |(key, value): &(&str, &str)| ("log".into(), key.to_string(), value.to_string());
            let sets: Vec<_> = sets.iter().map(set).collect();
            let resolution = crate::module_config::resolve(&[], &sets, &BTreeMap::new(), "GENERIC");
            assert!(!resolution.has_errors(), "{:?}", resolution.diagnostics);
            LogOutputs::new(&resolution.config)
        };
        let none = LogOutputs { facility: 3, ..LogOutputs::default() };
        assert_eq!(outputs(&[]), none);
        assert_eq!(outputs(&[("json_file", "AUTO")]), none);
        let all = outputs(&[
            ("journald", "1"),
            ("syslog", "udp://h:514"),
            ("syslog_facility", "local3"),
            ("json_file", "/var/log/all.json"),
        ]);
        assert_eq!(all.journald, Some("/run/systemd/journal/socket".into()));
        let address = SyslogAddress::Udp("h:514".into());
        assert_eq!((all.syslog, all.facility), (Some(address), 19));
        let json_file =
            JsonFile { path: "/var/log/all.json".into(), minimal_level: "WARNING".into() };
        assert_eq!(all.json_file, Some(json_file));
    }
}
