//! The JSON file of mflog, to which the programs of a node append: a line for each object.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

use super::document::Document;
use super::line::Line;
use super::sink::{Outcome, partly};
use crate::logs::parsed;

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
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
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
