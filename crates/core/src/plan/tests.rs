use std::path::Path;

use super::*;
use crate::diagnostic::Location;
use crate::diff::Changes;
use crate::ini::{self, Dialect};
use crate::route::{Fragments, Target};
use crate::watcher::Probe;
use crate::{module_config, plugin_config};

mod held;
mod hosts;
mod sendfile;
mod servers;
mod sites;
mod transport;

const GENERAL: &str =
    "[general]\n_version=1.0\n_summary=s\n_license=l\n_url=u\n_maintainer=m\n_vendor=v\n";

pub(super) fn module(text: &str) -> ModuleConfig {
    let document = ini::parse(text, "config.ini", Dialect::Module).unwrap();
    module_config::resolve(&[document], &[], &BTreeMap::new(), "GENERIC").config
}

pub(super) fn plugin(name: &str, text: &str) -> PluginInput {
    let text = format!("{GENERAL}{text}");
    let document = ini::parse(&text, "config.ini", Dialect::Plugin).unwrap();
    let resolved =
        plugin_config::resolve(name, &document, &[], &BTreeMap::new(), "GENERIC", &|_| true);
    PluginInput {
        name: name.into(),
        dir: Path::new("/rt/var/releases").join(name).join("1"),
        loaded: resolved.map(|(spec, warnings)| Loaded::without_environment(spec, warnings)),
    }
}

pub(super) fn inputs<'a>(module: &'a ModuleConfig, plugins: Vec<PluginInput>) -> Inputs<'a> {
    Inputs {
        generation: 1,
        module,
        module_problems: Vec::new(),
        var_dir: "/rt/var".into(),
        short_dir: "/tmp/short".into(),
        log_dir: "/rt/log".into(),
        body_temp_dir: "/rt/tmp".into(),
        uuid: "u".into(),
        plugins,
        front: Some(RoleProgram {
            argv: vec!["mfserv".into(), "front".into()],
            env: BTreeMap::new(),
            cwd: "/rt".into(),
        }),
        telemetry: None,
        telegraf: None,
        held: BTreeMap::new(),
        host_names: vec!["node".into(), "node.example.org".into(), "localhost".into()],
        takers: BTreeMap::new(),
        previous: None,
    }
}

fn plan(plugins: Vec<PluginInput>) -> Plan {
    let module = module("");
    Plan::new(inputs(&module, plugins))
}

const WEB: &str =
    "[app_main]\n_cmd_and_args=bjoern_wrapper.py m \"{unix_socket_path}\"\nnumprocesses=2\n";

fn prefixes(plan: &Plan) -> Vec<(&str, bool)> {
    let is_static = |target: &Target| matches!(target, Target::Static { .. } | Target::Site { .. });
    plan.table.routes.iter().map(|r| (r.prefix.as_str(), is_static(&r.target))).collect()
}

#[test]
fn an_app_is_routed_by_its_prefix_then_by_its_aliases_static_before_dynamic() {
    let text = format!("{WEB}prefix_based_routing_extra_routes=/x;/\n");
    let plan = plan(vec![plugin("foo", &text)]);
    let wanted = [
        ("/foo/main/static", true),
        ("/foo/main", false),
        ("/foo/static", true),
        ("/foo", false),
        ("/x/static", true),
        ("/x", false),
        ("/static", true),
        ("/", false),
    ];
    assert_eq!(prefixes(&plan), wanted);
    assert_eq!(plan.plugins[0].paths, ["/"]);
}

#[test]
fn a_static_app_needs_no_worker() {
    let text = "[app_main]\nnumprocesses=0\n_static_url_prefix=\n_static_directory=\n";
    let plan = plan(vec![plugin("s", text)]);
    assert_eq!(prefixes(&plan), [("/s/main", true), ("/s", true)]);
    assert!(!plan.watchers.keys().any(|name| name.plugin().is_some()));
    let Target::Site { root, .. } = &plan.table.routes[0].target else { panic!("static") };
    assert_eq!(root, Path::new("/rt/var/releases/s/1/main"));
}

#[test]
fn an_app_becomes_a_watcher_that_is_asked_at_its_own_address() {
    let plan = plan(vec![plugin("foo", &format!("{WEB}smart_stop_delay=7\ntimeout=9\n"))]);
    let watcher = &plan.watchers[&WatcherName::app("foo", "main")];
    assert_eq!(watcher.count, 2);
    assert_eq!(watcher.probe, Probe::Http { path: "/foo/main".into(), named: false });
    assert_eq!(watcher.socket_stem.as_deref(), Some(Path::new("/rt/var/app_foo_main")));
    assert_eq!((watcher.drain_timeout_ms, watcher.stop_timeout_ms), (31_000, 7_000));
    assert_eq!(watcher.output.stdout, Path::new("/rt/log/app_foo_main.log"));
    assert_eq!(plan.table.upstreams["foo/main"].timeout_ms, 9_000);
    assert_eq!(watcher.answer_timeout_ms, 9_000);
}

