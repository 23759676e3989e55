//! Which route wins, among those of one host or of none. The structures are persistent: a new table shares with the one
//! before all plugins that have not changed, so that a change costs what it changes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;
use regex_lite::Regex;
use rpds::{HashTrieMapSync, RedBlackTreeMapSync};

use super::Route;

/// A route with what belongs to it.
#[derive(Debug)]
pub struct Rule<T> {
    /// The route.
    pub route: Route,
    /// What was given with it.
    pub with: T,
}

/// A route that takes a path.
#[derive(Debug)]
pub struct Hit<'a, T> {
    /// The route.
    pub rule: &'a Rule<T>,
    /// Where the rest of the path begins, in bytes: the rest is empty or begins with `/`.
    pub rest_at: usize,
}

/// Finds the route of a path, and takes changes plugin by plugin. How long either takes
/// does not depend on how many plugins there are, only on the number of segments of the
/// path (and of patterns), and on what changes. A clone costs nothing.
#[derive(Debug)]
pub struct Paths<T> {
    plugins: ByPlugin<T>,
    /// The first segment of literal prefixes to the plugins that declare such, by name.
    firsts: HashTrieMapSync<Box<str>, Vec<Arc<Rules<T>>>, RandomState>,
    /// The plugins with patterns.
    patterned: ByPlugin<T>,
    /// The plugins with the prefix `/`.
    rooted: ByPlugin<T>,
}

type ByPlugin<T> = RedBlackTreeMapSync<Arc<str>, Arc<Rules<T>>>;

/// The routes of a plugin, ready to be looked up.
#[derive(Debug)]
struct Rules<T> {
    plugin: Arc<str>,
    all: Vec<Rule<T>>,
    /// Literal prefix to the lowest index that declares it.
    literals: HashMap<Box<str>, usize, RandomState>,
    /// The longest literal prefix: borders beyond it need no look.
    longest: usize,
    patterns: Vec<(usize, Regex)>,
    root: Option<usize>,
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self {
            plugins: ByPlugin::new_sync(),
            firsts: HashTrieMapSync::new_with_hasher_and_ptr_kind(RandomState::default()),
            patterned: ByPlugin::new_sync(),
            rooted: ByPlugin::new_sync(),
        }
    }
}

impl<T> Clone for Paths<T> {
    fn clone(&self) -> Self {
        Self {
            plugins: self.plugins.clone(),
            firsts: self.firsts.clone(),
            patterned: self.patterned.clone(),
            rooted: self.rooted.clone(),
        }
    }
}

impl<T> Paths<T> {
    /// The plugin has these routes from now on, in this order; none: it has gone. When
    /// one of them cannot be used (a prefix that does not begin with `/`, a pattern that
    /// is no regular expression), that is the reason returned, and nothing has changed.
    pub fn set(
        &mut self,
        plugin: &str,
        routes: impl IntoIterator<Item = (Route, T)>,
    ) -> Result<(), String> {
        let rules = Arc::new(Rules::new(plugin, routes)?);
        let before = self.plugins.get(plugin).cloned();
        let firsts_before = before.as_ref().map(|before| before.firsts()).unwrap_or_default();
        let firsts = rules.firsts();
        for first in firsts_before.union(&firsts) {
            self.set_first(first, &rules, firsts.contains(first));
        }
        put(&mut self.plugins, &rules, !rules.all.is_empty());
        put(&mut self.patterned, &rules, !rules.patterns.is_empty());
        put(&mut self.rooted, &rules, rules.root.is_some());
        Ok(())
    }

    fn set_first(&mut self, first: &str, rules: &Arc<Rules<T>>, has: bool) {
        let mut members = self.firsts.get(first).cloned().unwrap_or_default();
        let at = members.partition_point(|other| other.plugin < rules.plugin);
        if members.get(at).is_some_and(|other| other.plugin == rules.plugin) {
            members.remove(at);
        }
        if has {
            members.insert(at, rules.clone());
        }
        if members.is_empty() {
            self.firsts.remove_mut(first);
        } else {
            self.firsts.insert_mut(first.into(), members);
        }
    }

    /// True if there is no route.
    pub(super) fn is_empty(&self) -> bool {
        self.plugins.is_empty()
    }

