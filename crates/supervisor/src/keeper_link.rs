//! The link to the keeper: requests with answers, notices, and reconnection.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mfserv_core::wire::keeper::{
    Answer, Ask, Exit, FromKeeper, Notice, Process, Request, Response,
};
use mfserv_core::{Diagnostic, Kind, wire};
use mfserv_platform::link::{AsyncLink, LinkError};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

/// The longest pause between two tries to reach a keeper.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

type Reply = oneshot::Sender<Result<Answer, Diagnostic>>;

/// What a keeper says of itself and of its processes when the link is made.
#[derive(Debug, Clone)]
pub struct KeeperState {
    /// Its process id.
    pub pid: u32,
    /// Names of the listening sockets that it holds.
    pub listeners: Vec<String>,
    /// How many processes it adopted from an earlier keeper.
    pub adopted: u32,
    /// Who lives.
    pub alive: Vec<Process>,
    /// Exits that nobody has dealt with yet.
    pub exits: Vec<Exit>,
}

/// What comes from the keeper without being asked for.
#[derive(Debug)]
pub enum KeeperNews {
    /// The link is made (again).
    Connected(KeeperState),
    /// The link is lost; it is being made again.
    Lost,
    /// A notice.
    Notice(Notice),
}

/// Asks the keeper. Cheap to clone.
#[derive(Debug, Clone)]
pub struct KeeperLink {
    asks: mpsc::UnboundedSender<(Ask, Reply)>,
}

impl KeeperLink {
    /// Keeps a link to the keeper that listens on `path`, from now until the last
    /// `KeeperLink` and the receiver are dropped.
    pub fn start(path: &Path) -> (KeeperLink, mpsc::UnboundedReceiver<KeeperNews>) {
        let (asks, asked) = mpsc::unbounded_channel();
        let (news, receiver) = mpsc::unbounded_channel();
        tokio::spawn(keep(path.to_owned(), asked, news));
        (KeeperLink { asks }, receiver)
    }

    /// Asks, and waits for the answer. An error if the keeper refuses or is lost.
    pub async fn ask(&self, ask: Ask) -> Result<Answer, Diagnostic> {
        let (reply, answer) = oneshot::channel();
        let _ = self.asks.send((ask, reply));
        answer.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Asks without waiting for the answer; a refusal is of no interest.
    pub fn tell(&self, ask: Ask) {
        let (reply, _) = oneshot::channel();
        let _ = self.asks.send((ask, reply));
    }
}

fn lost() -> Diagnostic {
    Diagnostic::error("the keeper is not reachable")
        .kind(Kind::NotRunning)
        .help("it is started by `mfserv start`")
}

async fn keep(
    path: PathBuf,
    mut asked: mpsc::UnboundedReceiver<(Ask, Reply)>,
    news: mpsc::UnboundedSender<KeeperNews>,
) {
    let mut pause = Duration::from_millis(10);
    while !news.is_closed() {
        if let Ok(stream) = UnixStream::connect(&path).await {
            if let Ok(mut link) = Link::greet(stream).await {
                pause = Duration::from_millis(10);
                let state = link.state.take();
                if let Some(state) = state {
                    let _ = news.send(KeeperNews::Connected(state));
                }
                if link.run(&mut asked, &news).await.is_none() {
                    return;
                }
                let _ = news.send(KeeperNews::Lost);
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        while let Ok((_, reply)) = asked.try_recv() {
            let _ = reply.send(Err(lost()));
        }
    }
}

struct Link {
    messages: AsyncLink,
    pending: HashMap<u64, Reply>,
    next_seq: u64,
    state: Option<KeeperState>,
}

impl Link {
    /// Says hello and asks to be told everything.
    async fn greet(stream: UnixStream) -> Result<Link, Diagnostic> {
        let mut link = Link {
            messages: AsyncLink::new(stream),
            pending: HashMap::new(),
            next_seq: 3,
            state: None,
        };
        link.send(1, Ask::Hello { version: wire::VERSION, role: "daemon".into() }).await?;
        link.send(2, Ask::Watch).await?;
        let (mut pid, mut adopted, mut listeners) = (0, 0, Vec::new());
        loop {
            match link.next().await? {
                FromKeeper::Response(Response {
                    answer: Answer::Hello { pid: p, adopted: a, listeners: l, .. },
                    ..
                }) => {
                    (pid, adopted, listeners) = (p, a, l);
                }
                FromKeeper::Response(Response {
                    answer: Answer::Processes { alive, exits },
                    ..
                }) => {
                    link.state = Some(KeeperState { pid, listeners, adopted, alive, exits });
                    return Ok(link);
                }
                FromKeeper::Response(other) => {
                    return Err(Diagnostic::error("the keeper refuses this daemon")
                        .because(format!("{other:?}")));
                }
                // A notice before the list: the list will say the same.
                FromKeeper::Notice(_) => {}
            }
        }
    }

    async fn send(&mut self, seq: u64, ask: Ask) -> Result<(), Diagnostic> {
        self.messages.send(&Request { seq, ask }).await.map_err(broken)
    }

    async fn next(&mut self) -> Result<FromKeeper, Diagnostic> {
        self.messages.receive().await.map_err(|error| match error {
            LinkError::Closed | LinkError::Cut => lost(),
            other => broken(other),
        })
    }

    /// Runs until the link breaks (`Some`) or nobody needs it any more (`None`).
    async fn run(
        &mut self,
        asked: &mut mpsc::UnboundedReceiver<(Ask, Reply)>,
        news: &mpsc::UnboundedSender<KeeperNews>,
    ) -> Option<()> {
        loop {
            tokio::select! {
                message = self.next() => match message {
                    Ok(FromKeeper::Response(Response { seq, answer })) => self.answered(seq, answer),
                    Ok(FromKeeper::Notice(notice)) => news.send(KeeperNews::Notice(notice)).ok()?,
                    Err(_) => break,
                },
                next = asked.recv() => {
                    let (ask, reply) = next?;
                    let seq = self.next_seq;
                    self.next_seq += 1;
                    self.pending.insert(seq, reply);
                    if self.send(seq, ask).await.is_err() {
                        break;
                    }
                }
            }
        }
        for (_, reply) in self.pending.drain() {
            let _ = reply.send(Err(lost()));
        }
        Some(())
    }

    fn answered(&mut self, seq: u64, answer: Answer) {
        let Some(reply) = self.pending.remove(&seq) else { return };
        let _ = reply.send(match answer {
            Answer::Refused { reason, .. } => Err(Diagnostic::error(reason)),
            answer => Ok(answer),
        });
    }
}

fn broken(cause: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::error("the link to the keeper broke").because(cause)
}
