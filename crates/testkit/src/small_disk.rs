//! A small file system of its own, for tests of a full disk.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::skipped;

/// A file system of some megabytes in memory; gone when dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it on a directory, which is made. `None`, with the reason, where none can be mounted:
    /// then `what` is not tested.
    ///
    /// # Panics
    /// When the directory cannot be made.
    pub fn new(directory: PathBuf, megabytes: u32, what: &str) -> Option<Self> {
        fs::create_dir_all(&directory).expect("a directory for a file system");
        let options = CString::new(format!("size={megabytes}m,mode=0700")).expect("options");
        let options = options.as_c_str();
        if let Err(why) = mount("none", &directory, "tmpfs", MountFlags::empty(), options) {
            skipped(&format!("{what}: no small file system can be mounted: {why}"));
            return None;
        }
        Some(Self(directory))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves room for so many bytes.
    ///
    /// # Panics
    /// When its file cannot be made.
    pub fn fill(&self, but: u64) {
        let mut file = File::create(self.0.join("of others")).expect("a file");
        while file.write_all(&[0; 4096]).is_ok() {}
        let length = file.metadata().expect("its length").len();
        file.set_len(length - but).expect("another length");
        assert_eq!(self.free(), but);
    }

    /// Takes away what filled it.
    ///
    /// # Panics
    /// When it was not filled.
    pub fn make_room(&self) {
        fs::remove_file(self.0.join("of others")).expect("it was filled");
    }

    /// The free bytes: files that have no name any more take theirs.
    ///
    /// # Panics
    /// When the kernel does not say.
    pub fn free(&self) -> u64 {
        let system = rustix::fs::statvfs(&self.0).expect("a file system");
        system.f_bavail * system.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}
