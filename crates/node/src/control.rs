//! The control API: HTTP/1.1 over the unix socket `var/run/control.sock`.
//!
//! The daemon serves it ([`server`]); the command line, a web page or any HTTP client uses it.
//! `docs/api.md` documents every route. What the API needs of the node is the trait [`Api`].

mod answer;
mod api;
pub mod client;
pub mod exposition;
mod legacy;
mod problem;
pub mod protocol;
mod request;
mod route;
pub mod server;

pub use api::{Api, CircusApi, JobsApi, Pending};
pub use exposition::Exposition;
