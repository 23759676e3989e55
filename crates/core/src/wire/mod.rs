//! The protocols between the roles, as data.
//!
//! Keeper and front links: frames of a 4-byte big-endian length and that many
//! bytes of JSON, at most [`frame::MAX_FRAME`]. Each side first sends its
//! `Hello` with its version ([`VERSION`], [`front::VERSION`]); unknown fields are ignored, so that an older keeper
//! or front works with a newer daemon.

pub mod frame;
pub mod front;
pub mod keeper;
pub mod metrics;
mod peer;

/// The version of the keeper protocol.
pub const VERSION: u32 = 1;
