//! The record of what happened: one JSON line for each event in `log/events.jsonl`,
//! and a sentence for people in the daemon's own log.

use std::io::Write;
use std::sync::{Arc, Mutex};

use mfserv_core::event::{Event, Fact};
use mfserv_core::output::Rotation;
use mfserv_logfile::LogFile;
use mfserv_platform::clock::Clock;
use tokio::sync::broadcast;

use super::metrics::Counts;
use crate::places::Places;
use crate::render;

/// Records events. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    clock: Arc<dyn Clock>,
    file: Arc<Mutex<LogFile>>,
    /// The daemon's own log, for people.
    log: Arc<Mutex<dyn Write + Send>>,
    /// The last trouble with a log, and when it was.
    trouble: Arc<Mutex<Option<(u64, String)>>>,
    counts: Counts,
    /// Who follows the events of this daemon.
    followers: broadcast::Sender<Event>,
}

/// The most events that wait for one who follows them.
const FOLLOWED: usize = 1024;

/// How long trouble with a log is shown, milliseconds.
const RECENT_MS: u64 = 600_000;

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
        let (file, log) = (Arc::new(Mutex::new(file)), Arc::new(Mutex::new(log)));
        let (followers, _) = broadcast::channel(FOLLOWED);
        let (trouble, counts) = (Arc::default(), Counts::default());
        Events { clock, file, log, trouble, counts, followers }
    }

    /// What has been recorded, as counters.
    pub fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// The events from now on. Who is slow misses some.
    pub fn follow(&self) -> broadcast::Receiver<Event> {
        self.followers.subscribe()
    }

    /// Records a fact, now. A disk that cannot be written loses the record, never the node.
    pub fn record(&self, fact: Fact) {
        self.counts.notice(&fact);
        let event = Event { at_ms: self.clock.now_ms(), fact };
        if matches!(event.fact, Fact::OutputDropped { .. } | Fact::LogTrouble { .. }) {
            self.note_trouble(render::fact(&event.fact));
        }
        if let Ok(mut log) = self.log.lock() {
            let _ = writeln!(log, "{}", render::log_line(&event, std::process::id()));
        }
        let Ok(mut line) = serde_json::to_vec(&event) else { return };
        // Without a follower it is for nobody.
        let _ = self.followers.send(event);
        line.push(b'\n');
        if let Ok(mut file) = self.file.lock() {
            let appended = file.append(&line);
            drop(file);
            if let Err(error) = appended {
                self.note_trouble(format!("log/events.jsonl cannot be written: {error}"));
            }
        }
    }

    fn note_trouble(&self, text: String) {
        if let Ok(mut trouble) = self.trouble.lock() {
            *trouble = Some((self.clock.now_ms(), text));
        }
    }

    /// The last trouble with a log of the last minutes.
    pub fn log_trouble(&self) -> Option<String> {
        let (at_ms, text) = self.trouble.lock().ok()?.clone()?;
        let ago = self.clock.now_ms().saturating_sub(at_ms);
        (ago < RECENT_MS).then(|| format!("{text} ({} ago)", render::span(ago)))
    }
}