#[test]
fn a_page_that_the_configuration_names_is_known_as_such_to_the_probe() {
    let plan = plan(vec![plugin("foo", &format!("{WEB}_http_test_endpoint=/foo/alive\n"))]);
    let probe = &plan.watchers[&WatcherName::app("foo", "main")].probe;
    assert_eq!(*probe, Probe::Http { path: "/foo/alive".into(), named: true });
}

#[test]
fn a_socket_path_that_would_be_too_long_moves_to_the_short_directory() {
    let long = "l".repeat(90);
    let plan = plan(vec![plugin(&long, WEB)]);
    let watcher = &plan.watchers[&WatcherName::app(&long, "main")];
    let stem = watcher.socket_stem.as_deref().unwrap();
    assert!(stem.starts_with("/tmp/short"), "{stem:?}");
    let link = watcher.socket_link_stem.as_deref().unwrap();
    assert_eq!(link, Path::new("/rt/var").join(format!("app_{long}_main")));
}

#[test]
fn a_worker_that_drains_is_given_as_long_as_the_front_gives_its_websockets() {
    let module = module("[front]\nupgrade_drain_timeout=90\n");
    let plan = Plan::new(inputs(&module, vec![plugin("foo", &format!("{WEB}timeout=9\n"))]));
    assert_eq!(plan.watchers[&WatcherName::app("foo", "main")].drain_timeout_ms, 91_000);
}

#[test]
fn a_refused_plugin_is_refused_alone() {
    let broken = plugin("bad", "[app_main]\nnumproceses=1\n");
    assert!(broken.loaded.is_err());
    let plan = plan(vec![broken, plugin("good", WEB)]);
    assert_eq!(plan.plugins[0].state, PluginState::Refused);
    assert_eq!(plan.plugins[1].state, PluginState::Active);
    assert!(plan.problems.iter().any(Diagnostic::is_error));
    assert!(plan.watchers.contains_key(&WatcherName::app("good", "main")));
}

#[test]
fn a_plugin_that_breaks_later_goes_on_with_its_last_good_configuration() {
    let module = module("");
    let before = Plan::new(inputs(&module, vec![plugin("p", WEB), plugin("q", WEB)]));
    let broken = vec![plugin("p", "[app_main]\nfoo=1\n"), plugin("q", WEB)];
    let after = Plan::new(Inputs { previous: Some(&before), ..inputs(&module, broken) });
    assert_eq!(after.plugins[0].state, PluginState::LastGood);
    assert_eq!(after.watchers, before.watchers);
    assert_eq!(after.table.routes, before.table.routes);
    let changes = Changes::between(Some(&before), &after);
    assert!(changes.is_empty(), "{changes}");
}

#[test]
fn a_change_of_one_plugin_touches_no_other() {
    let module = module("");
    let old = Plan::new(inputs(&module, vec![plugin("a", WEB), plugin("b", WEB)]));
    let changed = WEB.replace("bjoern_wrapper.py m", "bjoern_wrapper.py other");
    let new = Plan::new(inputs(&module, vec![plugin("a", &changed), plugin("b", WEB)]));
    let changes = Changes::between(Some(&old), &new);
    assert_eq!(changes.replace, [WatcherName::app("a", "main")]);
    assert!(changes.start.is_empty() && changes.stop.is_empty() && changes.rescale.is_empty());
    assert!(!changes.table);
    assert!(Changes::between(Some(&new), &new).is_empty());
}

fn held(count: u32, of: Option<u64>) -> BTreeMap<WatcherName, Held> {
    BTreeMap::from([(
        WatcherName::app("a", "main"),
        Held { count: Some(count), of, ..Held::default() },
    )])
}

#[test]
fn a_count_of_an_override_file_is_known_by_its_line_and_zero_of_it_is_an_app_scaled_to_nothing() {
    let own = ini::parse(&format!("{GENERAL}{WEB}"), "config.ini", Dialect::Plugin).unwrap();
    let text = "[app_main]\n# so few\nnumprocesses=0\n";
    let over = ini::parse(text, "over.ini", Dialect::Plugin).unwrap();
    let (spec, warnings) =
        plugin_config::resolve("a", &own, &[over], &BTreeMap::new(), "GENERIC", &|_| true).unwrap();
    let loaded = Ok(Loaded {
        spec,
        warnings,
        env: BTreeMap::new(),
        secrets: Default::default(),
        crontab: Vec::new(),
        fragments: Fragments::default(),
    });
    let plan = plan(vec![PluginInput { loaded, ..plugin("a", WEB) }]);
    let main = WatcherName::app("a", "main");
    let count = &plan.counts[&main];
    assert_eq!((count.at.clone(), count.held), (Some(Location::new("over.ini", 3)), false));
    assert_eq!(plan.watchers[&main].count, 0);
    let route = plan.table.routes.iter().find(|route| route.prefix == "/a").unwrap();
    assert!(matches!(route.target, Target::Fixed { status: 503, .. }), "{route:?}");
}

