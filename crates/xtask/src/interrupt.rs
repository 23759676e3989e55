//! Ctrl-C and SIGTERM: the first ends the bench in order, so that it stops what it has
//! started and removes its files; the second ends it at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use mfserv_core::Diagnostic;
use signal_hook::consts::{SIGINT, SIGTERM};

/// How often a wait looks whether it shall end.
const LOOK: Duration = Duration::from_millis(10);

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Starts to listen for both signals.
pub fn watch() -> Result<(), Diagnostic> {
    let asked = ASKED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        // In this order: the second signal finds the flag set by the first.
        signal_hook::flag::register_conditional_default(signal, asked.clone())
            .and_then(|_| signal_hook::flag::register(signal, asked.clone()))
            .map_err(|e| Diagnostic::error("cannot listen for signals").because(e))?;
    }
    Ok(())
}

/// True once somebody has asked for the end.
pub fn is_asked() -> bool {
    ASKED.get().is_some_and(|asked| asked.load(Ordering::Relaxed))
}

/// An error once somebody has asked for the end.
pub fn check() -> Result<(), Diagnostic> {
    match is_asked() {
        true => Err(Diagnostic::error("interrupted: nothing is left running")),
        false => Ok(()),
    }
}

/// Sleeps, unless somebody asks for the end.
pub fn sleep(time: Duration) -> Result<(), Diagnostic> {
    let end = Instant::now() + time;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(LOOK));
    }
}

/// Waits until there is a value, at most for `patience`.
pub fn until<T>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T, Diagnostic> {
    let end = Instant::now() + patience;
    loop {
        if let Some(value) = look() {
            return Ok(value);
        }
        if Instant::now() >= end {
            let seconds = patience.as_secs();
            return Err(Diagnostic::error(format!("not within {seconds} s: {what}")));
        }
        sleep(LOOK)?;
    }
}
