//! What mfserv decides, and the words it uses: pure code.
//!
//! Text comes in, decisions go out. Nothing here opens a file, a socket or a
//! process, reads a clock, or waits. The other crates carry out what is
//! decided here.

#![forbid(unsafe_code)]

pub mod alerts;
pub mod backoff;
pub mod circus;
pub mod diagnostic;
pub mod diff;
pub mod dotenv;
pub mod event;
pub mod exit_code;
pub mod export;
pub mod fingerprint;
pub mod glob;
pub mod http_url;
pub mod ini;
pub mod job;
pub mod keys;
pub mod layers;
pub mod log_outputs;
pub mod maintenance;
pub mod memory;
pub mod missing_variable;
pub mod module_config;
pub mod names;
pub mod node_state;
pub mod open_telemetry;
pub mod output;
pub mod peers;
pub mod plan;
pub mod plugin_config;
pub mod plugin_spec;
pub mod python_modules;
pub mod route;
pub mod secrets;
pub mod shipping;
pub mod status;
pub mod suggest;
pub mod telegraf;
pub mod telemetry;
pub mod tls;
pub mod watcher;
pub mod wire;
pub mod worker;

pub use diagnostic::{Diagnostic, Location, Severity};
pub use exit_code::Kind;
