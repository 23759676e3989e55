//! The routes of a plugin, in the order of MFSERV: apps by prefix, then
//! aliases; static before dynamic.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::diagnostic::Diagnostic;
use crate::names::WatcherName;
use crate::plan::{Count, Loaded, Plan, PluginInput};
use crate::plugin_spec::{AppSpec, PluginSpec};
use crate::route::{ErrorPage, ErrorPages, Paths, Route, RouteTable, Target, host, pages};
use crate::watcher::Probe;

/// The upstream of an app.
pub(super) fn upstream_name(plugin: &str, app: &AppSpec) -> String {
    format!("{plugin}/{}", app.command.name)
}

/// The prefixes of an app, its own one first.
fn prefixes(spec: &PluginSpec, app: &AppSpec) -> (String, Vec<String>) {
    let name = &app.command.name;
    let own = format!("/{}/{name}", spec.name);
    let mut aliases = Vec::new();
    if name == "main" || spec.apps.len() == 1 {
        aliases.push(format!("/{}", spec.name));
    }
    aliases.extend(app.extra_routes.iter().cloned());
    (own, aliases)
}

/// The probe of an app: it asks for a path that the app itself answers.
pub(super) fn http_probe(spec: &PluginSpec, app: &AppSpec) -> Probe {
    let named = app.http_test.as_ref().map(|test| &test.path).filter(|path| path.starts_with('/'));
    let path = match named {
        Some(path) if app.strip_prefix => without_prefix(spec, app, path).into(),
        Some(path) => path.clone(),
        None if !app.prefix_routing || app.strip_prefix => "/".into(),
        None => prefixes(spec, app).0,
    };
    Probe::Http { path, named: named.is_some() }
}

/// A path that is asked of the front, as the workers of an app get it.
fn without_prefix<'p>(spec: &PluginSpec, app: &AppSpec, path: &'p str) -> &'p str {
    let (own, aliases) = prefixes(spec, app);
    let below = |prefix: &String| path.strip_prefix(prefix.trim_end_matches('/'));
    let rests = std::iter::once(&own).chain(&aliases).filter_map(below);
    let rest =
        rests.filter(|rest| rest.is_empty() || rest.starts_with('/')).min_by_key(|r| r.len());
    rest.map_or(path, |rest| if rest.is_empty() { "/" } else { rest })
}

pub(super) fn of_plugin(
    plugin: &PluginInput,
    loaded: &Loaded,
    counts: &BTreeMap<WatcherName, Count>,
    host_names: &[String],
) -> Vec<Route> {
    let spec = &loaded.spec;
    if spec.routes_disabled {
        return Vec::new();
    }
    let routed = || spec.apps.iter().filter(|app| app.prefix_routing);
    let own = routed().map(|app| (app, vec![prefixes(spec, app).0]));
    let aliases = routed().map(|app| (app, prefixes(spec, app).1));
    let mut routes = Vec::new();
    let count = |app: &AppSpec| counts.get(&WatcherName::app(&spec.name, &app.command.name));
    for (app, prefixes) in own.chain(aliases) {
        for prefix in prefixes {
            push_routes(&mut routes, plugin, spec, app, (None, &prefix), count(app));
        }
    }
    for app in &spec.apps {
        for host in hosts(spec, app, host_names) {
            push_routes(&mut routes, plugin, spec, app, (Some(&host), "/"), count(app));
        }
    }
    routes
}

/// The hosts of an app, where it answers without a prefix: the names of MFSERV's routing by virtual
/// domains, those of `virtualdomain_based_routing_extra_vhosts` with it, and `_hosts`.
fn hosts(spec: &PluginSpec, app: &AppSpec, host_names: &[String]) -> Vec<String> {
    let mut all = app.hosts.clone();
    if app.virtual_domains {
        let (name, plugin) = (&app.command.name, &spec.name);
        for host in host_names {
            // A name with letters that no host name has has no such address.
            let is_main = name == "main" || spec.apps.len() == 1;
            let short = is_main.then(|| host::configured(&format!("{plugin}.{host}")));
            all.extend(short.into_iter().flatten());
            all.extend(host::configured(&format!("{name}.{plugin}.{host}")));
        }
        all.extend(app.extra_vhosts.iter().cloned());
    }
    let mut seen = BTreeSet::new();
    all.retain(|host| seen.insert(host.clone()));
    all
}

