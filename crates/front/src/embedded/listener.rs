//! Where clients come in.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use mfserv_core::Diagnostic;
use rustix::net::AddressFamily;
use tokio::net::{TcpListener, UnixListener};

use super::alarm::Ear;
use super::serve;
use super::state::Front;
use super::wire::Wire;

/// After accept(2) failed (out of descriptors, usually).
const PAUSE: Duration = Duration::from_millis(50);

/// An inherited listening socket.
pub struct Listener {
    name: String,
    socket: Socket,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A counted connection.
struct Counted(Rc<Front>);

impl Counted {
    fn new(front: &Rc<Front>) -> Self {
        front.connections.set(front.connections.get() + 1);
        front.accepted.set(front.accepted.get() + 1);
        Self(front.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
        self.0.closed.notify_waiters();
    }
}

impl Listener {
    /// Uses a copy of the descriptor.
    pub fn adopt(name: &str, socket: &OwnedFd) -> Result<Self, Diagnostic> {
        let unusable = |why: &dyn std::fmt::Display| {
            Diagnostic::error(format!("the listening socket {name:?} cannot be used")).because(why)
        };
        let copy = socket.try_clone().map_err(|why| unusable(&why))?;
        let address = rustix::net::getsockname(&copy).map_err(|why| unusable(&why))?;
        rustix::io::ioctl_fionbio(&copy, true).map_err(|why| unusable(&why))?;
        let socket = if address.address_family() == AddressFamily::UNIX {
            let listener = UnixListener::from_std(copy.into());
            Socket::Unix(listener.map_err(|why| unusable(&why))?)
        } else {
            // Accepted connections inherit it.
            rustix::net::sockopt::set_tcp_nodelay(&copy, true).map_err(|why| unusable(&why))?;
            let listener = TcpListener::from_std(copy.into());
            Socket::Tcp(listener.map_err(|why| unusable(&why))?)
        };
        Ok(Self { name: name.to_string(), socket })
    }

    /// Accepts from the first table on, until the front ends.
    pub async fn serve(self, front: Rc<Front>) {
        while front.in_force().is_none() {
            front.published.notified().await;
        }
        let mut ending = Ear::new(front.closing.clone());
        loop {
            self.wait_for_room(&front).await;
            let accepted = tokio::select! {
                biased;
                () = std::future::poll_fn(|cx| match ending.hears(cx) {
                    true => std::task::Poll::Ready(()),
                    false => std::task::Poll::Pending,
                }) => return,
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok((wire, address)) => {
                    let counted = Counted::new(&front);
                    let front = front.clone();
                    tokio::task::spawn_local(async move {
                        serve::serve(front, wire, address).await;
                        drop(counted);
                    });
                }
                Err(why) => {
                    front.errors.say(&format!("accept on {}: {why}", self.name));
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn accept(&self) -> std::io::Result<(Wire, Option<IpAddr>)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((Wire::Tcp(stream), Some(address.ip())))
            }
            Socket::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Wire::Unix(stream), None))
            }
        }
    }

    /// While there are as many clients as allowed, others wait in the kernel's queue.
    async fn wait_for_room(&self, front: &Front) {
        loop {
            let max = front.in_force().map_or(1, |f| f.table.server.max_connections.max(1));
            if front.connections.get() < u64::from(max) || front.closing.has_rung() {
                return;
            }
            // Bounded, because the limit may also change.
            let _ = tokio::time::timeout(PAUSE, front.closed.notified()).await;
        }
    }
}
