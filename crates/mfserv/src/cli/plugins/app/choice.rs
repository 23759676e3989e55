//! What an app is run as, where a directory can be run in several ways.

use std::io::{BufRead, IsTerminal, Write};

use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::discover::Finding;

use crate::cli::print;

/// What a command of before has chosen, if the directory can still be run as that; else that is said.
pub fn still_possible(
    choice: String,
    readings: &[Finding],
    warnings: &mut Vec<Diagnostic>,
) -> Option<String> {
    if readings.iter().any(|one| one.choice == choice) {
        return Some(choice);
    }
    warnings.push(
        Diagnostic::warning(format!("it can't be run as {choice} any more, as before"))
            .because(format!("--as {choice} of an earlier command stayed until now"))
            .help("--as says what it is from now on"),
    );
    None
}

/// Somebody can be asked.
pub fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Asks which of several readings is meant.
pub fn ask(readings: &[&Finding]) -> Result<String, Diagnostic> {
    let failed = |e: std::io::Error| Diagnostic::error("the question cannot be asked").because(e);
    for (number, one) in (1..).zip(readings) {
        print(&format!("  {number}. {}\n", one.sentence()));
    }
    loop {
        print("which one is it? [1]: ");
        std::io::stdout().flush().map_err(failed)?;
        let mut line = String::new();
        if std::io::stdin().lock().read_line(&mut line).map_err(failed)? == 0 {
            return Err(Diagnostic::error("nothing was chosen").kind(Kind::Usage));
        }
        let line = line.trim();
        let number = if line.is_empty() { Ok(1) } else { line.parse::<usize>() };
        let index = number.ok().and_then(|number| number.checked_sub(1));
        match index.and_then(|index| readings.get(index)) {
            Some(one) => return Ok(one.choice.clone()),
            None => print(&format!("a number from 1 to {}\n", readings.len())),
        }
    }
}
