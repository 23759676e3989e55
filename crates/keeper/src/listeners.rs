//! The listening sockets of the node, by name. Fronts inherit them; they stay open while
//! fronts come and go.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::listening_socket as socket;
use crate::refusal::Refusal;

/// More sockets than these are not held.
const MOST: usize = 256;

/// The sockets that the keeper holds.
#[derive(Default)]
pub(crate) struct Listeners(BTreeMap<String, Listener>);

struct Listener {
    address: String,
    socket: OwnedFd,
}

impl Listeners {
    /// Listens on an address under a name; returns whether that is new.
    pub fn listen(&mut self, name: &str, address: &str, backlog: i32) -> Result<bool, Refusal> {
        if self.holds(name, address)? {
            return Ok(false);
        }
        let socket = socket::open(address, backlog)?;
        self.restore(name.to_owned(), address.to_owned(), socket);
        Ok(true)
    }

    /// Takes a socket from a front that has inherited it from an earlier keeper; returns
    /// whether it was missing here.
    pub fn offer(&mut self, name: &str, address: &str, offered: OwnedFd) -> Result<bool, Refusal> {
        if self.holds(name, address)? {
            return Ok(false);
        }
        socket::check_offer(address, &offered)?;
        self.restore(name.to_owned(), address.to_owned(), offered);
        Ok(true)
    }

    /// Takes back a socket that was open across an execve(2).
    pub fn restore(&mut self, name: String, address: String, socket: OwnedFd) {
        self.0.insert(name, Listener { address, socket });
    }

    /// Returns true if this socket is held; refuses one that cannot be held.
    fn holds(&self, name: &str, address: &str) -> Result<bool, Refusal> {
        if name.is_empty() || name.len() > 200 || name.contains(['=', ',', '\0']) {
            return Err(Refusal::because(format!("{name:?} is no name for a socket")));
        }
        match self.0.get(name) {
            Some(held) if held.address == address => Ok(true),
            Some(held) => {
                Err(Refusal::because(format!("{name} listens on {} already", held.address)))
            }
            None if self.0.len() >= MOST => {
                Err(Refusal::because(format!("{MOST} sockets are held already")))
            }
            None => Ok(false),
        }
    }

    /// Stops listening; returns whether the name was known. Fronts that have inherited the
    /// socket still hold it.
    pub fn close(&mut self, name: &str) -> bool {
        let Some(Listener { address, socket }) = self.0.remove(name) else { return false };
        drop(socket);
        socket::remove_file(&address);
        true
    }

    /// Stops listening everywhere.
    pub fn close_all(&mut self) {
        let names: Vec<String> = self.names().cloned().collect();
        names.iter().for_each(|name| {
            self.close(name);
        });
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// Name, address and socket of each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, BorrowedFd<'_>)> {
        self.0.iter().map(|(name, it)| (name.as_str(), it.address.as_str(), it.socket.as_fd()))
    }

    /// The sockets of these names, in this order: what a process inherits.
    pub fn select<'a>(
        &'a self,
        names: &'a [String],
    ) -> Result<Vec<(&'a str, BorrowedFd<'a>)>, Refusal> {
        let one = |name: &'a String| match self.0.get(name) {
            Some(held) => Ok((name.as_str(), held.socket.as_fd())),
            None => Err(Refusal::because(format!("no socket {name} is held"))),
        };
        names.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_name_listens_once_and_on_one_address() {
        let mut listeners = Listeners::default();
        assert_eq!(listeners.listen("web", "127.0.0.1:0", 8), Ok(true));
        assert_eq!(listeners.listen("web", "127.0.0.1:0", 8), Ok(false));
        let refused = listeners.listen("web", "127.0.0.1:1", 8).unwrap_err();
        assert_eq!(refused.reason, "web listens on 127.0.0.1:0 already");
        for bad in ["", "a=b", "a,b", "a\0b", &"x".repeat(201)] {
            assert!(listeners.listen(bad, "127.0.0.1:0", 8).is_err(), "{bad:?}");
        }
        assert_eq!(listeners.names().count(), 1);
    }

    #[test]
    fn no_more_sockets_are_held_than_the_limit() {
        let mut listeners = Listeners::default();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        for number in 0..MOST {
            let copy = socket.try_clone().unwrap().into();
            listeners.restore(format!("s{number}"), "127.0.0.1:0".into(), copy);
        }
        assert!(listeners.listen("one more", "127.0.0.1:0", 8).is_err());
        assert_eq!(listeners.listen("s0", "127.0.0.1:0", 8), Ok(false));
        assert!(listeners.close("s0"));
        assert_eq!(listeners.listen("one more", "127.0.0.1:0", 8), Ok(true));
    }

    #[test]
    fn only_a_socket_that_listens_on_its_address_is_taken_from_a_front() {
        let mut listeners = Listeners::default();
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap().to_string();
        let offer = |listeners: &mut Listeners, address: &str, socket: OwnedFd| {
            listeners.offer("web", address, socket)
        };
        let connected = std::net::TcpStream::connect(&address).unwrap();
        let reason = offer(&mut listeners, &address, connected.into()).unwrap_err().reason;
        assert_eq!(reason, "the offered socket does not listen");
        let copy = || OwnedFd::from(held.try_clone().unwrap());
        let reason = offer(&mut listeners, "127.0.0.1:1", copy()).unwrap_err().reason;
        assert_eq!(reason, "the offered socket does not listen on 127.0.0.1:1");
        assert_eq!(offer(&mut listeners, &address, copy()), Ok(true));
        assert_eq!(offer(&mut listeners, &address, copy()), Ok(false), "it is held already");
    }

    #[test]
    fn an_abandoned_socket_file_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.sock");
        let address = format!("unix:{}", path.display());
        let other = UnixListener::bind(&path).unwrap();
        let mut listeners = Listeners::default();
        let refused = listeners.listen("web", &address, 8).unwrap_err();
        assert_eq!(refused.errno, rustix::io::Errno::ADDRINUSE.raw_os_error());
        drop(other);
        assert_eq!(listeners.listen("web", &address, 8), Ok(true));
        UnixStream::connect(&path).unwrap();
        listeners.close_all();
        assert!(!path.exists() && listeners.names().next().is_none());
    }

    #[test]
    fn a_process_inherits_the_sockets_that_it_names_in_its_order() {
        let mut listeners = Listeners::default();
        for name in ["a", "b", "c"] {
            listeners.listen(name, "127.0.0.1:0", 8).unwrap();
        }
        let names = ["c".to_owned(), "a".to_owned()];
        let selected = listeners.select(&names).unwrap();
        assert_eq!(selected.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["c", "a"]);
        assert!(listeners.select(&["d".to_owned()]).is_err());
    }
}
