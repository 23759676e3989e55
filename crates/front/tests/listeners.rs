//! The sockets that a front inherits.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;

use crate::world::World;

impl World {
    /// With a listener for TLS too.
    pub fn with_tls() -> Self {
        Self::new().and_tls()
    }

    /// The same with a listener for TLS.
    pub fn and_tls(mut self) -> Self {
        self.listeners.secure = Some(TcpListener::bind("127.0.0.1:0").unwrap());
        self
    }

    /// The port where TLS is spoken.
    pub fn secure_port(&self) -> u16 {
        self.listeners.secure.as_ref().unwrap().local_addr().unwrap().port()
    }
}

/// Sockets that listen.
pub struct Listeners {
    plain: TcpListener,
    /// Where TLS is spoken, if it is.
    secure: Option<TcpListener>,
}

impl Listeners {
    pub fn on(address: &str) -> Self {
        Self { plain: TcpListener::bind(address).unwrap(), secure: None }
    }

    pub fn address(&self) -> SocketAddr {
        self.plain.local_addr().unwrap()
    }

    /// Copies for a process that is started now, and what its environment says of them.
    pub fn inherited(&self) -> (Vec<TcpListener>, String) {
        let all = [("http", Some(&self.plain)), ("https:127.0.0.1", self.secure.as_ref())];
        let (mut heirs, mut named) = (Vec::new(), Vec::new());
        for (name, listener) in all {
            let Some(listener) = listener else { continue };
            let heir = listener.try_clone().unwrap();
            rustix::io::fcntl_setfd(&heir, rustix::io::FdFlags::empty()).unwrap();
            named.push(format!("{name}={}", heir.as_raw_fd()));
            heirs.push(heir);
        }
        (heirs, named.join(","))
    }
}
