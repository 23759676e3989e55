//! Which routes are those of a host, and which of them wins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::fast::RandomState;
use rpds::{HashTrieMapSync, RedBlackTreeMapSync};

use super::Route;
use super::host::{HostSpace, requested};
use super::matcher::{Hit, Paths};

type ByHost<T> = HashTrieMapSync<Box<str>, Arc<Paths<T>>, RandomState>;

/// Finds the route of a request by its host and its path, and takes changes plugin by plugin. A
/// clone costs nothing, and a change what it changes.
///
/// The routes with exactly the host of the request are asked, or else those with the longest
/// wildcard that stands for it, or else those without a host; never more than one of the three.
#[derive(Debug)]
pub struct Matcher<T> {
    /// The routes without a host.
    any: Paths<T>,
    /// By host name.
    exact: ByHost<T>,
    /// By what follows `*.` in the wildcard.
    wildcards: ByHost<T>,
    /// The hosts of each plugin that has such, as routes have them.
    hosts: RedBlackTreeMapSync<Arc<str>, Arc<BTreeSet<String>>>,
}

/// The routes that may answer a request.
#[derive(Debug)]
pub struct Site<'a, T> {
    /// These routes.
    pub paths: &'a Paths<T>,
    /// They are those of the host that the request names.
    pub is_named: bool,
}

impl<T> Default for Matcher<T> {
    fn default() -> Self {
        let empty = || HashTrieMapSync::new_with_hasher_and_ptr_kind(RandomState::default());
        let hosts = RedBlackTreeMapSync::new_sync();
        Self { any: Paths::default(), exact: empty(), wildcards: empty(), hosts }
    }
}

impl<T> Clone for Matcher<T> {
    fn clone(&self) -> Self {
        Self {
            any: self.any.clone(),
            exact: self.exact.clone(),
            wildcards: self.wildcards.clone(),
            hosts: self.hosts.clone(),
        }
    }
}

impl<T> Matcher<T> {
    /// The plugin has these routes from now on, in this order; none: it has gone. When
    /// one of them cannot be used (a prefix that does not begin with `/`, a pattern that
    /// is no regular expression), that is the reason returned, and nothing has changed.
    pub fn set(
        &mut self,
        plugin: &str,
        routes: impl IntoIterator<Item = (Route, T)>,
    ) -> Result<(), String> {
        let mut any = Vec::new();
        let mut by_host: BTreeMap<String, Vec<(Route, T)>> = BTreeMap::new();
        for (route, with) in routes {
            match route.host.clone() {
                None => any.push((route, with)),
                Some(host) => by_host.entry(host).or_default().push((route, with)),
            }
        }
        let mut next = self.clone();
        next.any.set(plugin, any)?;
        let now: BTreeSet<String> = by_host.keys().cloned().collect();
        let before = self.hosts.get(plugin).cloned().unwrap_or_default();
        for gone in before.difference(&now) {
            next.set_at(gone, plugin, Vec::new())?;
        }
        for (host, routes) in by_host {
            next.set_at(&host, plugin, routes)?;
        }
        match now.is_empty() {
            true => drop(next.hosts.remove_mut(plugin)),
            false => next.hosts.insert_mut(plugin.into(), Arc::new(now)),
        }
        *self = next;
        Ok(())
    }

    fn set_at(&mut self, host: &str, plugin: &str, routes: Vec<(Route, T)>) -> Result<(), String> {
        let (map, key) = match host.strip_prefix("*.") {
            Some(suffix) => (&mut self.wildcards, suffix),
            None => (&mut self.exact, host),
        };
        let mut paths = map.get(key).map(|paths| (**paths).clone()).unwrap_or_default();
        paths.set(plugin, routes)?;
        match paths.is_empty() {
            true => drop(map.remove_mut(key)),
            false => map.insert_mut(key.into(), Arc::new(paths)),
        }
        Ok(())
    }