    /// The route of a normalised path: plugins by name, the routes of a plugin in its
    /// order; the first that matches, `/` last.
    pub fn find(&self, path: &str) -> Option<Hit<'_, T>> {
        let members = self.firsts.get(first_of(path)).map_or(&[][..], Vec::as_slice);
        let literal = members.iter().find_map(|rules| Some((&**rules, rules.literal(path)?)));
        let (rules, (index, rest_at)) = self.pattern(path, literal).or(literal).or_else(|| {
            let rules = self.rooted.first()?.1;
            Some((rules, (rules.root?, 0)))
        })?;
        Some(Hit { rule: rules.all.get(index)?, rest_at })
    }

    /// The first pattern that matches, among those before the literal prefix that does.
    fn pattern<'a>(&'a self, path: &str, literal: Option<Found<'a, T>>) -> Option<Found<'a, T>> {
        for (plugin, rules) in &self.patterned {
            let before = match literal {
                Some((of, _)) if of.plugin < *plugin => break,
                Some((of, (index, _))) if of.plugin == *plugin => index,
                _ => usize::MAX,
            };
            if let Some(found) = rules.pattern(path, before) {
                return Some((rules, found));
            }
        }
        None
    }
}

/// A plugin, and in it the index of a rule and where the rest of the path begins.
type Found<'a, T> = (&'a Rules<T>, (usize, usize));

fn put<T>(map: &mut ByPlugin<T>, rules: &Arc<Rules<T>>, belongs: bool) {
    if belongs {
        map.insert_mut(rules.plugin.clone(), rules.clone());
    } else {
        map.remove_mut(&*rules.plugin);
    }
}

/// The path up to the end of its first segment.
fn first_of(path: &str) -> &str {
    let end = path.bytes().skip(1).position(|byte| byte == b'/');
    end.and_then(|end| path.get(..end + 1)).unwrap_or(path)
}

impl<T> Rules<T> {
    fn new(plugin: &str, routes: impl IntoIterator<Item = (Route, T)>) -> Result<Self, String> {
        let mut rules = Self {
            plugin: plugin.into(),
            all: Vec::new(),
            literals: HashMap::default(),
            longest: 0,
            patterns: Vec::new(),
            root: None,
        };
        for (index, (route, with)) in routes.into_iter().enumerate() {
            match pattern_of(&route)? {
                Some(pattern) => rules.patterns.push((index, pattern)),
                None if route.prefix == "/" => drop(rules.root.get_or_insert(index)),
                None => {
                    rules.longest = rules.longest.max(route.prefix.len());
                    rules.literals.entry(route.prefix.as_str().into()).or_insert(index);
                }
            }
            rules.all.push(Rule { route, with });
        }
        Ok(rules)
    }

    fn firsts(&self) -> BTreeSet<Box<str>> {
        self.literals.keys().map(|prefix| first_of(prefix).into()).collect()
    }

    /// The lowest literal prefix among those that end at a segment border of the path.
    fn literal(&self, path: &str) -> Option<(usize, usize)> {
        let bytes = path.as_bytes();
        let borders = 1..=bytes.len().min(self.longest);
        let borders = borders.filter(|&end| end == bytes.len() || bytes[end] == b'/');
        let found = borders.filter_map(|end| Some((*self.literals.get(&path[..end])?, end)));
        found.min_by_key(|(index, _)| *index)
    }

    fn pattern(&self, path: &str, before: usize) -> Option<(usize, usize)> {
        let earlier = self.patterns.iter().take_while(|(index, _)| *index < before);
        earlier.into_iter().find_map(|(index, pattern)| {
            let found = pattern.captures(path)?;
            Some((*index, found.name("rest").map_or(path.len(), |rest| rest.start())))
        })
    }
}

