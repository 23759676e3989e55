//! Routes: which request goes where. An immutable snapshot, and which route wins.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;

use regex_lite::Regex;
use serde::{Deserialize, Serialize};

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
    /// A fixed answer.
    Fixed {
        /// The status code.
        status: u16,
        /// The body, text/plain.
        body: String,
    },
}

/// One rule: requests below `prefix` go to `target`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// `/` for everything, else a path that begins with `/` and does not end with one.
    /// It matches the path itself and everything below it, on a segment border.
    pub prefix: String,
    /// The prefix is a regular expression (an extra route with regex characters,
    /// which the predecessor allowed by accident and some plugins rely on).
    #[serde(default)]
    pub pattern: bool,
    /// Where its requests go.
    pub target: Target,
    /// The plugin that declared it (in the access log).
    pub plugin: String,
    /// The app that declared it.
    pub app: String,
}

/// How many requests a worker takes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "policy", rename_all = "snake_case")]
pub enum Slots {
    /// Exactly this many; idle and busy connections to a worker never exceed it.
    Finite {
        /// Requests at a time per worker, at least 1.
        per_worker: u32,
    },
    /// As many as come; the worker with the fewest in flight is next.
    Unlimited,
}

/// What the front needs to know of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamSpec {
    /// How many requests a worker takes at a time.
    pub slots: Slots,
    /// Connections to workers are kept for further requests.
    pub keep_alive: bool,
    /// Connect, send and read (between two reads) timeout, milliseconds.
    pub timeout_ms: u64,
    /// At most this many requests wait for a slot.
    pub queue_max: u32,
    /// A request waits at most this long for a slot or for a worker to come back, milliseconds.
    pub queue_timeout_ms: u64,
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
    /// Add `X-Real-IP` and `X-Forwarded-*`.
    pub add_forwarded: bool,
    /// A request goes on in the worker when its client has gone.
    pub ignore_client_abort: bool,
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
    pub routes: Vec<Route>,
    /// The apps behind the routes, by name `PLUGIN/APP`.
    pub upstreams: BTreeMap<String, UpstreamSpec>,
    /// The page for URLs that no route matches: a file (served with status 404).
    pub not_found_page: Option<PathBuf>,
}

/// The part of a path that a route took, and the part that is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// The index of the route in [`RouteTable::routes`].
    pub index: usize,
    /// Where the rest of the path begins, in bytes: the rest is empty or begins with `/`.
    pub rest_at: usize,
}

/// Finds the route of a path. How long that takes does not depend on how many
/// routes there are, only on the number of segments of the path (and of patterns).
#[derive(Debug, Clone)]
pub struct Matcher {
    routes: Vec<Route>,
    /// Literal prefix to the lowest index that declares it.
    literals: HashMap<String, usize>,
    /// The longest literal prefix: borders beyond it need no look.
    longest: usize,
    patterns: Vec<(usize, Regex)>,
    root: Option<usize>,
}

impl Matcher {
    /// Prepares a table. The reason is returned when a route cannot be used: a prefix
    /// that does not begin with `/`, or a pattern that is no regular expression.
    pub fn new(table: &RouteTable) -> Result<Self, String> {
        let mut matcher = Self {
            routes: table.routes.clone(),
            literals: HashMap::with_capacity(table.routes.len()),
            longest: 0,
            patterns: Vec::new(),
            root: None,
        };
        for (index, route) in table.routes.iter().enumerate() {
            matcher.add(index, route)?;
        }
        Ok(matcher)
    }

    fn add(&mut self, index: usize, route: &Route) -> Result<(), String> {
        let prefix = route.prefix.as_str();
        let of = || format!("route {prefix:?} of {}/{}", route.plugin, route.app);
        if !prefix.starts_with('/') {
            return Err(format!("{} does not begin with /", of()));
        }
        if prefix == "/" {
            self.root.get_or_insert(index);
        } else if route.pattern {
            let pattern = Regex::new(&format!("(?s)^(?:{prefix})(?P<rest>/.*)?$"))
                .map_err(|why| format!("{} is no regular expression: {why}", of()))?;
            self.patterns.push((index, pattern));
        } else if prefix.ends_with('/') {
            return Err(format!("{} ends with /", of()));
        } else {
            self.longest = self.longest.max(prefix.len());
            self.literals.entry(prefix.to_string()).or_insert(index);
        }
        Ok(())
    }

    /// The route of a normalised path: the first in order that matches, `/` last.
    pub fn find(&self, path: &str) -> Option<&Route> {
        self.resolve(path).map(|hit| &self.routes[hit.index])
    }

    /// Like [`Matcher::find`], with the route's index and the rest of the path.
    pub fn resolve(&self, path: &str) -> Option<Hit> {
        let literal = self.literal(path);
        let before = literal.map_or(usize::MAX, |hit| hit.index);
        self.pattern(path, before)
            .or(literal)
            .or_else(|| self.root.map(|index| Hit { index, rest_at: 0 }))
    }

