//! What a long operation does: a numbered list on a terminal, plain lines elsewhere, one JSON
//! object a line with `--json`.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use mfserv_core::Diagnostic;
use mfserv_core::diagnostic::shown;
use mfserv_node::operations::{Event, StepState};
use mfserv_plugin::Progress;

use super::{complain, print, report};

/// Draws the steps of an operation on standard error (as JSON, on standard output).
pub struct Steps {
    look: Look,
    /// The number of the step that is shown.
    n: u32,
    /// What it does.
    text: String,
    /// The steps that were shown before the first one of the node: those of the node come after.
    before: u32,
    /// An operation of the node is followed.
    follows: bool,
    /// What was said that is doubtful.
    noticed: Vec<Diagnostic>,
}

enum Look {
    Terminal(ProgressBar),
    Lines,
    Json,
    Nothing,
}

impl Steps {
    /// For people. Nothing is drawn before the first step.
    pub fn new() -> Self {
        let look = match std::io::stderr().is_terminal() {
            false => Look::Lines,
            true => {
                let bar = ProgressBar::new_spinner();
                let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
                Look::Terminal(bar)
            }
        };
        Steps::with(look)
    }

    /// For programs.
    pub fn as_json() -> Self {
        Steps::with(Look::Json)
    }

    /// For nobody.
    pub fn silent() -> Self {
        Steps::with(Look::Nothing)
    }

    fn with(look: Look) -> Self {
        Steps { look, n: 0, text: String::new(), before: 0, follows: false, noticed: Vec::new() }
    }

    /// What the node reports of an operation. Its steps are numbered after those of this process.
    pub fn event(&mut self, event: &Event) {
        if !self.follows {
            self.done();
            (self.before, self.follows) = (self.n, true);
        }
        match event {
            Event::Step { n, of, text, state } => {
                let (n, of) = (n + self.before, of.map(|of| of + self.before));
                let event = Event::Step { n, of, text: text.clone(), state: *state };
                self.show(&event, n, text, *state);
            }
            Event::Waiting { seconds, for_operation, who } => {
                let text = format!("waiting for {} (operation {for_operation})", who.command);
                match &self.look {
                    Look::Json => json(event),
                    Look::Terminal(bar) => bar.set_message(format!("{text}, {seconds} s")),
                    Look::Lines if self.text != text => complain(&format!("- {text}")),
                    Look::Lines | Look::Nothing => {}
                }
                self.text = text;
            }
            Event::Accepted { .. } | Event::Committed => {
                if matches!(self.look, Look::Json) {
                    json(event);
                }
            }
            // Whoever has asked prints it.
            Event::Outcome(_) => {}
        }
    }

    /// What was said so far that is doubtful.
    pub fn noticed(&mut self) -> Vec<Diagnostic> {
        std::mem::take(&mut self.noticed)
    }

    /// Takes the spinner away; the list stays.
    pub fn finish(&mut self) {
        self.done();
        if let Look::Terminal(bar) = &self.look {
            bar.finish_and_clear();
        }
    }

    fn show(&mut self, event: &Event, n: u32, text: &str, state: StepState) {
        let fresh = n != self.n;
        // Of a step that was done before it was looked at, only that is known.
        let news = fresh || text != self.text && state == StepState::Started;
        if fresh {
            self.done();
        }
        (self.n, self.text) = (n, text.into());
        match &self.look {
            Look::Json => json(event),
            Look::Nothing => {}
            Look::Lines if news => complain(&format!("- {text}")),
            Look::Lines => {}
            Look::Terminal(bar) => {
                if fresh {
                    bar.reset_elapsed();
                }
                bar.set_message(format!("{n}. {text}"));
                bar.enable_steady_tick(Duration::from_millis(100));
            }
        }
        if state == StepState::Done {
            self.done();
        }
    }

    /// The step that is shown is done.
    fn done(&mut self) {
        let text = std::mem::take(&mut self.text);
        if text.is_empty() {
            return;
        }
        match &self.look {
            Look::Terminal(bar) => bar.println(format!("{}. {text}", self.n)),
            Look::Json if !self.follows => {
                json(&Event::Step { n: self.n, of: None, text, state: StepState::Done });
            }
            Look::Json | Look::Lines | Look::Nothing => {}
        }
    }
}

/// The steps of this process, before the node has its turn.
impl Progress for Steps {
    fn step(&mut self, what: &str) {
        let (n, text, state) = (self.n + 1, what.to_string(), StepState::Started);
        let event = Event::Step { n, of: None, text, state };
        self.show(&event, n, what, state);
    }

    fn line(&mut self, text: &str) {
        if let Look::Terminal(bar) = &self.look {
            let short: String = text.chars().take(60).collect();
            bar.set_message(format!("{}. {} · {short}", self.n, self.text));
        }
    }

    fn log(&mut self, text: &str) {
        match &self.look {
            Look::Terminal(bar) => bar.suspend(|| complain(&format!("- {}", shown(text)))),
            Look::Lines => complain(&format!("- {text}")),
            Look::Json | Look::Nothing => {}
        }
    }

    fn notice(&mut self, notice: Diagnostic) {
        match &self.look {
            Look::Terminal(bar) => bar.suspend(|| report::print_problem(&notice)),
            Look::Lines | Look::Json => report::print_problem(&notice),
            Look::Nothing => {}
        }
        self.noticed.push(notice);
    }
}

/// Says what people should know of an operation, and not what it does meanwhile.
pub struct Notices;

impl Progress for Notices {
    fn step(&mut self, _what: &str) {}

    fn line(&mut self, _text: &str) {}

    fn notice(&mut self, notice: Diagnostic) {
        report::print_problem(&notice);
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.finish();
    }
}

fn json(event: &Event) {
    print(&format!("{}\n", serde_json::to_string(event).unwrap_or_default()));
}
