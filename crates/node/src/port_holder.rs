//! Who listens on a TCP port of this machine, and why a port is refused.

use std::path::Path;

use mfserv_core::{Diagnostic, Kind};

/// errno(3) as the keeper reports it, at the end of its text.
const NOT_ALLOWED: &str = "(os error 13)";
const IN_USE: &str = "(os error 98)";

/// The error of a listener that the keeper could not open; `said` is what the keeper said.
pub fn refused(address: &str, said: &str) -> Diagnostic {
    let what = format!("cannot listen on {address}");
    let why = said.strip_prefix(&format!("{what}: ")).unwrap_or(said);
    let problem = Diagnostic::error(what).kind(Kind::Refused).because(why);
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    match port {
        Some(port) if said.contains(IN_USE) && is_held_by(Protocol::Tcp, port, &[keeper()]) => {
            other_address(problem, port)
        }
        Some(port) if said.contains(IN_USE) => {
            problem
                .because(listens(holder(Protocol::Tcp, port), port))
                .help("stop it, or choose another port ([nginx] port)")
        }
        Some(port) if said.contains(NOT_ALLOWED) => problem
            .because(format!("port {port} needs a privilege that this user does not have"))
            .help(format!(
                "under systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE; or for every user: sysctl \
                 net.ipv4.ip_unprivileged_port_start={port}; or choose another port ([nginx] port)"
            )),
        _ => problem.help("choose an address of this machine ([nginx] port and the other keys)"),
    }
}

/// Who has a port that is in use, for people.
pub fn listens(holder: Option<String>, port: u16) -> String {
    let who = holder.unwrap_or_else(|| "a process that is not visible here".into());
    format!("{who} listens on port {port}")
}

/// The process that the daemon is a child of, and that has its listeners.
fn keeper() -> u32 {
    rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs())
}

/// Says that the node itself has the port, at another address: the address of a port that is
/// listened on cannot be changed under load.
pub fn other_address(problem: Diagnostic, port: u16) -> Diagnostic {
    problem
        .because(format!("this node listens on port {port} at another address, and goes on there"))
        .help("`mfserv stop`, then `mfserv start` takes the new address; or choose another port, which a reload takes")
}

/// What a port is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// A listener of TCP.
    Tcp,
    /// A socket of UDP.
    Udp,
}

/// One of these processes has the port.
pub fn is_held_by(protocol: Protocol, port: u16, pids: &[u32]) -> bool {
    let sockets = sockets(protocol, port);
    sockets.iter().any(|socket| pids.iter().any(|pid| has_socket(*pid, socket.inode)))
}

/// The process that listens on a port, in words: its id and its command, or its user where its
/// descriptors cannot be read. `None` if nobody does.
pub fn holder(protocol: Protocol, port: u16) -> Option<String> {
    let found = sockets(protocol, port);
    let pid = found.iter().find_map(|socket| process_of(socket.inode));
    if let Some(pid) = pid {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        let command: String = words.trim().chars().filter(|c| !c.is_control()).take(80).collect();
        return Some(format!("process {pid} ({command})"));
    }
    let uid = found.first()?.uid;
    let user = crate::host::user_name(uid).unwrap_or_else(|| uid.to_string());
    Some(format!("a process of the user {user}"))
}

struct Socket {
    uid: u32,
    inode: u64,
}

/// The sockets that receive on a port.
fn sockets(protocol: Protocol, port: u16) -> Vec<Socket> {
    let files = match protocol {
        Protocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Protocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    files.into_iter().flat_map(|file| receiving(&read(file), protocol, port)).collect()
}

/// Those in the text of `/proc/net/tcp` or `/proc/net/udp` (proc(5)).
fn receiving(text: &str, protocol: Protocol, port: u16) -> Vec<Socket> {
    // TCP_LISTEN; TCP_CLOSE, as UDP calls a socket that is not connected.
    let state = if protocol == Protocol::Tcp { "0A" } else { "07" };
    let read = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, of) = fields.get(1)?.rsplit_once(':')?;
        let is_meant = u16::from_str_radix(of, 16).ok()? == port && *fields.get(3)? == state;
        let (uid, inode) = (fields.get(7)?.parse().ok()?, fields.get(9)?.parse().ok()?);
        is_meant.then_some(Socket { uid, inode })
    };
    text.lines().skip(1).filter_map(read).collect()
}

/// The first process that has a socket, of those whose descriptors this user may read.
fn process_of(inode: u64) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut pids: Vec<u32> =
        processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids.into_iter().find(|pid| has_socket(*pid, inode))
}

fn has_socket(pid: u32, inode: u64) -> bool {
    let name = format!("socket:[{inode}]");
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    let mut links = descriptors.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
    links.any(|link| link == Path::new(&name))
}

#[cfg(test)]
mod tests {
    use super::Protocol::{Tcp, Udp};
    use super::*;

    #[test]
    fn who_listens_is_named_and_nobody_where_nobody_does() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = format!("process {} (", std::process::id());
        assert!(holder(Tcp, port).unwrap().starts_with(&own), "{:?}", holder(Tcp, port));
        let six = std::net::TcpListener::bind("[::1]:0").unwrap();
        assert!(holder(Tcp, six.local_addr().unwrap().port()).unwrap().starts_with(&own));
        assert!(is_held_by(Tcp, port, &[1, std::process::id()]));
        assert!(!is_held_by(Tcp, port, &[]));
        drop(listener);
        assert_eq!(holder(Tcp, port), None);
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = datagrams.local_addr().unwrap().port();
        assert!(holder(Udp, port).unwrap().starts_with(&own));
        assert!(is_held_by(Udp, port, &[std::process::id()]));
    }

    #[test]
    fn a_connection_is_no_listener_and_lines_that_are_none_are_passed_over() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 1000 0 77 1\n\
            1: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000 1001 0 78 1\n\
            junk\n";
        let found = receiving(text, Tcp, 8080);
        assert_eq!(found.iter().map(|it| (it.uid, it.inode)).collect::<Vec<_>>(), [(1000, 77)]);
        assert!(receiving(text, Tcp, 8081).is_empty());
    }

    #[test]
    fn a_taken_port_and_one_that_needs_a_privilege_have_different_cures() {
        let said = |code: &str| {
            refused("0.0.0.0:80", &format!("cannot listen on 0.0.0.0:80: no ({code})")).to_string()
        };
        let privilege = said("os error 13");
        assert!(privilege.contains("AmbientCapabilities=CAP_NET_BIND_SERVICE"), "{privilege}");
        assert!(privilege.contains("ip_unprivileged_port_start=80"), "{privilege}");
        let taken = said("os error 98");
        assert!(taken.contains("listens on port 80") && !taken.contains("privilege"), "{taken}");
        assert_eq!(taken.matches("cannot listen").count(), 1, "{taken}");
        let elsewhere = said("os error 99");
        assert!(!elsewhere.contains("privilege") && !elsewhere.contains("stop it"), "{elsewhere}");
    }
}
