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

/// The first pause between two tries to reach a keeper; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest pause between two tries to reach a keeper.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// News that the daemon has not read yet. Beyond that the link waits, and the keeper with it.
const NEWS: usize = 256;

type Reply = oneshot::Sender<Result<Answer, Diagnostic>>;

/// The state of a keeper and of its processes when the link is made.
#[derive(Debug, Clone)]
pub struct KeeperState {
    /// Its process id.
    pub pid: u32,
    /// The version of its program.
    pub program: String,
    /// Names of the listening sockets that it holds.
    pub listeners: Vec<String>,
    /// How many processes it adopted from an earlier keeper.
    pub adopted: u32,
    /// The living processes.
    pub alive: Vec<Process>,
    /// Exits that no daemon has dealt with yet.
    pub exits: Vec<Exit>,
    /// The keeper was asked to end, and the node is to be stopped: a [`Notice::Ending`] follows
    /// [`KeeperNews::Connected`].
    pub ending: bool,
}

/// What the keeper sends without being asked.
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
    /// Bounded in fact: whoever uses [`KeeperLink::ask`] waits for the answer, and the
    /// supervisor tells the keeper a few signals in the life of each worker. What is queued
    /// while the keeper is away is refused at least twice a second.
    asks: mpsc::UnboundedSender<(Ask, Reply)>,
}

impl KeeperLink {
    /// Keeps a link to the keeper that listens on `path` until the last `KeeperLink` and the
    /// receiver are dropped. The receiver must be read: news that are not read hold up the link.
    pub fn start(path: &Path) -> (KeeperLink, mpsc::Receiver<KeeperNews>) {
        // Bounded in fact: see `KeeperLink::asks`.
        let (asks, asked) = mpsc::unbounded_channel();
        let (news, receiver) = mpsc::channel(NEWS);
        tokio::spawn(keep(path.to_owned(), asked, news));
        (KeeperLink { asks }, receiver)
    }

    /// Asks, and waits for the answer. An error if the keeper refuses or is lost.
    pub async fn ask(&self, ask: Ask) -> Result<Answer, Diagnostic> {
        let (reply, answer) = oneshot::channel();
        let _ = self.asks.send((ask, reply));
        answer.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Asks without waiting for the answer, whatever it is.
    pub fn notify(&self, ask: Ask) {
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
    news: mpsc::Sender<KeeperNews>,
) {
    let mut pause = FIRST_PAUSE;
    while !news.is_closed() {
        if let Ok(stream) = UnixStream::connect(&path).await {
            if let Ok((mut link, state)) = Link::greet(stream).await {
                pause = FIRST_PAUSE;
                let _ = news.send(KeeperNews::Connected(state)).await;
                for notice in link.early.drain(..) {
                    let _ = news.send(KeeperNews::Notice(notice)).await;
                }
                if link.run(&mut asked, &news).await.is_none() {
                    return;
                }
                let _ = news.send(KeeperNews::Lost).await;
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
    /// What the keeper said before its list of processes, and the list does not say: that the
    /// node ends. It is said once to each daemon, so that this is at most one notice.
    early: Vec<Notice>,
}

impl Link {
    /// Says hello, and asks for the list of processes and for all notices from then on.
    async fn greet(stream: UnixStream) -> Result<(Link, KeeperState), Diagnostic> {
        let mut link = Link {
            messages: AsyncLink::new(stream),
            pending: HashMap::new(),
            next_seq: 3,
            early: Vec::new(),
        };
        link.send(1, Ask::Hello { version: wire::VERSION, role: "daemon".into() }).await?;
        link.send(2, Ask::Watch).await?;
        let (mut pid, mut adopted, mut listeners) = (0, 0, Vec::new());
        let mut program = String::new();
        loop {
            match link.next().await? {
                FromKeeper::Response(Response {
                    answer: Answer::Hello { pid: p, adopted: a, listeners: l, program: v, .. },
                    ..
                }) => {
                    (pid, adopted, listeners, program) = (p, a, l, v);
                }
                FromKeeper::Response(Response {
                    answer: Answer::Processes { alive, exits },
                    ..
                }) => {
                    let ending = !link.early.is_empty();
                    let state =
                        KeeperState { pid, program, listeners, adopted, alive, exits, ending };
                    return Ok((link, state));
                }
                FromKeeper::Response(other) => {
                    return Err(Diagnostic::error("the keeper refuses this daemon")
                        .because(format!("{other:?}")));
                }
                FromKeeper::Notice(notice @ Notice::Ending { .. }) => link.early.push(notice),
                // The list, which comes later, says the same.
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
        news: &mpsc::Sender<KeeperNews>,
    ) -> Option<()> {
        loop {
            tokio::select! {
                message = self.next() => match message {
                    Ok(FromKeeper::Response(Response { seq, answer })) => self.answered(seq, answer),
                    Ok(FromKeeper::Notice(notice)) => {
                        news.send(KeeperNews::Notice(notice)).await.ok()?;
                    }
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

#[cfg(test)]
mod tests {
    use mfserv_core::wire::keeper::Ended;
    use tokio::net::UnixListener;

    use super::*;

    /// A keeper that says this to whoever begins to watch, before its list.
    async fn says(listener: UnixListener, notice: Notice) {
        let mut link = AsyncLink::new(listener.accept().await.unwrap().0);
        let program = String::new();
        let hello =
            Answer::Hello { version: 1, pid: 7, adopted: 0, listeners: Vec::new(), program };
        let list = Answer::Processes { alive: Vec::new(), exits: Vec::new() };
        for answer in [hello, list] {
            let Request { seq, ask } = link.receive().await.unwrap();
            if ask == Ask::Watch {
                link.send(&FromKeeper::Notice(notice.clone())).await.unwrap();
            }
            link.send(&FromKeeper::Response(Response { seq, answer })).await.unwrap();
        }
        // Until the daemon goes.
        let _ = link.receive::<Request>().await;
    }

    async fn first_news(notice: Notice) -> (bool, Option<KeeperNews>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keep.sock");
        let keeper = tokio::spawn(says(UnixListener::bind(&path).unwrap(), notice));
        let (_link, mut news) = KeeperLink::start(&path);
        let Some(KeeperNews::Connected(state)) = news.recv().await else { panic!("no keeper") };
        let next = tokio::time::timeout(Duration::from_millis(100), news.recv()).await;
        keeper.abort();
        (state.ending, next.ok().flatten())
    }

    #[tokio::test]
    async fn a_daemon_that_comes_while_the_node_ends_is_told_so() {
        let (ending, next) = first_news(Notice::Ending { grace_ms: 700 }).await;
        assert!(ending);
        let told = KeeperNews::Notice(Notice::Ending { grace_ms: 700 });
        assert_eq!(format!("{next:?}"), format!("{:?}", Some(told)));
    }

    #[tokio::test]
    async fn what_the_list_says_too_is_not_told_twice() {
        let exit = Exit {
            id: "app.a.main.1.1".into(),
            pid: 1,
            ended: Ended::Exited { code: 0 },
            out_of_memory: None,
            at_ms: 1,
            last_output: String::new(),
            left_behind: 0,
            note: String::new(),
        };
        let (ending, next) = first_news(Notice::Exited(exit)).await;
        assert!(!ending && next.is_none(), "{next:?}");
    }
}