#[test]
fn more_workers_of_the_same_replace_none() {
    let module = module("");
    let old = Plan::new(inputs(&module, vec![plugin("a", WEB)]));
    let new = Plan::new(Inputs { held: held(5, None), ..inputs(&module, vec![plugin("a", WEB)]) });
    let changes = Changes::between(Some(&old), &new);
    assert_eq!(changes.rescale, [WatcherName::app("a", "main")]);
    assert!(changes.replace.is_empty());
    assert_eq!(changes.to_string(), "rescale app.a.main");
}

#[test]
fn an_app_scaled_to_nothing_is_still_there_and_says_so() {
    let module = module("");
    let none = Plan::new(Inputs { held: held(0, None), ..inputs(&module, vec![plugin("a", WEB)]) });
    assert_eq!(none.watchers[&WatcherName::app("a", "main")].count, 0);
    let all = Plan::new(inputs(&module, vec![plugin("a", WEB)]));
    let changes = Changes::between(Some(&all), &none);
    assert_eq!((changes.rescale.len(), changes.replace.len()), (1, 0), "{changes}");
    let dynamic = none.table.routes.iter().find(|route| route.prefix == "/a").unwrap();
    assert!(matches!(dynamic.target, Target::Fixed { status: 503, .. }), "{dynamic:?}");
    let off = WEB.replace("numprocesses=2", "numprocesses=0");
    let some =
        Plan::new(Inputs { held: held(3, None), ..inputs(&module, vec![plugin("a", &off)]) });
    let watcher = &some.watchers[&WatcherName::app("a", "main")];
    assert_eq!((watcher.count, watcher.argv.is_empty()), (3, false));
    assert!(some.table.upstreams.contains_key("a/main"));
}

#[test]
fn from_nothing_everything_starts_and_a_removed_plugin_stops() {
    let module = module("[nginx]\nport=1234\n");
    let all = Plan::new(inputs(&module, vec![plugin("a", WEB), plugin("b", WEB)]));
    let boot = Changes::between(None, &all);
    assert_eq!(boot.start.len(), 3, "two apps and the front");
    assert_eq!(boot.listen[0].address, "0.0.0.0:1234");
    assert_eq!(all.watchers[&WatcherName::front()].listeners, ["http:0.0.0.0:1234"]);
    let less = Plan::new(inputs(&module, vec![plugin("a", WEB)]));
    let changes = Changes::between(Some(&all), &less);
    assert_eq!(changes.stop, [WatcherName::app("b", "main")]);
    assert!(changes.table);
}

#[test]
fn two_plugins_that_ask_for_the_same_requests_are_diagnosed() {
    let text = format!("{WEB}prefix_based_routing_extra_routes=/same\n");
    let plan = plan(vec![plugin("a", &text), plugin("b", &text)]);
    let problem = plan.problems.iter().find(|p| p.what.contains("/same")).unwrap();
    assert!(problem.because[0].contains("a/main and b/main"), "{problem}");
    assert_eq!(*problem.plugins, ["a".into(), "b".into()]);
}

#[test]
fn a_plugin_that_has_the_address_of_a_page_of_the_node_is_warned_of_it() {
    for name in ["status", "uuid", "__upstream_status"] {
        let plan = plan(vec![plugin(name, WEB), plugin("hello", WEB)]);
        let problem = plan.problems.iter().find(|p| p.is_about(name)).unwrap();
        assert!(problem.what.contains(&format!("/{name}")), "{problem}");
        assert_eq!(plan.problems.iter().filter(|p| p.what == problem.what).count(), 1);
        assert!(!plan.problems.iter().any(|p| p.is_about("hello")), "{:?}", plan.problems);
    }
    let extra = format!("{WEB}prefix_based_routing_extra_routes=/uuid\n");
    let taken = plan(vec![plugin("hello", &extra)]);
    assert!(taken.problems.iter().any(|p| p.is_about("hello") && p.what.contains("/uuid")));
    // Below the page of the node the app answers as ever.
    assert!(plan(vec![plugin("statuses", WEB)]).problems.is_empty());
}

