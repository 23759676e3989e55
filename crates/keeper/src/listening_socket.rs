//! A listening socket: made by bind(2), or taken from a front that still holds it.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr, socket_acceptconn};
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, bind, getsockname,
    listen, socket_with,
};

use crate::refusal::Refusal;

enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

fn parse(address: &str) -> Result<Address, Refusal> {
    if let Some(path) = address.strip_prefix("unix:") {
        return match path.len() {
            1..=107 if path.starts_with('/') => Ok(Address::Unix(path.into())),
            _ => Err(Refusal::because(format!(
                "{path:?} is no path for a socket: absolute, at most 107 bytes"
            ))),
        };
    }
    let numeric = match address.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => address.to_owned(),
    };
    let rule = "HOST:PORT with a numeric host, or unix:PATH";
    let wrong = |_| Refusal::because(format!("{address:?} is no address: {rule}"));
    numeric.parse().map(Address::Tcp).map_err(wrong)
}

/// Binds and listens. SO_REUSEPORT is never set: a second node on the port must fail.
pub(crate) fn open(address: &str, backlog: i32) -> Result<OwnedFd, Refusal> {
    let place = parse(address)?;
    let refuse = |e| Refusal::errno(format_args!("cannot listen on {address}"), e);
    let socket = match &place {
        Address::Tcp(to) => bound_tcp(to).map_err(refuse)?,
        Address::Unix(path) => bound_unix(path).map_err(refuse)?,
    };
    listen(&socket, backlog.max(1)).map_err(refuse)?;
    Ok(socket)
}

fn bound_tcp(to: &SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_reuseaddr(&socket, true)?;
    if to.is_ipv6() {
        // `::` is all addresses of IPv4, too, whatever the sysctl net.ipv6.bindv6only says.
        set_ipv6_v6only(&socket, !to.ip().is_unspecified())?;
    }
    bind(&socket, to)?;
    Ok(socket)
}

/// A socket file that nobody listens on any more is replaced.
fn bound_unix(path: &Path) -> rustix::io::Result<OwnedFd> {
    let family = AddressFamily::UNIX;
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let address = SocketAddrUnix::new(path)?;
    match bind(&socket, &address) {
        Err(Errno::ADDRINUSE) if is_abandoned(path) => {
            let _ = fs::remove_file(path);
            bind(&socket, &address)?;
        }
        other => other?,
    }
    Ok(socket)
}

pub(crate) fn is_abandoned(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    let refused = |e: io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).is_err_and(refused)
}

/// Refuses an offered socket that does not listen on the address that it is offered for.
pub(crate) fn check_offer(address: &str, socket: &OwnedFd) -> Result<(), Refusal> {
    let place = parse(address)?;
    let refuse = |e| Refusal::errno("the offered descriptor cannot be used", e);
    let bound = getsockname(socket).map_err(refuse)?;
    if !socket_acceptconn(socket).map_err(refuse)? {
        return Err(Refusal::because("the offered socket does not listen"));
    }
    let same = match &place {
        Address::Tcp(said) => SocketAddr::try_from(bound.clone()).is_ok_and(|real| real == *said),
        Address::Unix(said) => is_unix(&bound, said),
    };
    match same {
        true => Ok(()),
        false => Err(Refusal::because(format!("the offered socket does not listen on {address}"))),
    }
}

fn is_unix(bound: &SocketAddrAny, said: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    SocketAddrUnix::try_from(bound.clone())
        .is_ok_and(|real| real.path_bytes() == Some(said.as_os_str().as_bytes()))
}

/// Removes the file of a unix socket that is not listened on any more.
pub(crate) fn remove_file(address: &str) {
    if let Some(path) = address.strip_prefix("unix:") {
        if is_abandoned(Path::new(path)) {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_numeric_or_unix_paths() {
        for good in ["0.0.0.0:80", "[::]:80", "127.0.0.1:0", "localhost:80", "unix:/tmp/x"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["", "80", "example.org:80", "unix:", "unix:relative", "1.2.3.4", "[::]"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
