//! Ports of the loopback address: one that nobody else has, and who listens on one.
//!
//! Who listens is asked with sock_diag(7), which takes some microseconds however many sockets there
//! are; where the kernel has no answer, the tables of proc(5) are read.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt};

/// A socket that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// The user who has made it.
    pub uid: u32,
    /// Its number, as in the links of `/proc/PID/fd`.
    pub inode: u64,
}

/// Finds out who listens on ports.
#[derive(Debug, Default)]
pub struct Listeners {
    diag: Option<OwnedFd>,
}

/// The kernel has answered once: it knows such questions.
static HAS_DIAG: AtomicBool = AtomicBool::new(false);
/// This kernel, or a filter of system calls, knows no such question.
static HAS_NO_DIAG: AtomicBool = AtomicBool::new(false);

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const HEADER: usize = 16;
const REQUEST: usize = HEADER + 56;
/// `struct inet_diag_msg` after the header.
const ANSWER: usize = HEADER + 72;
const AF_INET: u8 = 2;
const IPPROTO_TCP: u8 = 6;
const TCP_LISTEN: u8 = 10;

impl Listeners {
    /// The socket that gets connections to a port of 127.0.0.1; `None` if there is none.
    pub fn on(&mut self, port: u16) -> io::Result<Option<Listener>> {
        if HAS_NO_DIAG.load(Ordering::Relaxed) {
            return in_tables(port);
        }
        let asked = self.ask(port);
        if asked.is_err() {
            self.diag = None;
        }
        match asked {
            Ok(Some(found)) => {
                HAS_DIAG.store(true, Ordering::Relaxed);
                Ok(Some(found))
            }
            Ok(None) if HAS_DIAG.load(Ordering::Relaxed) => Ok(None),
            // A kernel without the module for TCP says the same.
            Ok(None) => {
                let (found, has) = compare(|| in_tables(port), || self.ask(port))?;
                HAS_DIAG.fetch_or(has == Some(true), Ordering::Relaxed);
                HAS_NO_DIAG.fetch_or(has == Some(false), Ordering::Relaxed);
                Ok(found)
            }
            Err(why) if is_lack(&why) => {
                HAS_NO_DIAG.store(true, Ordering::Relaxed);
                in_tables(port)
            }
            Err(why) => Err(why),
        }
    }

    fn ask(&mut self, port: u16) -> io::Result<Option<Listener>> {
        if self.diag.is_none() {
            let (family, kind) = (AddressFamily::NETLINK, SocketType::DGRAM);
            let protocol = Some(netlink::SOCK_DIAG);
            let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, protocol)?;
            self.diag = Some(socket);
        }
        let Some(socket) = &self.diag else { return Err(io::ErrorKind::NotFound.into()) };
        rustix::net::send(socket, &question(port), SendFlags::empty())?;
        let mut answer = [0; 4096];
        // The kernel has answered before send(2) returns.
        let (count, _) = rustix::net::recv(socket, &mut answer, RecvFlags::DONTWAIT)?;
        read_answer(&answer[..count])
    }
}

/// The kernel has found nobody, and whether it can is not known: the tables are read. If they have
/// somebody, he may have begun to listen meanwhile: the kernel is asked again. Also says whether it
/// can.
fn compare(
    tables: impl FnOnce() -> io::Result<Option<Listener>>,
    ask: impl FnOnce() -> io::Result<Option<Listener>>,
) -> io::Result<(Option<Listener>, Option<bool>)> {
    let Some(found) = tables()? else { return Ok((None, None)) };
    Ok(match ask() {
        Ok(Some(found)) => (Some(found), Some(true)),
        _ => (Some(found), Some(false)),
    })
}

/// The question cannot be asked here.
fn is_lack(why: &io::Error) -> bool {
    let codes = [
        Errno::PROTONOSUPPORT,
        Errno::AFNOSUPPORT,
        Errno::OPNOTSUPP,
        Errno::INVAL,
        Errno::PERM,
        Errno::ACCESS,
        Errno::NOSYS,
    ];
    why.kind() == io::ErrorKind::InvalidData
        || codes.iter().any(|code| why.raw_os_error() == Some(code.raw_os_error()))
}

fn in_tables(port: u16) -> io::Result<Option<Listener>> {
    let takes = |it: &Listener| {
        let ip = it.address.ip();
        it.address.port() == port && (ip.is_unspecified() || ip == Ipv4Addr::LOCALHOST)
    };
    Ok(listening(Path::new("/proc"))?.into_iter().find(takes))
}

