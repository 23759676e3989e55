//! Routes with a host: the names of MFSERV's virtual domains, `_hosts`, and who gets them.

use super::*;

fn sites(plan: &Plan) -> Vec<String> {
    let routes = plan.table.routes.iter().filter(|route| route.host.is_some());
    routes.map(|route| format!("{} {}", route.app, route.label())).collect()
}

#[test]
fn an_app_with_virtual_domains_has_the_names_of_mfserv_without_a_prefix() {
    let text = format!(
        "{WEB}_virtualdomain_based_routing=1\n_static_routing=0\n\
         virtualdomain_based_routing_extra_vhosts=www.example.org,foo.localhost\n\
         prefix_based_routing_extra_routes=/alias\n\
         [app_api]\n_cmd_and_args=run {{unix_socket_path}}\nnumprocesses=1\n\
         _virtualdomain_based_routing=true\n"
    );
    let plan = plan(vec![plugin("foo", &text)]);
    assert_eq!(
        sites(&plan),
        [
            "main foo.node/",
            "main main.foo.node/",
            "main foo.node.example.org/",
            "main main.foo.node.example.org/",
            "main foo.localhost/",
            "main main.foo.localhost/",
            "main www.example.org/",
            "api api.foo.node/static",
            "api api.foo.node/",
            "api api.foo.node.example.org/static",
            "api api.foo.node.example.org/",
            "api api.foo.localhost/static",
            "api api.foo.localhost/",
        ]
    );
    assert!(prefixes(&plan).contains(&("/alias", false)), "both kinds of routes are there");
    assert_eq!(plan.plugins[0].hosts[..2], ["foo.node", "main.foo.node"]);
}

#[test]
fn an_app_can_have_hosts_and_no_prefix() {
    let text = format!("{WEB}_hosts=Example.org,*.example.org\n_prefix_based_routing=0\n");
    let plan = plan(vec![plugin("foo", &text)]);
    let labels: Vec<String> = plan.table.routes.iter().map(Route::label).collect();
    assert_eq!(
        labels,
        ["example.org/static", "example.org/", "*.example.org/static", "*.example.org/"]
    );
    assert_eq!(plan.plugins[0].hosts, ["example.org", "*.example.org"]);
    assert!(plan.plugins[0].paths.is_empty() && plan.problems.is_empty(), "{:?}", plan.problems);
}

#[test]
fn a_host_of_two_plugins_is_diagnosed_and_can_be_taken() {
    let module = module("");
    let text = format!("{WEB}_hosts=example.org\n_static_routing=0\n");
    let plugins = || vec![plugin("a", &text), plugin("z", &text)];
    let both = Plan::new(inputs(&module, plugins()));
    let said: Vec<String> = both.problems.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    for part in ["the requests of example.org/", "a/main and z/main", "change _hosts"] {
        assert!(said[0].contains(part), "{said:?}");
    }
    let takers = BTreeMap::from([("example.org/".to_string(), "z".to_string())]);
    let taken = Plan::new(Inputs { takers, ..inputs(&module, plugins()) });
    let left: Vec<&Route> = taken.table.routes.iter().filter(|one| one.host.is_some()).collect();
    assert_eq!((left.len(), left[0].plugin.as_str()), (1, "z"));
    assert!(taken.plugins[0].hosts.is_empty() && taken.plugins[1].hosts == ["example.org"]);
}

#[test]
fn a_page_of_the_node_belongs_to_the_app_on_the_hosts_of_the_app() {
    let text = format!("{WEB}_hosts=example.org\n_static_url_prefix=/status\n");
    let said = plan(vec![plugin("foo", &text)]).problems;
    assert!(said.is_empty(), "{said:?}");
    let text = format!("{WEB}_hosts=example.org\n_static_url_prefix=/__health\n");
    assert!(!plan(vec![plugin("foo", &text)]).problems.is_empty());
}

#[test]
fn workers_of_an_app_that_strips_are_told_so_at_each_of_its_routes_but_never_its_files() {
    let text = format!(
        "{WEB}_strip_prefix=1\n_hosts=foo.org\nprefix_based_routing_extra_routes=/alias;/\n\
         [app_api]\n_cmd_and_args=run {{unix_socket_path}}\nnumprocesses=1\n"
    );
    let plan = plan(vec![plugin("foo", &text)]);
    for route in &plan.table.routes {
        let is_files = matches!(route.target, Target::Static { .. });
        assert_eq!(route.strip_prefix, route.app == "main" && !is_files, "{route:?}");
    }
    let of = |app: &str| &plan.watchers[&WatcherName::app("foo", app)];
    assert_eq!(of("main").env.get("MFSERV_STRIP_PREFIX").map(String::as_str), Some("1"));
    assert_eq!(of("api").env.get("MFSERV_STRIP_PREFIX"), None);
    assert_eq!(of("main").probe, Probe::Http { path: "/".into(), named: false });
    assert_eq!(of("api").probe, Probe::Http { path: "/foo/api".into(), named: false });
    let probe = |endpoint: &str| {
        let text = format!("{WEB}_strip_prefix=1\n_http_test_endpoint={endpoint}\n");
        let plan = super::plan(vec![plugin("foo", &text)]);
        plan.watchers[&WatcherName::app("foo", "main")].probe.clone()
    };
    for (endpoint, path) in
        [("/foo/main/alive", "/alive"), ("/foo/alive", "/alive"), ("/foo", "/"), ("/fool", "/fool")]
    {
        assert_eq!(probe(endpoint), Probe::Http { path: path.into(), named: true }, "{endpoint}");
    }
    let fastcgi = format!("{WEB}_strip_prefix=1\n_gateway_interface_mode=fastcgi\n");
    let plan = super::plan(vec![plugin("foo", &fastcgi)]);
    assert!(plan.table.routes.iter().all(|route| !route.strip_prefix), "CGI says both");
}
