//! Shipping: the lines of files, each exactly once, to Elasticsearch, OpenSearch, Loki or any
//! receiver of JSON; and at least once to journald and syslog.
//!
//! - A path is [followed](followed::Followed) through rotations: each file is a *generation* with
//!   a random name, stored before its first line is sent.
//! - Bytes become [records](records::records), records become [documents](document::Document) whose
//!   id is the generation and the offset: an index that is asked to `create` a document twice
//!   knows it the second time.
//! - [The loop](shipper::Shipper) sends a batch until each document has arrived or is refused for
//!   good, and stores the positions then.

mod content;
mod dead_letters;
mod document;
mod elasticsearch;
mod followed;
pub(crate) mod http;
mod index;
mod journal;
mod json;
mod json_file;
mod known;
mod line;
mod loki;
mod names;
mod node;
mod outputs;
mod records;
mod report;
mod shipper;
mod sink;
mod state;
mod syslog;
mod syslog_stream;
mod transform;

pub use document::{Maker, Making};
pub use elasticsearch::{Elasticsearch, TEMPLATES, Template};
pub use followed::Begin;
pub use http::{Credentials, Nodes, Target};
pub use index::IndexPattern;
pub use json::Json;
pub use loki::Loki;
pub use names::Pattern;
pub use node::{NodeLogs, Notice};
pub use outputs::NodeOutputs;
pub use records::Lines;
pub(crate) use records::Message;
pub use report::{Count, Progress, Reports, Said};
pub use shipper::{Counts, Options, Shipper};
pub use sink::Sink;
pub use transform::{SYNTAX, Transform};
