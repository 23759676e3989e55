use mfserv_core::route::{AppFragments, Fragment, Fragments, Route, Target};

use super::*;

fn site() -> Site {
    Site {
        listen: vec!["127.0.0.1:80".into()],
        listen_tls: Vec::new(),
        copied: CopiedCertificates::default(),
        own_socket: "/run/own.socket".into(),
        front_socket: "/run/front.socket".into(),
        key: "k".into(),
        log_dir: "/log".into(),
        temp_dir: "/tmp/nginx".into(),
        pid_file: "/run/nginx.pid".into(),
        workers: 2,
        connections_max: 5000,
        modules: vec!["/lib/lua.so".into()],
        has_lua: true,
        has_real_ip: true,
        copies: Copies { gzip: true, brotli: true },
        is_root: false,
        grace_s: 60,
    }
}

fn route(plugin: &str, prefix: &str, is_static: bool) -> Route {
    Route {
        host: None,
        prefix: prefix.into(),
        pattern: false,
        strip_prefix: false,
        maintenance: None,
        error_pages: None,
        target: match is_static {
            true => Target::Static { root: "/files".into() },
            false => Target::Upstream { name: format!("{plugin}/a") },
        },
        plugin: plugin.into(),
        app: "a".into(),
    }
}

fn section(routes: Vec<Route>, fragments: Fragments) -> Section {
    Section { routes, fragments, ..Section::default() }
}

fn fragment(text: &str) -> Option<Fragment> {
    Some(Fragment { file: "x.conf".into(), text: text.into() })
}

fn of_app(location: &str, static_location: &str) -> Fragments {
    let apps = AppFragments {
        location: fragment(location).filter(|_| !location.is_empty()),
        static_location: fragment(static_location).filter(|_| !static_location.is_empty()),
    };
    Fragments { apps: BTreeMap::from([("a".to_string(), apps)]), ..Fragments::default() }
}

fn rendered(sections: &[(&str, Section)]) -> String {
    let all =
        sections.iter().map(|(name, one)| (name.to_string(), Arc::new(one.clone()))).collect();
    render(&site(), &ServerSettings::default(), &all, &BTreeSet::new()).text().to_string()
}

fn locations(text: &str) -> Vec<&str> {
    let heads = text.lines().map(str::trim).filter(|line| line.starts_with("location"));
    heads.filter(|head| !head.contains("revision") && !head.contains("return 404")).collect()
}

#[test]
fn routes_without_fragments_do_not_change_the_configuration() {
    let none = rendered(&[]);
    let some = rendered(&[("p", section(vec![route("p", "/p", false)], Fragments::default()))]);
    assert_eq!(none, some);
    assert_eq!(locations(&none), ["location / {"]);
    assert!(!none.contains("load_module"), "{none}");
}

#[test]
fn a_fragment_has_the_locations_of_its_app_and_those_that_win_over_them() {
    let plain = vec![route("a", "/b/x", false), route("a", "/other", false)];
    let with = vec![
        route("b", "/b/static", true),
        route("b", "/b", false),
        route("b", "/b.c", false),
        route("b", "/b/late", false),
    ];
    let text = rendered(&[
        ("a", section(plain, Fragments::default())),
        ("b", section(with, of_app("expires 1h;", ""))),
        ("c", section(vec![route("c", "/b/never", false)], Fragments::default())),
    ]);
    let rest = "(?:/(?<mfserv_rest>.*))?$";
    let expected = [
        "location = \"/status\" {".to_string(),
        "location = \"/uuid\" {".to_string(),
        "location ^~ /__ {".to_string(),
        format!("location ~ \"^/b/x{rest}\" {{"),
        format!("location ~ \"^/b/static{rest}\" {{"),
        format!("location ~ \"^/b{rest}\" {{"),
        format!("location ~ \"^/b\\\\.c{rest}\" {{"),
        format!("location ~ \"^/b/late{rest}\" {{"),
        "location / {".to_string(),
    ];
    assert_eq!(locations(&text), expected);
    assert_eq!(text.matches("expires 1h;").count(), 3);
}

