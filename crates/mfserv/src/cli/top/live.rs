//! `top` on a terminal: what is gathered in another thread is drawn, keys are obeyed.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_node::operations::Request;
use mfserv_node::places::Places;
use mfserv_plugin::Cancel;

use super::super::operation::Operation;
use super::super::report::{Outcome, colours};
use super::draw;
use super::frame::{Frame, Gatherer, Row, rows};
use super::keys::Keys;
use super::screen::{Happened, Screen, Waker, standard_input, standard_output};
use super::view::{Action, View};

/// How long a terminal may take between the bytes of one key.
const KEY: Duration = Duration::from_millis(50);
/// The longest wait: everything that happens ends it.
const WAIT: Duration = Duration::from_secs(60);
/// How long a restart may take, seconds.
const PATIENCE_S: u64 = 120;

/// What other threads have to say.
enum News {
    Frame(Box<Frame>),
    /// A restart has ended so.
    Restarted(String),
}

struct Live<'a> {
    places: &'a Places,
    screen: Screen,
    view: View,
    keys: Keys,
    frame: Option<Box<Frame>>,
    rows: Vec<Row>,
    news: (SyncSender<News>, Receiver<News>),
    /// A frame is wanted before its time.
    now: SyncSender<()>,
    is_restarting: bool,
}

/// Shows frames until the user has seen enough.
pub fn run(places: &Places, interval: Duration, view: View) -> Result<Outcome, Diagnostic> {
    let failed = |why: io::Error| Diagnostic::error("the terminal cannot be used").because(why);
    let screen = standard_input()
        .and_then(|input| Screen::take(input, standard_output()?))
        .map_err(failed)?;
    let news = sync_channel(4);
    let (now, wanted) = sync_channel(1);
    let mut gathering = Gathering {
        gatherer: Gatherer::new(places, interval),
        interval,
        news: news.0.clone(),
        waker: screen.waker().map_err(failed)?,
        wanted,
    };
    let thread = std::thread::Builder::new().name("gather".into());
    thread.spawn(move || gathering.run()).map_err(failed)?;
    let (keys, frame, rows) = (Keys::default(), None, Vec::new());
    let mut live =
        Live { places, screen, view, keys, frame, rows, news, now, is_restarting: false };
    // A terminal that has gone ends it as well.
    let _ = live.run();
    Ok(Outcome::Done)
}

struct Gathering {
    gatherer: Gatherer,
    interval: Duration,
    news: SyncSender<News>,
    waker: Waker,
    wanted: Receiver<()>,
}

impl Gathering {
    fn run(&mut self) {
        loop {
            let frame = Box::new(self.gatherer.gather());
            if self.news.send(News::Frame(frame)).is_err() {
                return;
            }
            self.waker.wake();
            if self.wanted.recv_timeout(self.interval) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }
}

impl Live<'_> {
    fn run(&mut self) -> io::Result<()> {
        self.draw()?;
        loop {
            let wait = if self.keys.is_waiting() { KEY } else { WAIT };
            let happened = self.screen.wait(wait);
            match happened {
                Happened::End => return Ok(()),
                Happened::Input => self.keys.push(&self.screen.read()?),
                Happened::Changed => self.screen.write(b"\x1b[2J")?,
                Happened::Time => {}
            }
            while let Some(key) = self.keys.next(happened == Happened::Time) {
                match self.view.press(key, &self.rows) {
                    Action::Nothing => {}
                    Action::End => return Ok(()),
                    Action::Restart(watcher) => self.restart(watcher),
                }
            }
            self.take_news();
            self.draw()?;
        }
    }

    fn take_news(&mut self) {
        loop {
            match self.news.1.try_recv() {
                Ok(News::Frame(frame)) => {
                    self.rows = rows(&frame);
                    self.frame = Some(frame);
                }
                Ok(News::Restarted(text)) => {
                    self.is_restarting = false;
                    self.view.message = Some(text);
                    // If one is wanted already, it comes.
                    let _ = self.now.try_send(());
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }

    fn draw(&self) -> io::Result<()> {
        let (columns, height) = self.screen.size();
        let lines = match &self.frame {
            Some(frame) => draw::screen(&self.view, frame, &self.rows, Some((columns, height))),
            None => vec![vec![("mfserv top: asking the node…".into(), draw::Style::Plain)]],
        };
        self.screen.write(&draw::as_bytes(&lines, columns, colours(&io::stdout())))
    }

    fn restart(&mut self, watcher: String) {
        if self.is_restarting {
            self.view.message = Some("the restart before this one has not ended yet".into());
            return;
        }
        let (places, news) = (self.places.clone(), self.news.0.clone());
        let name = watcher.clone();
        let Ok(mut waker) = self.screen.waker() else { return };
        let thread = std::thread::Builder::new().name("restart".into());
        let spawned = thread.spawn(move || {
            let ended = restart(&places, &watcher);
            let text = ended.unwrap_or_else(|problem| {
                let why = problem.because.first().map(|why| format!(": {why}"));
                format!("{}{}", problem.what, why.unwrap_or_default())
            });
            // Nobody looks any more if it cannot be said.
            let _ = news.send(News::Restarted(text));
            waker.wake();
        });
        self.is_restarting = spawned.is_ok();
        self.view.message = Some(match spawned {
            Ok(_) => format!("restarting {name}…"),
            Err(why) => format!("no restart: {why}"),
        });
    }
}

fn restart(places: &Places, watcher: &str) -> Result<String, Diagnostic> {
    let mut operation = Operation::silent(places, "mfserv top", PATIENCE_S, Cancel::default());
    let outcome = operation.submit(Request::Restart { apps: vec![watcher.into()] })?;
    match outcome.problem {
        Some(problem) => Err(problem),
        None => Ok(format!("done: {}", outcome.applied.unwrap_or_default().changes)),
    }
}