    /// The lowest literal prefix among those that end at a segment border of the path.
    fn literal(&self, path: &str) -> Option<Hit> {
        let bytes = path.as_bytes();
        let reach = bytes.len().min(self.longest);
        let mut best: Option<Hit> = None;
        for end in 1..=reach {
            if end < bytes.len() && bytes[end] != b'/' {
                continue;
            }
            if let Some(&index) = self.literals.get(&path[..end]) {
                if best.is_none_or(|hit| index < hit.index) {
                    best = Some(Hit { index, rest_at: end });
                }
            }
        }
        best
    }

    fn pattern(&self, path: &str, before: usize) -> Option<Hit> {
        let earlier = self.patterns.iter().take_while(|(index, _)| *index < before);
        for (index, pattern) in earlier {
            if let Some(found) = pattern.captures(path) {
                let rest_at = found.name("rest").map_or(path.len(), |rest| rest.start());
                return Some(Hit { index: *index, rest_at });
            }
        }
        None
    }
}

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPath {
    /// It does not begin with `/`.
    NotAbsolute,
    /// A `%` is not followed by two hexadecimal digits.
    Encoding,
    /// It contains a NUL byte.
    Nul,
    /// Its `..` lead above the root.
    AboveRoot,
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadPath::NotAbsolute => "the path does not begin with /",
            BadPath::Encoding => "a % in the path is not followed by two hexadecimal digits",
            BadPath::Nul => "the path contains a NUL byte",
            BadPath::AboveRoot => "the path leads above the root",
        })
    }
}

impl std::error::Error for BadPath {}

/// The path that routes are compared with: percent-decoded once, `//` merged, `.` and
/// `..` resolved (decoded ones too). Bytes that are not UTF-8 become U+FFFD, so that
/// an overlong spelling of `.` or `/` never is one. A plain path is not copied.
pub fn normalise(raw: &str) -> Result<Cow<'_, str>, BadPath> {
    if !raw.starts_with('/') {
        return Err(BadPath::NotAbsolute);
    }
    if is_plain(raw.as_bytes()) {
        return Ok(Cow::Borrowed(raw));
    }
    let decoded = percent_decode(raw.as_bytes())?;
    let resolved = resolve_segments(&decoded)?;
    Ok(Cow::Owned(match String::from_utf8(resolved) {
        Ok(path) => path,
        Err(bytes) => String::from_utf8_lossy(bytes.as_bytes()).into_owned(),
    }))
}

fn is_plain(path: &[u8]) -> bool {
    let mut before = 0;
    for &byte in path {
        if byte == b'%' || byte == 0 || (before == b'/' && (byte == b'/' || byte == b'.')) {
            return false;
        }
        before = byte;
    }
    true
}

fn percent_decode(raw: &[u8]) -> Result<Vec<u8>, BadPath> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&byte, after)) = rest.split_first() {
        let byte = if byte == b'%' {
            let digit = |at: usize| after.get(at).and_then(|&b| (b as char).to_digit(16));
            let (Some(high), Some(low)) = (digit(0), digit(1)) else {
                return Err(BadPath::Encoding);
            };
            rest = &after[2..];
            (high * 16 + low) as u8
        } else {
            rest = after;
            byte
        };
        if byte == 0 {
            return Err(BadPath::Nul);
        }
        decoded.push(byte);
    }
    Ok(decoded)
}

