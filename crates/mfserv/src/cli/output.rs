//! The two standard streams. A reader that has gone away, or a full disk behind them, stops
//! no operation half-way: what was begun is finished, and the exit code tells of it.

use std::borrow::Cow;
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use mfserv_core::Diagnostic;
use mfserv_core::diagnostic::shown;

/// Why standard output cannot be written any more.
static LOST: OnceLock<std::io::Error> = OnceLock::new();
/// Something was printed.
static HAS_PRINTED: AtomicBool = AtomicBool::new(false);

/// A text of an app or of a package, as standard output may have it: on a terminal, what the
/// terminal would obey is written out.
pub fn for_terminal(text: &str) -> Cow<'_, str> {
    match std::io::stdout().is_terminal() {
        true => shown(text),
        false => Cow::Borrowed(text),
    }
}

/// Prints to standard output.
pub fn print(text: &str) {
    print_bytes(text.as_bytes());
}

/// Prints bytes to standard output. After the first failure nothing more is tried.
pub fn print_bytes(bytes: &[u8]) {
    if is_lost() {
        return;
    }
    let mut out = std::io::stdout();
    HAS_PRINTED.store(true, Ordering::Relaxed);
    if let Err(error) = out.write_all(bytes).and_then(|()| out.flush()) {
        let _ = LOST.set(error);
    }
}

/// Something has gone to standard output, or was to.
pub fn has_printed() -> bool {
    HAS_PRINTED.load(Ordering::Relaxed)
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
