//! What client and server of the control API agree on: names of headers, media types, limits,
//! versions.

use serde::{Deserialize, Serialize};

/// The number of the protocol. It grows when a request or an answer changes its meaning; a new
/// route or a new optional field does not change it.
pub const PROTOCOL: u32 = 1;

/// The header in which a client of this program, and every answer, states its version.
pub const VERSION_HEADER: &str = "mfserv-version";
/// The header that states the number of the protocol.
pub const PROTOCOL_HEADER: &str = "mfserv-protocol";

/// The media type of requests and answers.
pub const JSON: &str = "application/json";
/// The media type of a stream of events: one JSON object a line.
pub const NDJSON: &str = "application/x-ndjson";
/// The media type of errors (RFC 9457).
pub const PROBLEM: &str = "application/problem+json";

/// The largest body of a request, bytes.
pub const MAX_REQUEST_BODY: usize = 1024 * 1024;
/// The largest answer that a client reads, bytes; of a stream: the longest line.
pub const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// How many operations `GET /v1/operations` lists unless `limit` says otherwise.
pub const DEFAULT_LIMIT: usize = 20;
/// The greatest `limit`.
pub const MAX_LIMIT: usize = 1000;

/// The version of one side of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The version of the program.
    pub version: String,
    /// The number of the protocol that it speaks.
    pub protocol: u32,
}

impl Version {
    /// The version of this program.
    pub fn own() -> Version {
        Version { version: env!("CARGO_PKG_VERSION").into(), protocol: PROTOCOL }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (protocol {})", self.version, self.protocol)
    }
}

/// The answer to `GET /v1`: who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The version of the daemon.
    #[serde(flatten)]
    pub version: Version,
    /// The daemon's process id.
    pub pid: u32,
}

/// The answer to `POST /v1/operations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The id of the operation, also in the header `Location`.
    pub id: crate::operations::OperationId,
}
