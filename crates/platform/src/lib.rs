//! What the operating system gives, in one place each: files that are replaced whole
//! ([`disk`]), the clock ([`clock`]) and locks ([`sync`]).

#![forbid(unsafe_code)]

pub mod clock;
pub mod disk;
pub mod sync;
