//! The requests that a plugin would take from the plugins that answer them.

use std::collections::BTreeMap;

use super::{Matcher, Route};

/// A route of one app whose requests would go to another plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The route.
    pub route: String,
    /// The plugin that answers its requests.
    pub plugin: String,
    /// Its app.
    pub app: String,
}

/// What a plugin with the routes `own` takes from `others` (routes of other plugins, in the order
/// of a [`super::RouteTable`]): routes that both declare, and routes whose requests would reach
/// `own` because of a pattern, or of the order of plugins. The route `/` answers what is left, so
/// that a longer route takes nothing from it; nor does a host take anything from routes with a wildcard or
/// without a host. Sorted, the shortest route first.
pub fn taken(own: &[Route], others: &[Route]) -> Vec<Taken> {
    let before = matcher([others]);
    let after = matcher([others, own]);
    let is_own = |plugin: &str| own.iter().any(|route| route.plugin == plugin);
    let goes_to_own =
        |route: &Route| find(&after, route).is_some_and(|holder| is_own(&holder.plugin));
    let mut found: BTreeMap<(usize, String), Taken> = BTreeMap::new();
    let mut add = |route: &Route, holder: &Route| {
        let label = route.label();
        found.entry((label.len(), label.clone())).or_insert_with(|| Taken {
            route: label,
            plugin: holder.plugin.clone(),
            app: holder.app.clone(),
        });
    };
    for route in others {
        let same = own.iter().any(|one| one.host == route.host && one.prefix == route.prefix);
        if same || (!route.pattern && goes_to_own(route)) {
            add(route, route);
        }
    }
    for route in own.iter().filter(|route| !route.pattern && route.prefix != "/") {
        let Some(holder) = find(&before, route) else { continue };
        if holder.prefix != "/" && goes_to_own(route) {
            add(route, holder);
        }
    }
    found.into_values().collect()
}

/// The route that answers requests with the host and the prefix of this one.
fn find<'a>(matcher: &'a Matcher<()>, route: &Route) -> Option<&'a Route> {
    Some(&matcher.find_at(route.host.as_deref(), &route.prefix)?.rule.route)
}

/// A pattern that cannot be used is left out: the plan says so.
fn matcher<const N: usize>(tables: [&[Route]; N]) -> Matcher<()> {
    let mut by_plugin: BTreeMap<&str, Vec<(Route, ())>> = BTreeMap::new();
    for route in tables.into_iter().flatten() {
        by_plugin.entry(&route.plugin).or_default().push((route.clone(), ()));
    }
    let mut matcher = Matcher::default();
    for (plugin, routes) in by_plugin {
        let _ = matcher.set(plugin, routes);
    }
    matcher
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Target;

    fn routes(plugin: &str, prefixes: &[&str]) -> Vec<Route> {
        let of = |prefix: &&str| Route {
            host: None,
            prefix: prefix.to_string(),
            pattern: prefix.contains(['+', '*', '|']),
            strip_prefix: false,
            maintenance: None,
            error_pages: None,
            target: Target::Upstream { name: format!("{plugin}/main") },
            plugin: plugin.into(),
            app: "main".into(),
        };
        prefixes.iter().map(of).collect()
    }

    /// The routes that a plugin takes from the plugin `live`.
    fn from_live(plugin: &str, own: &[&str], live: &[&str]) -> Vec<String> {
        let taken = taken(&routes(plugin, own), &routes("live", live));
        assert!(taken.iter().all(|one| one.plugin == "live" && one.app == "main"), "{taken:?}");
        taken.into_iter().map(|one| one.route).collect()
    }

    #[test]
    fn a_route_that_both_declare_is_taken_whichever_plugin_is_the_first_by_name() {
        for plugin in ["aaa", "zzz"] {
            assert_eq!(from_live(plugin, &["/x", "/"], &["/live", "/"]), ["/"]);
            assert_eq!(from_live(plugin, &["/live"], &["/live/main", "/live"])[0], "/live");
            assert_eq!(from_live(plugin, &["/v[0-9]+"], &["/v[0-9]+"]), ["/v[0-9]+"]);
        }
    }

    #[test]
    fn a_route_beside_others_or_below_the_root_takes_nothing() {
        for plugin in ["aaa", "zzz"] {
            assert!(from_live(plugin, &["/x/main", "/x"], &["/live", "/"]).is_empty());
            assert!(from_live(plugin, &["/lives", "/live2/x"], &["/live"]).is_empty());
        }
        assert!(from_live("zzz", &["/live/admin"], &["/live"]).is_empty(), "it is never reached");
    }

    #[test]
    fn requests_that_change_hands_by_the_order_of_plugins_are_taken() {
        assert_eq!(from_live("aaa", &["/live/admin"], &["/live"]), ["/live/admin"]);
        assert_eq!(from_live("aaa", &["/api"], &["/live", "/api/v1"]), ["/api/v1"]);
        assert!(from_live("zzz", &["/api"], &["/live", "/api/v1"]).is_empty());
    }

    #[test]
    fn a_pattern_takes_what_it_matches() {
        assert_eq!(from_live("aaa", &["/.*"], &["/live", "/"]), ["/", "/live"]);
        assert_eq!(from_live("aaa", &["/(live|other)"], &["/live"]), ["/live"]);
        assert_eq!(from_live("aaa", &["/v1"], &["/v[0-9]+"]), ["/v1"]);
    }

    #[test]
    fn hosts_are_taken_from_those_who_have_just_these() {
        let at = |plugin: &str, hosts: &[&str]| -> Vec<Route> {
            let host = |host: &&str| Route {
                host: Some(host.to_string()),
                ..routes(plugin, &["/"]).remove(0)
            };
            hosts.iter().map(host).collect()
        };
        let live = [at("live", &["a.org", "*.b.org"]), routes("live", &["/"])].concat();
        let of = |own: Vec<Route>| -> Vec<String> {
            taken(&own, &live).into_iter().map(|one| one.route).collect()
        };
        assert_eq!(of(at("zzz", &["a.org", "*.b.org"])), ["a.org/", "*.b.org/"]);
        assert!(of(at("aaa", &["x.b.org", "c.org", "*.org"])).is_empty());
        assert_eq!(of(routes("aaa", &["/"])), ["/"]);
    }
}
