//! The packages of an app with those for development, kept beside the deployed ones, which have none:
//! the next deployment builds with them and installs nothing again.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use mfserv_core::Diagnostic;
use mfserv_platform::disk;

use super::MARK;
use crate::generate::beside_place;

/// Where they are kept, beside the directory that the plugin is made in.
pub const KEPT_MODULES: &str = "modules";

fn place(dir: &Path) -> Option<PathBuf> {
    dir.parent().map(|plugin| beside_place(plugin, KEPT_MODULES))
}

/// Brings them back in place of those that were deployed.
pub(super) fn bring_back(dir: &Path) -> Result<(), Diagnostic> {
    let modules = dir.join("node_modules");
    let Some(kept) = place(dir).filter(|kept| kept.is_dir()) else { return Ok(()) };
    if modules.join(MARK).is_file() {
        return Ok(());
    }
    disk::remove(&modules)?;
    fs::rename(&kept, &modules).map_err(|e| disk::failed("move", &kept, e))
}

/// Keeps them, before those for development are removed.
pub(super) fn keep(dir: &Path) -> Result<(), Diagnostic> {
    let Some(kept) = place(dir) else { return Ok(()) };
    disk::remove(&kept)?;
    let failed = |e| disk::failed("copy", &dir.join("node_modules"), e);
    link_tree(&dir.join("node_modules"), &kept, true).map_err(failed)
}

/// The same files, without their content a second time. Notes of the tools, which they write
/// again in place, are copied: hidden files at the top.
fn link_tree(from: &Path, to: &Path, is_top: bool) -> std::io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        let is_note = is_top && entry.file_name().to_string_lossy().starts_with('.');
        if kind.is_dir() {
            link_tree(&source, &target, false)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else if is_note || fs::hard_link(&source, &target).is_err() {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_for_development_come_back_after_they_were_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("shop/main");
        let modules = dir.join("node_modules");
        fs::create_dir_all(modules.join("tool/bin")).unwrap();
        fs::write(modules.join("tool/bin/run"), "1").unwrap();
        fs::write(modules.join(MARK), "all").unwrap();
        symlink("tool/bin/run", modules.join("run")).unwrap();
        keep(&dir).unwrap();
        fs::remove_dir_all(modules.join("tool")).unwrap();
        fs::write(modules.join(MARK), "fewer").unwrap();
        fs::remove_file(modules.join(MARK)).unwrap();
        bring_back(&dir).unwrap();
        assert_eq!(fs::read_to_string(modules.join("run")).unwrap(), "1");
        assert_eq!(fs::read_to_string(modules.join(MARK)).unwrap(), "all");
        assert!(!place(&dir).unwrap().exists());
        bring_back(&dir).unwrap();
        assert!(modules.join("tool").is_dir());
    }
}
