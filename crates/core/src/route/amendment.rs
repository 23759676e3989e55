//! What a new table changes, plugin by plugin: what does not change is not said again.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Fragments, Route, RouteTable, ServerSettings, UpstreamSpec};

/// What one plugin has in a table. An empty one: the plugin has gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// Its rules, in order.
    pub routes: Vec<Route>,
    /// Its apps, by name `PLUGIN/APP`.
    pub upstreams: BTreeMap<String, UpstreamSpec>,
    /// What it brings along for nginx.
    #[serde(default, skip_serializing_if = "Fragments::is_empty")]
    pub fragments: Fragments,
}

/// From one table to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amendment {
    /// Settings of the listening side, all of them.
    pub server: ServerSettings,
    /// The page for URLs that no route matches.
    pub not_found_page: Option<PathBuf>,
    /// The plugins that change, by name, with all that they have from now on.
    pub sections: BTreeMap<String, Section>,
}

impl Amendment {
    /// From nothing to this table.
    pub fn whole(table: RouteTable) -> Self {
        let RouteTable { server, routes, upstreams, not_found_page, fragments } = table;
        let mut sections: BTreeMap<String, Section> = BTreeMap::new();
        for route in routes {
            match sections.get_mut(&route.plugin) {
                Some(section) => section.routes.push(route),
                None => sections.entry(route.plugin.clone()).or_default().routes.push(route),
            }
        }
        for (name, spec) in upstreams {
            let section = sections.entry(plugin_of(&name).to_string()).or_default();
            section.upstreams.insert(name, spec);
        }
        for (plugin, fragments) in fragments {
            sections.entry(plugin).or_default().fragments = fragments;
        }
        Self { server, not_found_page, sections }
    }

    /// From one table to another: only the plugins that differ.
    pub fn between(before: &RouteTable, after: &RouteTable) -> Self {
        let (old, new) = (by_plugin(before), by_plugin(after));
        let gone = old.keys().filter(|plugin| !new.contains_key(*plugin));
        let gone = gone.map(|plugin| (plugin.to_string(), Section::default()));
        let changed = new.iter().filter(|(plugin, view)| old.get(*plugin) != Some(view));
        let changed = changed.map(|(plugin, view)| (plugin.to_string(), view.to_section()));
        Self {
            server: after.server.clone(),
            not_found_page: after.not_found_page.clone(),
            sections: changed.chain(gone).collect(),
        }
    }
}

/// The plugin of an app's name `PLUGIN/APP`.
pub fn plugin_of(upstream: &str) -> &str {
    upstream.split_once('/').map_or(upstream, |(plugin, _)| plugin)
}

/// A section that is only looked at.
#[derive(Default, PartialEq)]
struct View<'a> {
    routes: Vec<&'a Route>,
    upstreams: Vec<(&'a String, &'a UpstreamSpec)>,
    fragments: Option<&'a Fragments>,
}

impl View<'_> {
    fn to_section(&self) -> Section {
        let upstreams = self.upstreams.iter();
        Section {
            routes: self.routes.iter().map(|route| (*route).clone()).collect(),
            upstreams: upstreams.map(|(name, spec)| ((*name).clone(), (*spec).clone())).collect(),
            fragments: self.fragments.cloned().unwrap_or_default(),
        }
    }
}

fn by_plugin(table: &RouteTable) -> BTreeMap<&str, View<'_>> {
    let mut views: BTreeMap<&str, View<'_>> = BTreeMap::new();
    for route in &table.routes {
        views.entry(&route.plugin).or_default().routes.push(route);
    }
    for app in &table.upstreams {
        views.entry(plugin_of(app.0)).or_default().upstreams.push(app);
    }
    for (plugin, fragments) in &table.fragments {
        views.entry(plugin).or_default().fragments = Some(fragments);
    }
    views
}

#[cfg(test)]
mod tests {
    use super::super::tests::{route, table};
    use super::super::{Fragment, Slots, Target};
    use super::*;

    fn of(plugin: &str, prefixes: &[&str]) -> Vec<Route> {
        let target = Target::Upstream { name: format!("{plugin}/a") };
        let one = |prefix: &&str| Route {
            plugin: plugin.into(),
            target: target.clone(),
            ..route(prefix, "a")
        };
        prefixes.iter().map(one).collect()
    }

    fn with(plugins: &[(&str, &[&str])]) -> RouteTable {
        let spec = UpstreamSpec::new(Slots::Unlimited);
        let routes = plugins.iter().flat_map(|(plugin, prefixes)| of(plugin, prefixes)).collect();
        let name = |(plugin, _): &(&str, &[&str])| (format!("{plugin}/a"), spec.clone());
        RouteTable { upstreams: plugins.iter().map(name).collect(), ..table(routes) }
    }

    #[test]
    fn a_whole_table_is_all_plugins() {
        let whole = Amendment::whole(with(&[("p", &["/p/1", "/p/2"]), ("q", &["/q"])]));
        assert_eq!(whole.sections.keys().collect::<Vec<_>>(), ["p", "q"]);
        assert_eq!(whole.sections["p"].routes.len(), 2);
        assert!(whole.sections["q"].upstreams.contains_key("q/a"));
    }

    #[test]
    fn only_plugins_that_differ_are_said() {
        let before = with(&[("gone", &["/g"]), ("same", &["/s"]), ("p", &["/p/1", "/p/2"])]);
        let after = with(&[("new", &["/n"]), ("same", &["/s"]), ("p", &["/p/2", "/p/1"])]);
        let change = Amendment::between(&before, &after);
        assert_eq!(change.sections.keys().collect::<Vec<_>>(), ["gone", "new", "p"]);
        assert_eq!(change.sections["gone"], Section::default());
        assert_eq!(change.sections["p"].routes[0].prefix, "/p/2");
        assert!(Amendment::between(&after, &after).sections.is_empty());
    }

    #[test]
    fn another_fragment_is_a_difference_and_stays_in_a_whole_table() {
        let before = with(&[("p", &["/p"]), ("q", &["/q"])]);
        let mut after = before.clone();
        let fragment = Fragment { file: "a.conf".into(), text: "gzip on;".into() };
        let fragments = Fragments { http: Some(fragment), ..Fragments::default() };
        after.fragments.insert("p".into(), fragments.clone());
        let change = Amendment::between(&before, &after);
        assert_eq!(change.sections.keys().collect::<Vec<_>>(), ["p"]);
        assert_eq!(change.sections["p"].fragments, fragments);
        assert_eq!(Amendment::whole(after).sections["p"].fragments, fragments);
    }

    #[test]
    fn another_setting_of_an_app_is_a_difference() {
        let before = with(&[("p", &["/p"])]);
        let mut after = before.clone();
        after.upstreams.get_mut("p/a").unwrap().timeout_ms = 2;
        let change = Amendment::between(&before, &after);
        assert_eq!(change.sections["p"].upstreams["p/a"].timeout_ms, 2);
    }
}
