//! The other side of `keep.sock`: a client that waits.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use mfserv_core::wire::VERSION;
use mfserv_core::wire::keeper::{Answer, Ask, FromKeeper, Notice, Request};
use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::link::Link;
use mfserv_platform::socket;

/// How long an answer is waited for, unless something else is said. A shutdown takes as
/// long as the processes need to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a keeper may take to greet: longer, and it is stopped or stuck.
const GREETING: Duration = Duration::from_secs(5);

/// Notices that nobody has taken yet; the oldest are dropped beyond this.
const MOST_NOTICES: usize = 20_000;

/// A connection to the keeper. Each request waits for its answer; notices that arrive
/// meanwhile are kept for [`Client::notices`].
pub struct Client {
    link: Link,
    notices: VecDeque<Notice>,
    seq: u64,
    greeting: Greeting,
}

/// What the keeper says of itself when a client connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// Its protocol version.
    pub version: u32,
    /// Its process id.
    pub pid: u32,
    /// How many processes it has adopted from an earlier keeper.
    pub adopted: u32,
    /// The names of the listening sockets that it holds.
    pub listeners: Vec<String>,
}

impl Client {
    /// Connects to `var/run/keep.sock` and says who we are: `daemon`, `front` or `cli`.
    /// Nobody listening there is [`Kind::NotRunning`].
    pub fn connect(path: &Path, role: &str) -> Result<Self, Diagnostic> {
        let failed = |e: io::Error| {
            let kind = match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Kind::NotRunning,
                _ => Kind::Failed,
            };
            Diagnostic::error(format!("the keeper does not answer on {}", path.display()))
                .kind(kind)
                .because(e)
        };
        let (short, _directory) = socket::short_path(path).map_err(failed)?;
        let socket = UnixStream::connect(short).map_err(failed)?;
        socket.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        let greeting = Greeting { version: 0, pid: 0, adopted: 0, listeners: Vec::new() };
        let mut client =
            Self { link: Link::new(socket), notices: VecDeque::new(), seq: 0, greeting };
        match client.ask_within(Ask::Hello { version: VERSION, role: role.to_owned() }, GREETING)? {
            Answer::Hello { version, pid, adopted, listeners, .. } => {
                client.greeting = Greeting { version, pid, adopted, listeners };
                Ok(client)
            }
            other => Err(broken(format!("it greeted with {other:?}"))),
        }
    }

    /// What the keeper said when we connected.
    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// Asks, and waits up to 30 s for the answer ([`Answer::Refused`] is one).
    pub fn ask(&mut self, ask: Ask) -> Result<Answer, Diagnostic> {
        self.ask_within(ask, PATIENCE)
    }

    /// Asks, and waits so long for the answer.
    pub fn ask_within(&mut self, ask: Ask, patience: Duration) -> Result<Answer, Diagnostic> {
        let request = self.request(ask);
        self.link.send(&request).map_err(broken)?;
        self.answer(patience)
    }

    /// Gives the keeper a listening socket that it has lost.
    pub fn offer(
        &mut self,
        name: &str,
        address: &str,
        socket: BorrowedFd<'_>,
    ) -> Result<Answer, Diagnostic> {
        let ask = Ask::Offer { name: name.to_owned(), address: address.to_owned() };
        let request = self.request(ask);
        self.link.send_with(&request, socket).map_err(broken)?;
        self.answer(PATIENCE)
    }

    /// What the keeper has said by itself, waiting up to `patience` if there is nothing
    /// yet. Only after [`Ask::Watch`].
    pub fn notices(&mut self, patience: Duration) -> Result<Vec<Notice>, Diagnostic> {
        let end = Instant::now() + patience;
        while self.notices.is_empty() {
            match self.link.receive_until(end).map_err(broken)? {
                Some(message) => self.keep_notice(message),
                None => break,
            }
        }
        while let Some(message) = self.link.buffered().map_err(broken)? {
            self.keep_notice(message);
        }
        Ok(self.notices.drain(..).collect())
    }

    fn request(&mut self, ask: Ask) -> Request {
        self.seq += 1;
        Request { seq: self.seq, ask }
    }

    fn answer(&mut self, patience: Duration) -> Result<Answer, Diagnostic> {
        let end = Instant::now() + patience;
        loop {
            match self.link.receive_until(end).map_err(broken)? {
                Some(FromKeeper::Response(it)) if it.seq == self.seq => return Ok(it.answer),
                Some(message) => self.keep_notice(message),
                None => {
                    return Err(Diagnostic::error("the keeper did not answer in time")
                        .kind(Kind::Timeout)
                        .because(format!("{} s have passed", patience.as_secs())));
                }
            }
        }
    }

    /// The answer to a request that timed out comes too late to be of use.
    fn keep_notice(&mut self, message: FromKeeper) {
        if let FromKeeper::Notice(notice) = message {
            if self.notices.len() == MOST_NOTICES {
                self.notices.pop_front();
            }
            self.notices.push_back(notice);
        }
    }
}

impl AsFd for Client {
    /// To wait for notices beside other things. Bytes that have been read already are not
    /// seen by poll(2): call [`Client::notices`] with no patience first.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.stream().as_fd()
    }
}

fn broken(why: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::error("the connection to the keeper is broken").because(why)
}
