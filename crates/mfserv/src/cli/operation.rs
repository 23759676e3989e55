//! A command as an operation of the node: it is submitted to the daemon and followed, or, where
//! no node runs, conducted by this process with the same functions. What a command adds is its
//! flags, and what it prints.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use mfserv_core::{Diagnostic, Kind};
use mfserv_node::control::client::{self, Follow};
use mfserv_node::operations::{
    Event, FinishedBy, Here, OperationId, Outcome, Request, Submission, Who, conduct_here,
};
use mfserv_node::places::Places;
use mfserv_plugin::store::{Installed, Owner};
use mfserv_plugin::{Cancel, Progress};
use serde_json::{Value, json};

use super::interrupt;
use super::keeper::{self, LOOK, QUICK};
use super::operate::Wait;
use super::print;
use super::progress::Steps;
use super::report;

/// How long the keeper may take to bring another daemon.
const SUCCESSOR: Duration = Duration::from_secs(30);
/// How long another operation on the same plugin is waited for by who does not wait until it is
/// served.
const LEAST_PATIENCE: Duration = Duration::from_secs(10);

/// An operation that this command asks for.
pub struct Operation<'a> {
    places: &'a Places,
    id: OperationId,
    command: String,
    patience_s: u64,
    json: bool,
    cancel: Cancel,
    steps: Steps,
    /// What is doubtful, found while staging, that the outcome does not know.
    warnings: Vec<Diagnostic>,
    /// What is doubtful, and was said when it was found.
    noticed: Vec<Diagnostic>,
}

impl<'a> Operation<'a> {
    /// An operation of `mfserv COMMAND`; Ctrl-C cancels it.
    pub fn new(places: &'a Places, command: &str, wait: &Wait) -> Result<Self, Diagnostic> {
        client::check_version(&places.control_socket(), QUICK)?;
        let cancel = interrupt::cancel()?;
        let steps = if wait.json { Steps::as_json() } else { Steps::new() };
        Ok(Operation {
            places,
            id: OperationId::new(),
            command: format!("mfserv {command}"),
            patience_s: wait.seconds(),
            json: wait.json,
            cancel,
            steps,
            warnings: Vec::new(),
            noticed: Vec::new(),
        })
    }

    /// An operation of one of the old commands, which shows no steps.
    pub fn silent(places: &'a Places, command: &str, patience_s: u64, cancel: Cancel) -> Self {
        Operation {
            places,
            id: OperationId::new(),
            command: command.into(),
            patience_s,
            json: false,
            cancel,
            steps: Steps::silent(),
            warnings: Vec::new(),
            noticed: Vec::new(),
        }
    }

    /// Who changes the plugin, for what this process does before it submits.
    pub fn owner(&self) -> Owner {
        Owner::this_process(self.id.as_str())
    }

