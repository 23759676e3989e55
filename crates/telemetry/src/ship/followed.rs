//! One followed path: the files that have or had its name, read from where the last reading was
//! acknowledged.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use mfserv_core::Diagnostic;
use mfserv_platform::clock::now_ms;
use mfserv_platform::disk::failed;

mod gone;

use super::content::{self, Look, Source, changed_ns};
use super::known::{CHUNK, Known};
use super::names::{is_compressed, is_rotated};
use super::records::{End, Lines, Record, records};
use super::state::{Generation, Mark, Reached, Store};

/// A message is complete when nothing has followed for this long.
const QUIET: Duration = Duration::from_secs(1);
/// The directory is looked through at least this often.
const SCAN: Duration = Duration::from_secs(10);
/// The time of a directory is coarse: two changes within this time may look like one.
const COARSE_NS: i64 = 100_000_000;

/// Complete records of a generation.
pub struct Part<'a> {
    /// The generation.
    pub generation: &'a str,
    /// The inode number of its file.
    pub inode: u64,
    /// Where the bytes begin that the records are of, in the file.
    pub base: u64,
    /// The records.
    pub records: Vec<Record<'a>>,
    /// What lines without a time of their own count for.
    pub times: &'a [Mark],
}

/// What is read of a path that is followed for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// What it gets from now on.
    AtEnd,
    /// What it has.
    WithLive,
    /// What it has, after what its rotated files have.
    WithRotated,
}

/// A followed path.
pub struct Followed {
    path: PathBuf,
    name: String,
    lines: Lines,
    begin: Begin,
    store: Store,
    known: Vec<Known>,
    /// The time of the directory when it was looked through, and when that was.
    scanned: Option<(i64, Instant)>,
    must_scan: bool,
    /// Something is to be synced before anything is sent.
    must_sync: bool,
    has_moved: bool,
    /// Bytes that can never be sent.
    lost: u64,
    /// No file has the name, and nothing is left to read, since then.
    vanished: Option<SystemTime>,
}

impl Followed {
    /// Follows a path with the state of a directory.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub fn open(path: &Path, state: &Path, lines: Lines, begin: Begin) -> Result<Self, Diagnostic> {
        let (store, generations) = Store::open(state, path)?;
        let (is_first, vanished) = (generations.is_none(), store.vanished());
        let mut followed = Self {
            path: path.to_owned(),
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            lines,
            begin,
            store,
            known: generations.into_iter().flatten().map(Known::stored).collect(),
            scanned: None,
            must_scan: true,
            must_sync: false,
            has_moved: false,
            lost: 0,
            vanished,
        };
        if is_first {
            let mut rotated = followed.rotated_files().unwrap_or_default();
            rotated.retain(|_| begin != Begin::WithRotated);
            if begin == Begin::AtEnd {
                followed.begin_at_end().map_err(|e| failed("read", path, e))?;
            }
            // Both at once: who is killed between them would find no end, and send everything.
            let before = rotated.iter().map(|(look, _)| look.earlier()).collect();
            followed.store.begin(before, &followed.stored())?;
        }
        Ok(followed)
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of its state.
    pub fn state(&self) -> &Path {
        self.store.dir()
    }

    fn begin_at_end(&mut self) -> io::Result<()> {
        let Ok(file) = Source::plain(&self.path) else { return Ok(()) };
        let end = content::end_of_last_line(&file)?;
        let tail = content::tail(&file, end)?;
        let mut known = Known::begin(file)?;
        known.read = Reached { position: end, tail };
        known.stored.reached = known.read.clone();
        self.add_live(known);
        Ok(())
    }

    /// Finds out which files there are: the live one, rotated ones with an unread rest.
    ///
    /// # Errors
    /// What the operating system says; it is tried again at the next look.
    pub fn look(&mut self) -> io::Result<()> {
        self.look_at_live()?;
        if self.is_scan_due() {
            self.scan()?;
        }
        self.begin_live()?;
        self.forget_gone();
        Ok(())
    }

