//! Files that may hold secrets.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use mfserv_core::Diagnostic;

use crate::disk;

/// Replaces a file as [`disk::write`] does; one that was not there is made so that only its owner
/// can read it.
pub fn write(path: &Path, text: &[u8]) -> Result<(), Diagnostic> {
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    disk::write(path, text).inspect_err(|_| {
        if made.is_ok() {
            let _ = fs::remove_file(path);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

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
}
