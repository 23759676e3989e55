//! What is remembered of operations: those that run, each in a file of its own
//! (`var/operations/ID.json`, synced), and those that have ended, one line each
//! (`var/operations.jsonl`, rotated).

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use mfserv_core::Diagnostic;
use mfserv_core::output::Rotation;
use mfserv_logfile::LogFile;
use mfserv_platform::disk;

use super::{OperationId, Record};
use crate::places::Places;

/// The journal has at most two files of this size, bytes: several thousand operations.
const MAX_BYTES: u64 = 4 << 20;

/// The journal of a node.
pub struct Journal {
    open_dir: PathBuf,
    ended: PathBuf,
    file: Mutex<LogFile>,
}

impl Journal {
    /// The journal of this home. Nothing is created before the first operation.
    pub fn new(places: &Places) -> Journal {
        let ended = places.var().join("operations.jsonl");
        let rotation = Rotation { max_bytes: MAX_BYTES, max_age_s: 0, keep: 2, mode: Some(0o600) };
        let file = Mutex::new(LogFile::new(&ended, rotation));
        Journal { open_dir: places.var().join("operations"), ended, file }
    }

    /// Remembers an operation that runs; again: what has become of it.
    pub fn open(&self, record: &Record) -> Result<(), Diagnostic> {
        disk::create_dir(&self.open_dir)?;
        let text = serde_json::to_vec(record).unwrap_or_default();
        disk::write(&self.file_of(&record.id), &text)
    }

    /// Remembers how an operation has ended.
    pub fn close(&self, record: &Record) -> Result<(), Diagnostic> {
        let mut line = serde_json::to_vec(record).unwrap_or_default();
        line.push(b'\n');
        let appended = match self.file.lock() {
            Ok(mut file) => file.append(&line).map_err(|e| disk::failed("write", &self.ended, e)),
            Err(_) => Ok(()),
        };
        // One that stays open would be undone by the next daemon.
        disk::remove(&self.file_of(&record.id))?;
        appended
    }

    /// Forgets an operation that was not begun, or whose end is known already.
    pub fn abandon(&self, id: &OperationId) -> Result<(), Diagnostic> {
        disk::remove(&self.file_of(id))
    }

    /// The operations that run, or did so when their conductor died; the oldest first.
    pub fn running(&self) -> Vec<Record> {
        let entries = fs::read_dir(&self.open_dir).into_iter().flatten().flatten();
        let files = entries.map(|entry| entry.path());
        let files = files.filter(|path| path.extension().is_some_and(|end| end == "json"));
        let texts = files.filter_map(|path| fs::read(path).ok());
        let mut found: Vec<Record> =
            texts.filter_map(|text| serde_json::from_slice(&text).ok()).collect();
        found.sort_by_key(|record| record.began_ms);
        found
    }

    /// The last operations that have ended, the newest last.
    pub fn ended(&self, most: usize) -> Vec<Record> {
        let mut files = self.files();
        let mut found = Vec::new();
        while let Some(file) = files.pop().filter(|_| found.len() < most) {
            let text = fs::read_to_string(file).unwrap_or_default();
            let lines = text.lines().rev().filter_map(|line| serde_json::from_str(line).ok());
            found.extend(lines.take(most - found.len()));
        }
        found.reverse();
        found
    }

    /// An operation that has ended.
    pub fn find(&self, id: &OperationId) -> Option<Record> {
        let named = format!("{:?}", id.as_str());
        self.files().iter().rev().find_map(|file| {
            let text = fs::read_to_string(file).ok()?;
            // Most lines are of others: they need not be parsed.
            let lines = text.lines().rev().filter(|line| line.contains(&named));
            let mut records = lines.filter_map(|line| serde_json::from_str::<Record>(line).ok());
            records.find(|record| record.id == *id)
        })
    }

    fn file_of(&self, id: &OperationId) -> PathBuf {
        self.open_dir.join(format!("{id}.json"))
    }

    /// The files with lines, the newest last.
    fn files(&self) -> Vec<PathBuf> {
        let Some((dir, name)) = self.ended.parent().zip(self.ended.file_name()) else {
            return Vec::new();
        };
        let rotated = format!("{}.", name.to_string_lossy());
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&rotated))
            .map(|entry| entry.path())
            .collect();
        files.sort();
        files.push(self.ended.clone());
        files
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::{Request, Who};

    fn record(n: u64) -> Record {
        Record {
            id: format!("op-{n}").parse().unwrap(),
            who: Who::default(),
            request: Request::Reload,
            began_ms: n,
            conductor: None,
            ended_ms: None,
            steps: Vec::new(),
            outcome: None,
        }
    }

    #[test]
    fn an_operation_that_runs_is_found_again_and_one_that_has_ended_is_in_the_list() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::choose(Some(folder.path())).unwrap();
        let journal = Journal::new(&places);
        assert!(journal.running().is_empty() && journal.ended(9).is_empty());
        for n in [2, 1, 3] {
            journal.open(&record(n)).unwrap();
        }
        let found = Journal::new(&places).running();
        assert_eq!(found.iter().map(|one| one.began_ms).collect::<Vec<_>>(), [1, 2, 3]);
        for n in [1, 2] {
            journal.close(&Record { ended_ms: Some(9), ..record(n) }).unwrap();
        }
        assert_eq!(journal.running().len(), 1);
        assert_eq!(journal.ended(1)[0].id, record(2).id);
        assert_eq!(journal.find(&record(1).id).unwrap().ended_ms, Some(9));
        assert!(journal.find(&record(3).id).is_none());
    }

    #[test]
    fn the_journal_is_bounded_and_the_newest_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::choose(Some(folder.path())).unwrap();
        let journal = Journal::new(&places);
        let request = Request::Restart { apps: vec!["x".repeat(100_000)] };
        for n in 0..200 {
            let record = Record { request: request.clone(), ..record(n) };
            journal.close(&record).unwrap();
        }
        let sizes = journal.files().into_iter().map(|file| fs::metadata(file).unwrap().len());
        assert!(sizes.sum::<u64>() <= 2 * MAX_BYTES);
        let ended = journal.ended(60);
        assert_eq!((ended.len(), ended[59].began_ms), (60, 199));
    }

    #[test]
    fn a_line_that_a_power_cut_has_left_half_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::choose(Some(folder.path())).unwrap();
        places.create().unwrap();
        fs::write(places.var().join("operations.jsonl"), "{\"id\":\"op-1\",\"wh\n").unwrap();
        let journal = Journal::new(&places);
        journal.close(&record(2)).unwrap();
        assert_eq!(journal.ended(9).len(), 1);
    }
}