fn push_routes(
    routes: &mut Vec<Route>,
    plugin: &PluginInput,
    spec: &PluginSpec,
    app: &AppSpec,
    (host, prefix): (Option<&str>, &str),
    count: Option<&Count>,
) {
    let route = |prefix: &str, target| Route {
        host: host.map(str::to_owned),
        prefix: prefix.into(),
        pattern: Route::is_pattern(prefix),
        strip_prefix: false,
        maintenance: None,
        error_pages: error_pages(plugin, app),
        target,
        plugin: spec.name.clone(),
        app: app.command.name.clone(),
    };
    if app.static_routing {
        let root = static_root(plugin, app);
        let path = format!("{}{}", prefix.trim_end_matches('/'), app.static_url_prefix);
        let path = if path.is_empty() { "/" } else { &path };
        let fallback = app.static_fallback.clone();
        routes.push(match app.has_redirects() {
            false => route(path, Target::Static { root }),
            true => route(path, Target::Site { root, fallback }),
        });
    }
    let fixed = |status, body: &str| Target::Fixed { status, body: body.into() };
    let wanted = count.map_or(app.command.count, |count| count.wanted);
    if wanted > 0 {
        let target = Target::Upstream { name: upstream_name(&spec.name, app) };
        // FastCGI says both by itself: the prefix in SCRIPT_NAME, the whole path in REQUEST_URI.
        let strip_prefix = app.strip_prefix && !app.fastcgi;
        routes.push(Route { strip_prefix, ..route(prefix, target) });
    } else if count.is_some_and(Count::is_scaled) {
        routes.push(route(prefix, fixed(503, "This app is scaled to 0 workers.\n")));
    }
}

/// The directory of the static files of an app.
fn static_root(plugin: &PluginInput, app: &AppSpec) -> PathBuf {
    let directory = app.static_directory.trim_start_matches('/');
    plugin.dir.join(&app.command.name).join(directory)
}

/// The pages of an app for errors. A static site has `404.html` without a word about it, unless
/// another file answers paths without a file.
fn error_pages(plugin: &PluginInput, app: &AppSpec) -> Option<ErrorPages> {
    let mut pages = ErrorPages { root: static_root(plugin, app), pages: app.error_pages.clone() };
    if app.is_site() && app.static_fallback.is_empty() {
        pages.add(ErrorPage::of_convention());
    }
    (!pages.pages.is_empty()).then_some(pages)
}

/// What a plugin brings along for nginx.
pub(super) fn put_fragments(table: &mut RouteTable, loaded: &Loaded) {
    if !loaded.spec.routes_disabled && !loaded.fragments.is_empty() {
        table.fragments.insert(loaded.spec.name.clone(), loaded.fragments.clone());
    }
}

/// The routes that a plugin has had before, and what it has brought along.
pub(super) fn keep(table: &mut RouteTable, previous: &RouteTable, plugin: &str) {
    let routes = previous.routes.iter().filter(|route| route.plugin == plugin);
    table.routes.extend(routes.cloned());
    let fragments = previous.fragments.get(plugin);
    table.fragments.extend(fragments.map(|one| (plugin.to_string(), one.clone())));
}

/// The page for unknown URLs is the index of the welcome plugin.
pub(super) fn not_found_page(plugin: &PluginInput, loaded: &Loaded) -> Option<PathBuf> {
    let app = loaded.spec.apps.first()?;
    Some(plugin.dir.join(&app.command.name).join("index.html"))
}

/// The shortest path of each app: what a person opens.
pub(super) fn paths_for_people(routes: &[Route]) -> Vec<String> {
    pages(routes).into_values().map(str::to_owned).collect()
}

/// The hosts of all apps, in the order of the routes.
pub(super) fn hosts_for_people(routes: &[Route]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for host in routes.iter().filter_map(|route| route.host.as_ref()) {
        if !all.contains(host) {
            all.push(host.clone());
        }
    }
    all
}

/// Which keys decide a route.
fn keys_of(route: &Route) -> &'static str {
    match route.host {
        None => "prefix_based_routing_extra_routes",
        Some(_) => "_hosts or virtualdomain_based_routing_extra_vhosts",
    }
}

/// Two plugins that ask for the same requests: the first by name gets them, and
/// somebody should know.
pub(super) fn diagnose_overlaps(plan: &mut Plan) {
    let mut owners: BTreeMap<String, &Route> = BTreeMap::new();
    let mut problems = Vec::new();
    for route in &plan.table.routes {
        match owners.get(&route.label()) {
            Some(first) if first.plugin != route.plugin || first.app != route.app => {
                problems.push(
                    Diagnostic::warning(format!(
                        "two apps ask for the requests of {}",
                        route.label()
                    ))
                    .because(format!(
                        "{}/{} and {}/{} both declare it; the first one gets them all",
                        first.plugin, first.app, route.plugin, route.app
                    ))
                    .help(format!("change {} of one of them", keys_of(route)))
                    .about(&first.plugin)
                    .about(&route.plugin),
                );
            }
            Some(_) => {}
            None => drop(owners.insert(route.label(), route)),
        }
    }
    plan.problems.extend(problems);
}

