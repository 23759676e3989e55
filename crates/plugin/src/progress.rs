//! How a long operation tells what it does, and is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mfserv_core::Diagnostic;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// Receives what a long operation does. The command line draws it.
pub trait Progress {
    /// A new step begins, for example `installing 7 Python packages`.
    fn step(&mut self, what: &str);
    /// A line of output of the step, from pip, npm, a hook…
    fn line(&mut self, text: &str);
    /// A detail that people may look up: nothing unusual.
    fn log(&mut self, _text: &str) {}
    /// A warning: it stops nothing.
    fn notice(&mut self, _notice: Diagnostic) {}
}

/// Tells nobody.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn step(&mut self, _what: &str) {}
    fn line(&mut self, _text: &str) {}
}

/// A request to cancel an operation, shared between the asker and the operation. It cannot
/// be taken back.
#[derive(Debug, Default, Clone)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// A wish that Ctrl-C, SIGTERM or SIGHUP makes; a second Ctrl-C or SIGTERM ends this
    /// process at once. (SIGHUP comes twice when a terminal is closed: from the system, and from
    /// the shell.) For the command line: the programs that an operation runs
    /// are in process groups of their own, which a terminal does not interrupt.
    pub fn by_signals() -> std::io::Result<Self> {
        let cancel = Self::default();
        flag::register(SIGHUP, cancel.0.clone())?;
        for signal in [SIGINT, SIGTERM] {
            // in this order: the first signal only sets the flag
            flag::register_conditional_default(signal, cancel.0.clone())?;
            flag::register(signal, cancel.0.clone())?;
        }
        Ok(cancel)
    }

    /// The same, where somebody else ends this process at the second signal.
    pub fn by_first_signal() -> std::io::Result<Self> {
        let cancel = Self::default();
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            flag::register(signal, cancel.0.clone())?;
        }
        Ok(cancel)
    }

    /// Asks the operation to stop: its child processes are killed, what it has
    /// half done is removed, and it returns an error.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// True once [`Cancel::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