#[test]
fn files_with_a_fragment_are_nginxs_own() {
    let routes = vec![route("p", "/p/static", true), route("p", "/p", false)];
    let text = rendered(&[("p", section(routes, of_app("", "expires 1h;")))]);
    assert!(text.contains("alias \"/files/$mfserv_rest\";"), "{text}");
    assert_eq!(locations(&text).len(), 5, "{text}");
}

#[test]
fn what_is_said_of_an_app_stays_in_maintenance_and_its_files_are_the_fronts() {
    let with = |prefix: &str, is_static: bool, is_shut: bool| {
        let shut = is_shut.then_some(mfserv_core::maintenance::Shut { page: None });
        let route = Route { maintenance: shut, ..route("p", prefix, is_static) };
        rendered(&[("p", section(vec![route], of_app("deny all;", "expires 1h;")))])
    };
    assert_eq!(with("/p", false, true), with("/p", false, false));
    assert!(with("/p", false, true).contains("deny all;"));
    assert!(with("/f", true, false).contains("expires 1h;"));
    assert!(!with("/f", true, true).contains("expires 1h;"));
}

#[test]
fn a_fragment_for_everything_is_in_the_last_location() {
    let text = rendered(&[("p", section(vec![route("p", "/", false)], of_app("expires 1h;", "")))]);
    assert_eq!(locations(&text).last(), Some(&"location / {"));
    assert_eq!(locations(&text).iter().filter(|head| **head == "location / {").count(), 1);
}

#[test]
fn a_host_has_a_server_of_its_own_where_fragments_could_take_its_requests() {
    let at = |host: &str| Route { host: Some(host.into()), ..route("p", "/", false) };
    let routes = vec![route("p", "/p", false), at("a.org"), at("*.b.org")];
    let plain = rendered(&[("p", section(routes.clone(), Fragments::default()))]);
    assert_eq!(plain, rendered(&[]));
    let text = rendered(&[("p", section(routes, of_app("expires 1h;", "")))]);
    for host in ["a.org", "*.b.org"] {
        assert_eq!(text.matches(&format!("server_name \"{host}\";")).count(), 1, "{text}");
    }
    // In the server of all hosts the fragment is for /p, in each of the others for everything.
    assert_eq!(text.matches("expires 1h;").count(), 3, "{text}");
    assert_eq!(locations(&text).iter().filter(|head| head.contains("^/p(")).count(), 1);
}

#[test]
fn what_is_left_out_is_not_there() {
    let all = BTreeMap::from([(
        "p".to_string(),
        Arc::new(section(vec![route("p", "/p", false)], of_app("bad;", ""))),
    )]);
    let id = PieceId { plugin: "p".into(), place: Place::Location("a".into()) };
    let settings = ServerSettings::default();
    let text = render(&site(), &settings, &all, &BTreeSet::from([id])).text().to_string();
    assert!(!text.contains("bad;"), "{text}");
    assert_eq!(text, rendered(&[]));
}

#[test]
fn lua_of_each_plugin_is_a_string_that_ends_where_it_should() {
    let init = Fragments { init_worker: fragment("local t = a[b[1]]\n"), ..Fragments::default() };
    let text = rendered(&[("p", section(Vec::new(), init))]);
    assert!(text.contains("run(\"@p x.conf\", [=["), "{text}");
    assert!(text.contains("\n    ]=])") || text.contains("]=])\n"), "{text}");
}

#[test]
fn a_worker_has_no_more_connections_than_there_are_descriptors_for() {
    let of = |max_connections: u32, connections_max: u64| {
        let server = ServerSettings { max_connections, ..ServerSettings::default() };
        let site = Site { connections_max, ..site() };
        let text = render(&site, &server, &BTreeMap::new(), &BTreeSet::new());
        let (_, rest) = text.text().split_once("worker_connections ").unwrap();
        rest.split_once(';').unwrap().0.to_string()
    };
    assert_eq!([of(40_000, 5000), of(4000, 5000), of(10, 5000)], ["5000", "4000", "64"]);
    assert_eq!(of(40_000, 9), "64", "nginx starts all the same");
}
