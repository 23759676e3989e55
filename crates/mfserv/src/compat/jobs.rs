//! The commands of MFSERV that put jobs into the crontab of the user. mfserv runs jobs itself.

use std::io::ErrorKind;
use std::path::Path;

use mfserv_core::Diagnostic;

use super::places;
use crate::cli::print;
use crate::cli::report::Outcome;

/// `_make_crontab.py`: the text of all jobs.
pub fn make_crontab() -> Result<Outcome, Diagnostic> {
    let file = places()?.shown_crontab();
    let text = std::fs::read_to_string(&file).map_err(|error| {
        let problem = Diagnostic::error("there is no crontab").because(match error.kind() {
            ErrorKind::NotFound => format!("{} is made by a node that runs", file.display()),
            _ => format!("{}: {error}", file.display()),
        });
        problem.help("`mfserv.start` starts the node")
    })?;
    print(&text);
    Ok(Outcome::Done)
}

/// The commands that changed the crontab of the user: they say what is there instead.
pub fn instead() -> Result<Outcome, Diagnostic> {
    let called = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&called).file_name().unwrap_or_default().to_string_lossy().into_owned();
    Err(Diagnostic::error(format!("{name} changes nothing"))
        .because("mfserv runs the crontab of each plugin itself, from its installation on")
        .help("`mfserv jobs` shows them; lines of your own go into crontab -e"))
}
