//! Files without a name, for what has no room in memory.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Of a file system, one part in so many is left free: logs and releases need it.
const LEFT_FREE: u64 = 20;
/// Why nothing is written when no more than that is free.
const IS_RESERVED: &str =
    "less than a twentieth (5 %) of the file system is free, which is left to logs and releases";

/// Makes a file that has no name, in a directory that is made if need be: the file is gone
/// when it is closed.
pub fn create(directory: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let open = || -> io::Result<File> {
        Ok(rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR)?.into())
    };
    let made = open().or_else(|why| match why.kind() {
        io::ErrorKind::NotFound => std::fs::create_dir_all(directory).and_then(|()| open()),
        _ => Err(why),
    });
    // Some file systems know no file without a name.
    made.or_else(|_| create_and_remove(directory))
}

/// Makes a file and removes its name.
fn create_and_remove(directory: &Path) -> io::Result<File> {
    let mut tries = 0;
    let (file, path) = loop {
        let name = format!(".body-{:016x}", RandomState::new().hash_one(std::process::id()));
        let path = directory.join(name);
        let mut options = OpenOptions::new();
        match options.read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => break (file, path),
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists && tries < 8 => tries += 1,
            Err(why) => return Err(why),
        }
    };
    std::fs::remove_file(path)?;
    Ok(file)
}

/// An error if the file system of a file has only the room that is left free.
pub fn check_room(file: impl AsFd) -> io::Result<()> {
    let system = rustix::fs::fstatvfs(file)?;
    match system.f_bavail < system.f_blocks / LEFT_FREE {
        true => Err(io::Error::new(io::ErrorKind::StorageFull, IS_RESERVED)),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_spool_file_has_no_name_is_private_and_its_directory_is_made() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("not/there");
        for make in [create, create_and_remove] {
            let mut file = make(&directory).unwrap();
            file.write_all(b"content").unwrap();
            file.rewind().unwrap();
            let mut content = String::new();
            file.read_to_string(&mut content).unwrap();
            assert_eq!(content, "content");
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
            let system = rustix::fs::fstatvfs(&file).unwrap();
            let has_room = system.f_bavail * 20 >= system.f_blocks;
            assert_eq!(check_room(&file).is_ok(), has_room);
        }
    }
}