/// The regular expression of a route that is one; why the route cannot be used.
fn pattern_of(route: &Route) -> Result<Option<Regex>, String> {
    let prefix = route.prefix.as_str();
    let of = || format!("route {:?} of {}/{}", route.label(), route.plugin, route.app);
    if !prefix.starts_with('/') {
        return Err(format!("{} does not begin with /", of()));
    }
    if prefix == "/" {
        return Ok(None);
    }
    if route.pattern {
        let pattern = Regex::new(&format!("(?s)^(?:{prefix})(?P<rest>/.*)?$"));
        let why = |why| format!("{} is no regular expression: {why}", of());
        return pattern.map(Some).map_err(why);
    }
    match prefix.ends_with('/') {
        true => Err(format!("{} ends with /", of())),
        false => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::normalise;
    use super::super::tests::route;
    use super::*;

    fn matcher(routes: Vec<Route>) -> Paths<()> {
        let mut matcher = Paths::default();
        matcher.set("p", routes.into_iter().map(|route| (route, ()))).unwrap();
        matcher
    }

    /// Prefix, alias, extra route, pattern and `/`, as a plugin with two apps yields them.
    fn sample() -> Paths<()> {
        let pattern = Route { pattern: true, ..route("/v[0-9]+/x", "pattern") };
        let late = Route { pattern: true, ..route("/foo/.*z", "late") };
        matcher(vec![
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
        ])
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
            let path = normalise(raw.as_bytes()).unwrap();
            assert_eq!(matcher.find(&path).unwrap().rule.route.app, app, "{raw}");
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
            let hit = matcher.find(path).unwrap();
            assert_eq!(&path[hit.rest_at..], rest, "{path}");
        }
    }

    #[test]
    fn without_a_root_route_nothing_is_found_for_other_paths() {
        let matcher = matcher(vec![route("/foo", "foo")]);
        assert!(matcher.find("/").is_none());
        assert!(matcher.find("/é/foo").is_none());
        assert!(matcher.find("/foo").is_some());
    }

    #[test]
    fn an_unusable_route_is_named() {
        for (prefix, pattern) in [("foo", false), ("", false), ("/foo/", false), ("/(", true)] {
            let bad = Route { pattern, ..route(prefix, "bad") };
            let mut matcher = matcher(vec![route("/kept", "kept")]);
            let reason = matcher.set("p", [(bad, ())]).unwrap_err();
            assert!(reason.contains("p/bad"), "{reason}");
            assert!(matcher.find("/kept").is_some());
        }
    }

    fn app<'a>(matcher: &'a Paths<()>, path: &str) -> Option<&'a str> {
        matcher.find(path).map(|hit| hit.rule.route.app.as_str())
    }

    #[test]
    fn plugins_come_by_name_whenever_they_came() {
        let mut matcher = Paths::default();
        let pattern = Route { pattern: true, ..route("/shared/[a-z]+", "of_b") };
        for (plugin, routes) in [
            ("c", vec![route("/shared", "of_c"), route("/", "root_of_c")]),
            ("b", vec![pattern]),
            ("d", vec![route("/shared/x", "of_d"), route("/", "root_of_d")]),
        ] {
            matcher.set(plugin, routes.into_iter().map(|route| (route, ()))).unwrap();
        }
        assert_eq!(app(&matcher, "/shared/x"), Some("of_b"));
        assert_eq!(app(&matcher, "/shared/1"), Some("of_c"));
        assert_eq!(app(&matcher, "/"), Some("root_of_c"));
        matcher.set("a", [(route("/shared/x", "of_a"), ())]).unwrap();
        assert_eq!(app(&matcher, "/shared/x"), Some("of_a"));
        assert_eq!(app(&matcher, "/shared/y"), Some("of_b"));
    }

    #[test]
    fn a_change_replaces_what_the_plugin_had_and_leaves_earlier_clones_as_they_were() {
        let before = matcher(vec![route("/a", "a"), route("/b", "b"), route("/", "root")]);
        let mut after = before.clone();
        after.set("p", [(route("/b", "new"), ()), (route("/c", "c"), ())]).unwrap();
        after.set("q", [(route("/b", "of_q"), ()), (route("/q", "q"), ())]).unwrap();
        fn of(matcher: &Paths<()>) -> [Option<&str>; 4] {
            ["/a", "/b", "/c", "/q"].map(|path| app(matcher, path))
        }
        assert_eq!(of(&after), [None, Some("new"), Some("c"), Some("q")]);
        assert_eq!(of(&before), [Some("a"), Some("b"), Some("root"), Some("root")]);
        after.set("p", []).unwrap();
        assert_eq!(of(&after), [None, Some("of_q"), None, Some("q")]);
    }
}
