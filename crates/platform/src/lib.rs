//! What the operating system gives, in one place each: files that are replaced whole
//! ([`disk`]), the clock ([`clock`]), locks ([`sync`]) and sockets that carry messages
//! ([`link`]).

#![forbid(unsafe_code)]

pub mod clock;
pub mod disk;
pub mod link;
pub mod private;
pub mod sync;
