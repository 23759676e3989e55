//! Routes: which request goes where. An immutable snapshot, and which route wins.

mod affinity;
mod amendment;
mod bodies;
mod error_pages;
mod fragments;
pub mod host;
mod matcher;
mod path;
pub mod redirects;
mod sendfile;
mod sites;
mod takeover;
mod upstream;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use affinity::Affinity;
pub use amendment::{Amendment, Section, plugin_of};
pub use bodies::room_for_bodies;
pub use error_pages::{ErrorPage, ErrorPages};
pub use fragments::{AppFragments, Fragment, Fragments};
pub use host::UnknownHost;
pub use matcher::{Hit, Paths, Rule};
pub use path::{BadPath, after_prefix, names_script, normalise, percent_decode, said_prefix};
pub use sendfile::{Sendfile, SendfileRoot};
use serde::{Deserialize, Serialize};
pub use sites::{Matcher, Site};
pub use takeover::{Taken, taken};
pub use upstream::{Slots, UpstreamSpec};

use crate::maintenance::Shut;
use crate::tls::TlsSettings;

/// Where the requests of a route go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "snake_case")]
pub enum Target {
    /// To the workers of an upstream (a key of [`RouteTable::upstreams`]).
    Upstream {
        /// The upstream's name, `PLUGIN/APP`.
        name: String,
    },
    /// To the files of a directory: the rest of the path after the prefix, below `root`.
    Static {
        /// The directory; nothing outside of it is served.
        root: PathBuf,
    },
    /// To the files of a static site: as `Static`, with what hosts of static sites have besides.
    Site {
        /// The directory; nothing outside of it is served.
        root: PathBuf,
        /// The file of a single-page app, whose script knows what a path without a file means:
        /// `index.html`, below `root`. Empty: such a path has nothing.
        fallback: String,
    },
    /// A fixed answer.
    Fixed {
        /// The status code.
        status: u16,
        /// The body, text/plain.
        body: String,
    },
}

impl Target {
    /// The directory whose files it serves.
    pub fn dir(self) -> Option<PathBuf> {
        match self {
            Target::Static { root } | Target::Site { root, .. } => Some(root),
            Target::Upstream { .. } | Target::Fixed { .. } => None,
        }
    }
}

/// One rule: requests below `prefix` go to `target`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Only requests that name this host: a name as [`host::configured`] writes it, or a wildcard
    /// `*.example.org`. `None`: those whose host no route names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// `/` for everything, else a path that begins with `/` and does not end with one.
    /// It matches the path itself and everything below it, on a segment border.
    pub prefix: String,
    /// The prefix is a regular expression (an extra route with regex characters,
    /// which MFSERV allowed by accident and some plugins rely on).
    #[serde(default)]
    pub pattern: bool,
    /// Workers get the rest of the path after the prefix, and the prefix in `X-Forwarded-Prefix`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub strip_prefix: bool,
    /// Where its requests go.
    pub target: Target,
    /// Its app is in maintenance: what is answered instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Shut>,
    /// What its clients are shown where the front answers an error in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_pages: Option<ErrorPages>,
    /// The plugin that declared it (in the access log).
    pub plugin: String,
    /// The app that declared it.
    pub app: String,
}

impl Route {
    /// True if an extra route is a regular expression. MFSERV put prefixes into one as they were. A
    /// dot alone is far more often a dot than "any character", and is taken as one.
    pub fn is_pattern(prefix: &str) -> bool {
        prefix.contains(['+', '*', '?', '(', ')', '[', ']', '{', '}', '|', '^', '$', '\\'])
    }

    /// What it answers, for people: its prefix or pattern, after its host if it has one.
    pub fn label(&self) -> String {
        format!("{}{}", self.host.as_deref().unwrap_or_default(), self.prefix)
    }
}

/// The hosts of each app, by plugin and app, in the order of the routes.
pub fn hosts(routes: &[Route]) -> BTreeMap<(&str, &str), Vec<&str>> {
    let mut all: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for route in routes {
        let Some(host) = route.host.as_deref() else { continue };
        let of_app = all.entry((&route.plugin, &route.app)).or_default();
        if !of_app.contains(&host) {
            of_app.push(host);
        }
    }
    all
}

/// The shortest path of each app without a host, by plugin and app: what a person opens.
pub fn pages(routes: &[Route]) -> BTreeMap<(&str, &str), &str> {
    let mut best: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for route in routes.iter().filter(|route| !route.pattern && route.host.is_none()) {
        let path = best.entry((&route.plugin, &route.app)).or_insert(&route.prefix);
        let is_page = !route.prefix.ends_with("/static");
        if is_page && route.prefix.len() < path.len() {
            *path = &route.prefix;
        }
    }
    best
}

/// Where the address of a client is taken from when proxies stand before the front.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealIp {
    /// The header that tells it.
    pub header: String,
    /// Trusted proxies in the header are skipped, from the right.
    pub recursive: bool,
    /// Networks (CIDR) of the trusted proxies: nobody else's header is believed.
    pub proxies: Vec<String>,
}

/// Which symbolic links are followed on the way to a static file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Symlinks {
    /// All.
    #[default]
    Follow,
    /// Those that are relative and stay below the root.
    Beneath,
}

/// How much of the answers of apps is kept in files until their clients have read it, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolLimits {
    /// Of one answer; 0: no answer is put into a file.
    pub per_answer: u64,
    /// Of all answers of one app.
    pub per_app: u64,
    /// Of all answers of the front.
    pub all: u64,
}

