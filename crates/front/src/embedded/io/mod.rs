//! Bytes and time: sockets, buffers, pipes, timers, signals between threads, log files.
//!
//! This room may use the system, tokio and `mfserv-logfile`. It must not know what a
//! request, a client, a worker or a route is, and it imports no other room.

pub mod budget;
pub mod buffer;
pub mod chunked;
pub mod clock;
pub mod error_log;
pub mod fastcgi;
pub mod log_file;
pub mod loopback;
pub mod pipe;
pub mod signal;
pub mod spool_file;
pub mod timer;
pub mod tls;
pub mod warnings;
pub mod wire;
