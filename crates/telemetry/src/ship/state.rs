//! What is remembered of one followed path: its generations, and how far each was acknowledged.
//!
//! Two files of its directory. `generations.json` is synced to the disk *before* the first line
//! of a generation is sent, so that a line never gets a second id. `positions.json` is written
//! *after* an acknowledgement and not synced: an older one only makes lines be sent again, which
//! the index then knows already.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::disk::{self, Lock, failed};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::content::Bytes;

const VERSION: u32 = 1;
const GENERATIONS: &str = "generations.json";
const POSITIONS: &str = "positions.json";
const LOCK: &str = "lock";
/// An empty file: the path has vanished, since this was made.
const VANISHED: &str = "vanished";

/// The directory of the state of a path: below a root, or beside it.
pub fn dir_of(root: Option<&Path>, path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match root {
        None => path.with_file_name(format!(".{name}.ship")),
        Some(root) => {
            let hash = mfserv_core::fingerprint::of(path.as_os_str().as_encoded_bytes());
            root.join(format!("{name}.{hash:016x}"))
        }
    }
}

/// The paths whose state is below a root.
pub fn paths_in(root: &Path) -> impl Iterator<Item = PathBuf> {
    #[derive(Deserialize)]
    struct Followed {
        path: PathBuf,
    }
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let text = fs::read(entry.path().join(GENERATIONS)).ok()?;
        serde_json::from_slice(&text).ok().map(|Followed { path }| path)
    })
}

/// A file from its first line to its last, whatever it is called meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// 32 random hexadecimal digits: the ids of its lines begin so.
    pub id: String,
    /// The inode number of the file that has its bytes.
    pub inode: u64,
    /// The first bytes.
    pub head: Bytes,
    /// Up to here it was acknowledged when this was stored.
    pub reached: Reached,
    /// A record that ended because nothing followed: where it ended.
    pub cut: Option<u64>,
    /// The time that lines without one of their own count for, from an offset on.
    pub times: Vec<Mark>,
}

/// How far a generation is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Bytes.
    pub position: u64,
    /// The bytes before that.
    pub tail: Bytes,
}

/// From an offset on, lines without a time count for this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The offset, bytes.
    pub from: u64,
    /// Milliseconds since the Unix epoch.
    pub ms: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Generations {
    version: u32,
    path: PathBuf,
    before: Vec<Earlier>,
    generations: Vec<Generation>,
}

/// A rotated file that was there before its path was followed, and is none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// Its inode number, which may be used again by a later file,
    pub inode: u64,
    /// and when it was made, nanoseconds since the Unix epoch.
    pub born_ns: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Positions {
    version: u32,
    positions: BTreeMap<String, Reached>,
}

/// The directory of a followed path, which no other process uses at the same time.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    path: PathBuf,
    before: Vec<Earlier>,
    _lock: Lock,
}

impl Store {
    /// Opens or makes the directory, and reads what it has: `None` if the path is followed for
    /// the first time.
    ///
    /// # Errors
    /// Kind `Refused` when another process uses it; otherwise what the disk says, or that the
    /// state cannot be understood.
    pub fn open(dir: &Path, path: &Path) -> Result<(Self, Option<Vec<Generation>>), Diagnostic> {
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(dir);
        made.map_err(|e| {
            failed("create", dir, e).help("name a directory that can be written: --state DIR")
        })?;
        let lock = Lock::take(&dir.join(LOCK), &path.display().to_string()).map_err(|e| {
            let other = e.kind == Kind::Refused;
            let help = "stop the other shipper, or give each a state of its own: --state DIR";
            if other { in_use(path, dir).help(help) } else { e }
        })?;
        let mut store =
            Self { dir: dir.to_owned(), path: path.to_owned(), before: Vec::new(), _lock: lock };
        let Some(known) = store.read::<Generations>(GENERATIONS)? else {
            return Ok((store, None));
        };
        store.before = known.before;
        // An unreadable one is as none: lines are sent again, and known already.
        let positions = store.read::<Positions>(POSITIONS).ok().flatten();
        let mut positions = positions.map(|file| file.positions).unwrap_or_default();
        let mut generations = known.generations;
        for generation in &mut generations {
            let later = positions.remove(&generation.id);
            let later = later.filter(|it| it.position > generation.reached.position);
            generation.reached = later.unwrap_or(std::mem::take(&mut generation.reached));
        }
        Ok((store, Some(generations)))
    }

