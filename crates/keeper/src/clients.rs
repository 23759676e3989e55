//! The clients of `keep.sock`: daemon, fronts and commands.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use mfserv_core::wire::keeper::{Answer, FromKeeper, Notice};

use crate::connection::{Asked, Connection};
use crate::log::log;

/// More clients than these are turned away.
const MOST: usize = 64;

/// How long accept(2) is left alone when no descriptor is free: the clients stay in the
/// backlog, and poll(2) would return at once.
const PAUSE: Duration = Duration::from_millis(20);

/// The listening socket and those who have connected to it.
pub(crate) struct Clients {
    listener: UnixListener,
    open: Vec<Connection>,
    next_id: u64,
    /// A client was turned away since there was room: it is logged once.
    is_full: bool,
}

impl Clients {
    /// Accepts clients of this socket from now on.
    pub fn new(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener, open: Vec::new(), next_id: 1, is_full: false })
    }

    /// Accepts clients of this socket instead; those that are connected stay.
    pub fn listen_on(&mut self, listener: UnixListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        self.listener = listener;
        Ok(())
    }

    /// The listening socket.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// The connected clients.
    pub fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.open.iter()
    }

    /// The client of a number, if it is still connected.
    pub fn get(&mut self, id: u64) -> Option<&mut Connection> {
        self.open.iter_mut().find(|client| client.id() == id)
    }

    /// Accepts those who wait.
    pub fn accept(&mut self) {
        for _ in 0..MOST {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return std::thread::sleep(PAUSE),
            };
            if self.open.len() >= MOST {
                if !std::mem::replace(&mut self.is_full, true) {
                    log(format_args!("clients are turned away: {MOST} are connected"));
                }
                continue;
            }
            self.is_full = false;
            let client = self.greet(socket);
            self.open.extend(client);
        }
    }

    /// Gives a client its number.
    fn greet(&mut self, socket: UnixStream) -> Option<Connection> {
        let client = Connection::new(self.next_id, socket).ok()?;
        self.next_id += 1;
        Some(client)
    }

    /// Takes back the client whose request was an upgrade, and answers it.
    pub fn resume(&mut self, socket: UnixStream, seq: u64, watches: bool) {
        let Some(mut client) = self.greet(socket) else { return };
        if watches {
            client.watch();
        }
        client.answer(seq, Answer::Done);
        client.flush();
        self.open.push(client);
    }

    /// What this client has sent.
    pub fn receive(&mut self, id: u64) -> Vec<Asked> {
        self.get(id).map(Connection::receive).unwrap_or_default()
    }

    /// Queues an answer; the client may have gone.
    pub fn answer(&mut self, id: u64, seq: u64, answer: Answer) {
        if let Some(client) = self.get(id) {
            client.answer(seq, answer);
        }
    }

    /// Queues a notice for those who watch.
    pub fn notify(&mut self, notice: Notice) {
        let message = FromKeeper::Notice(notice);
        self.open.iter_mut().filter(|it| it.watches()).for_each(|it| it.send(&message));
    }

    /// Returns true if somebody watches.
    pub fn are_watching(&self) -> bool {
        self.open.iter().any(Connection::watches)
    }

    /// Sends what the clients take now, and drops those who have gone or do not behave.
    pub fn flush(&mut self) {
        self.open.iter_mut().for_each(Connection::flush);
        self.open.retain(|client| !client.is_broken());
    }

    /// Waits until every client has what was queued for it, at most so long.
    pub fn finish(&mut self, patience: Duration) {
        let end = Instant::now() + patience;
        self.flush();
        while self.open.iter().any(Connection::wants_to_write) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
            self.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use mfserv_core::wire::frame;
    use mfserv_core::wire::keeper::{Ask, Request};
    use mfserv_platform::link::{Link, LinkError};

    use super::*;

    struct World {
        folder: tempfile::TempDir,
        clients: Clients,
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let listener = UnixListener::bind(folder.path().join("sock")).unwrap();
            Self { clients: Clients::new(listener).unwrap(), folder }
        }

        fn connect(&mut self) -> Link {
            let link = Link::new(UnixStream::connect(self.folder.path().join("sock")).unwrap());
            self.clients.accept();
            link
        }
    }

    fn next(link: &mut Link) -> Result<FromKeeper, LinkError> {
        let soon = Instant::now() + Duration::from_secs(10);
        Ok(link.receive_until(soon)?.expect("nothing came"))
    }

    fn notice() -> Notice {
        Notice::Dropped { id: "a".into(), bytes: 7 }
    }

    #[test]
    fn a_client_beyond_the_limit_is_turned_away_until_another_leaves() {
        let mut world = World::new();
        let mut links: Vec<Link> = (0..MOST).map(|_| world.connect()).collect();
        let mut refused = world.connect();
        assert!(matches!(next(&mut refused), Err(LinkError::Closed)));
        assert_eq!(world.clients.iter().count(), MOST);
        links.pop();
        let id = world.clients.iter().last().unwrap().id();
        assert!(world.clients.receive(id).is_empty());
        world.clients.flush();
        let _taken = world.connect();
        assert_eq!(world.clients.iter().count(), MOST);
    }

    #[test]
    fn notices_reach_those_who_watch_and_nobody_else() {
        let mut world = World::new();
        let (mut first, mut second) = (world.connect(), world.connect());
        assert!(!world.clients.are_watching());
        world.clients.get(2).unwrap().watch();
        assert!(world.clients.are_watching());
        world.clients.notify(notice());
        world.clients.answer(1, 5, Answer::Done);
        world.clients.flush();
        assert_eq!(next(&mut second).unwrap(), FromKeeper::Notice(notice()));
        assert!(matches!(next(&mut first).unwrap(), FromKeeper::Response(it) if it.seq == 5));
    }

    #[test]
    fn a_request_of_a_newer_client_is_told_from_bytes_that_are_none() {
        let mut world = World::new();
        let (mut newer, mut broken) = (world.connect(), world.connect());
        newer.send(&serde_json::json!({ "seq": 4, "ask": "dance" })).unwrap();
        newer.send(&Request { seq: 5, ask: Ask::List }).unwrap();
        broken.send(&"no request").unwrap();
        let asked = world.clients.receive(1);
        assert!(matches!(asked[0], Asked::Unknown(4, _)));
        assert!(matches!(asked[1], Asked::Ask(5, Ask::List)));
        assert!(world.clients.receive(2).is_empty());
        world.clients.flush();
        assert_eq!(world.clients.iter().map(Connection::id).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn a_watcher_that_does_not_read_is_dropped_before_it_costs_much_memory() {
        let mut world = World::new();
        let _sleeps = world.connect();
        world.clients.get(1).unwrap().watch();
        let reason = "x".repeat(1024 * 1024);
        let frame = Notice::LogTrouble { file: "log".into(), reason };
        let length = frame::encode(&FromKeeper::Notice(frame.clone())).unwrap().len();
        for sent in 0_usize.. {
            world.clients.notify(frame.clone());
            world.clients.flush();
            if world.clients.iter().count() == 0 {
                return;
            }
            assert!(sent * length < 64 * 1024 * 1024, "it is not dropped");
        }
    }

    #[test]
    fn the_client_that_asked_for_an_upgrade_is_answered_by_the_next_program() {
        let mut world = World::new();
        let (ours, theirs) = UnixStream::pair().unwrap();
        world.clients.resume(ours, 9, true);
        let answered = next(&mut Link::new(theirs)).unwrap();
        assert!(matches!(answered, FromKeeper::Response(it) if it.seq == 9));
        assert!(world.clients.are_watching());
    }
}
