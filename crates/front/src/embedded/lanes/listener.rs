//! Listening sockets. One lane accepts; each connection goes to the lane with the fewest.

use std::net::{IpAddr, SocketAddr};
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
use crate::embedded::io::signal::Subscription;
use crate::embedded::request::state::Front;

/// The pause after accept(2) failed (usually for want of descriptors), and between two
/// looks whether there is room for a client.
const PAUSE: Duration = Duration::from_millis(50);

/// An inherited listening socket.
pub struct Listener {
    name: String,
    socket: OwnedFd,
    unix: bool,
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
        Ok(Self { name: name.to_string(), socket, unix })
    }

    /// Accepts clients, from the first table on until the front ends.
    pub async fn serve(self, front: Arc<Front>, lanes: Arc<Lanes>) {
        let Self { name, socket, unix } = self;
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
        let mut asked = Instant::now();
        loop {
            let threads = wait_for_room(&front, &lanes, socket.get_ref(), &mut asked).await;
            let accepted = tokio::select! {
                biased;
                () = std::future::poll_fn(|cx| match ending.is_raised(cx) {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }) => return,
                accepted = accept(&socket, unix) => accepted,
            };
            match accepted {
                Ok((socket, address)) => lanes.give(socket, address, threads),
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
) -> std::io::Result<(OwnedFd, Option<IpAddr>)> {
    loop {
        let mut ready = socket.readable().await?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accepted = ready.try_io(|fd| Ok(rustix::net::acceptfrom_with(fd, flags)?));
        match accepted {
            Ok(Ok((client, address))) => {
                let ip = address.and_then(|address| SocketAddr::try_from(address).ok());
                match ip {
                    Some(ip) => return Ok((client, Some(ip.ip()))),
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
/// clients are spread. `asked`: when an eviction was last asked for; it is not often,
/// because it looks at all clients.
async fn wait_for_room(
    front: &Front,
    lanes: &Lanes,
    socket: &OwnedFd,
    asked: &mut Instant,
) -> usize {
    loop {
        let (max, threads) = front.limits();
        if front.connections() < max || front.closing.is_raised() {
            return threads;
        }
        if asked.elapsed() >= PAUSE && somebody_waits(socket) {
            *asked = Instant::now();
            lanes.evict_idle();
        }
        // Not longer than a pause, because the limit may be raised as well.
        let _ = tokio::time::timeout(PAUSE, front.closed.notified()).await;
    }
}

fn somebody_waits(socket: &OwnedFd) -> bool {
    let mut looked_at = [PollFd::new(socket, PollFlags::IN)];
    rustix::event::poll(&mut looked_at, Some(&Timespec::default())).is_ok_and(|count| count > 0)
}
