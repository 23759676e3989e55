//! What the operating system gives, in one place each: files that are replaced whole
//! ([`disk`]), the clock ([`clock`]), locks ([`sync`]), sockets that listen ([`socket`]) and that carry
//! messages ([`link`]), ports of the loopback address ([`loopback`]), and what the kernel says of processes, their memory, the machine and the cgroups
//! around them ([`proc`], [`memory`], [`cgroup`]).

#![forbid(unsafe_code)]

pub mod cgroup;
pub mod clock;
pub mod disk;
pub mod link;
pub mod loopback;
pub mod memory;
pub mod private;
pub mod proc;
pub mod socket;
pub mod sync;
