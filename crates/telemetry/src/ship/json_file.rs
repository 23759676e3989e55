//! The JSON file of mflog, to which the programs of a node append: a line for each object.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde_json::Value;

use super::document::Document;
use super::line::Line;
use super::sink::{Outcome, partly};
use crate::logs::parsed;

/// How long a lock of the file is waited for: mflog holds it for each line, briefly.
const LOCK: Duration = Duration::from_secs(1);
/// How often it is tried.
const TRY: Duration = Duration::from_millis(10);

/// A message of mfserv itself as an object of mflog, whose name for the core is `#core#`.
pub fn object(line: &Line<'_>) -> String {
    let mut object = parsed(line.text, Some(line.log));
    let time = line.time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    object.insert("timestamp".into(), time.into());
    object.insert("level".into(), line.level.as_str().to_ascii_lowercase().into());
    object.insert("plugin".into(), "#core#".into());
    Value::Object(object).to_string()
}

/// The file.
pub struct JsonFile {
    path: PathBuf,
}

impl JsonFile {
    /// The file at this path, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// What it is called in messages.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Appends documents. mflog holds a lock while it writes a line.
    pub fn send(&mut self, documents: &[Document]) -> Outcome {
        match self.append(documents) {
            Ok(()) => partly(documents.len(), documents.len(), ""),
            Err(why) => Outcome::Later(why.to_string()),
        }
    }

    /// Opened each time: whoever rotates it does not say so.
    fn append(&self, documents: &[Document]) -> io::Result<()> {
        let mut file: File = OpenOptions::new().create(true).append(true).open(&self.path)?;
        lock(&file)?;
        let before = file.metadata()?.len();
        let lines: String =
            documents.iter().flat_map(|document| [document.source.as_str(), "\n"]).collect();
        let written = file.write_all(lines.as_bytes());
        if written.is_err() {
            // On a full disk: half a line would spoil the next one.
            let _ = file.set_len(before);
        }
        written
    }
}

fn lock(file: &File) -> io::Result<()> {
    let end = Instant::now() + LOCK;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < end => thread::sleep(TRY),
            Err(Errno::WOULDBLOCK) => {
                return Err(io::Error::other("another process holds its lock"));
            }
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn a_lock_that_is_held_briefly_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mflog.json");
        let held = File::create(&path).unwrap();
        flock(&held, FlockOperation::LockExclusive).unwrap();
        let document = Document {
            id: String::new(),
            index: String::new(),
            source: "{}".into(),
            time: jiff::Timestamp::UNIX_EPOCH,
            labels: Vec::new(),
        };
        let (started, starts) = sync_channel(1);
        let mut sink = JsonFile::new(path.clone());
        let sender = thread::spawn(move || {
            started.send(()).unwrap();
            sink.send(&[document])
        });
        starts.recv().unwrap();
        // Nobody can see that it waits; who drops the lock too early tests less, and fails nowhere.
        thread::sleep(5 * TRY);
        drop(held);
        assert_eq!(sender.join().unwrap(), partly(1, 1, ""));
        assert_eq!(std::fs::read_to_string(path).unwrap(), "{}\n");
    }
}