#[test]
fn every_kind_of_route_that_names_a_page_of_the_node_is_warned_of() {
    let said = |keys: &str| -> Vec<String> {
        let text = format!("{WEB}{keys}\n");
        let plan = plan(vec![plugin("hello", &text)]);
        plan.problems.into_iter().map(|problem| problem.what).collect()
    };
    let answered = |path: &str| [format!("the node itself answers requests of {path}")];
    let route = |route: &str| said(&format!("prefix_based_routing_extra_routes={route}"));
    for path in ["/uuid", "/__health"] {
        assert_eq!(route(path), answered(path));
    }
    assert_eq!(route("/__dev/hello"), answered("/__dev"));
    assert_eq!(route("/__socket_down/x"), answered("/__socket_down"));
    // A pattern, unless it is for every path, as `/` is.
    assert_eq!(route("/(status|info)"), answered("/status"));
    assert!(route("/.*").is_empty() && route("/").is_empty(), "{:?}", route("/.*"));
    // Names that the node keeps for later are served.
    assert_eq!(route("/__mine/x"), ["/__mine may become the address of a page of the node"]);
    // Static files, and two plugins that want the same page.
    let files = "prefix_based_routing_extra_routes=/uuid\n_static_url_prefix=\n";
    let files = files.to_string() + "_static_directory=x\nnumprocesses=0\n_cmd_and_args=\n";
    let of = |name| plugin(name, &format!("[app_main]\n{files}"));
    let both = plan(vec![of("a"), of("b")]);
    let own = both.problems.iter().filter(|problem| problem.what == answered("/uuid")[0]);
    assert_eq!(own.count(), 2, "{:?}", both.problems);
}

#[test]
fn a_route_that_was_taken_from_a_plugin_goes_to_the_taker_whatever_its_name() {
    let module = module("");
    let text = format!("{WEB}prefix_based_routing_extra_routes=/;/same\n");
    let plugins = || vec![plugin("a", &text), plugin("z", &text)];
    let plan = |takers: &[(&str, &str)], plugins| {
        let takers = takers.iter().map(|(route, by)| (route.to_string(), by.to_string()));
        Plan::new(Inputs { takers: takers.collect(), ..inputs(&module, plugins) })
    };
    let holders = |plan: &Plan, prefix: &str| -> Vec<String> {
        let of = plan.table.routes.iter().filter(|route| route.prefix == prefix);
        of.map(|route| route.plugin.clone()).collect()
    };
    let taken = plan(&[("/", "z")], plugins());
    assert_eq!((holders(&taken, "/"), holders(&taken, "/same").len()), (vec!["z".into()], 2));
    assert_eq!(taken.plugins[0].paths, ["/a"]);
    let said = taken.problems.iter().filter(|problem| problem.what.contains("a/main does not get"));
    assert!(said.count() == 1 && taken.given_up.len() == 1, "{:?}", taken.problems);
    // Without the taker everything is as it was.
    let alone = plan(&[("/", "z"), ("/same", "gone")], vec![plugin("a", &text)]);
    assert_eq!(holders(&alone, "/"), ["a"]);
    assert!(alone.given_up.is_empty() && alone.problems.is_empty());
    // What is taken newly is what the release before did not have.
    let before = plan(&[], vec![plugin("a", &text), plugin("z", WEB)]);
    let newly: Vec<String> =
        before.newly_taken("z", &taken).into_iter().map(|one| one.route).collect();
    assert_eq!(newly, ["/", "/same", "/static", "/same/static"]);
    assert!(taken.newly_taken("z", &taken).is_empty());
    assert!(plan(&[], plugins()).newly_taken("z", &plan(&[], plugins())).is_empty());
}

#[test]
fn every_problem_of_a_plugin_says_whose_it_is_and_those_of_the_node_do_not() {
    let module = module("");
    let plugins = vec![
        plugin("refused", "[app_main]\nnumproceses=1\n"),
        plugin("warned", &format!("{WEB}_virtualdomain_based_routing=doubtful\n")),
        plugin("not_started", "[app_main]\n_cmd_and_args={debug_extra_options}\nnumprocesses=1\n"),
    ];
    let module_problems = vec![Diagnostic::warning("refused, warned: words of the node")];
    let plan = Plan::new(Inputs { module_problems, ..inputs(&module, plugins) });
    for name in ["refused", "warned", "not_started"] {
        let own: Vec<_> = plan.problems.iter().filter(|p| p.is_about(name)).collect();
        assert_eq!(own.len(), 1, "{name}: {:?}", plan.problems);
        assert_eq!(*own[0].plugins, [name.into()]);
    }
    assert_eq!(plan.problems.len(), 4, "{:?}", plan.problems);
    assert!(plan.problems[0].plugins.is_empty());
}

#[test]
fn a_command_that_cannot_be_split_is_not_started_and_says_why() {
    let text = "[app_main]\n_cmd_and_args=run 'open\nnumprocesses=1\n";
    let plan = plan(vec![plugin("a", text)]);
    assert!(!plan.watchers.contains_key(&WatcherName::app("a", "main")));
    assert!(plan.problems.iter().any(Diagnostic::is_error), "{:?}", plan.problems);
}
