//! The workers of the apps: who is admitted, which request gets which worker, and the way
//! of a request to a worker and of the answer back.
//!
//! This room may use `io`, the codec, and the [`Exchange`] of `clients`; it must not write
//! bytes to a client otherwise, and must not know of routes, files or lanes. What is
//! decided about slots and queues is in `mfserv_core::peers`; it is carried out here.
//!
//! [`Exchange`]: crate::embedded::clients::exchange::Exchange

pub mod destination;
mod failure;
pub mod fastcgi;
pub mod forward;
pub mod heads;
pub mod pool;
mod relay;
pub mod sendfile;
mod spool;
pub mod stripped;
mod tunnel;
mod upload;
pub mod upstream;
mod wakeups;
