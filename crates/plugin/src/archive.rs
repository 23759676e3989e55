//! The `.plugin` file: one directory `metwork_plugin/`, packed.
//!
//! tar + zstd. `.manifest.json` comes first and says everything that follows;
//! then the two files that MFSERV reads, then the members, sorted. The
//! packages of MFSERV (gzip, no manifest) are read too.

mod collect;
mod left_out;
mod limits;
mod link_cycle;
mod manifest;
mod pack;
mod read;
mod safety_policy;
mod tar_stream;
mod unpack;

pub use limits::Limits;
pub use manifest::{Kind, MANIFEST, Manifest, Member};
pub(crate) use pack::pack_again;
pub use pack::{file_name, pack, pack_standalone};
pub(crate) use read::read_metadata;
pub use read::{Metadata, Package, read, read_installed};
pub use unpack::{Inspected, inspect, unpack};

/// The single top directory of a package.
pub(crate) const TOP: &str = "metwork_plugin";
/// MFSERV's description.
pub(crate) const METADATA: &str = ".metadata.json";
/// MFSERV's list of files.
pub(crate) const FILES: &str = ".files.json";
/// The most that each of the three descriptions may hold, bytes.
pub(crate) const LARGEST_DESCRIPTION: u64 = 64 * 1024 * 1024;
