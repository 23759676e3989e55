//! What answers a request: the routes in force, and of the route it matches an app, a
//! directory, a fixed answer; or one of the front's own endpoints, or an extension.
//!
//! This room may use every room but `lanes`; it must not write bytes to a client or to a
//! worker itself ([`Exchange`] and `workers::forward` do), and must not accept
//! connections or start threads.
//!
//! [`Exchange`]: crate::embedded::clients::exchange::Exchange

pub mod browsers;
pub mod counts;
mod endpoints;
pub mod extensions;
mod faults;
pub mod gauge;
mod https;
pub mod lane;
mod request_id;
mod sendfile;
pub mod serve;
pub mod state;
