//! `status --watch`: on a terminal the same lines are written over; elsewhere each is printed
//! below the one before.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use mfserv_core::Diagnostic;
use mfserv_core::status::Status;
use mfserv_node::places::Places;

use super::super::output::is_lost;
use super::super::plugins::cancel;
use super::super::report::{Outcome, colours, print_problem};
use super::super::top::{
    Frame, Gatherer, Happened, Screen, Waker, as_bytes, standard_input, standard_output,
};
use super::super::{print, reach, show};
use super::{StatusOf, WINDOW, fitted};

/// How soon Ctrl-C is noticed where nothing wakes us.
const LOOK: Duration = Duration::from_millis(100);
/// The longest wait: everything that happens ends it.
const WAIT: Duration = Duration::from_secs(60);

/// Shows the status until the user has seen enough.
pub fn run(asked: &StatusOf, places: &Places, interval: Duration) -> Result<Outcome, Diagnostic> {
    let is_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    let is_dumb = std::env::var("TERM").map_or(true, |term| term.is_empty() || term == "dumb");
    if asked.json || asked.all || !is_terminal || is_dumb {
        return repeat(asked, places, interval);
    }
    let failed = |why: io::Error| Diagnostic::error("the terminal cannot be used").because(why);
    let mut screen = standard_input()
        .and_then(|input| Screen::take(input, standard_output()?))
        .map_err(failed)?;
    let (sender, frames) = sync_channel(1);
    let (waker, gatherer) = (screen.waker().map_err(failed)?, Gatherer::new(places, WINDOW));
    let thread = std::thread::Builder::new().name("gather".into());
    // It ends with the program: a daemon that hangs does not hold the terminal.
    thread.spawn(move || gather(gatherer, waker, &sender, interval)).map_err(failed)?;
    // A terminal that has gone ends it as well.
    let _ = draw_all(&mut screen, &frames);
    Ok(Outcome::Done)
}

fn gather(
    mut gatherer: Gatherer,
    mut waker: Waker,
    frames: &SyncSender<Box<Frame>>,
    interval: Duration,
) {
    loop {
        if frames.send(Box::new(gatherer.gather())).is_err() {
            return;
        }
        waker.wake();
        std::thread::sleep(interval);
    }
}

fn draw_all(screen: &mut Screen, frames: &Receiver<Box<Frame>>) -> io::Result<()> {
    let mut frame = None;
    loop {
        match frames.try_recv() {
            Ok(mut new) => {
                new.status = new.status.map(show::for_people);
                frame = Some(new);
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
        if let Some(frame) = &frame {
            let (columns, lines) = screen.size();
            let shown = fitted::lines(frame, (columns, lines));
            screen.write(&as_bytes(&shown, columns, colours(&io::stdout())))?;
        }
        match screen.wait(WAIT) {
            Happened::End => return Ok(()),
            Happened::Input if screen.read()?.contains(&b'q') => return Ok(()),
            Happened::Input | Happened::Changed | Happened::Time => {}
        }
    }
}

/// One below the other, until Ctrl-C or until nobody reads.
fn repeat(asked: &StatusOf, places: &Places, interval: Duration) -> Result<Outcome, Diagnostic> {
    let cancel = cancel()?;
    loop {
        match reach::status(places) {
            Ok(status) if asked.json => print(&as_line(&status)),
            Ok(status) => {
                asked.show(places, status)?;
                print("\n");
            }
            Err(problem) => print_problem(&problem),
        }
        let began = Instant::now();
        while began.elapsed() < interval && !cancel.is_cancelled() {
            std::thread::sleep(LOOK.min(interval.saturating_sub(began.elapsed())));
        }
        if cancel.is_cancelled() || is_lost() {
            return Ok(Outcome::Done);
        }
    }
}

fn as_line(status: &Status) -> String {
    serde_json::to_string(status).unwrap_or_default() + "\n"
}
