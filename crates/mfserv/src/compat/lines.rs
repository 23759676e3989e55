//! Lines of the form `- Checking plugin... [ OK ]`, which people read and scripts parse.

use std::io::IsTerminal;

use mfserv_core::Diagnostic;

use crate::cli::print;
use crate::cli::report::{Outcome, colours};

/// A line whose title is printed, and whose status is not known yet.
#[must_use]
pub struct Line {
    /// Before the status: a blank, unless a script has printed it with the title.
    start: &'static str,
    /// MFSERV's Python tools put a blank after a status without a note.
    end: &'static str,
}

enum Status {
    Ok,
    Warning,
    Error,
}

impl Line {
    /// A line of one of the tools that were Python programs.
    pub fn of_tool(title: &str) -> Line {
        Self::begin(title, " ")
    }

    /// A line of one of the tools that were shell programs.
    pub fn of_shell(title: &str) -> Line {
        Self::begin(title, "")
    }

    fn begin(title: &str, end: &'static str) -> Line {
        match interactive() {
            true => print(&format!("{title}{}", running())),
            false => print(title),
        }
        Line { start: " ", end }
    }

    /// It went well.
    pub fn ok(self, note: &str) {
        self.finish(Status::Ok, note);
    }

    /// It went, and something is to be known.
    pub fn warning(self, note: &str) {
        self.finish(Status::Warning, note);
    }

    /// It did not go.
    pub fn error(self, note: &str) {
        self.finish(Status::Error, note);
    }

    fn finish(self, status: Status, note: &str) {
        let (word, colour) = match status {
            Status::Ok => ("OK", "32"),
            Status::Warning => ("WARNING", "33"),
            Status::Error => ("ERROR", "31"),
        };
        let start = self.start;
        let note = if note.is_empty() { self.end.into() } else { format!(" {note}") };
        match interactive() {
            // what was said to be running is overwritten
            true => print(&format!("{COLUMN}\x1b[K[ {} ]{note}\n", paint(word, colour))),
            false => print(&format!("{start}[ {word} ]{note}\n")),
        }
    }
}

/// To column 60.
const COLUMN: &str = "\x1b[60G";

/// Somebody looks: a terminal, and NOINTERACTIVE is not 1.
fn interactive() -> bool {
    let plain = std::env::var("NOINTERACTIVE").as_deref() == Ok("1");
    !plain && std::io::stdout().is_terminal()
}

fn paint(word: &str, colour: &str) -> String {
    match colours(&std::io::stdout()) {
        true => format!("\x1b[1;{colour}m{word}\x1b[0m"),
        false => word.into(),
    }
}

/// `echo_ok [MSG]`, `echo_nok`, `echo_warning`, `echo_running`, `echo_clean` and `echo_bold`:
/// the end of a line whose title a shell script has printed.
pub fn echo() -> Result<Outcome, Diagnostic> {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let called = words.next().unwrap_or_default();
    let text = words.collect::<Vec<_>>().join(" ");
    let line = Line { start: "", end: "" };
    match called.rsplit('/').next().unwrap_or_default() {
        "echo_nok" => line.error(&text),
        "echo_warning" => line.warning(&text),
        "echo_running" if interactive() => print(&running()),
        "echo_clean" if interactive() => print(&format!("{COLUMN}\x1b[K")),
        "echo_running" | "echo_clean" => {}
        "echo_bold" => bold(&text),
        _ => line.ok(&text),
    }
    Ok(Outcome::Done)
}

fn running() -> String {
    format!("{COLUMN}[ {} ]", paint("RUNNING", "33"))
}

/// A line in bold, on a terminal.
pub fn bold(text: &str) {
    match interactive() && colours(&std::io::stdout()) {
        true => print(&format!("\x1b[1m{text}\x1b[0m\n")),
        false => print(&format!("{text}\n")),
    }
}

/// Three lines with stars.
pub fn banner(text: &str) {
    let middle = format!("*****     {text}     *****");
    let stars = "*".repeat(middle.chars().count());
    bold(&format!("{stars}\n{middle}\n{stars}"));
}
