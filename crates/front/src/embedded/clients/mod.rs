//! A client: its connection, and each request on it with its answer.
//!
//! [`connection::Connection`] has the bytes and decides how long a client is waited for;
//! [`exchange::Exchange`] is one request with its answer, and all that other rooms may
//! read from a client or write to it. This room may use `io` and the codec
//! (`mfserv-h1`), and is the only one that writes bytes of HTTP to a client; it must not
//! know of routes, files, workers or lanes.
//!
//! HTTP/2 will be a second connection beside `connection.rs` and a second codec beside
//! `http1.rs`, with one exchange per stream.

pub mod access_log;
pub mod answer;
pub mod connection;
pub mod edge;
pub mod exchange;
pub mod fault;
pub mod http1;
pub mod idle_eviction;
pub mod real_ip;
pub mod trace;
