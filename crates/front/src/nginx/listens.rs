//! Addresses on which a fragment has nginx listen (`listen 8080;`).
//!
//! nginx makes these sockets itself: unlike those of the node they are not handed over from one
//! nginx to the next one. With an address that is taken nginx does not take a configuration at all,
//! after 2.5 s. So it is looked before: such a fragment waits until the address is free.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use mfserv_core::Diagnostic;
use mfserv_core::route::Fragment;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, socket, socket_with,
    sockopt,
};
use tokio::time::Instant;

use super::edge::{Edge, Wanted};
use super::master::Nginx;
use super::pieces;
use super::search::Refused;

/// An address of a `listen`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// An address and a port.
    Ip(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Address {
    /// As `listen` takes it; `None` for names, which are left to nginx.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Some(Self::Unix(path.into()));
        }
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let ip = |text: &str| match text {
            "*" => Some(any),
            _ => text.trim_matches(['[', ']']).parse().ok(),
        };
        let (ip, port) = match text.rsplit_once(':') {
            _ if text.parse::<u16>().is_ok() => (any, text.parse().ok()?),
            Some((head, port)) if !text.ends_with(']') => (ip(head)?, port.parse().ok()?),
            _ => (ip(text)?, 80),
        };
        Some(Self::Ip(SocketAddr::new(ip, port)))
    }

    /// Why nginx cannot have it, and what helps.
    fn what_is_there(&self) -> String {
        if let Self::Unix(path) = self {
            let found = fs::symlink_metadata(path);
            let is_socket = |found: &fs::Metadata| found.file_type().is_socket();
            if found.is_ok_and(|found| !is_socket(&found) || is_left_over(path, &found)) {
                return format!("nobody listens on {self}, and a file is there: remove the file");
            }
        }
        format!("another process has {self}, where it listens")
    }

    /// True if nobody listens there. A socket that a process of this user has left in the file system
    /// is removed: nginx would not take its place.
    fn is_free(&self) -> bool {
        let address = match self {
            Self::Unix(path) => return is_free_path(path),
            Self::Ip(address) => address,
        };
        let family = match address.ip() {
            IpAddr::V4(_) => AddressFamily::INET,
            IpAddr::V6(_) => AddressFamily::INET6,
        };
        // Bound as by nginx, and not listened on: no client gets through to it.
        let Ok(socket) = socket(family, SocketType::STREAM, None) else { return true };
        let _ = sockopt::set_socket_reuseaddr(&socket, true);
        if address.is_ipv6() {
            let _ = sockopt::set_ipv6_v6only(&socket, true);
        }
        bind(&socket, address) != Err(rustix::io::Errno::ADDRINUSE)
    }
}

/// True if nothing is there, or was a socket of this user on which nobody listens.
fn is_free_path(path: &Path) -> bool {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        // Else nginx says what is wrong.
        Err(why) => {
            return why.kind() == ErrorKind::NotFound || why.kind() == ErrorKind::NotADirectory;
        }
    };
    let is_own = found.uid() == rustix::process::geteuid().as_raw();
    is_own && is_left_over(path, &found) && fs::remove_file(path).is_ok()
}

/// True if this is a socket on which nobody listens.
fn is_left_over(path: &Path, found: &fs::Metadata) -> bool {
    if !found.file_type().is_socket() {
        return false;
    }
    let (flags, family) = (SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, AddressFamily::UNIX);
    let client = socket_with(family, SocketType::STREAM, flags, None);
    let (Ok(client), Ok(address)) = (client, SocketAddrUnix::new(path)) else { return false };
    connect(&client, &address) == Err(rustix::io::Errno::CONNREFUSED)
}

/// The addresses of all `listen` in a text of nginx.
pub fn addresses(text: &str) -> Vec<Address> {
    let mut found = Vec::new();
    for line in text.lines() {
        let code = line.split('#').next().unwrap_or_default();
        for statement in code.split([';', '{', '}']) {
            let mut words = statement.split_whitespace();
            if words.next() == Some("listen") {
                let word = words.next().map(|word| word.trim_matches(['"', '\'']));
                found.extend(word.and_then(Address::parse));
            }
        }
    }
    found
}

