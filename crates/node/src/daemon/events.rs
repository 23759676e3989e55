//! The record of what happened: one JSON line for each event in `log/events.jsonl`,
//! and a sentence for people in the daemon's own log.

use std::io::Write;
use std::sync::{Arc, Mutex};

use mfserv_core::event::{Event, Fact};
use mfserv_core::output::Rotation;
use mfserv_logfile::LogFile;
use mfserv_platform::clock::Clock;

use crate::places::Places;
use crate::render;

/// Records events. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    clock: Arc<dyn Clock>,
    file: Arc<Mutex<LogFile>>,
}

impl Events {
    /// Goes on with the node's record. The file is opened when it is needed: a node runs
    /// without a record, if need be.
    pub fn open(places: &Places, clock: Arc<dyn Clock>) -> Events {
        let rotation = Rotation { max_bytes: 16 << 20, max_age_s: 0, ..Rotation::default() };
        let file = LogFile::new(places.events_file(), rotation);
        Events { clock, file: Arc::new(Mutex::new(file)) }
    }

    /// Records a fact, now. A disk that cannot be written loses the record, never the node.
    pub fn record(&self, fact: Fact) {
        let event = Event { at_ms: self.clock.now_ms(), fact };
        let _ = writeln!(std::io::stderr(), "{}", render::event(&event));
        let Ok(mut line) = serde_json::to_vec(&event) else { return };
        line.push(b'\n');
        if let Ok(mut file) = self.file.lock() {
            let _ = file.append(&line);
        }
    }
}
