//! The two standard streams. A reader that has gone away, or a full disk behind them, stops
//! no operation half-way: what was begun is finished, and the exit code tells of it.

use std::io::{ErrorKind, Write};
use std::sync::OnceLock;

use mfserv_core::Diagnostic;

/// Why standard output cannot be written any more.
static LOST: OnceLock<std::io::Error> = OnceLock::new();

/// Prints to standard output. After the first failure nothing more is tried.
pub fn print(text: &str) {
    if is_lost() {
        return;
    }
    let mut out = std::io::stdout();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        let _ = LOST.set(error);
    }
}

/// Nobody gets what is printed: a command that only shows something may end.
pub fn is_lost() -> bool {
    LOST.get().is_some()
}

/// Why what was printed is incomplete. A reader that wanted no more (`| head`) is no error.
pub fn failure() -> Option<Diagnostic> {
    let error = LOST.get().filter(|error| error.kind() != ErrorKind::BrokenPipe)?;
    Some(
        Diagnostic::error("standard output could not be written")
            .because(error)
            .help("what the command had to do is done; only its output is incomplete"),
    )
}

/// Says something on standard error, if anybody listens.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
