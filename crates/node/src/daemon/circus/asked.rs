//! The numbers of workers that clients have asked for and that are not carried out yet.
//!
//! Operations on one plugin that wait for another one begin in no order. Of two `incr` the later
//! one has the greater number, and it must be the last to be carried out.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::operations::Request;

/// What was asked for last, by watcher.
#[derive(Default)]
pub struct Asked(Mutex<BTreeMap<String, Last>>);

struct Last {
    /// How many; `None` = as configured.
    count: Option<u32>,
    /// Closed when it is over.
    over: watch::Receiver<()>,
}

impl Last {
    fn is_over(&self) -> bool {
        self.over.has_changed().is_err()
    }
}

/// The turn of a request after the one before it on the same watcher; it is over when this is
/// dropped.
pub struct Turn {
    before: Option<watch::Receiver<()>>,
    _over: watch::Sender<()>,
}

impl Turn {
    /// Returns once the request before it is over.
    pub async fn begins(&mut self) {
        if let Some(before) = &mut self.before {
            while before.changed().await.is_ok() {}
        }
    }
}

impl Asked {
    /// The number that was asked for last, if that is not over yet.
    pub fn count(&self, watcher: &str) -> Option<Option<u32>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(watcher).filter(|last| !last.is_over()).map(|last| last.count)
    }

    /// The turn of this request; `None` if it concerns no number of workers.
    pub fn next(&self, request: &Request) -> Option<Turn> {
        let Request::Scale { app, count, .. } = request else { return None };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, last| !last.is_over());
        let (sender, over) = watch::channel(());
        let before = known.insert(app.clone(), Last { count: *count, over });
        Some(Turn { before: before.map(|last| last.over), _over: sender })
    }
}
