//! The only place that says how a command ended: errors, colours, exit codes.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use mfserv_core::{Diagnostic, Severity};
use serde_json::json;

use super::output;

/// How a command that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Done,
    /// What was asked about is not well (exit code 1), and has been said.
    NotWell,
    /// The exit code of a program that was run.
    Code(u8),
}

/// A program reads standard output.
static WANTS_JSON: AtomicBool = AtomicBool::new(false);

/// From now on an error is a line of JSON on standard output, too.
pub fn wants_json() {
    WANTS_JSON.store(true, Ordering::Relaxed);
}

/// Prints what failed, and gives the exit code.
pub fn exit_code(result: Result<Outcome, Diagnostic>) -> ExitCode {
    let unsaid = output::failure();
    unsaid.iter().for_each(print_problem);
    match result {
        Ok(Outcome::Done | Outcome::Code(0)) if unsaid.is_some() => ExitCode::from(1),
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::NotWell) => ExitCode::from(1),
        Ok(Outcome::Code(code)) => ExitCode::from(code),
        Err(problem) => {
            print_problem(&problem);
            let code = problem.kind.exit_code();
            // An operation that has begun has its own last line.
            if WANTS_JSON.load(Ordering::Relaxed) && !output::has_printed() {
                let outcome = json!({ "event": "outcome", "ok": false, "problem": problem });
                output::print(&format!("{outcome}\n"));
            }
            ExitCode::from(code)
        }
    }
}

/// Says a problem on standard error.
pub fn print_problem(problem: &Diagnostic) {
    let text = problem.to_string();
    if !colours(&std::io::stderr()) {
        output::complain(&text);
        return;
    }
    let colour = match problem.severity {
        Severity::Error => "31",
        Severity::Warning => "33",
    };
    let (word, rest) = text.split_once(':').unwrap_or((&text, ""));
    output::complain(&format!("\x1b[1;{colour}m{word}\x1b[0m:{rest}"));
}

/// Colours are for terminals whose owner has not said no (NO_COLOR, TERM=dumb).
pub fn colours(stream: &impl IsTerminal) -> bool {
    let unset = |name: &str| std::env::var_os(name).is_none_or(|value| value.is_empty());
    stream.is_terminal() && unset("NO_COLOR") && std::env::var("TERM").is_ok_and(|t| t != "dumb")
}

/// A text in a colour, on a terminal.
pub fn paint(text: &str, colour: Colour) -> String {
    if !colours(&std::io::stdout()) {
        return text.into();
    }
    let code = match colour {
        Colour::Good => "32",
        Colour::Doubtful => "33",
        Colour::Bad => "31",
        Colour::Title => "1",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// What a colour means.
#[derive(Debug, Clone, Copy)]
pub enum Colour {
    Good,
    Doubtful,
    Bad,
    Title,
}