    /// The routes for a request with this value of Host (empty: it has none).
    pub fn site(&self, authority: &[u8]) -> Site<'_, T> {
        let mut space = HostSpace::default();
        let has_hosts = !self.exact.is_empty() || !self.wildcards.is_empty();
        let host = has_hosts.then(|| requested(authority, &mut space)).flatten();
        match host.and_then(|host| self.named(host)) {
            Some(paths) => Site { paths, is_named: true },
            None => Site { paths: &self.any, is_named: false },
        }
    }

    fn named(&self, host: &str) -> Option<&Paths<T>> {
        let wildcard = || {
            let dots = host.bytes().enumerate().filter(|(_, byte)| *byte == b'.');
            dots.map(|(at, _)| &host[at + 1..]).find_map(|suffix| self.wildcards.get(suffix))
        };
        let exact = self.exact.get(host);
        let found = exact.or_else(|| if self.wildcards.is_empty() { None } else { wildcard() });
        found.map(|paths| &**paths)
    }

    /// The route that answers requests with this path where routes have just this host (or this
    /// wildcard, or none).
    pub fn find_at(&self, host: Option<&str>, path: &str) -> Option<Hit<'_, T>> {
        let Some(host) = host else { return self.any.find(path) };
        let paths = match host.strip_prefix("*.") {
            Some(suffix) => self.wildcards.get(suffix),
            None => self.exact.get(host),
        };
        paths?.find(path)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::route;
    use super::*;

    fn at(host: &str, app: &str) -> (Route, ()) {
        (Route { host: Some(host.into()), ..route("/", app) }, ())
    }

    fn app<'a>(matcher: &'a Matcher<()>, host: &str, path: &str) -> Option<&'a str> {
        let hit = matcher.site(host.as_bytes()).paths.find(path)?;
        Some(hit.rule.route.app.as_str())
    }

    #[test]
    fn an_exact_host_wins_over_the_longest_wildcard_and_that_over_no_host() {
        let mut matcher = Matcher::default();
        let routes = [
            (route("/", "any"), ()),
            at("*.org", "org"),
            at("*.example.org", "wild"),
            at("*.a.example.org", "longer"),
            at("x.a.example.org", "exact"),
            at("[::1]", "six"),
        ];
        matcher.set("p", routes).unwrap();
        for (host, expected) in [
            ("x.a.example.org", "exact"),
            ("X.A.Example.ORG.:8080", "exact"),
            ("y.a.example.org", "longer"),
            ("z.y.a.example.org", "longer"),
            ("a.example.org", "wild"),
            ("example.org", "org"),
            ("org", "any"),
            ("example.com", "any"),
            ("xexample.org", "org"),
            ("[0:0::1]:80", "six"),
            ("::1", "any"),
            ("", "any"),
        ] {
            assert_eq!(app(&matcher, host, "/some/path"), Some(expected), "{host:?}");
        }
        assert!(matcher.site(b"x.org").is_named && !matcher.site(b"x.com").is_named);
    }

    #[test]
    fn a_host_with_routes_is_not_answered_by_those_without() {
        let mut matcher = Matcher::default();
        let files = Route { host: Some("h.org".into()), ..route("/static", "files") };
        matcher.set("p", [(files, ()), (route("/", "any"), ())]).unwrap();
        assert_eq!(app(&matcher, "h.org", "/static/a"), Some("files"));
        assert_eq!(app(&matcher, "h.org", "/other"), None);
        assert_eq!(app(&matcher, "other.org", "/other"), Some("any"));
    }

    #[test]
    fn a_change_takes_the_hosts_away_that_the_plugin_had_and_a_bad_one_changes_nothing() {
        let mut matcher = Matcher::default();
        matcher.set("p", [at("a.org", "a"), at("*.b.org", "b")]).unwrap();
        matcher.set("q", [at("a.org", "of_q")]).unwrap();
        let before = matcher.clone();
        assert_eq!(app(&matcher, "a.org", "/"), Some("a"), "the first plugin by name");
        let bad = Route { host: Some("a.org".into()), ..route("no-slash", "bad") };
        assert!(matcher.set("p", [at("c.org", "c"), (bad, ())]).unwrap_err().contains("p/bad"));
        assert_eq!((app(&matcher, "a.org", "/"), app(&matcher, "c.org", "/")), (Some("a"), None));
        matcher.set("p", [at("c.org", "c")]).unwrap();
        assert_eq!(app(&matcher, "a.org", "/"), Some("of_q"));
        assert_eq!(app(&matcher, "x.b.org", "/"), None);
        assert_eq!(app(&matcher, "c.org", "/"), Some("c"));
        assert_eq!(app(&before, "x.b.org", "/"), Some("b"));
        matcher.set("p", []).unwrap();
        assert!(!matcher.site(b"c.org").is_named);
    }
}
