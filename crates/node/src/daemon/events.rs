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
    /// The daemon's own log, for people.
    log: Arc<Mutex<dyn Write + Send>>,
}

impl Events {
    /// Opens the record of a node; each event is also written to `log` as a sentence. The file
    /// is opened at the first event: a node runs without a record if it must.
    pub fn open(
        places: &Places,
        clock: Arc<dyn Clock>,
        log: impl Write + Send + 'static,
    ) -> Events {
        let rotation = Rotation { max_bytes: 16 << 20, max_age_s: 0, ..Rotation::default() };
        let file = LogFile::new(places.events_file(), rotation);
        Events { clock, file: Arc::new(Mutex::new(file)), log: Arc::new(Mutex::new(log)) }
    }

    /// Records a fact, now. A disk that cannot be written loses the record, never the node.
    pub fn record(&self, fact: Fact) {
        let event = Event { at_ms: self.clock.now_ms(), fact };
        if let Ok(mut log) = self.log.lock() {
            let _ = writeln!(log, "{}", render::event(&event));
        }
        let Ok(mut line) = serde_json::to_vec(&event) else { return };
        line.push(b'\n');
        if let Ok(mut file) = self.file.lock() {
            let _ = file.append(&line);
        }
    }
}
