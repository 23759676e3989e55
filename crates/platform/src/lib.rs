//! What the operating system gives, in one place each: files that are written whole
//! ([`disk`]) and the clock ([`clock`]).

#![forbid(unsafe_code)]

pub mod clock;
pub mod disk;
