//! What nginx says in its error log while it is to take a configuration.
//!
//! `nginx -t` does less than nginx does: it runs no Lua and forgives a port that is taken. So the
//! reason of a refusal may be in the log alone.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::process::Pid;

/// No more is read at once. Workers write into the same file.
const READ_MAX: u64 = 256 * 1024;

/// The lines that are added to the error log from now on.
pub struct Said {
    path: PathBuf,
    /// The log; it is read to its end also when another one has its name.
    file: Option<File>,
    at: u64,
    /// The last line about an address that is taken: nginx tries five times before it gives up.
    bind: Option<String>,
}

impl Said {
    /// What is there already does not count.
    pub fn from_now(path: &Path) -> Self {
        let file = File::open(path).ok();
        let at = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |found| found.len());
        Self { path: path.to_owned(), file, at, bind: None }
    }

    /// Why the master of this id has refused a configuration, if it has said so.
    pub fn refusal(&mut self, master: Pid) -> Option<String> {
        loop {
            while let Some(lines) = self.new_lines() {
                let found = lines.lines().find_map(|line| self.judged(line, master));
                if found.is_some() {
                    return found;
                }
            }
            self.next_file()?;
        }
    }

    /// Goes on with the file that has the name now: it was rotated, or made by nginx. `None` if
    /// that is the one of before.
    fn next_file(&mut self) -> Option<()> {
        let next = File::open(&self.path).ok()?;
        let inode = |file: &File| file.metadata().ok().map(|found| found.ino());
        if self.file.as_ref().is_some_and(|file| inode(file) == inode(&next)) {
            return None;
        }
        (self.file, self.at) = (Some(next), 0);
        Some(())
    }

    fn judged(&mut self, line: &str, master: Pid) -> Option<String> {
        let id = format!("{}#", master.as_raw_nonzero());
        let is_of = |level: &str| line.contains(&format!(" [{level}] {id}"));
        // Lua that fails at load has no level of its own.
        let is_lua = is_of("error") && line.contains("init_by_lua error");
        if !is_of("emerg") && !is_lua {
            return None;
        }
        if line.contains("still could not bind()") {
            return Some(self.bind.take().unwrap_or_else(|| line.to_string()));
        }
        if line.contains(" bind() to ") {
            self.bind = Some(line.to_string());
            return None;
        }
        Some(line.to_string())
    }

    /// Whole lines that were not read yet.
    fn new_lines(&mut self) -> Option<String> {
        let file = self.file.as_ref()?;
        let length = file.metadata().ok()?.len();
        if length <= self.at {
            return None;
        }
        let mut bytes = vec![0; usize::try_from((length - self.at).min(READ_MAX)).ok()?];
        let count = file.read_at(&mut bytes, self.at).ok()?;
        bytes.truncate(count);
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        // A line without an end that fills everything is no line of nginx.
        let whole = if whole == 0 && count as u64 == READ_MAX { count } else { whole };
        if whole == 0 {
            return None;
        }
        bytes.truncate(whole);
        self.at += whole as u64;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    #[test]
    fn only_new_lines_of_this_master_that_refuse_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let add = |text: &str| {
            let mut file = File::options().create(true).append(true).open(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        add("2026/01/31 12:00:00 [emerg] 5#5: of before\n");
        let mut said = Said::from_now(&path);
        let pid = Pid::from_raw(5).unwrap();
        let mut heard = |text: &str| {
            add(text);
            said.refusal(pid).map(|line| line[20..].to_string())
        };
        assert_eq!(heard(""), None);
        assert_eq!(heard("2026/01/31 12:00:00 [emerg] 55#5: of another\n"), None);
        assert_eq!(heard("2026/01/31 12:00:00 [error] 5#5: *1 of a request\n"), None);
        assert_eq!(heard("2026/01/31 12:00:00 [emerg] 5#5: half"), None);
        assert_eq!(heard(" a line\n").as_deref(), Some("[emerg] 5#5: half a line"));
        let bind = "2026/01/31 12:00:00 [emerg] 5#5: bind() to 0.0.0.0:80 failed (98: in use)\n";
        assert_eq!(heard(bind), None);
        let given_up = heard("2026/01/31 12:00:00 [emerg] 5#5: still could not bind()\n");
        assert_eq!(given_up.as_deref(), Some(bind[20..].trim_end()));
        let lua = "2026/01/31 12:00:00 [error] 5#5: init_by_lua error: x\n";
        assert_eq!(heard(lua).as_deref(), Some(lua[20..].trim_end()));
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        assert_eq!(heard(&format!("{lua}{bind}")).as_deref(), Some(lua[20..].trim_end()));
        // What was said just before a rotation is read too.
        add(lua);
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        assert_eq!(heard(&bind.replace("5#5", "6#6")).as_deref(), Some(lua[20..].trim_end()));
    }
}
