//! Files that may hold secrets.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use mfserv_core::Diagnostic;

use crate::disk;

/// Replaces a file as [`disk::write`] does; one that was not there is made so that only its owner
/// can read it.
pub fn write(path: &Path, text: &[u8]) -> Result<(), Diagnostic> {
    disk::write_or_create(path, 0o600, text)
}

/// The bytes of a file that only its owner may read. One that others may read too, as a backup
/// brings it back, is closed to them.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        // Whoever is not its owner cannot, and may only read it.
        let _ = file.set_permissions(fs::Permissions::from_mode(0o600));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_file_is_made_private_and_one_that_was_there_keeps_its_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        write(&path, b"1").unwrap();
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        write(&path, b"2").unwrap();
        assert_eq!((mode(), fs::read(&path).unwrap()), (0o640, b"2".to_vec()));
        write(&folder.path().join("no directory/x"), b"3").unwrap_err();
    }

    #[test]
    fn a_private_file_that_is_made_is_never_seen_before_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<_> = (0..20).map(|i| folder.path().join(i.to_string())).collect();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| paths.iter().for_each(|path| write(path, b"1").unwrap()));
            while !writer.is_finished() {
                for path in &paths {
                    assert_ne!(fs::read(path).ok(), Some(Vec::new()));
                }
            }
        });
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), paths.len());
    }

    #[test]
    fn a_private_file_that_others_may_read_is_closed_to_them_when_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "1").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read(&path).unwrap(), b"1");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&folder.path().join("x")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
