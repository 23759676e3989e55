//! The keeper's own log: its standard error.

use std::io::{self, Write};

/// Writes a line. Nobody may read it: an error is ignored.
pub(crate) fn log(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "keeper: {text}");
}
