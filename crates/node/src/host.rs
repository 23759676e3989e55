//! What configurations may say about this host: `MFHARDWARE_*`, `MFHOSTNAME*`.
//! Names and rules are MFSERV's.

use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::Duration;

use mfserv_platform::cgroup;
use mfserv_platform::proc::{self, Processors};

/// How long the resolver may take.
const RESOLVE: Duration = Duration::from_secs(2);

/// Every variable about the host. They are computed once: a value that changed between two
/// reloads would restart every app.
pub fn variables() -> BTreeMap<String, String> {
    static ALL: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    let look = || {
        let mut all = BTreeMap::new();
        hardware(&mut all);
        names(&mut all);
        all
    };
    ALL.get_or_init(look).clone()
}

/// The names of this machine that names of virtual domains end with, as MFSERV has them, by the
/// environment of the module.
pub fn host_names(env: &BTreeMap<String, String>) -> Vec<String> {
    let named = ["MFHOSTNAME", "MFHOSTNAME_FULL"].into_iter().filter_map(|name| env.get(name));
    let mut names: Vec<String> = Vec::new();
    for name in named.map(String::as_str).chain(["localhost"]) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_string());
        }
    }
    names
}

/// The name of a user, as `/etc/passwd` has it.
pub fn user_name(uid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut lines = text.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_string())
    })
}

fn hardware(all: &mut BTreeMap<String, String>) {
    let Processors { sockets, cores, .. } = proc::processors(Path::new("/proc"));
    // Of a machine with 64 cores, a container or a service may be given two.
    let cores = cores.min(cgroup::processors());
    let mut put = |name: &str, value: u64| {
        all.insert(format!("MFHARDWARE_{name}"), value.to_string());
    };
    put("NUMBER_OF_PHYSICAL_PROCESSORS", sockets);
    put("NUMBER_OF_CPU_CORES", cores);
    put("NUMBER_OF_CPU_CORES_PLUS_1", cores + 1);
    put("NUMBER_OF_CPU_CORES_MULTIPLIED_BY_2", cores * 2);
    for n in [2, 3, 4, 6, 8] {
        put(&format!("NUMBER_OF_CPU_CORES_DIVIDED_BY_{n}"), (cores / n).max(1));
    }
    let memory = cgroup::memory() / 1024;
    put("PHYSICAL_MEMORY", memory);
    for n in [2, 3, 4, 6, 8, 16] {
        put(&format!("PHYSICAL_MEMORY_DIVIDED_BY_{n}"), memory / n);
    }
}

fn names(all: &mut BTreeMap<String, String>) {
    let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let short = node.split('.').next().unwrap_or("localhost").to_string();
    let domain =
        node.split_once('.').map(|(_, domain)| domain.to_string()).or_else(resolver_domain);
    let full = domain.as_ref().map_or_else(|| short.clone(), |domain| format!("{short}.{domain}"));
    let address = main_address(&short);
    all.insert("MFHOSTNAME".into(), short);
    all.insert("MFHOSTNAME_FULL".into(), full);
    all.insert("MFDOMAIN".into(), domain.unwrap_or_else(|| "None".into()));
    all.insert("MFHOSTNAME_IP".into(), address.clone());
    all.insert("MFHOSTNAME_FULL_IP".into(), address);
}

fn resolver_domain() -> Option<String> {
    let text = std::fs::read_to_string("/etc/resolv.conf").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("domain "))?;
    Some(line.trim().to_string()).filter(|domain| !domain.is_empty())
}

/// The host's own address: the address of its name, unless that is the loopback address; then
/// the source address of packets to the outside (no packet is sent).
fn main_address(host: &str) -> String {
    let named = resolve(host).filter(|address| !address.starts_with("127."));
    named.or_else(routed_address).unwrap_or_else(|| "127.0.0.1".into())
}

fn routed_address() -> Option<String> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // Connecting a datagram socket only asks the routing table.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified() && !address.is_loopback()).then(|| address.to_string())
}

/// The first IPv4 address of a name. If the resolver does not answer in time, its last answer is
/// used, because a resolver that fails for a moment must not restart apps.
pub fn resolve(host: &str) -> Option<String> {
    static LAST: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
    let found = ask_resolver(host);
    let Ok(mut last) = LAST.lock() else { return found };
    match found {
        Some(address) => {
            last.insert(host.to_string(), address.clone());
            Some(address)
        }
        None => last.get(host).cloned(),
    }
}

fn ask_resolver(host: &str) -> Option<String> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let host = host.to_string();
    // getaddrinfo(3) cannot be interrupted: the thread ends when it returns.
    std::thread::spawn(move || {
        let found = (host.as_str(), 0).to_socket_addrs().ok();
        let first = found.into_iter().flatten().map(|a| a.ip()).find(IpAddr::is_ipv4);
        let _ = sender.send(first.map(|address| address.to_string()));
    });
    receiver.recv_timeout(RESOLVE).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_variable_is_there() {
        let all = variables();
        for name in [
            "MFHARDWARE_NUMBER_OF_CPU_CORES_MULTIPLIED_BY_2",
            "MFHARDWARE_PHYSICAL_MEMORY",
            "MFHOSTNAME_IP",
        ] {
            assert!(!all[name].is_empty(), "{name}");
        }
    }
}
