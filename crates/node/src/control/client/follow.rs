//! Following an operation to its outcome, also past the death of the daemon that conducts it:
//! the next daemon finishes or undoes the operation, and says so to whoever connects to it.

use std::path::Path;
use std::time::Duration;

use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::Cancel;
use serde_json::Value;
use tokio::time::Instant;

use super::{Connection, block_on, cancelled};
use crate::control::protocol::Version;
use crate::operations::{Event, OperationId, Outcome};

/// How long the keeper may take to bring another daemon that answers.
const SUCCESSOR: Duration = Duration::from_secs(30);
/// The pause between two tries to reach it.
const AGAIN: Duration = Duration::from_millis(100);

/// How an operation is followed.
pub struct Follow<'a> {
    /// The control socket.
    pub socket: &'a Path,
    /// The operation.
    pub id: &'a OperationId,
    /// How long to wait for the outcome.
    pub patience: Duration,
    /// The user's Ctrl-C: cancels the operation, once it is committed only the following.
    pub cancel: &'a Cancel,
}

/// Follows an operation to its outcome; `report` gets each event once, the outcome too.
///
/// # Errors
/// - [`Kind::Timeout`]: no outcome within the patience. The operation goes on.
/// - [`Kind::NotRunning`]: the daemon has gone and no other one has come.
/// - [`Kind::Failed`]: the user no longer waits for a committed operation. It goes on.
pub fn follow(follow: &Follow<'_>, report: &mut dyn FnMut(&Event)) -> Result<Outcome, Diagnostic> {
    block_on(follow.to_the_outcome(report))
}

/// One try: a connection, and what came of it.
enum Ended {
    Outcome(Box<Outcome>),
    /// The daemon has gone.
    Lost(Diagnostic),
}

impl Follow<'_> {
    async fn to_the_outcome(&self, report: &mut dyn FnMut(&Event)) -> Result<Outcome, Diagnostic> {
        let deadline = Instant::now() + self.patience;
        let mut followed = Followed { seen: Vec::new(), report };
        let mut cancelling = false;
        loop {
            let ended = tokio::select! {
                ended = self.through_its_deaths(&mut followed) => return ended,
                () = tokio::time::sleep_until(deadline) => return Err(self.late()),
                () = cancelled(self.cancel), if !cancelling => self.cancel_it().await,
            };
            ended?;
            // Cancelled: what follows is how it is undone, up to the outcome.
            cancelling = true;
        }
    }

    async fn through_its_deaths(&self, followed: &mut Followed<'_>) -> Result<Outcome, Diagnostic> {
        let mut lost_at: Option<Instant> = None;
        loop {
            let before = followed.seen.len();
            match self.once(followed).await? {
                Ended::Outcome(outcome) => return Ok(*outcome),
                Ended::Lost(problem) => {
                    // Whoever reports something lives: the wait for a successor begins anew.
                    let alive = followed.seen.len() > before;
                    let since = *lost_at.get_or_insert_with(Instant::now);
                    match alive {
                        true => lost_at = None,
                        false if since.elapsed() > SUCCESSOR => return Err(problem),
                        false => {}
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    async fn once(&self, followed: &mut Followed<'_>) -> Result<Ended, Diagnostic> {
        let gone = |problem: Diagnostic| match problem.kind {
            Kind::NotRunning => Ok(Ended::Lost(problem)),
            _ => Err(problem),
        };
        let connection = match Connection::open(self.socket, Version::own()).await {
            Ok(connection) => connection,
            Err(problem) => return gone(problem),
        };
        let mut events = match connection.events(self.id).await {
            Ok(events) => events,
            Err(problem) => return gone(problem),
        };
        loop {
            match events.next().await {
                Ok(Some(event)) => {
                    if let Some(outcome) = followed.received(event)? {
                        return Ok(Ended::Outcome(outcome));
                    }
                }
                Ok(None) => return gone(super::connection::broke(&"the stream ended early")),
                Err(problem) => return gone(problem),
            }
        }
    }

    async fn cancel_it(&self) -> Result<(), Diagnostic> {
        let cancelled =
            async { Connection::open(self.socket, Version::own()).await?.cancel(self.id).await };
        cancelled.await.map_err(|problem| {
            Diagnostic::error("interrupted: the operation goes on")
                .because(problem.what)
                .help(format!("`mfserv wait {}` follows it again", self.id))
        })
    }

    fn late(&self) -> Diagnostic {
        Diagnostic::error("the operation is not over yet")
            .kind(Kind::Timeout)
            .because(format!("it was followed for {} s", self.patience.as_secs()))
            .help(format!("it goes on: `mfserv wait {}` follows it again", self.id))
    }
}

/// What has been reported.
struct Followed<'a> {
    /// Bounded by the operation: a few events for each of its steps and workers.
    seen: Vec<Event>,
    report: &'a mut dyn FnMut(&Event),
}

impl Followed<'_> {
    /// Reports an event unless it was reported already: a successor begins with the first one.
    /// An event that only another version knows is skipped; an outcome is never.
    fn received(&mut self, event: Value) -> Result<Option<Box<Outcome>>, Diagnostic> {
        let is_outcome = event["event"] == "outcome";
        let event: Event = match serde_json::from_value(event) {
            Ok(event) => event,
            Err(error) if is_outcome => return Err(super::connection::not_understood(&error)),
            Err(_) => return Ok(None),
        };
        if self.seen.contains(&event) {
            return Ok(None);
        }
        (self.report)(&event);
        let outcome = match &event {
            Event::Outcome(outcome) => Some(outcome.clone()),
            _ => None,
        };
        self.seen.push(event);
        Ok(outcome)
    }
}