    /// Finds that the file with the followed name was renamed, removed or truncated, and which
    /// known one has that name now.
    fn look_at_live(&mut self) -> io::Result<()> {
        let named = match Source::plain(&self.path) {
            Ok(file) => Some((file.look()?, file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let inode = named.as_ref().map(|(look, _)| look.inode);
        if let Some(known) = self.known.iter_mut().find(|known| known.is_live) {
            let is_named = inode == Some(known.stored.inode);
            if is_named && known.has_its_bytes()? {
                return Ok(());
            }
            known.is_live = false;
            if is_named {
                // Truncated: its bytes may be in a copy.
                known.lose();
            }
            self.must_scan = true;
        }
        let Some((look, file)) = named else { return Ok(()) };
        for known in &mut self.known {
            if known.stored.inode == look.inode && known.fits(&file)? {
                known.attach(file, look);
                known.is_live = true;
                return Ok(());
            }
        }
        Ok(())
    }

    /// The file with the followed name begins a generation if it is none of the known ones.
    fn begin_live(&mut self) -> io::Result<()> {
        if self.known.iter().any(|known| known.is_live) {
            return Ok(());
        }
        let Ok(file) = Source::plain(&self.path) else { return Ok(()) };
        let look = file.look()?;
        for known in self.known.iter().filter(|known| known.stored.inode == look.inode) {
            if known.file.is_some() || known.fits(&file)? {
                // It has just been given this name: the next look finds it.
                return Ok(());
            }
        }
        if look.size > 0 {
            self.add_live(Known::begin(file)?);
        }
        Ok(())
    }

    fn add_live(&mut self, mut known: Known) {
        known.is_live = true;
        self.known.push(known);
        self.must_sync = true;
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    fn is_scan_due(&self) -> bool {
        let Some((changed, when)) = self.scanned else { return true };
        let now = std::fs::metadata(self.directory()).map_or(changed, |meta| changed_ns(&meta));
        self.must_scan || now != changed || when.elapsed() > SCAN
    }

    /// Looks through the directory for files with rotated names: those of known generations,
    /// copies of them, and files that were live while nobody looked.
    fn scan(&mut self) -> io::Result<()> {
        let now = i64::try_from(now_ms()).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        let changed = changed_ns(&std::fs::metadata(self.directory())?);
        let found = self.rotated_files()?;
        let strangers = self.recognise(found)?;
        let place = self.known.len();
        for (look, file) in strangers {
            self.meet(look, file, place)?;
        }
        self.must_scan = now.saturating_sub(changed) < COARSE_NS;
        self.scanned = Some((changed, Instant::now()));
        Ok(())
    }

    /// The files with rotated names, the newest first: of several copies it is the last
    /// one that has the rest.
    fn rotated_files(&self) -> io::Result<Vec<(Look, Source)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.directory())?.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if !is_file || !is_rotated(&name, &self.name) {
                continue;
            }
            let file = match is_compressed(&name) {
                true => Source::compressed(&entry.path()),
                false => Source::plain(&entry.path()),
            };
            // It may have another name by now: then the next scan finds it. Or it is compressed
            // in a way that is not ours.
            if let Ok(file) = file {
                found.push((file.look()?, file));
            }
        }
        found.sort_by_key(|(look, _)| std::cmp::Reverse(look.changed_ns));
        Ok(found)
    }

    /// Gives known generations their files; returns the files that are of none.
    fn recognise(&mut self, found: Vec<(Look, Source)>) -> io::Result<Vec<(Look, Source)>> {
        for known in self.known.iter_mut().filter(|known| !known.is_live) {
            if known.file.is_none() {
                known.missing = known.missing.or(Some(Instant::now()));
            } else if !known.has_its_bytes()? {
                known.lose();
            }
        }
        let mut strangers = Vec::new();
        for (look, file) in found {
            let mut owner = None;
            for known in self.known.iter_mut().filter(|known| known.stored.inode == look.inode) {
                if known.file.is_some() || known.fits(&file)? {
                    owner = Some(known);
                    break;
                }
            }
            match owner {
                Some(known) if known.file.is_none() => {
                    known.missing = None;
                    if !known.is_as_seen(look) {
                        known.attach(file, look);
                    }
                }
                Some(_) => {}
                None => strangers.push((look, file)),
            }
        }
        Ok(strangers)
    }

    /// A file that is of no known generation: a copy of one, or one that was live while nobody
    /// looked. Those of a scan come the newest first, and are read the oldest first.
    fn meet(&mut self, look: Look, file: Source, place: usize) -> io::Result<()> {
        for known in &mut self.known {
            let is_copy = match &known.file {
                Some(original) => content::is_beginning_of(&file, original)?,
                None => known.was_copied_to(&file, look)?,
            };
            if is_copy {
                if known.missing.is_some() {
                    known.attach(file, look);
                    self.must_sync = true;
                }
                return Ok(());
            }
        }
        // A compressed one may be older than the first look, whatever its inode says.
        let is_new = !file.is_compressed() && !self.store.was_before(look.earlier());
        if look.size > 0 && is_new {
            self.known.insert(place, Known::begin(file)?);
            self.must_sync = true;
        }
        Ok(())
    }

    /// Reads one piece of a file that has grown, and hands its complete records over. Returns
    /// whether there were any. With `is_last`, nothing more is waited for.
    /// `same_index` tells whether two times (milliseconds) lead to the same index.
    ///
    /// # Errors
    /// What the operating system says; nothing is lost.
    pub fn read(
        &mut self,
        is_last: bool,
        same_index: &mut dyn FnMut(i64, i64) -> bool,
        each: &mut dyn FnMut(&Part<'_>),
    ) -> io::Result<bool> {
        for known in &mut self.known {
            let Some(bytes) = known.next_bytes()? else { continue };
            self.must_sync |= known.extend_head()?;
            let base = known.read.position;
            let is_quiet = bytes.len() < CHUNK && (is_last || known.is_quiet_for(QUIET));
            let cut = known.stored.cut.and_then(|cut| cut.checked_sub(base));
            let end = End { is_quiet, cut: cut.and_then(|cut| usize::try_from(cut).ok()) };
            let records = records(&bytes, self.lines, end);
            let Some(last) = records.last() else {
                known.found_nothing();
                continue;
            };
            let length = last.start + last.bytes.len();
            if self.lines == Lines::Grouped && is_quiet {
                // With many records there may be one behind these, stored by an earlier process.
                known.stored.cut = known.stored.cut.max(Some(base + length as u64));
                self.must_sync = true;
            }
            self.must_sync |= known.mark(base, same_index);
            let Generation { id, inode, times, .. } = &known.stored;
            each(&Part { generation: id, inode: *inode, base, records, times });
            known.advance(&bytes[..length]);
            self.has_moved = true;
            return Ok(true);
        }
        Ok(false)
    }

    /// Stores what must survive before anything of it is sent.
    ///
    /// # Errors
    /// What the disk says: nothing may be sent.
    pub fn sync(&mut self) -> Result<(), Diagnostic> {
        if self.must_sync {
            self.known.iter_mut().for_each(Known::forget_marks);
            self.store.sync(&self.stored())?;
            self.must_sync = false;
        }
        Ok(())
    }

    /// Stores that all that was read has arrived.
    ///
    /// # Errors
    /// What the disk says: a later process would send it again.
    pub fn acknowledge(&mut self) -> Result<(), Diagnostic> {
        if std::mem::take(&mut self.has_moved) {
            for known in &mut self.known {
                known.stored.reached = known.read.clone();
            }
            self.store.acknowledge(&self.stored())?;
        }
        Ok(())
    }

    /// An id of a document is of this path.
    pub fn owns(&self, id: &str) -> bool {
        self.known.iter().any(|known| id.starts_with(&known.stored.id))
    }

    /// Bytes that are there and not read: those of a last line without an end.
    pub fn unread(&self) -> u64 {
        self.known.iter().map(Known::unread).sum()
    }

    /// Bytes that have not arrived yet, as far as is known.
    pub fn unacknowledged(&self) -> u64 {
        self.known.iter().map(Known::unacknowledged).sum()
    }

    fn stored(&self) -> Vec<Generation> {
        self.known.iter().map(|known| known.stored.clone()).collect()
    }
}

#[cfg(test)]
mod tests;