/// A request of one TCP socket, `struct inet_diag_req_v2`: who gets a connection to this port?
fn question(port: u16) -> [u8; REQUEST] {
    let mut request = [0; REQUEST];
    request[..4].copy_from_slice(&(REQUEST as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    request[HEADER] = AF_INET;
    request[HEADER + 1] = IPPROTO_TCP;
    let states = 1u32 << TCP_LISTEN;
    request[HEADER + 4..HEADER + 8].copy_from_slice(&states.to_ne_bytes());
    let id = HEADER + 8;
    request[id..id + 2].copy_from_slice(&port.to_be_bytes());
    request[id + 4..id + 8].copy_from_slice(&Ipv4Addr::LOCALHOST.octets());
    // Any socket, whatever its cookie.
    request[REQUEST - 8..].fill(0xff);
    request
}

fn read_answer(answer: &[u8]) -> io::Result<Option<Listener>> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let four = |at: usize| -> io::Result<[u8; 4]> {
        answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).ok_or_else(malformed)
    };
    let kind = u16::from_ne_bytes([four(4)?[0], four(4)?[1]]);
    if kind == NLMSG_ERROR {
        let code = i32::from_ne_bytes(four(HEADER)?);
        return match Errno::from_raw_os_error(-code) {
            Errno::NOENT => Ok(None),
            other => Err(other.into()),
        };
    }
    if kind != SOCK_DIAG_BY_FAMILY || answer.len() < ANSWER {
        return Err(malformed());
    }
    let (family, state) = (answer[HEADER], answer[HEADER + 1]);
    if state != TCP_LISTEN {
        return Ok(None);
    }
    let id = HEADER + 4;
    let port = u16::from_be_bytes([answer[id], answer[id + 1]]);
    let ip = match family {
        AF_INET => IpAddr::from(four(id + 4)?),
        _ => {
            let bytes: [u8; 16] = answer[id + 4..id + 20].try_into().map_err(|_| malformed())?;
            IpAddr::from(bytes)
        }
    };
    let number = |at: usize| four(at).map(u32::from_ne_bytes);
    let (uid, inode) = (number(HEADER + 64)?, number(HEADER + 68)?);
    Ok(Some(Listener { address: SocketAddr::new(ip, port), uid, inode: inode.into() }))
}

/// All TCP sockets of a `/proc` that listen, of this network namespace.
pub fn listening(proc: &Path) -> io::Result<Vec<Listener>> {
    let mut text = fs::read_to_string(proc.join("net/tcp"))?;
    // A kernel without IPv6 has no such table.
    text += &fs::read_to_string(proc.join("net/tcp6")).unwrap_or_default();
    Ok(text.lines().filter_map(read_row).collect())
}

