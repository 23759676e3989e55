//! Listening sockets. One lane accepts; each connection goes to the lane with the fewest.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use mfserv_core::Diagnostic;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags};
use tokio::io::unix::AsyncFd;

use super::threads::Lanes;
use crate::embedded::clients::connection::Ends;
use crate::embedded::io::signal::Subscription;
use crate::embedded::request::state::Front;
use crate::{EDGE_LISTENER, TLS_LISTENER};

/// The pause after accept(2) failed (usually for want of descriptors), and between two
/// looks whether there is room for a client.
const PAUSE: Duration = Duration::from_millis(50);

/// At the limit of connections, one of so many clients is evicted, those that have been idle
/// longest; …
const EVICTED_OF: usize = 64;
/// … twice as many each time until nobody waits any more, and at most one of so many.
const EVICTED_OF_MOST: usize = 4;
/// After so long without an eviction the next one is the first one again.
const CALM: Duration = Duration::from_secs(1);

/// The last eviction: when, and one of how many clients.
struct Eviction {
    at: Instant,
    one_in: usize,
}

impl Eviction {
    /// The next one is due at this time.
    fn next(&mut self, now: Instant) -> usize {
        self.one_in = match now.duration_since(self.at) >= CALM {
            true => EVICTED_OF,
            false => (self.one_in / 2).max(EVICTED_OF_MOST),
        };
        self.at = now;
        self.one_in
    }
}

/// An inherited listening socket.
pub struct Listener {
    name: String,
    socket: OwnedFd,
    unix: bool,
    /// TLS is spoken on it.
    is_tls: bool,
    /// The port that it listens on, over TCP.
    port: Option<u16>,
}

impl Listener {
    /// Takes a copy of the descriptor, and makes it non-blocking.
    pub fn adopt(name: &str, socket: &OwnedFd) -> Result<Self, Diagnostic> {
        let unusable = |why: &dyn std::fmt::Display| {
            Diagnostic::error(format!("the listening socket {name:?} cannot be used")).because(why)
        };
        let socket = socket.try_clone().map_err(|why| unusable(&why))?;
        let address = rustix::net::getsockname(&socket).map_err(|why| unusable(&why))?;
        rustix::io::ioctl_fionbio(&socket, true).map_err(|why| unusable(&why))?;
        let unix = address.address_family() == AddressFamily::UNIX;
        if !unix {
            // Accepted connections inherit it.
            rustix::net::sockopt::set_tcp_nodelay(&socket, true).map_err(|why| unusable(&why))?;
        }
        let port = SocketAddr::try_from(address).ok().map(|address| address.port());
        let is_tls = name.split(':').next() == Some(TLS_LISTENER);
        Ok(Self { name: name.to_string(), socket, unix, is_tls, port })
    }

    /// Accepts clients, from the first table on until the front ends.
    pub async fn serve(self, front: Arc<Front>, lanes: Arc<Lanes>) {
        let Self { name, socket, unix, is_tls, port } = self;
        let is_edge = name == EDGE_LISTENER;
        // SAFETY: an OwnedFd names the same open socket until it is dropped, which is
        // after the reactor has forgotten it.
        #[expect(unsafe_code, reason = "see SAFETY")]
        let registered = unsafe { AsyncFd::register(socket) };
        let socket = match registered {
            Ok(socket) => socket,
            Err(why) => return front.errors.report(&format!("cannot accept on {name}: {why}")),
        };
        let mut published = front.pool.reports();
        while front.version() == 0 {
            if published.changed().await.is_err() {
                return;
            }
        }
        let mut ending = Subscription::new(front.closing.clone());
        let mut last = Eviction { at: Instant::now(), one_in: EVICTED_OF };
        loop {
            let threads = wait_for_room(&front, &lanes, socket.get_ref(), &mut last).await;
            let accepted = tokio::select! {
                biased;
                () = std::future::poll_fn(|cx| match ending.is_raised(cx) {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }) => return,
                accepted = accept(&socket, unix) => accepted,
            };
            match accepted {
                Ok((socket, client)) => lanes.give(
                    socket,
                    Ends { client, reached: None, port, is_tls, is_edge },
                    threads,
                ),
                Err(why) => {
                    front.errors.report(&format!("accept on {name}: {why}"));
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// The next client, not registered with any reactor yet.
async fn accept(
    socket: &AsyncFd<OwnedFd>,
    unix: bool,
) -> std::io::Result<(OwnedFd, Option<SocketAddr>)> {
    loop {
        let mut ready = socket.readable().await?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accepted = ready.try_io(|fd| Ok(rustix::net::acceptfrom_with(fd, flags)?));
        match accepted {
            Ok(Ok((client, address))) => {
                let ip = address.and_then(|address| SocketAddr::try_from(address).ok());
                match ip {
                    Some(ip) => return Ok((client, Some(ip))),
                    None if unix => return Ok((client, None)),
                    // Gone again.
                    None => {}
                }
            }
            Ok(Err(why)) if is_of_the_connection(&why) => {}
            Ok(Err(why)) => return Err(why),
            Err(_) => {}
        }
    }
}

/// True for errors of accept(2) that say what happened to the connection meanwhile.
fn is_of_the_connection(why: &std::io::Error) -> bool {
    let codes = [Errno::CONNABORTED, Errno::PROTO, Errno::INTR, Errno::NETDOWN, Errno::HOSTUNREACH];
    codes.iter().any(|code| why.raw_os_error() == Some(code.raw_os_error()))
}

/// Waits until there is room for another client. At the limit, clients wait in the
/// kernel's queue, and idle connections are evicted for them. Returns over how many lanes
/// clients are spread. An eviction is not often asked for, because it looks at all clients.
async fn wait_for_room(
    front: &Front,
    lanes: &Lanes,
    socket: &OwnedFd,
    last: &mut Eviction,
) -> usize {
    let mut is_said = false;
    loop {
        let (max, threads) = front.limits();
        if front.connections() < max || front.closing.is_raised() {
            return threads;
        }
        if !is_said && somebody_waits(socket) {
            front.warn_of_clients();
            is_said = true;
        }
        if last.at.elapsed() >= PAUSE && somebody_waits(socket) {
            lanes.evict_idle(last.next(Instant::now()));
        }
        // Not longer than a pause, because the limit may be raised as well.
        let _ = tokio::time::timeout(PAUSE, front.closed.notified()).await;
    }
}

fn somebody_waits(socket: &OwnedFd) -> bool {
    let mut looked_at = [PollFd::new(socket, PollFlags::IN)];
    rustix::event::poll(&mut looked_at, Some(&Timespec::default())).is_ok_and(|count| count > 0)
}
