//! Whatever a request names as its host: what is looked up is a host name in its one form, and the
//! routes that it leads to are those of a slower way to match.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mfserv_core::route::host::{HostSpace, configured, requested};
use mfserv_core::route::{Matcher, Route, Target};

const HOSTS: [&str; 6] =
    ["a.org", "*.a.org", "*.org", "x.y.a.org", "[::1]", "127.0.0.1"];

static MATCHER: LazyLock<Matcher<()>> = LazyLock::new(|| {
    let route = |host: Option<&str>| Route {
        host: host.map(str::to_owned),
        prefix: "/".into(),
        pattern: false,
        strip_prefix: false,
        maintenance: None,
        target: Target::Fixed { status: 200, body: String::new() },
        plugin: "p".into(),
        app: host.unwrap_or("any").into(),
    };
    let mut matcher = Matcher::default();
    let all = HOSTS.into_iter().map(Some).chain([None]);
    matcher.set("p", all.map(|host| (route(host), ()))).unwrap();
    matcher
});

fuzz_target!(|authority: &[u8]| {
    let mut space = HostSpace::default();
    let host = requested(authority, &mut space);
    let fits = |pattern: &&&str| match (pattern.strip_prefix('*'), host) {
        (Some(end), Some(host)) => host.ends_with(end),
        (None, Some(host)) => **pattern == host,
        (_, None) => false,
    };
    let longest = |pattern: &&&str| (!pattern.starts_with('*'), pattern.len());
    let expected = HOSTS.iter().filter(fits).max_by_key(longest);
    let site = MATCHER.site(authority);
    let app = site.paths.find("/").map(|hit| hit.rule.route.app.as_str());
    assert_eq!(app, Some(expected.copied().unwrap_or("any")), "{authority:?}");
    assert_eq!(site.is_named, expected.is_some());
    // What can be configured is found again by a request that names it.
    if let Some(name) = std::str::from_utf8(authority).ok().and_then(|text| configured(text).ok()) {
        let mut space = HostSpace::default();
        let again = requested(name.as_bytes(), &mut space);
        assert!(name.starts_with('*') || again == Some(&*name), "{name:?} {again:?}");
    }
});