    /// How long another operation on the same plugin is waited for.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.patience_s).max(LEAST_PATIENCE)
    }

    /// The user's Ctrl-C.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Where the steps are shown that this process does.
    pub fn steps(&mut self) -> &mut dyn Progress {
        &mut self.steps
    }

    /// What was said already that is doubtful. The outcome has it where programs read it.
    pub fn noticed(&mut self, notices: Vec<Diagnostic>) {
        self.noticed.extend(notices);
    }

    /// Something is doubtful.
    pub fn warn(&mut self, warnings: Vec<Diagnostic>) {
        self.warnings.extend(warnings);
    }

    /// Submits the operation and follows it to its outcome. An error: it was not accepted, or it
    /// goes on and is not looked at any more. A failure is in the outcome.
    pub fn submit(&mut self, request: Request) -> Result<Outcome, Diagnostic> {
        if self.cancel.is_cancelled() {
            return Err(Diagnostic::error("interrupted: nothing has changed"));
        }
        let needs_node = request.needs_node();
        let who = Who::this_process(&self.command);
        let (id, patience_s) = (Some(self.id.clone()), self.patience_s);
        let submission = Submission { id, request, who, patience_s };
        let mut outcome = if needs_node || may_run(self.places) {
            interrupt::is_followed(Some(self.id.clone()));
            let outcome = self.follow(&submission)?;
            interrupt::is_followed(None);
            outcome
        } else {
            let here = Here { places: self.places, submission, cancel: &self.cancel };
            let steps = &mut self.steps;
            conduct_here(here, &mut |event| steps.event(event))?
        };
        self.steps.finish();
        outcome.warnings.splice(..0, std::mem::take(&mut self.warnings));
        Ok(outcome)
    }

    /// Ends the command: with `--json` the last line is the outcome, also when it failed before
    /// it was submitted. `more` is added to it.
    pub fn end(mut self, ended: Result<Outcome, Diagnostic>, more: Value) -> Ended {
        self.steps.finish();
        let outcome = ended.unwrap_or_else(|problem| failed_here(problem, self.warnings));
        if self.json {
            self.noticed.extend(self.steps.noticed());
            let mut whole = outcome.clone();
            self.noticed.retain(|one| !whole.warnings.contains(one));
            whole.warnings.splice(..0, self.noticed);
            print_outcome(&whole, more);
        }
        match &outcome.problem {
            Some(problem) => Err(problem.clone()),
            None => Ok(outcome),
        }
    }

    fn follow(&mut self, submission: &Submission) -> Result<Outcome, Diagnostic> {
        self.accepted(submission)?;
        let socket = self.places.control_socket();
        let follow = Follow {
            socket: &socket,
            id: &self.id,
            patience: QUICK + Duration::from_secs(self.patience_s * 4 + 60),
            cancel: &self.cancel,
        };
        let steps = &mut self.steps;
        client::follow(&follow, &mut |event| steps.event(event))
    }

    /// Submits it until a daemon has accepted it: one that dies meanwhile has a successor, and
    /// the same id again joins the operation.
    fn accepted(&self, submission: &Submission) -> Result<(), Diagnostic> {
        let began = Instant::now();
        loop {
            match client::submit(&self.places.control_socket(), submission, QUICK) {
                Err(problem)
                    if problem.kind == Kind::NotRunning
                        && keeper::connect(self.places).is_ok()
                        && began.elapsed() < SUCCESSOR
                        && !self.cancel.is_cancelled() =>
                {
                    std::thread::sleep(LOOK);
                }
                submitted => return submitted.map(drop),
            }
        }
    }
}

/// What an operation came to; why it failed, if it did.
pub type Ended = Result<Outcome, Diagnostic>;

/// A daemon answers, or a keeper is about to bring one.
pub fn may_run(places: &Places) -> bool {
    let answers = |path| UnixStream::connect(path).is_ok();
    answers(places.control_socket()) || answers(places.keep_socket())
}

fn failed_here(problem: Diagnostic, warnings: Vec<Diagnostic>) -> Outcome {
    Outcome {
        ok: false,
        plugin: None,
        warnings,
        applied: None,
        problem: Some(problem),
        finished_by: FinishedBy::Asker,
    }
}

/// Prints, as the outcome of a command, that there was nothing to do.
pub fn print_nothing_to_do(plugin: Installed, warnings: Vec<Diagnostic>) {
    let outcome = Outcome {
        ok: true,
        plugin: Some(plugin),
        warnings,
        applied: None,
        problem: None,
        finished_by: FinishedBy::Asker,
    };
    print_outcome(&outcome, json!({"nothing_to_do": true}));
}

/// Prints an outcome as one line of JSON, with more in it.
pub fn print_outcome(outcome: &Outcome, more: Value) {
    let mut line =
        serde_json::to_value(Event::Outcome(Box::new(outcome.clone()))).unwrap_or_default();
    if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
        line.extend(more);
    }
    print(&format!("{line}\n"));
}

/// What is doubtful, for people.
pub fn print_warnings(outcome: &Outcome) {
    outcome.warnings.iter().for_each(report::print_problem);
}