    /// The path is followed for the first time: these rotated files are there, and these
    /// generations begin.
    ///
    /// # Errors
    /// What the disk says.
    pub fn begin(
        &mut self,
        before: Vec<Earlier>,
        generations: &[Generation],
    ) -> Result<(), Diagnostic> {
        self.before = before;
        self.sync(generations)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// When the path was found to have vanished, if it was.
    pub fn vanished(&self) -> Option<SystemTime> {
        fs::metadata(self.dir.join(VANISHED)).ok()?.modified().ok()
    }

    /// Stores that the path has vanished, now.
    ///
    /// # Errors
    /// What the disk says.
    pub fn set_vanished(&self) -> Result<SystemTime, Diagnostic> {
        let file = self.dir.join(VANISHED);
        fs::write(&file, "").map_err(|e| failed("write", &file, e))?;
        Ok(SystemTime::now())
    }

    /// Stores that the path is there again.
    ///
    /// # Errors
    /// What the disk says.
    pub fn set_present(&self) -> Result<(), Diagnostic> {
        disk::remove(&self.dir.join(VANISHED))
    }

    /// Removes what is stored. The directory stays if it has refused documents.
    ///
    /// # Errors
    /// What the disk says.
    pub fn remove(self) -> Result<(), Diagnostic> {
        for name in [GENERATIONS, POSITIONS, VANISHED, LOCK] {
            disk::remove(&self.dir.join(name))?;
        }
        // It has something else in it, then.
        let _ = fs::remove_dir(&self.dir);
        Ok(())
    }

    /// A file was there before the path was followed.
    pub fn was_before(&self, file: Earlier) -> bool {
        self.before.contains(&file)
    }

    /// Stores generations; returns when they survive a power cut.
    ///
    /// # Errors
    /// What the disk says: nothing may be sent then.
    pub fn sync(&self, generations: &[Generation]) -> Result<(), Diagnostic> {
        let stored = Generations {
            version: VERSION,
            path: self.path.clone(),
            before: self.before.clone(),
            generations: generations.to_vec(),
        };
        disk::write(&self.dir.join(GENERATIONS), &text(&stored))
    }

    /// Stores how far generations are acknowledged.
    ///
    /// # Errors
    /// What the disk says: the lines would be sent again by the next process.
    pub fn acknowledge(&self, generations: &[Generation]) -> Result<(), Diagnostic> {
        let each = |one: &Generation| (one.id.clone(), one.reached.clone());
        let positions =
            Positions { version: VERSION, positions: generations.iter().map(each).collect() };
        let file = self.dir.join(POSITIONS);
        disk::replace(&file, 0o600, &text(&positions)).map_err(|e| failed("write", &file, e))
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Diagnostic> {
        let file = self.dir.join(name);
        let bytes = match fs::read(&file) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed("read", &file, e)),
        };
        let bad = |why: String| {
            failed("read", &file, why).help(format!(
                "without it, each line of {} would be sent a second time: restore it from a \
                 backup, or remove {} to accept that",
                self.path.display(),
                self.dir.display()
            ))
        };
        let value: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        if value["version"] != VERSION {
            return Err(bad(format!("its version is {}, not {VERSION}", value["version"])));
        }
        serde_json::from_value(value).map(Some).map_err(|e| bad(e.to_string()))
    }
}

fn in_use(path: &Path, dir: &Path) -> Diagnostic {
    Diagnostic::error(format!("{} is being shipped by another process", path.display()))
        .kind(Kind::Refused)
        .because(format!("it holds {}", dir.join(LOCK).display()))
}

fn text<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation(position: u64) -> Generation {
        Generation {
            id: "a".repeat(32),
            inode: 7,
            head: Bytes(b"first\xff".to_vec()),
            reached: Reached { position, tail: Bytes(b"last".to_vec()) },
            cut: Some(3),
            times: vec![Mark { from: 0, ms: 5 }],
        }
    }

    #[test]
    fn what_is_stored_is_read_back_and_the_later_position_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (state, path) = (dir.path().join("s"), Path::new("/log/a"));
        let (mut store, known) = Store::open(&state, path).unwrap();
        assert!(known.is_none(), "it is followed for the first time");
        let earlier = Earlier { inode: 7, born_ns: 1 };
        store.begin(vec![earlier], &[generation(10)]).unwrap();
        store.acknowledge(&[generation(20)]).unwrap();
        let refused = Store::open(&state, path).unwrap_err();
        assert_eq!(refused.kind, Kind::Refused, "{refused}");
        drop(store);
        let (store, known) = Store::open(&state, path).unwrap();
        assert_eq!(known, Some(vec![generation(20)]));
        assert!(store.was_before(earlier));
        assert!(!store.was_before(Earlier { inode: 7, born_ns: 2 }), "its inode is used again");
        store.sync(&[generation(30)]).unwrap();
        drop(store);
        let position = || Store::open(&state, path).unwrap().1.unwrap()[0].reached.position;
        assert_eq!(position(), 30, "an older position does not count");
        fs::write(state.join(POSITIONS), "").unwrap();
        assert_eq!(position(), 30);
    }

    #[test]
    fn a_state_that_cannot_be_read_is_refused_and_not_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "{", r#"{"version":9}"#, r#"{"version":1,"generations":[{"head":"xx"}]}"#]
        {
            fs::write(dir.path().join(GENERATIONS), text).unwrap();
            let problem = Store::open(dir.path(), Path::new("/log/a")).unwrap_err();
            assert!(problem.help.unwrap().contains("second time"), "{text}");
        }
    }
}
