//! What a daemon that died has left open is finished or undone by the next one. Decided by what
//! is on disk: an operation whose commit is there is finished, another one has changed nothing.

use mfserv_core::event::Fact;
use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::{Home, store};

use super::conduct::{Done, conduct};
use super::running::{Running, blocking};
use super::{Event, FinishedBy, Node, Operations, Record, Request};
use super::{deploy, env, rollback, uninstall};

/// What is to be done with an operation that was left open.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rest {
    /// It has ended, and the journal says how.
    Nothing,
    /// Its commit is on disk: the rest is done.
    Finish(Finish),
    /// It has changed nothing: a staged release is removed.
    Undo(Option<(String, u32)>),
    /// The same: a staged change of the variables of this plugin is forgotten.
    UndoVariables(String),
}

/// How the rest is done.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finish {
    /// A release is current.
    Deploy { plugin: String, release: u32, clean: bool },
    /// A release is current again.
    Rollback { plugin: String, release: u32 },
    /// A change of variables is in force.
    Env { plugin: String },
    /// A plugin is unlinked.
    Uninstall { plugin: String, clean: bool },
    /// It is done again: twice is as good as once.
    Again,
}

impl<N: Node> Operations<N> {
    /// Finishes or undoes what a daemon that died has left open; then new operations begin.
    /// Returns when each of them has claimed what it needs, not when all have ended.
    pub async fn recover(&self) {
        let operations = self.clone();
        let left = blocking(move || Ok(operations.journal().running())).await.unwrap_or_default();
        for record in left.into_iter().filter(|record| self.is_left(record)) {
            self.recover_one(record).await;
        }
        self.open();
    }

    /// An operation was stopping the node when its daemon died: nothing is to be started any
    /// more. Not if the keeper is younger: then everything had ended, and the node was started
    /// again.
    pub async fn must_stop(&self, keeper_since_ms: u64) -> bool {
        let running = self.journal().running().into_iter();
        let mut must = false;
        for record in running.filter(|record| record.request == Request::Stop) {
            if record.began_ms >= keeper_since_ms {
                must = true;
            } else {
                let op = self.resume(&record);
                self.end(&op, Ok(Done::default()), FinishedBy::NextDaemon).await;
            }
        }
        must
    }

    async fn recover_one(&self, record: Record) {
        let (home, asked) = (Home::new(self.node().places().home()), record.clone());
        let journal = self.clone();
        let rest = blocking(move || {
            Ok(match journal.journal().find(&asked.id) {
                Some(_) => Rest::Nothing,
                None => rest_of(&home, &asked),
            })
        });
        let rest = rest.await.unwrap_or(Rest::Undo(None));
        if rest == Rest::Nothing {
            let _ = self.journal().abandon(&record.id);
            return;
        }
        let op = self.resume(&record);
        self.node().record(Fact::OperationRecovered {
            id: record.id.to_string(),
            what: record.request.to_string(),
            finished: matches!(rest, Rest::Finish(_)),
        });
        match rest {
            Rest::Nothing => {}
            Rest::Undo(staged) => {
                if let Some((plugin, release)) = staged {
                    deploy::undo(self.node(), &plugin, release).await;
                }
                self.end(&op, Err(undone()), FinishedBy::NextDaemon).await;
            }
            Rest::UndoVariables(plugin) => {
                env::undo(self.node(), &op, &plugin).await;
                self.end(&op, Err(undone()), FinishedBy::NextDaemon).await;
            }
            Rest::Finish(how) => self.finish_beside(op, how).await,
        }
    }

    /// Finishes it beside what comes later, which waits for the claim.
    async fn finish_beside(&self, op: Running, how: Finish) {
        let mut events = op.follow();
        let operations = self.clone();
        tokio::spawn(async move {
            if how == Finish::Again {
                return operations.carry_out(&op).await;
            }
            let done = finish(operations.node(), &op, how).await;
            operations.end(&op, done, FinishedBy::NextDaemon).await;
        });
        while let Some(event) = events.recv().await {
            if matches!(event, Event::Committed | Event::Outcome(_)) {
                return;
            }
        }
    }
}

async fn finish<N: Node>(node: &N, op: &Running, how: Finish) -> Result<Done, Diagnostic> {
    match how {
        Finish::Deploy { plugin, release, clean } => {
            deploy::finish(node, op, &plugin, release, clean).await
        }
        Finish::Rollback { plugin, release } => rollback::finish(node, op, &plugin, release).await,
        Finish::Env { plugin } => env::finish(node, op, &plugin).await,
        Finish::Uninstall { plugin, clean } => uninstall::finish(node, op, &plugin, clean).await,
        Finish::Again => conduct(node, op).await,
    }
}

/// What is to be done, by what is on disk.
fn rest_of(home: &Home, record: &Record) -> Rest {
    match record.request.clone() {
        Request::Deploy { plugin, release, clean, .. } => deployed(home, plugin, release, clean),
        Request::DeployPackage { clean, .. } => match store::staged_by(home, record.id.as_str()) {
            Some((plugin, release)) => deployed(home, plugin, release, clean),
            None => Rest::Undo(None),
        },
        Request::Rollback { plugin, release, .. } => {
            // It was chosen when the operation was accepted.
            match release.filter(|wanted| store::current_release(home, &plugin) == Some(*wanted)) {
                Some(release) => Rest::Finish(Finish::Rollback { plugin, release }),
                None => Rest::Undo(None),
            }
        }
        Request::Uninstall { plugin, clean } => match home.link(&plugin).symlink_metadata().is_ok()
        {
            true => Rest::Undo(None),
            false => Rest::Finish(Finish::Uninstall { plugin, clean }),
        },
        Request::Env { plugin, .. } => {
            let history = store::History::read(home, &plugin).unwrap_or_default();
            match history.was_put_in_force_by(record.id.as_str()) {
                true => Rest::Finish(Finish::Env { plugin }),
                false => Rest::UndoVariables(plugin),
            }
        }
        Request::Link { plugin, dir, .. } => {
            let there = std::fs::canonicalize(home.link(&plugin)).ok();
            match there.is_some() && there == std::fs::canonicalize(dir).ok() {
                true => Rest::Finish(Finish::Again),
                false => Rest::Undo(None),
            }
        }
        Request::Reload
        | Request::Restart { .. }
        | Request::Scale { .. }
        | Request::Set { .. }
        | Request::Maintenance { .. }
        | Request::Stop => Rest::Finish(Finish::Again),
    }
}

fn deployed(home: &Home, plugin: String, release: u32, clean: bool) -> Rest {
    match store::current_release(home, &plugin) == Some(release) {
        true => Rest::Finish(Finish::Deploy { plugin, release, clean }),
        false => Rest::Undo(Some((plugin, release))),
    }
}

fn undone() -> Diagnostic {
    Diagnostic::error("the daemon ended before the change: nothing has changed")
        .kind(Kind::Failed)
        .help("try again; `mfserv events` shows what happened")
}
