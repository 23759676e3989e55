//! Where a worker is reached.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::names::WorkerId;

/// One admitted worker: where its requests go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The worker.
    pub worker: WorkerId,
    /// Where it takes connections.
    #[serde(rename = "socket")]
    pub address: Address,
    /// The directory that it runs in: that of its release, which is not always the one of the routes.
    /// A daemon of an older version does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Its process, or the one that has started its server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

impl Peer {
    /// True if it is this worker, whatever else is said of it: fronts and daemons of other versions
    /// know less.
    pub fn is(&self, other: &Peer) -> bool {
        self.worker == other.worker && self.address == other.address
    }
}

/// Where a worker takes connections. On the wire it is a text, as it was when there were unix
/// sockets only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "PathBuf", into = "PathBuf")]
pub enum Address {
    /// A unix socket.
    Socket(PathBuf),
    /// A port of 127.0.0.1.
    Port {
        /// The port.
        port: u16,
        /// The user who has made the socket that listens there: nobody else's is the worker's.
        uid: u32,
    },
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Socket(path) => path.display().fmt(f),
            Address::Port { port, .. } => write!(f, "127.0.0.1:{port}"),
        }
    }
}

impl From<Address> for PathBuf {
    fn from(address: Address) -> Self {
        match address {
            Address::Socket(path) => path,
            Address::Port { port, uid } => format!("tcp:{port}:{uid}").into(),
        }
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Self {
        let port = || {
            let (port, uid) = path.to_str()?.strip_prefix("tcp:")?.split_once(':')?;
            Some(Address::Port { port: port.parse().ok()?, uid: uid.parse().ok()? })
        };
        port().unwrap_or(Address::Socket(path))
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, Peer};

    #[test]
    fn the_address_of_a_worker_is_a_text_which_for_a_socket_is_its_path() {
        let worker = "app.p.a.1.2".parse::<crate::names::WorkerId>().unwrap();
        for (address, text) in [
            (Address::Socket("/run/a.socket".into()), "/run/a.socket"),
            (Address::Port { port: 61_000, uid: 7 }, "tcp:61000:7"),
        ] {
            let peer = Peer { worker: worker.clone(), address, dir: None, pid: None };
            let json = serde_json::to_string(&peer).unwrap();
            assert!(json.ends_with(&format!("\"socket\":\"{text}\"}}")), "{json}");
            assert_eq!(serde_json::from_str::<Peer>(&json).unwrap(), peer);
            let known = Peer { dir: Some("/r/1".into()), pid: Some(7), ..peer };
            let json = serde_json::to_string(&known).unwrap();
            assert_eq!(serde_json::from_str::<Peer>(&json).unwrap(), known);
        }
    }
}
