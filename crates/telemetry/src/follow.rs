//! The lines that come, through rotation, truncation and late births of files.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::tail::lines_of;

/// The longest line that is kept together, bytes.
const LONGEST_LINE: usize = 1024 * 1024;

/// Is given a line: path, inode, place in the file, bytes.
type Each<'a> = dyn FnMut(&Path, u64, u64, &[u8]) + 'a;

/// Follows some files.
pub struct Follower {
    files: Vec<Followed>,
}

struct Followed {
    path: PathBuf,
    file: Option<File>,
    inode: u64,
    position: u64,
    /// The beginning of a line that is not whole yet.
    partial: Vec<u8>,
}

impl Follower {
    /// Follows each file from the given position on. One that does not exist yet is
    /// followed from its beginning once it does.
    pub fn new(files: impl IntoIterator<Item = (PathBuf, u64)>) -> Self {
        let followed = |(path, position): (PathBuf, u64)| {
            let file = File::open(&path).ok();
            let inode = file.as_ref().and_then(|f| f.metadata().ok()).map_or(0, |m| m.ino());
            Followed { path, file, inode, position, partial: Vec::new() }
        };
        Follower { files: files.into_iter().map(followed).collect() }
    }

    /// Follows one more file, from its beginning, unless it is followed already.
    pub fn add(&mut self, path: PathBuf) {
        self.add_from(path, 0);
    }

    /// The same, from this position on.
    pub fn add_from(&mut self, path: PathBuf, position: u64) {
        if !self.files.iter().any(|followed| followed.path == path) {
            self.files.extend(Follower::new([(path, position)]).files);
        }
    }

    /// Gives each line that has come since the last call, its bytes as they are; returns how
    /// many there were.
    pub fn poll(&mut self, each: &mut dyn FnMut(&Path, &[u8])) -> usize {
        self.poll_lines(&mut |path, _, _, line| each(path, line))
    }

    /// The same, each line with the inode of its file and its place there.
    pub fn poll_lines(&mut self, each: &mut Each<'_>) -> usize {
        self.files.iter_mut().map(|followed| followed.poll(each)).sum()
    }
}

impl Followed {
    fn poll(&mut self, each: &mut Each<'_>) -> usize {
        let mut count = self.read(each);
        if self.was_replaced() {
            // The old file may have grown between the two looks, by more than is read at once.
            loop {
                let before = self.position;
                count += self.read(each);
                if self.position == before {
                    break;
                }
            }
            self.file = None;
            self.position = 0;
            count += self.read(each);
        }
        count
    }

    /// Another file has taken the name.
    fn was_replaced(&self) -> bool {
        let now = std::fs::metadata(&self.path).map(|meta| meta.ino());
        self.file.is_some() && now.is_ok_and(|inode| inode != self.inode)
    }

    fn read(&mut self, each: &mut Each<'_>) -> usize {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
            self.inode = self.length_and_inode().1;
        }
        let (length, _) = self.length_and_inode();
        let Some(file) = &mut self.file else { return 0 };
        if length < self.position {
            // Truncated in place.
            self.position = 0;
            self.partial.clear();
        }
        let mut fresh = Vec::new();
        let read = file
            .seek(SeekFrom::Start(self.position))
            .and_then(|_| file.take(16 << 20).read_to_end(&mut fresh));
        if read.is_err() || fresh.is_empty() {
            return 0;
        }
        self.position += fresh.len() as u64;
        self.partial.append(&mut fresh);
        self.give_lines(each)
    }

    fn length_and_inode(&self) -> (u64, u64) {
        let meta = self.file.as_ref().and_then(|file| file.metadata().ok());
        meta.map_or((0, 0), |meta| (meta.len(), meta.ino()))
    }

    fn give_lines(&mut self, each: &mut Each<'_>) -> usize {
        let whole = match self.partial.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if self.partial.len() > LONGEST_LINE => self.partial.len(),
            None => return 0,
        };
        let begin = self.position.saturating_sub(self.partial.len() as u64);
        let lines: Vec<u8> = self.partial.drain(..whole).collect();
        let mut count = 0;
        for line in lines_of(&lines) {
            let place = begin + (line.as_ptr() as usize - lines.as_ptr() as usize) as u64;
            each(&self.path, self.inode, place, line);
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn append(path: &Path, text: &str) {
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn lines_are_followed_through_rotation_truncation_and_late_birth() {
        let dir = std::env::temp_dir().join(format!("mfserv-follow-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("a.log");
        let mut follower = Follower::new([(path.clone(), 0)]);
        let mut take = || {
            let mut lines = Vec::new();
            follower.poll(&mut |_, line| lines.push(String::from_utf8_lossy(line).into_owned()));
            lines
        };
        assert!(take().is_empty(), "it does not exist yet");
        append(&path, "one\ntw");
        assert_eq!(take(), ["one"]);
        append(&path, "o\n");
        assert_eq!(take(), ["two"]);
        append(&path, "last of the old\n");
        std::fs::rename(&path, dir.join("a.log.1")).unwrap();
        append(&path, "first of the new\n");
        assert_eq!(take(), ["last of the old", "first of the new"]);
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        append(&path, "x\n");
        assert_eq!(take(), ["x"]);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
