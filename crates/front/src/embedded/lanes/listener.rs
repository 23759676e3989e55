//! Where clients come in. One lane accepts; each connection goes to the lane with the
//! fewest.

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

use crate::embedded::io::timer::Ear;
use crate::embedded::lanes::lane::Lanes;
use crate::embedded::request::state::Front;

/// After accept(2) failed (out of descriptors, usually), and between two looks for room.
const PAUSE: Duration = Duration::from_millis(50);

/// An inherited listening socket.
pub struct Listener {
    name: String,
    socket: OwnedFd,
    unix: bool,
}

impl Listener {
    /// Uses a copy of the descriptor.
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

    /// Accepts from the first table on, until the front ends.
    pub async fn serve(self, front: Arc<Front>, lanes: Arc<Lanes>) {
        let Self { name, socket, unix } = self;
        // SAFETY: an OwnedFd names the same open socket until it is dropped, which is
        // after the reactor has forgotten it.
        #[expect(unsafe_code, reason = "see SAFETY")]
        let registered = unsafe { AsyncFd::register(socket) };
        let socket = match registered {
            Ok(socket) => socket,
            Err(why) => return front.errors.say(&format!("cannot accept on {name}: {why}")),
        };
        let mut stirred = front.signals.stir.subscribe();
        while front.version() == 0 {
            if stirred.changed().await.is_err() {
                return;
            }
        }
        let mut ending = Ear::new(front.closing.clone());
        let mut asked = Instant::now();
        loop {
            let threads = wait_for_room(&front, &lanes, socket.get_ref(), &mut asked).await;
            let accepted = tokio::select! {
                biased;
                () = std::future::poll_fn(|cx| match ending.hears(cx) {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }) => return,
                accepted = accept(&socket, unix) => accepted,
            };
            match accepted {
                Ok((socket, address)) => lanes.give(socket, address, threads),
                Err(why) => {
                    front.errors.say(&format!("accept on {name}: {why}"));
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// The next client, not yet known to any lane's reactor.
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
            Ok(Err(why)) if is_of_the_client(&why) => {}
            Ok(Err(why)) => return Err(why),
            Err(_) => {}
        }
    }
}

/// accept(2) passes on what happened to the connection, which is no fault of ours.
fn is_of_the_client(why: &std::io::Error) -> bool {
    let passing =
        [Errno::CONNABORTED, Errno::PROTO, Errno::INTR, Errno::NETDOWN, Errno::HOSTUNREACH];
    passing.iter().any(|code| why.raw_os_error() == Some(code.raw_os_error()))
}

/// While there are as many clients as allowed, others wait in the kernel's queue, and
/// idle ones are ended for them. Returns over how many lanes clients are spread.
/// `asked`: when room was last asked for, which is not often, because all clients are
/// looked at.
async fn wait_for_room(
    front: &Front,
    lanes: &Lanes,
    socket: &OwnedFd,
    asked: &mut Instant,
) -> usize {
    loop {
        let (max, threads) = front.limits();
        if front.connections() < max || front.closing.has_rung() {
            return threads;
        }
        if asked.elapsed() >= PAUSE && somebody_waits(socket) {
            *asked = Instant::now();
            lanes.make_room();
        }
        // Bounded, because the limit may also change.
        let _ = tokio::time::timeout(PAUSE, front.closed.notified()).await;
    }
}

fn somebody_waits(socket: &OwnedFd) -> bool {
    let mut looked_at = [PollFd::new(socket, PollFlags::IN)];
    rustix::event::poll(&mut looked_at, Some(&Timespec::default())).is_ok_and(|count| count > 0)
}
