//! What the operating system gives, in one place each: files that are replaced whole
//! ([`disk`]), the clock ([`clock`]), locks ([`sync`]), sockets that listen ([`socket`]) and that carry
//! messages ([`link`]), and what the kernel says of processes and the machine ([`proc`]).

#![forbid(unsafe_code)]

pub mod clock;
pub mod disk;
pub mod link;
pub mod private;
pub mod proc;
pub mod socket;
pub mod sync;
