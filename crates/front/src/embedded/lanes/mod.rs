//! The threads that serve clients, and how connections come to them.
//!
//! This room may use every other room of the front but the control link; it must not look
//! into a request. A lane is one thread with its reactor: it serves the clients that it is
//! given, and the first lane accepts them all.

pub mod listener;
pub mod threads;
