//! Operations where no node runs: conducted by the process that asks, with the same functions.

use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_plugin::Cancel;

use super::{AtRest, Event, FinishedBy, Operations, Outcome, Submission};
use crate::places::Places;

/// How often it is looked whether the user has pressed Ctrl-C.
const LOOK: Duration = Duration::from_millis(20);

/// An operation on a node that does not run.
pub struct Here<'a> {
    /// The node.
    pub places: &'a Places,
    /// What is asked for.
    pub submission: Submission,
    /// The user's Ctrl-C: cancels the operation until its commit.
    pub cancel: &'a Cancel,
}

/// Conducts the operation to its outcome; `report` gets each event, the outcome too. What a
/// daemon that died has left open is finished or undone first.
pub fn conduct_here(here: Here<'_>, report: &mut dyn FnMut(&Event)) -> Result<Outcome, Diagnostic> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Diagnostic::error("cannot start").because(e))?;
    runtime.block_on(async {
        let operations = Operations::new(AtRest::new(here.places.clone()), FinishedBy::Asker);
        operations.recover().await;
        let id = operations.submit(here.submission).await?;
        let mut events = operations.follow(&id).await?;
        let mut cancelled = false;
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = until_cancelled(here.cancel), if !cancelled => {
                    cancelled = true;
                    // After the commit little is left to do: it is done.
                    let _ = operations.cancel(&id).await;
                    continue;
                }
            };
            let Some(event) = event else {
                return Err(Diagnostic::error("the operation has no outcome"));
            };
            report(&event);
            if let Event::Outcome(outcome) = event {
                return Ok(*outcome);
            }
        }
    })
}

async fn until_cancelled(cancel: &Cancel) {
    while !cancel.is_cancelled() {
        tokio::time::sleep(LOOK).await;
    }
}
