//! How large a package may be.

/// What a package may unpack to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The bytes of all files together.
    pub bytes: u64,
    /// The number of files, directories and links.
    pub members: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 4 << 30, members: 500_000 }
    }
}

impl Limits {
    /// The longest tar stream of a package: a header and some filling per member,
    /// and long names for some of them.
    pub(super) fn stream(&self) -> u64 {
        self.bytes
            .saturating_add((self.members as u64).saturating_mul(4096))
            .saturating_add(1 << 20)
    }
}
