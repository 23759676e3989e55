//! Where the node speaks the protocol of Circus, MFSERV's process manager.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::keys::{CIRCUS_CHECK_DELAY_S, CIRCUS_ENDPOINT, CIRCUS_PUBSUB, CIRCUS_TCP_MAY_CHANGE};
use crate::module_config::ModuleConfig;

/// An endpoint of ZeroMQ on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Endpoint {
    /// `ipc://PATH`: a unix socket.
    Unix(PathBuf),
    /// `tcp://ADDRESS:PORT`, a loopback address.
    Tcp(SocketAddr),
}

impl Endpoint {
    /// Reads an endpoint as it is written in the configuration. `Err` is (reason, help).
    pub(crate) fn parse(text: &str) -> Result<Self, (String, String)> {
        let bad = |why: &str| {
            let help = "write ipc:///PATH/OF/A/SOCKET or tcp://127.0.0.1:PORT; null for none";
            Err((why.to_string(), help.to_string()))
        };
        if let Some(path) = text.strip_prefix("ipc://") {
            let is_file = Path::new(path).is_absolute() && !path.ends_with('/');
            return match is_file {
                true => Ok(Endpoint::Unix(path.into())),
                false => bad("the path of its socket is not absolute"),
            };
        }
        let Some(address) = text.strip_prefix("tcp://") else {
            return bad("it is neither ipc:// nor tcp://");
        };
        let Some((host, port)) = address.rsplit_once(':') else { return bad("it has no port") };
        let Some(port) = port.parse::<u16>().ok().filter(|port| *port > 0) else {
            return bad("it has no port from 1 to 65535");
        };
        let host = match host {
            "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            _ => host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok(),
        };
        match host {
            Some(host) if host.is_loopback() => Ok(Endpoint::Tcp(SocketAddr::new(host, port))),
            _ => {
                bad("its address is not one of this machine alone (loopback): ZeroMQ knows no user")
            }
        }
    }
}

impl TryFrom<String> for Endpoint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Endpoint::parse(&text).map_err(|(why, _)| why)
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> String {
        endpoint.to_string()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "ipc://{}", path.display()),
            Endpoint::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// What `[circus]` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Circus {
    /// Where commands are answered; `None`: nowhere.
    pub endpoint: Option<Endpoint>,
    /// Where events are published; `None`: nowhere.
    pub pubsub: Option<Endpoint>,
    /// What is shown as the time between two passes of Circus, seconds.
    pub check_delay_s: u64,
    /// Commands that come over TCP may change the node: there nobody knows whose they are.
    pub tcp_may_change: bool,
}

impl Circus {
    /// What the configuration says.
    pub fn new(config: &ModuleConfig) -> Self {
        Circus {
            endpoint: config.get(CIRCUS_ENDPOINT),
            pubsub: config.get(CIRCUS_PUBSUB),
            check_delay_s: config.get(CIRCUS_CHECK_DELAY_S),
            tcp_may_change: config.get(CIRCUS_TCP_MAY_CHANGE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_unix_socket_or_a_loopback_address_and_nothing_else() {
        for (text, shown) in [
            ("ipc:///rt/var/circus.socket", "ipc:///rt/var/circus.socket"),
            ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5555"),
            ("tcp://localhost:5555", "tcp://127.0.0.1:5555"),
            ("tcp://[::1]:5555", "tcp://[::1]:5555"),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.to_string(), shown);
            let stored = serde_json::to_string(&endpoint).unwrap();
            assert_eq!(serde_json::from_str::<Endpoint>(&stored).unwrap(), endpoint);
        }
        for (text, why) in [
            ("tcp://0.0.0.0:5555", "loopback"),
            ("tcp://*:5555", "loopback"),
            ("tcp://192.168.1.2:5555", "loopback"),
            ("tcp://host.example.org:5555", "loopback"),
            ("tcp://127.0.0.1", "port"),
            ("tcp://127.0.0.1:0", "port"),
            ("tcp://127.0.0.1:70000", "port"),
            ("ipc://var/circus.socket", "absolute"),
            ("ipc://@abstract", "absolute"),
            ("ipc:///rt/var/", "absolute"),
            ("inproc://x", "neither"),
            ("epgm://239.0.0.1:5555", "neither"),
        ] {
            let (reason, help) = Endpoint::parse(text).unwrap_err();
            assert!(reason.contains(why) && help.contains("ipc://"), "{text}: {reason}");
        }
    }
}
