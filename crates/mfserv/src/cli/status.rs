//! `status`: whole for pipes, fitted to a terminal, and again and again with `--watch`.

mod fitted;
mod table;
#[cfg(test)]
mod tests;
mod watch;

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use mfserv_core::Diagnostic;
use mfserv_core::status::Status;
use mfserv_node::places::Places;

use super::report::{Colour, Outcome, paint, print_problem};
use super::top::{Gatherer, Line, Style, interval};
use super::{print, print_json, reach, show};

/// What was counted in so many seconds is shown.
const WINDOW: Duration = Duration::from_secs(5);
/// A terminal that says no size.
const USUAL: (usize, usize) = (80, 24);

/// Show what runs, what fails and why.
///
/// On a terminal it is fitted to its size, the worst first; into a pipe, and with --all,
/// everything is printed. Exit code 0: the node runs with everything that it shall run; 1: something
/// is missing or refused; 3: there is no node.
#[derive(Debug, Args)]
pub struct StatusOf {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Show everything on a terminal too, however long it is.
    #[arg(long, short)]
    all: bool,
    /// Show it again every so many seconds (2), until Ctrl-C.
    #[arg(long, short, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2")]
    #[arg(value_parser = interval)]
    watch: Option<Duration>,
}

impl StatusOf {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        if let Some(interval) = self.watch {
            return watch::run(&self, places, interval);
        }
        let status = reach::status(places)?;
        let outcome = if status.is_well() { Outcome::Done } else { Outcome::NotWell };
        self.show(places, status)?;
        Ok(outcome)
    }

    /// Prints it once.
    fn show(&self, places: &Places, status: Status) -> Result<(), Diagnostic> {
        if self.json {
            return print_json(&status);
        }
        let status = show::for_people(status);
        if self.all || !std::io::stdout().is_terminal() {
            print(&show::text(&status));
            status.problems.iter().for_each(print_problem);
            return Ok(());
        }
        let frame = Gatherer::new(places, WINDOW).gather_with(Ok(status));
        let (columns, lines) = size();
        // The prompt has the last line.
        for line in fitted::lines(&frame, (columns, lines.saturating_sub(1))) {
            print(&(painted(&line) + "\n"));
        }
        Ok(())
    }
}

/// The columns of the terminal, or as many as one usually has.
pub fn columns() -> usize {
    size().0
}

/// Columns and lines: what `COLUMNS` and `LINES` say, else what the terminal says.
fn size() -> (usize, usize) {
    let set = |name: &str| std::env::var(name).ok()?.parse::<usize>().ok().filter(|it| *it > 0);
    let is = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    let some = |count: u16| Some(usize::from(count)).filter(|count| *count > 0);
    let columns = set("COLUMNS").or_else(|| some(is?.ws_col)).unwrap_or(USUAL.0);
    (columns, set("LINES").or_else(|| some(is?.ws_row)).unwrap_or(USUAL.1))
}

fn painted(line: &Line) -> String {
    let part = |(text, style): &(String, Style)| match style {
        Style::Good => paint(text, Colour::Good),
        Style::Doubtful => paint(text, Colour::Doubtful),
        Style::Bad => paint(text, Colour::Bad),
        Style::Title => paint(text, Colour::Title),
        Style::Plain | Style::Selected => text.clone(),
    };
    line.iter().map(part).collect()
}
