//! The control link: HTTP and JSON over `var/run/control.sock` (0600).

pub mod client;
pub mod protocol;
pub mod server;
