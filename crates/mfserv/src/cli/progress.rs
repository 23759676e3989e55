//! What a long operation does: a spinner on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use mfserv_core::Diagnostic;
use mfserv_plugin::Progress;

use super::{complain, report};

/// Draws the steps of an operation on standard error.
pub struct Steps {
    bar: Option<ProgressBar>,
}

impl Steps {
    /// Nothing is drawn before the first step.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar
        });
        Steps { bar }
    }

    /// Takes the spinner away.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Steps {
    fn step(&mut self, what: &str) {
        match &self.bar {
            Some(bar) => {
                bar.reset_elapsed();
                bar.set_message(what.to_string());
                bar.enable_steady_tick(Duration::from_millis(100));
            }
            None => complain(&format!("- {what}")),
        }
    }

    fn line(&mut self, text: &str) {
        if let Some(bar) = &self.bar {
            let (step, _) = bar
                .message()
                .split_once(" · ")
                .map_or((bar.message(), ()), |(s, _)| (s.into(), ()));
            let short: String = text.chars().take(60).collect();
            bar.set_message(format!("{step} · {short}"));
        }
    }

    fn remark(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| complain(&format!("- {text}"))),
            None => complain(&format!("- {text}")),
        }
    }

    fn notice(&mut self, notice: Diagnostic) {
        match &self.bar {
            Some(bar) => bar.suspend(|| report::print_problem(&notice)),
            None => report::print_problem(&notice),
        }
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
