//! Listening sockets that another process has bound and this one has inherited.

use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

use mfserv_core::Diagnostic;
use rustix::io::FdFlags;

/// Adopts the descriptors of `MFSERV_LISTEN`: `NAME=FD,NAME=FD`. Each must be an open
/// listening socket. To be called once in a process, before it opens other descriptors.
pub fn listeners_from_env(text: &str) -> Result<Vec<(String, OwnedFd)>, Diagnostic> {
    let wrong = |why: String| {
        Diagnostic::error("MFSERV_LISTEN does not name listening sockets")
            .because(why)
            .help("it is set by the keeper: NAME=FD,NAME=FD")
    };
    let mut named: Vec<(String, RawFd)> = Vec::new();
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let parsed = item.split_once('=').and_then(|(name, fd)| Some((name, fd.parse().ok()?)));
        match parsed {
            Some((name, fd)) if !name.is_empty() && fd > 2 => {
                if named.iter().any(|(other, number)| other == name || *number == fd) {
                    return Err(wrong(format!("{item:?} comes twice")));
                }
                named.push((name.to_string(), fd));
            }
            _ => return Err(wrong(format!("{item:?} is not NAME=FD"))),
        }
    }
    let adopt = |(name, fd)| match adopt(fd) {
        Ok(socket) => Ok((name, socket)),
        Err(why) => Err(wrong(format!("{name}={fd}: {why}"))),
    };
    named.into_iter().map(adopt).collect()
}

fn adopt(fd: RawFd) -> std::io::Result<OwnedFd> {
    if std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_err() {
        return Err(std::io::Error::other("the descriptor is not open"));
    }
    // SAFETY: the descriptor is open, and the environment says that it was left to this
    // process under this number: nothing else here owns it.
    #[expect(unsafe_code, reason = "see SAFETY")]
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    match rustix::net::sockopt::socket_acceptconn(socket.as_fd()) {
        Ok(true) => {
            rustix::io::fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
            Ok(socket)
        }
        Ok(false) => Err(std::io::Error::other("the socket does not listen")),
        Err(why) => Err(why.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;

    use super::*;

    #[test]
    fn listening_sockets_are_adopted_by_name() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let fd = OwnedFd::from(socket).into_raw_fd();
        let adopted = listeners_from_env(&format!("http={fd}")).unwrap();
        assert_eq!(adopted[0].0, "http");
        let again = std::net::TcpListener::from(adopted[0].1.try_clone().unwrap());
        assert_eq!(again.local_addr().unwrap(), address);
        assert!(listeners_from_env("").unwrap().is_empty());
    }

    #[test]
    fn anything_else_is_refused_with_its_name() {
        for text in ["http", "http=", "=5", "http=x", "http=1", "a=77777", "a=40,a=41", "a=40,b=40"]
        {
            let why = listeners_from_env(text).unwrap_err();
            assert!(!why.because.is_empty(), "{text}: {why}");
        }
    }
}
