//! Looks after the certificates of a front: a thread of its own, since a slow disk must delay neither
//! a request nor the daemon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::request::state::Front;

/// How often it is looked whether files have changed, …
const LOOK: Duration = Duration::from_secs(1);
/// … unless a look takes so long that this would cost more than a hundredth of a processor; but
/// so often at least.
const LOOK_AT_LEAST: Duration = Duration::from_secs(10);
const REST: u32 = 100;

/// How long nobody looks after a look that took so long.
pub fn rest_after(look: Duration) -> Duration {
    (look * REST).clamp(LOOK, LOOK_AT_LEAST)
}

/// Starts the thread. It ends with the process, and sleeps while nothing listens for TLS.
///
/// # Errors
/// If the system gives no thread.
pub fn watch(front: &Arc<Front>) -> std::io::Result<()> {
    // The front itself is not held: its logs are written to the end when it is dropped.
    let (tls, reporting) = (front.tls.clone(), Arc::downgrade(front));
    let thread = std::thread::Builder::new().name("certificates".into());
    let thread = thread.spawn(move || {
        loop {
            while !tls.has_files() {
                std::thread::park();
            }
            let began = Instant::now();
            for problem in tls.refresh() {
                let Some(front) = reporting.upgrade() else { return };
                front.errors.report(&format!("TLS: {problem}"));
            }
            std::thread::sleep(rest_after(began.elapsed()));
        }
    })?;
    front.tls.set_watcher(thread.thread().clone());
    Ok(())
}
