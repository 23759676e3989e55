//! What a followed path lets go: files that nobody can read any more, and at last the path.

use std::time::Duration;

use mfserv_core::Diagnostic;

use super::{Begin, Followed, Known, is_rotated};

/// The most removed files that are kept open while nothing can be sent.
const HELD: usize = 4;

impl Followed {
    /// Finds out what happens to the files while nothing is read, so that none is missed. At most
    /// [`HELD`] files are kept on the disk that somebody has removed.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn look_while_waiting(&mut self) -> std::io::Result<()> {
        self.look()?;
        let held: Vec<usize> =
            (0..self.known.len()).filter(|at| self.known[*at].is_held()).collect();
        for at in held.iter().take(held.len().saturating_sub(HELD)) {
            self.lost += self.known[*at].unread();
            self.known[*at].let_go();
        }
        Ok(())
    }

    /// Closes files that rest, and forgets generations whose file is gone.
    pub(super) fn forget_gone(&mut self) {
        if self.has_moved {
            // Lines of them are under way.
            return;
        }
        for known in self.known.iter_mut().filter(|known| !known.is_live) {
            known.rest();
        }
        let before = self.known.len();
        self.known.retain(|known| !known.is_gone());
        self.must_sync |= self.known.len() != before;
    }

    /// Bytes that nobody can send any more, since the last time.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// No file has had the name for this long, and all that had it was read and acknowledged.
    /// Since when is stored, so that processes which live shortly know it too.
    ///
    /// # Errors
    /// What the disk says.
    pub fn has_vanished_for(&mut self, time: Duration) -> Result<bool, Diagnostic> {
        let is_done = |known: &Known| !known.is_live && known.unread() == 0;
        let has_vanished = self.scanned.is_some()
            && !self.has_moved
            && self.known.iter().all(is_done)
            && !self.path.exists()
            && !self.has_rotated();
        if !has_vanished {
            if self.vanished.take().is_some() {
                self.store.set_present()?;
            }
            return Ok(false);
        }
        let since = match self.vanished {
            Some(since) => since,
            None => *self.vanished.insert(self.store.set_vanished()?),
        };
        // The clock may have been set back.
        Ok(since.elapsed().is_ok_and(|elapsed| elapsed >= time))
    }

    /// There are rotated files, which would be read as new ones if the state were gone: a path
    /// that was first read from its end appears later as one that is read with them. Their names
    /// tell: this is asked again and again.
    fn has_rotated(&self) -> bool {
        let entries = || std::fs::read_dir(self.directory()).into_iter().flatten().flatten();
        let is_one = |name: &str| is_rotated(name, &self.name);
        self.begin != Begin::WithLive
            && entries().any(|entry| is_one(&entry.file_name().to_string_lossy()))
    }

    /// Removes the state, but for refused documents. A file that gets the name later is another
    /// one.
    ///
    /// # Errors
    /// What the disk says.
    pub fn forget(self) -> Result<(), Diagnostic> {
        self.store.remove()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::ship::records::Lines;

    fn open(dir: &Path) -> Followed {
        open_with(dir, Begin::WithLive)
    }

    fn open_with(dir: &Path, begin: Begin) -> Followed {
        let (path, state) = (dir.join("a.log"), dir.join("state"));
        let mut followed = Followed::open(&path, &state, Lines::Single, begin).unwrap();
        followed.look().unwrap();
        followed
    }

    /// Reads everything, and acknowledges it.
    fn read(followed: &mut Followed) -> Vec<String> {
        let mut texts = Vec::new();
        let mut take = |part: &crate::ship::followed::Part<'_>| {
            let text = |bytes| String::from_utf8_lossy(bytes).trim_end().to_string();
            texts.extend(part.records.iter().map(|record| text(record.bytes)));
        };
        while followed.read(true, &mut |_, _| true, &mut take).unwrap() {
            followed.look().unwrap();
        }
        followed.sync().unwrap();
        followed.acknowledge().unwrap();
        texts
    }

    #[test]
    fn rotated_files_of_a_new_path_are_read_first_where_that_is_wanted_the_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for (n, name) in ["a.log.2", "a.log.1", "a.log"].iter().enumerate() {
            fs::write(dir.join(name), format!("line {n}\n")).unwrap();
            let file = fs::File::options().write(true).open(dir.join(name)).unwrap();
            let age = Duration::from_secs(100 - n as u64);
            file.set_modified(std::time::SystemTime::now() - age).unwrap();
        }
        assert_eq!(read(&mut open(dir)), ["line 2"]);
        fs::remove_dir_all(dir.join("state")).unwrap();
        let mut followed = open_with(dir, Begin::WithRotated);
        assert_eq!(read(&mut followed), ["line 0", "line 1", "line 2"]);
        fs::remove_file(dir.join("a.log")).unwrap();
        followed.look().unwrap();
        assert!(!followed.has_vanished_for(Duration::ZERO).unwrap(), "they would be sent again");
        for name in ["a.log.1", "a.log.2"] {
            fs::remove_file(dir.join(name)).unwrap();
        }
        assert!(followed.has_vanished_for(Duration::ZERO).unwrap());
    }

    #[test]
    fn a_path_that_has_vanished_is_forgotten_when_all_of_it_has_arrived_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        fs::write(dir.join("a.log"), "one\n").unwrap();
        let mut followed = open(dir);
        assert!(!followed.has_vanished_for(Duration::ZERO).unwrap(), "it is there");
        fs::rename(dir.join("a.log"), dir.join("a.log.1")).unwrap();
        followed.look().unwrap();
        assert!(!followed.has_vanished_for(Duration::ZERO).unwrap(), "a line is not sent");
        drop(followed);
        let mut followed = open(dir);
        assert!(!followed.has_vanished_for(Duration::ZERO).unwrap(), "a line is not sent");
        assert_eq!(read(&mut followed).len(), 1);
        assert!(!followed.has_vanished_for(Duration::from_secs(600)).unwrap());
        drop(followed);

        // Since when is remembered.
        let marker = fs::File::options().write(true).open(dir.join("state/vanished")).unwrap();
        let before = std::time::SystemTime::now() - Duration::from_secs(700);
        marker.set_modified(before).unwrap();
        fs::write(dir.join("a.log"), "two\n").unwrap();
        let mut followed = open(dir);
        assert_eq!(read(&mut followed).len(), 1);
        assert!(!followed.has_vanished_for(Duration::ZERO).unwrap(), "it is there again");
        fs::remove_file(dir.join("a.log")).unwrap();
        followed.look().unwrap();
        assert!(!followed.has_vanished_for(Duration::from_secs(600)).unwrap());
        assert!(followed.has_vanished_for(Duration::ZERO).unwrap());
        followed.forget().unwrap();
        assert!(!dir.join("state").exists());
    }

    #[test]
    fn a_path_that_was_followed_from_its_end_keeps_its_state_while_there_are_rotated_files() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        fs::write(dir.join("a.log"), "old\n").unwrap();
        let mut followed = open_with(dir, Begin::AtEnd);
        fs::rename(dir.join("a.log"), dir.join("a.log.1")).unwrap();
        followed.look().unwrap();
        assert_eq!(read(&mut followed), [""; 0]);
        assert!(!followed.has_vanished_for(Duration::ZERO).unwrap(), "it would be sent as new");
        drop(followed);
        let mut followed = open_with(dir, Begin::WithRotated);
        assert_eq!(read(&mut followed), [""; 0]);
        fs::remove_file(dir.join("a.log.1")).unwrap();
        followed.look().unwrap();
        assert!(followed.has_vanished_for(Duration::ZERO).unwrap());
    }

    #[test]
    fn a_state_with_refused_documents_keeps_them() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let followed = open(dir);
        fs::write(dir.join("state/dead.jsonl"), "{}\n").unwrap();
        followed.forget().unwrap();
        let left: Vec<_> = fs::read_dir(dir.join("state")).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn what_is_removed_before_it_is_sent_is_counted_beyond_what_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let mut followed = open(dir);
        for n in 0..HELD + 2 {
            fs::write(dir.join("a.log"), format!("line {n}\n")).unwrap();
            followed.look_while_waiting().unwrap();
            fs::remove_file(dir.join("a.log")).unwrap();
            followed.look_while_waiting().unwrap();
        }
        assert_eq!((followed.take_lost(), followed.take_lost()), (2 * 7, 0));
    }
}