/// A line of `/proc/net/tcp` or `tcp6`, if its socket listens. Addresses are words in the order of
/// bytes of this machine.
fn read_row(line: &str) -> Option<Listener> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    if *fields.get(3)? != "0A" {
        return None;
    }
    let (address, port) = fields.get(1)?.split_once(':')?;
    let word = |at: usize| {
        let word = u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip = match address.len() {
        8 => IpAddr::from(word(0)?),
        _ => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&words.concat());
            IpAddr::from(bytes)
        }
    };
    Some(Listener {
        address: SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?),
        uid: fields.get(7)?.parse().ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// Whether a process has a socket open, by the number of the socket. `None`: its descriptors may
/// not be read.
pub fn has_socket(proc: &Path, pid: u32, inode: u64) -> Option<bool> {
    let descriptors = match fs::read_dir(proc.join(pid.to_string()).join("fd")) {
        Ok(descriptors) => descriptors,
        Err(why) if why.kind() == io::ErrorKind::PermissionDenied => return None,
        // It has ended.
        Err(_) => return Some(false),
    };
    let name = format!("socket:[{inode}]");
    let is_it = |link: &Path| fs::read_link(link).is_ok_and(|to| to.as_os_str() == name.as_str());
    Some(descriptors.flatten().any(|entry| is_it(&entry.path())))
}

/// A port that no other node, and no other worker of this one, gets while this value lives.
///
/// The reservation is a unix socket with a name in the abstract namespace, which belongs to the
/// same network namespace as the port and ends with its process. To bind the port itself would
/// keep those servers away that do not set `SO_REUSEADDR`.
#[derive(Debug)]
pub struct ReservedPort {
    number: u16,
    _name: UnixDatagram,
}

impl ReservedPort {
    /// A port on which nobody listens. The kernel gives it to no connection, where there are
    /// enough other ones: the local end of a connection would keep a server from its port.
    pub fn new() -> io::Result<Self> {
        let taken = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
        let range = range(&taken.unwrap_or_default());
        let count = u64::from(range.end() - range.start()) + 1;
        // Nodes that start together begin at different ones.
        let first = RandomState::new().build_hasher().finish() % count;
        let ports = (0..count).map(|n| range.start() + ((first + n) % count) as u16);
        for number in ports {
            if let Some(port) = Self::of(number).filter(|_| is_free(number)) {
                return Ok(port);
            }
        }
        let (from, to) = range.into_inner();
        Err(io::Error::other(format!("all ports from {from} to {to} are in use")))
    }

    /// This port, unless another node or worker has it.
    pub fn of(number: u16) -> Option<Self> {
        let name = format!("mfserv-port-{number}");
        let name = std::os::unix::net::SocketAddr::from_abstract_name(name).ok()?;
        Some(Self { number, _name: UnixDatagram::bind_addr(&name).ok()? })
    }

    /// The port.
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// Where so many ports are enough.
const ENOUGH: u16 = 1_000;

/// The ports to choose from: above those of connections, which are in this file, else below them.
fn range(ip_local_port_range: &str) -> RangeInclusive<u16> {
    let mut words = ip_local_port_range.split_ascii_whitespace();
    let mut next = || words.next().and_then(|word| word.parse::<u16>().ok());
    let (Some(low), Some(high)) = (next(), next()) else { return 10_000..=u16::MAX };
    match (u16::MAX - high, low) {
        (ENOUGH.., _) => high + 1..=u16::MAX,
        (_, 11_000..) => 10_000..=low - 1,
        _ => 10_000..=u16::MAX,
    }
}

/// Whether a server could bind this port on all addresses, also one that does not set
/// `SO_REUSEADDR`.
fn is_free(port: u16) -> bool {
    let socket =
        |family| rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let four = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
    let is_free = socket(AddressFamily::INET)
        .and_then(|socket| rustix::net::bind(&socket, &four).map(|()| socket));
    let six = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
    let other = socket(AddressFamily::INET6).and_then(|socket| {
        sockopt::set_ipv6_v6only(&socket, true)?;
        rustix::net::bind(&socket, &six)
    });
    is_free.is_ok() && other != Err(Errno::ADDRINUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn who_listens_is_said_the_same_by_the_kernel_and_by_its_tables() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let address = listener.local_addr().unwrap();
            let mut asks = Listeners::default();
            let asked = asks.on(address.port()).unwrap().unwrap();
            assert!(HAS_DIAG.load(Ordering::Relaxed), "the kernel was not asked");
            assert_eq!(asked, in_tables(address.port()).unwrap().unwrap());
            assert_eq!((asked.address, asked.uid), (address, rustix::process::getuid().as_raw()));
            let inode = rustix::fs::fstat(&listener).unwrap().st_ino;
            assert_eq!(asked.inode, inode);
            assert_eq!(has_socket(Path::new("/proc"), std::process::id(), inode), Some(true));
            drop(listener);
            assert_eq!(asks.on(address.port()).unwrap(), None);
        }
    }

    #[test]
    fn who_begins_to_listen_between_two_questions_does_not_hide_that_the_kernel_answers() {
        let address = "127.0.0.1:1".parse().unwrap();
        let it = Listener { address, uid: 0, inode: 1 };
        let known = |again| compare(|| Ok(Some(it)), || Ok(again)).unwrap();
        assert_eq!(known(Some(it)), (Some(it), Some(true)));
        assert_eq!(known(None), (Some(it), Some(false)), "a kernel without the module");
        let none = compare(|| Ok(None), || panic!("asked in vain")).unwrap();
        assert_eq!(none, (None, None));
    }

    #[test]
    fn a_connection_is_no_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = client.local_addr().unwrap().port();
        assert_eq!(Listeners::default().on(port).unwrap(), None);
    }

    #[test]
    fn a_port_is_reserved_once_and_is_not_one_of_those_of_connections() {
        let ports: Vec<ReservedPort> = (0..50).map(|_| ReservedPort::new().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(ReservedPort::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
        let number = ports[0].number();
        assert!(ReservedPort::of(number).is_none());
        TcpListener::bind(("0.0.0.0", number)).expect("a server may bind it");
        drop(ports);
        assert!(ReservedPort::of(number).is_some());
        assert_eq!(range("32768\t60999\n"), 61_000..=65_535);
        assert_eq!(range("32768 65535"), 10_000..=32_767);
        assert_eq!(range("1024 65535"), 10_000..=65_535);
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_not_free() {
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            assert!(!is_free(listener.local_addr().unwrap().port()), "{address}");
        }
    }
}