impl Nginx {
    /// Leaves out the fragments whose addresses others have.
    pub(super) fn leave_out_waiting(&mut self, wanted: &Wanted) {
        // Those of the node are shared, and nginx keeps those that it has.
        let listens = self.site.listen.iter().chain(&self.site.listen_tls);
        let of_node: Vec<Address> = listens.filter_map(|text| Address::parse(text)).collect();
        let in_force = self.in_force.as_ref().filter(|_| self.master.is_some());
        let texts = in_force.into_iter().flat_map(|taken| taken.fragments.values());
        let own: Vec<Address> = texts.flat_map(|text| addresses(text)).collect();
        let is_of_node = |one: &Address| match one {
            Address::Ip(address) => of_node.iter().any(|of_node| match of_node {
                Address::Ip(of_node) => of_node.port() == address.port(),
                Address::Unix(_) => false,
            }),
            Address::Unix(_) => of_node.contains(one),
        };
        let is_taken = |one: &Address| !own.contains(one) && !is_of_node(one) && !one.is_free();
        for piece in pieces::of(&wanted.sections) {
            let mut taken = addresses(&piece.fragment.text);
            taken.retain(is_taken);
            let Some(first) = taken.first() else { continue };
            let why = format!("{}; nginx gets it when the address is free", first.what_is_there());
            let place = piece.to_string();
            let sentence = format!("plugin {}: {place} is left out: {why}", piece.id.plugin);
            let Fragment { text, .. } = piece.fragment.clone();
            if !self.refused.contains_key(&piece.id) {
                self.errors.report(&sentence);
                let (waits_for, is_slow) = (taken, false);
                let refused = Refused { text, place, why, sentence, waits_for, is_slow };
                self.refused.insert(piece.id, refused);
            }
        }
    }

    /// Has nginx obey fragments that have waited for an address which is free now, and what it was
    /// too slow for, from time to time.
    pub async fn look_at_waiting(&mut self, edge: &Edge) -> Result<(), Diagnostic> {
        let is_free =
            |one: &Refused| !one.waits_for.is_empty() && one.waits_for.iter().all(Address::is_free);
        if !self.refused.values().any(is_free) && !self.again.is_due(Instant::now()) {
            return Ok(());
        }
        let wanted = edge.wanted().borrow().clone();
        self.obey(edge, &wanted).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_a_fragment_are_those_that_nginx_would_listen_on() {
        let text = "# listen 1;\nserver { listen 8080; listen *:81 ssl;\n  listen [::]:82;\n\
                    listen 127.0.0.1;listen \"unix:/x\"; listen name:80; listened 83; }\n";
        let found: Vec<String> = addresses(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["0.0.0.0:8080", "0.0.0.0:81", "[::]:82", "127.0.0.1:80", "unix:/x"]);
    }

    #[test]
    fn an_address_is_free_when_nobody_listens_there() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = std::net::TcpListener::bind(local) else { continue };
            let address = Address::Ip(listener.local_addr().unwrap());
            assert!(!address.is_free());
            drop(listener);
            assert!(address.is_free());
        }
        assert!(Address::Unix("/no/such".into()).is_free());
        assert!(!Address::Unix("/dev/null".into()).is_free());
    }

    #[test]
    fn a_socket_that_a_dead_process_has_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let address = Address::Unix(path.clone());
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(!address.is_free() && path.exists());
        assert!(address.what_is_there().contains("another process has unix:/"));
        drop(listener);
        assert!(address.is_free() && !path.exists());
        fs::write(&path, "a file").unwrap();
        assert!(!address.is_free() && path.exists());
        assert!(address.what_is_there().ends_with("remove the file"));
    }
}