/// What a table of an earlier daemon means: the defaults of the keys.
impl Default for SpoolLimits {
    fn default() -> Self {
        const GIB: u64 = 1 << 30;
        Self { per_answer: GIB, per_app: 4 * GIB, all: 8 * GIB }
    }
}

/// How large a head (start line and fields) may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadLimits {
    /// It has fewer bytes than this.
    pub bytes: u32,
    /// It has at most so many fields.
    pub fields: u32,
}

impl HeadLimits {
    /// What a table of an earlier daemon means for requests.
    fn of_requests() -> Self {
        Self { bytes: 32 * 1024, fields: 100 }
    }

    /// What it means for answers.
    fn of_answers() -> Self {
        Self { bytes: 32 * 1024, fields: 1000 }
    }
}

/// Settings of the listening side, from `[nginx]` and `[front]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSettings {
    /// Largest request body, bytes (413 beyond).
    pub max_body_bytes: u64,
    /// Write the access log.
    pub access_log: bool,
    /// Add `X-Request-Id` to requests and answers.
    pub add_request_id: bool,
    /// Keep the request id that a client sent.
    pub accept_request_id: bool,
    /// Pass a valid `traceparent` on or begin a trace, of which so many percent are sampled;
    /// `None`: the fields are passed on as they are.
    #[serde(default)]
    pub trace_sample: Option<u32>,
    /// Add `Server-Timing` to answers.
    #[serde(default)]
    pub server_timing: bool,
    /// Add `X-Real-IP` and `X-Forwarded-*`.
    pub add_forwarded: bool,
    /// A request goes on in the worker when its client has gone.
    pub ignore_client_abort: bool,
    /// What a request gets whose host is that of no app.
    #[serde(default)]
    pub unknown_host: UnknownHost,
    /// The health endpoint's exact path, if any.
    pub health_path: Option<String>,
    /// Health requests appear in the access log.
    pub health_access_log: bool,
    /// Say the version in `Server` and error pages.
    pub server_tokens: bool,
    /// Put the port into redirects made by the front.
    pub port_in_redirect: bool,
    /// The node's identifier (`/uuid`).
    pub uuid: String,
    /// Networks (CIDR) allowed on `/uuid` besides the loopback address.
    pub uuid_allows: Vec<String>,
    /// Where request bodies beyond memory are put (unlinked files).
    pub body_temp_dir: PathBuf,
    /// How much of the answers of apps is kept in files for clients that read slowly.
    #[serde(default)]
    pub spool: SpoolLimits,
    /// How large the head of a request may be.
    #[serde(default = "HeadLimits::of_requests")]
    pub request_head: HeadLimits,
    /// How large the head of an answer of an app may be.
    #[serde(default = "HeadLimits::of_answers")]
    pub answer_head: HeadLimits,
    /// Threads that forward requests.
    pub threads: u32,
    /// At most this many client connections at a time.
    pub max_connections: u32,
    /// Which symbolic links lead to static files.
    #[serde(default)]
    pub static_symlinks: Symlinks,
    /// Static files with a leading dot in their path are served.
    #[serde(default)]
    pub static_dotfiles: bool,
    /// Static files are compressed for clients that accept it.
    #[serde(default)]
    pub static_compression: bool,
    /// A client must have sent a request's head within this, milliseconds.
    pub header_timeout_ms: u64,
    /// An idle kept client connection is closed after this, milliseconds.
    pub keepalive_timeout_ms: u64,
    /// Between two reads of a request body, or two writes of an answer, milliseconds.
    pub client_timeout_ms: u64,
    /// Upgraded connections of a worker that is to go are ended after this, milliseconds.
    #[serde(default = "upgrade_drain_default")]
    pub upgrade_drain_timeout_ms: u64,
    /// The client's address comes from a header of trusted proxies.
    #[serde(default)]
    pub real_ip: Option<RealIp>,
    /// The TLS listener.
    #[serde(default)]
    pub tls: Option<TlsSettings>,
    /// The node is being stopped: every request but those for inner endpoints is answered 503.
    #[serde(default)]
    pub stopping: bool,
}

/// What a table of an earlier daemon means.
fn upgrade_drain_default() -> u64 {
    30_000
}

/// The whole routing of a node. A request sees exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    /// Settings of the listening side.
    pub server: ServerSettings,
    /// The rules in order: the first that matches wins, but `/` only when no other does.
    /// Those of a plugin keep their order; plugins come by name.
    pub routes: Vec<Route>,
    /// The apps behind the routes, by name `PLUGIN/APP`.
    pub upstreams: BTreeMap<String, UpstreamSpec>,
    /// The page for URLs that no route matches: a file (served with status 404).
    pub not_found_page: Option<PathBuf>,
    /// What plugins bring along for nginx, by plugin; only nginx obeys it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fragments: BTreeMap<String, Fragments>,
}

impl RouteTable {
    /// A table without routes.
    pub fn empty(server: ServerSettings) -> Self {
        let (upstreams, fragments) = (BTreeMap::new(), BTreeMap::new());
        Self { server, routes: Vec::new(), upstreams, not_found_page: None, fragments }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn route(prefix: &str, app: &str) -> Route {
        Route {
            host: None,
            prefix: prefix.into(),
            pattern: false,
            strip_prefix: false,
            maintenance: None,
            error_pages: None,
            target: Target::Upstream { name: format!("p/{app}") },
            plugin: "p".into(),
            app: app.into(),
        }
    }

    pub(super) fn table(routes: Vec<Route>) -> RouteTable {
        RouteTable {
            server: ServerSettings::default(),
            routes,
            upstreams: BTreeMap::new(),
            not_found_page: None,
            fragments: BTreeMap::new(),
        }
    }
}