/// Takes routes away from all plugins but the one that was allowed to take them, as long as that
/// declares them.
pub(super) fn give_up_taken(plan: &mut Plan, takers: &BTreeMap<String, String>) {
    let routes = std::mem::take(&mut plan.table.routes);
    let is_taken = |route: &Route| {
        takers.get(&route.label()).is_some_and(|taker| {
            let declares = |one: &Route| one.plugin == *taker && one.label() == route.label();
            route.plugin != *taker && routes.iter().any(declares)
        })
    };
    let (given_up, kept) = routes.iter().cloned().partition(is_taken);
    plan.table.routes = kept;
    plan.given_up = given_up;
    for route in &plan.given_up {
        let taker = takers.get(&route.label()).map_or("", String::as_str);
        plan.problems.push(
            Diagnostic::warning(format!(
                "{}/{} does not get the requests of {}",
                route.plugin,
                route.app,
                route.label()
            ))
            .because(format!("{taker} has taken the route from it (--take-route)"))
            .help(format!("uninstall {taker}, or change {} of one", keys_of(route)))
            .about(&route.plugin),
        );
        let left = plan.table.routes.iter().filter(|one| one.plugin == route.plugin);
        let left: Vec<Route> = left.cloned().collect();
        if let Some(plugin) = plan.plugins.iter_mut().find(|one| one.name == route.plugin) {
            plugin.paths = paths_for_people(&left);
            plugin.hosts = hosts_for_people(&left);
        }
    }
}

/// A route with requests that the node itself answers, so that the app never gets them.
pub(super) fn diagnose_own_pages(plan: &mut Plan) {
    let mut seen = BTreeSet::new();
    let mut problems = Vec::new();
    for route in &plan.table.routes {
        // Only what begins with /__ and the health check belong to the node on every host.
        let is_free =
            |page: &OwnPage| route.host.is_some() && matches!(page.path, "/status" | "/uuid");
        let what = match own_page(route, plan.table.server.health_path.as_deref()) {
            Some(page) if is_free(&page) => continue,
            Some(page) if page.is_answered => {
                format!("the node itself answers requests of {}", page.path)
            }
            Some(page) => format!("{} may become the address of a page of the node", page.path),
            None => continue,
        };
        if !seen.insert((&route.plugin, &route.app, what.clone())) {
            continue;
        }
        problems.push(
            Diagnostic::warning(what)
                .because(format!(
                    "{}/{} declares the route {}, but /status, /uuid, /__… and the health check \
                     are addresses of the node",
                    route.plugin,
                    route.app,
                    route.label()
                ))
                .help("give the plugin another name, or the app another route")
                .about(&route.plugin),
        );
    }
    plan.problems.extend(problems);
}

/// A page of the node that a route names.
struct OwnPage<'a> {
    path: &'a str,
    /// The node has such a page in this version.
    is_answered: bool,
}

/// Pages of the node, as `front/src/embedded/request/endpoints.rs` has them.
const OWN_PAGES: [&str; 5] = ["/status", "/uuid", "/__status", "/__uuid", "/__upstream_status"];
/// The same, with everything below.
const OWN_TREES: [&str; 3] = ["/__socket_down", "/__socket_up", "/__dev"];
/// A path that no plugin means: a pattern that matches it is for everything, as the route `/` is.
const ANY_PATH: &str = "/any-path-of-no-plugin";

fn own_page<'a>(route: &'a Route, health: Option<&'a str>) -> Option<OwnPage<'a>> {
    let is_below = |tree: &&str| {
        route.prefix.strip_prefix(tree).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if route.pattern {
        let mut matcher = Paths::default();
        matcher.set(&route.plugin, [(route.clone(), ())]).ok()?;
        let named = |path: &str| matcher.find(path).is_some();
        let path = OWN_PAGES.into_iter().chain(health).find(|path| named(path))?;
        return (!named(ANY_PATH)).then_some(OwnPage { path, is_answered: true });
    }
    let path = route.prefix.as_str();
    let is_page = |path: &str| OWN_PAGES.contains(&path) || health == Some(path);
    let tree = OWN_TREES.into_iter().find(is_below);
    if let Some(path) = tree.or_else(|| is_page(path).then_some(path)) {
        return Some(OwnPage { path, is_answered: true });
    }
    let end = path.get(1..).and_then(|rest| rest.find('/')).map_or(path.len(), |at| at + 1);
    let path = &path[..end];
    let is_kept = path.starts_with("/__") && !is_page(path);
    is_kept.then_some(OwnPage { path, is_answered: false })
}
