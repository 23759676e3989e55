//! Ctrl-C: the first one cancels what a command does, the second one ends the command at once and
//! says what goes on without it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use mfserv_core::Diagnostic;
use mfserv_node::operations::OperationId;
use mfserv_plugin::Cancel;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use super::complain;

/// The operation that a node conducts for this command.
static FOLLOWED: Mutex<Option<OperationId>> = Mutex::new(None);

/// Ctrl-C stops the programs that an operation runs, and leaves nothing half done.
pub fn cancel() -> Result<Cancel, Diagnostic> {
    static WATCHED: OnceLock<Result<(), String>> = OnceLock::new();
    let failed = |e: String| Diagnostic::error("signals cannot be caught").because(e);
    let cancel = Cancel::by_first_signal().map_err(|e| failed(e.to_string()))?;
    // Behind the flag: who is woken by the first signal finds it.
    WATCHED.get_or_init(|| watch().map_err(|e| e.to_string())).clone().map_err(failed)?;
    Ok(cancel)
}

/// From now on a node conducts this operation; `None`: not any more.
pub fn is_followed(id: Option<OperationId>) {
    *FOLLOWED.lock().unwrap_or_else(PoisonError::into_inner) = id;
}

/// Has a thread end this process at the second signal.
fn watch() -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    // Where nobody reads what this process says, the third one ends it.
    let is_second = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_default(signal, is_second.clone())?;
    }
    let watch = move || {
        let mut signals = signals.forever();
        let _first = signals.next();
        for signal in signals {
            is_second.store(true, Ordering::Relaxed);
            complain(&last_words());
            let _ = emulate_default_handler(signal);
        }
    };
    std::thread::Builder::new().name("interrupt".into()).spawn(watch).map(drop)
}

fn last_words() -> String {
    match &*FOLLOWED.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(id) => format!(
            "ended at once; the node goes on with operation {id}, or undoes it: `mfserv wait {id}` follows it"
        ),
        None => {
            "ended at once; what is half made is removed by the next command that makes it".into()
        }
    }
}