fn resolve_segments(path: &[u8]) -> Result<Vec<u8>, BadPath> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut segments = path[1..].split(|&b| b == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"" | b"." if !last => {}
            b"" | b"." => out.push(b'/'),
            b".." => {
                let parent = out.iter().rposition(|&b| b == b'/').ok_or(BadPath::AboveRoot)?;
                out.truncate(parent);
                if last {
                    out.push(b'/');
                }
            }
            segment => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(prefix: &str, app: &str) -> Route {
        Route {
            prefix: prefix.into(),
            pattern: false,
            target: Target::Upstream { name: format!("p/{app}") },
            plugin: "p".into(),
            app: app.into(),
        }
    }

    fn table(routes: Vec<Route>) -> RouteTable {
        RouteTable {
            server: ServerSettings {
                max_body_bytes: 1,
                access_log: true,
                add_request_id: true,
                accept_request_id: false,
                add_forwarded: true,
                ignore_client_abort: true,
                health_path: None,
                health_access_log: false,
                server_tokens: false,
                port_in_redirect: true,
                uuid: String::new(),
                uuid_allows: vec![],
                body_temp_dir: "/tmp".into(),
                threads: 1,
                max_connections: 1,
                static_symlinks: Symlinks::Follow,
                static_dotfiles: false,
                header_timeout_ms: 1,
                keepalive_timeout_ms: 1,
                client_timeout_ms: 1,
                upgrade_drain_timeout_ms: 1,
                real_ip: None,
            },
            routes,
            upstreams: BTreeMap::new(),
            not_found_page: None,
        }
    }

    /// Prefix, alias, extra route, pattern and `/`, as a plugin with two apps yields them.
    fn sample() -> Matcher {
        let pattern = Route { pattern: true, ..route("/v[0-9]+/x", "pattern") };
        let late = Route { pattern: true, ..route("/foo/.*z", "late") };
        Matcher::new(&table(vec![
            route("/", "root"),
            route("/foo/static", "static"),
            route("/foo/main", "main"),
            route("/foo/api", "api"),
            route("/foo", "alias"),
            route("/extra/deep/route", "extra"),
            pattern,
            route("/foo/api/inner", "never"),
            late,
            route("/v1", "v1"),
            route("/foo", "second"),
        ]))
        .unwrap()
    }

    #[test]
    fn the_first_matching_route_wins_and_the_root_comes_last() {
        let matcher = sample();
        for (raw, app) in [
            ("/", "root"),
            ("/other", "root"),
            ("/foo", "alias"),
            ("/foo/", "alias"),
            ("/foo/x/y", "alias"),
            ("/foobar", "root"),
            ("/fo", "root"),
            ("/FOO", "root"),
            ("/foo/main", "main"),
            ("/foo/main/", "main"),
            ("/foo/main/sub", "main"),
            ("/foo/mainx", "alias"),
            ("/foo/api/inner", "api"),
            ("/foo/staticx", "alias"),
            ("/foo/static/a.css", "static"),
            ("/foo/xyz", "alias"),
            ("/extra/deep/route", "extra"),
            ("/extra/deep/route/", "extra"),
            ("/extra/deep", "root"),
            ("/v12/x", "pattern"),
            ("/v12/x/", "pattern"),
            ("/v12/x/sub", "pattern"),
            ("/v12/xx", "root"),
            ("/v1/x", "pattern"),
            ("/v1/y", "v1"),
            ("/%66oo/main", "main"),
            ("/foo%2Fmain", "main"),
            ("//foo//main", "main"),
            ("/bar/../foo/./main", "main"),
            ("/foo/main/..", "alias"),
            ("/foo/main/%2e%2e/api", "api"),
        ] {
            let path = normalise(raw).unwrap();
            assert_eq!(matcher.find(&path).unwrap().app, app, "{raw}");
        }
    }

    #[test]
    fn the_rest_of_the_path_begins_where_the_prefix_ends() {
        let matcher = sample();
        for (path, rest) in [
            ("/foo/static", ""),
            ("/foo/static/", "/"),
            ("/foo/static/a/b", "/a/b"),
            ("/v7/x/y", "/y"),
            ("/v7/x", ""),
            ("/nothing", "/nothing"),
        ] {
            let hit = matcher.resolve(path).unwrap();
            assert_eq!(&path[hit.rest_at..], rest, "{path}");
        }
    }

    #[test]
    fn without_a_root_route_nothing_is_found_for_other_paths() {
        let matcher = Matcher::new(&table(vec![route("/foo", "foo")])).unwrap();
        assert!(matcher.find("/").is_none());
        assert!(matcher.find("/é/foo").is_none());
        assert!(matcher.find("/foo").is_some());
    }

    #[test]
    fn an_unusable_route_is_named() {
        for (prefix, pattern) in [("foo", false), ("", false), ("/foo/", false), ("/(", true)] {
            let bad = Route { pattern, ..route(prefix, "bad") };
            let reason = Matcher::new(&table(vec![bad])).unwrap_err();
            assert!(reason.contains("p/bad"), "{reason}");
        }
    }

    #[test]
    fn paths_are_decoded_once_merged_and_resolved() {
        for (raw, path) in [
            ("/", "/"),
            ("//", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("/a//b", "/a/b"),
            ("/a/./b/.", "/a/b/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../", "/a/"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/%61%2f%2Fb", "/a/b"),
            ("/%2e%2e%2fa/../..", "ERR"),
            ("/a%20b+c", "/a b+c"),
            ("/%252e%252e/x", "/%2e%2e/x"),
            ("/...", "/..."),
            ("/.hidden", "/.hidden"),
            ("/..a/b", "/..a/b"),
            ("/%C3%A9", "/é"),
            ("/%c0%ae%c0%ae/x", "/\u{fffd}\u{fffd}\u{fffd}\u{fffd}/x"),
            ("/a\\..\\b", "/a\\..\\b"),
        ] {
            let got = normalise(raw);
            let got = got.as_deref().unwrap_or("ERR");
            assert_eq!(got, path, "{raw}");
        }
    }

    #[test]
    fn paths_that_could_mean_two_things_are_refused() {
        for (raw, why) in [
            ("", BadPath::NotAbsolute),
            ("a", BadPath::NotAbsolute),
            ("/%", BadPath::Encoding),
            ("/%4", BadPath::Encoding),
            ("/%zz", BadPath::Encoding),
            ("/%+1", BadPath::Encoding),
            ("/a%00b", BadPath::Nul),
            ("/..", BadPath::AboveRoot),
            ("/../etc", BadPath::AboveRoot),
            ("/a/../../etc", BadPath::AboveRoot),
            ("/%2e%2e/etc", BadPath::AboveRoot),
            ("/a/%2E%2E%2F..", BadPath::AboveRoot),
        ] {
            assert_eq!(normalise(raw), Err(why), "{raw}");
        }
    }
}
