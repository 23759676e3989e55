//! What receives points: statsd by UDP, lines on `var/telegraf.socket`.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mfserv_platform::sync::lock;
use rustix::event::{PollFd, PollFlags, poll};

use super::LOOK;
use super::listener::SocketListener;
use super::pipeline::Shared;
use super::point::{LINE_MAX, Point};
use crate::troubles::Troubles;

/// The largest datagram of statsd, bytes.
const DATAGRAM_MAX: usize = 64 * 1024;
/// The most connections to `var/telegraf.socket` at a time.
const CONNECTIONS_MAX: usize = 512;
/// The stack of a thread that reads one of them, bytes.
const STACK: usize = 256 * 1024;
/// Bytes of datagrams of statsd that may wait; the system may allow less.
const BURST: usize = 8 << 20;

/// Receives statsd on a port of 127.0.0.1, until it is to end. A port that is taken is tried again.
/// `troubles`: where that is said; `None`: in the log alone, since nobody has asked for the port.
pub fn statsd(shared: &Shared, port: u16, troubles: Option<&Troubles>) {
    let (mut said, mut datagram) = (String::new(), vec![0; DATAGRAM_MAX]);
    let what = format!("[telegraf] statsd_port={port}");
    while !shared.has_ended() {
        let socket = match UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(socket) if socket.set_read_timeout(Some(LOOK)).is_ok() => {
                // A burst waits here while points are gathered.
                let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, BURST);
                shared.statsd_port.store(port, Ordering::Relaxed);
                troubles.into_iter().for_each(|troubles| troubles.over(&what));
                socket
            }
            other => {
                let why = other.err().map_or_else(String::new, |why| why.to_string());
                let why = format!("points of apps cannot be received: {why}");
                match troubles {
                    Some(troubles) => troubles.say(&what, &why),
                    None => super::report_once(&mut said, format!("{what}: {why}")),
                }
                std::thread::sleep(LOOK);
                continue;
            }
        };
        while !shared.has_ended() {
            if let Ok(length) = socket.recv(&mut datagram) {
                lock(&shared.statsd).receive(&datagram[..length]);
            }
        }
    }
}

/// Datagrams that the kernel has dropped since the socket of a port of 127.0.0.1 was bound, for want of
/// room. (`/proc/net/udp`: the address is that of the kernel's own byte order.)
pub fn datagrams_dropped(port: u16) -> u64 {
    let text = std::fs::read_to_string("/proc/net/udp").unwrap_or_default();
    let address = u32::from_ne_bytes(Ipv4Addr::LOCALHOST.octets());
    let own = format!("{address:08X}:{port:04X}");
    let mut lines = text.lines().map(|line| line.split_ascii_whitespace());
    lines
        .find_map(|mut line| {
            (line.nth(1) == Some(&own)).then(|| line.last()?.parse().ok()).flatten()
        })
        .unwrap_or(0)
}

/// Receives lines on a unix socket until it is to end.
pub fn lines(shared: &Arc<Shared>, socket: PathBuf) {
    let mut listener = SocketListener::new(socket);
    let (mut said, connections) = (String::new(), Arc::<AtomicUsize>::default());
    while !shared.has_ended() {
        if let Err(why) = listener.look_after() {
            super::report_once(&mut said, format!("no socket for points: {why}"));
        }
        let timeout = super::timespec(LOOK);
        let mut all: Vec<PollFd<'_>> = Vec::new();
        all.extend(listener.socket().map(|socket| PollFd::new(socket, PollFlags::IN)));
        // Interrupted or not: everything is looked at again.
        let _ = poll(&mut all, Some(&timeout));
        while let Some(stream) = listener.accept() {
            if connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
                connections.fetch_sub(1, Ordering::Relaxed);
                shared.connections.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let (shared, open) = (shared.clone(), connections.clone());
            let thread = std::thread::Builder::new().name("points-from".into()).stack_size(STACK);
            let spawned = thread.spawn(move || {
                read_lines(&shared, stream);
                open.fetch_sub(1, Ordering::Relaxed);
            });
            if spawned.is_err() {
                connections.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

fn read_lines(shared: &Shared, stream: UnixStream) {
    if stream.set_read_timeout(Some(LOOK)).is_err() {
        return;
    }
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while !shared.has_ended() {
        let room = (LINE_MAX - line.len()) as u64 + 1;
        match reader.by_ref().take(room).read_until(b'\n', &mut line) {
            // The last line may have no end.
            Ok(0) if line.is_empty() => return,
            Ok(0) => {}
            Ok(_) if line.ends_with(b"\n") => {}
            // Whoever writes a line without an end is not listened to.
            Ok(_) if line.len() > LINE_MAX => return,
            Ok(_) => continue,
            // What was read of the line stays.
            Err(why) if is_timeout(&why) => continue,
            Err(_) => return,
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        if !text.is_empty() && !text.starts_with('#') {
            match Point::read(text) {
                Some(point) => shared.receive(point),
                None => drop(shared.bad_lines.fetch_add(1, Ordering::Relaxed)),
            }
        }
        line.clear();
    }
}

fn is_timeout(why: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(why.kind(), Interrupted | TimedOut | WouldBlock)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn datagrams_that_the_kernel_has_dropped_are_counted() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert_eq!(datagrams_dropped(address.port()), 0);
        until("the buffer is full", || {
            sender.send_to(&[b'x'; 1000], address).unwrap();
            datagrams_dropped(address.port()) > 10
        });
    }

    #[test]
    fn as_many_clients_may_send_lines_as_there_are_workers_and_more_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("points");
        let shared = Arc::new(Shared::new("h".into(), true, Arc::default(), Arc::default()));
        let (receiving, socket) = (shared.clone(), path.clone());
        let receiver = std::thread::spawn(move || lines(&receiving, socket));
        let mut clients = Vec::new();
        until("more than fit have connected", || {
            clients.extend(UnixStream::connect(&path));
            clients.len() > CONNECTIONS_MAX + 5
        });
        let refused = || shared.connections.load(Ordering::Relaxed);
        until("those beyond are counted", || {
            refused() == clients.len() as u64 - CONNECTIONS_MAX as u64
        });
        clients[CONNECTIONS_MAX - 1].write_all(b"m,module=x v=1\nnone\n").unwrap();
        until("the last that fits is heard", || shared.bad_lines.load(Ordering::Relaxed) == 1);
        shared.ends.store(true, Ordering::Relaxed);
        receiver.join().unwrap();
    }

    fn until(what: &str, mut is_so: impl FnMut() -> bool) {
        let began = std::time::Instant::now();
        while !is_so() {
            assert!(began.elapsed() < std::time::Duration::from_secs(30), "never: {what}");
            // Not all of the processor: others are to get on.
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
    }
}
