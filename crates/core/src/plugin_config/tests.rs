//! Files in, specs and diagnostics out.

mod fragments;
mod routes;
mod stops;

use super::*;
use crate::diagnostic::Severity;
use crate::ini::{Dialect, parse};
use crate::plugin_spec::ReadyBy;

pub(super) const GENERAL: &str = "\
[general]
_version=0.0.1
_summary=one line
_license=MIT
_url=http://x
_maintainer=Me
_vendor=Us
";

pub(super) type Resolved = Result<(PluginSpec, Vec<Diagnostic>), Vec<Diagnostic>>;

fn env() -> BTreeMap<String, String> {
    [("CORES", "8"), ("MFSERV_NGINX_TIMEOUT", "45"), ("MFMODULE_VERSION", "2.1.0")]
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .into()
}

pub(super) fn resolved_as(config_name: &str, own: &str, overrides: &[&str]) -> Resolved {
    let own = parse(own, "config.ini", Dialect::Plugin).unwrap();
    let parsed = |(text, name): (&&str, _)| parse(text, name, Dialect::Plugin).unwrap();
    let overrides = overrides.iter().zip(["home.ini", "site.ini"]).map(parsed);
    let overrides: Vec<Document> = overrides.collect();
    resolve("foo", &own, &overrides, &env(), config_name, &|path| path.ends_with("x.conf"))
}

/// The general section (7 lines), then `text`.
fn plugin(text: &str) -> Resolved {
    resolved_as("GENERIC", &format!("{GENERAL}{text}"), &[])
}

#[track_caller]
pub(super) fn accepted(text: &str) -> PluginSpec {
    let (spec, warnings) = plugin(text).unwrap();
    assert_eq!(warnings, []);
    spec
}

#[track_caller]
fn says(diagnostics: &[Diagnostic], severity: Severity, at: (&str, u32), parts: &[&str]) {
    assert_eq!(diagnostics.len(), 1, "{diagnostics:?}");
    let diagnostic = &diagnostics[0];
    let text = diagnostic.to_string();
    assert_eq!(diagnostic.severity, severity, "{text}");
    assert_eq!(diagnostic.at, Some(Location::new(at.0, at.1)), "{text}");
    assert!(diagnostic.what.contains("plugin foo"), "{text}");
    assert!(diagnostic.help.is_some(), "{text}");
    assert_eq!(diagnostic.kind, Failure::BadConfiguration, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[track_caller]
pub(super) fn refused(text: &str, line: u32, parts: &[&str]) {
    says(&plugin(text).unwrap_err(), Severity::Error, ("config.ini", line), parts);
}

#[track_caller]
pub(super) fn warned(text: &str, line: u32, parts: &[&str]) -> PluginSpec {
    let (spec, warnings) = plugin(text).unwrap();
    says(&warnings, Severity::Warning, ("config.ini", line), parts);
    spec
}

#[test]
fn what_is_not_written_has_the_defaults_of_mfserv() {
    let spec = accepted("[app_main]\n[extra_daemon_d]\n");
    assert_eq!(spec.name, "foo");
    assert_eq!((&*spec.general.version, &*spec.general.release), ("0.0.1", "1"));
    assert!(spec.general.add_plugin_dir_to_python_path);
    assert!(spec.general.python.is_none() && spec.general.persistent_paths.is_empty());
    assert!(!spec.routes_disabled);
    let app = &spec.apps[0];
    assert_eq!((&*app.command.name, &*app.command.command), ("main", ""));
    assert_eq!((app.command.count, app.command.graceful_timeout_s), (0, 10));
    assert_eq!(app.command.rlimits, crate::watcher::Rlimits::default());
    assert_eq!((app.timeout_s, app.stop_signal), (None, 15));
    assert_eq!((app.stop_delay_s, app.start_delay_s, app.command.max_age_s), (3, 3, 0));
    assert!(app.prefix_routing && app.static_routing && !app.fastcgi);
    assert_eq!((&*app.static_url_prefix, &*app.static_directory), ("/static", "/static"));
    assert!(app.extra_routes.is_empty() && app.http_test.is_none());
    assert_eq!((app.requests_per_worker, app.keep_alive), (None, None));
    assert_eq!((app.command.split_streams, app.command.split_workers), (None, None));
    assert_eq!((app.command.ready, app.command.overlap), (None, None));
    assert_eq!(spec.extra_daemons[0].command.name, "d");
}

#[test]
fn a_template_of_mfserv_with_room_for_uploads_gives_no_warning() {
    let spec = accepted(
        "_extra_nginx_http_conf_filename=null\n_add_plugin_dir_to_lua_path=false\n\
         _add_plugin_dir_to_python_path=true\n\
         [app_main]\n_cmd_and_args=bjoern_wrapper.py --timeout={timeout} \"{unix_socket_path}\"\n\
         _gateway_interface_mode=proxy\nsmart_stop_signal=15\nsmart_stop_delay=3\n\
         numprocesses={{CORES}}\ntimeout=0\ndebug=0\n_debug_extra_options=--debug\n\
         _prefix_based_routing=true\n_virtualdomain_based_routing=false\n\
         prefix_based_routing_extra_routes=null\nvirtualdomain_based_routing_extra_vhosts=null\n\
         _extra_nginx_conf_filename=null\n_http_test_endpoint=null\n\
         _http_test_expected_status_code=200\n_http_test_expected_body=OK\n_http_test_timeout=10\n\
         rlimit_as = 1000000000\nrlimit_nofile = 1000\nrlimit_stack = 10000000\n\
         rlimit_fsize = 104857600\nmax_age = 0\nlog_split_stdout_stderr=AUTO\n[custom]\n",
    );
    let app = &spec.apps[0];
    assert_eq!((app.command.count, app.command.rlimits.address_space), (8, 1_000_000_000));
    assert_eq!((app.timeout_s, app.command.max_age_s), (None, 0));
}

#[test]
fn the_three_files_win_in_order_and_apps_keep_the_order_of_the_first() {
    let own = format!("{GENERAL}[app_b]\nnumprocesses=0\nmax_age=1\ntimeout=1\n[app_a]\n");
    let home = "[app_a]\ntimeout=2\n[app_b]\ntimeout=2\nmax_age=2\n";
    let site = "[app_b]\ntimeout=3\n";
    let (spec, _) = resolved_as("GENERIC", &own, &[home, site]).unwrap();
    let names: Vec<&str> = spec.apps.iter().map(|app| app.command.name.as_str()).collect();
    assert_eq!(names, ["b", "a"]);
    assert_eq!((spec.apps[0].timeout_s, spec.apps[0].command.max_age_s), (Some(3), 2));
    assert_eq!(spec.apps[1].timeout_s, Some(2));
}

#[test]
fn a_variant_beats_the_plain_key_of_an_override() {
    let own = format!("{GENERAL}[app_main]\ntimeout[prod]=1\n");
    let timeout =
        |name| resolved_as(name, &own, &["[app_main]\ntimeout=2\n"]).unwrap().0.apps[0].timeout_s;
    assert_eq!((timeout("PROD_north"), timeout("dev")), (Some(1), Some(2)));
}

#[test]
fn private_keys_take_effect_in_overrides() {
    let own = format!("{GENERAL}[app_main]\n_cmd_and_args=one\n");
    let (spec, warnings) =
        resolved_as("GENERIC", &own, &["[app_main]\n_cmd_and_args=two\n"]).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(spec.apps[0].command.command, "two");
}

#[test]
fn a_mistake_in_an_override_is_said_with_its_file() {
    let own = format!("{GENERAL}[app_main]\n");
    let errors = resolved_as("GENERIC", &own, &["", "[app_main]\n\ntimout=2\n"]).unwrap_err();
    says(&errors, Severity::Error, ("site.ini", 3), &["timout", "did you mean timeout?"]);
}

#[test]
fn unknown_keys_are_refused_with_a_suggestion() {
    refused("[app_main]\nnumproceses=1\n", 9, &["unknown key", "did you mean numprocesses?"]);
    refused("[app_main]\nNumProcesses=1\n", 9, &["unknown key"]);
    refused("[app_main]\nbanana=1\n", 9, &["keys of your own belong into [custom]"]);
    refused("[extra_daemon_d]\nsmart_stop_delay=1\n", 9, &["unknown key"]);
    refused("[internal]\nfoo=1\n", 9, &["unknown key"]);
}

#[test]
fn unknown_sections_are_refused_with_a_suggestion() {
    refused("[ap_main]\n", 8, &["unknown section [ap_main]", "did you mean [app_main]?"]);
    refused("[app]\n", 8, &["write [app_NAME]"]);
    refused("[banana]\n", 8, &["a plugin has [general]"]);
    refused("[app_]\n", 8, &["bad name"]);
    refused("[app_../x]\n", 8, &["bad name"]);
    refused("[extra_daemon_a b]\n", 8, &["bad name"]);
}

#[test]
fn required_keys_must_be_there_and_right() {
    let without = GENERAL.replace("_url=http://x\n", "");
    let errors = resolved_as("GENERIC", &without, &[]).unwrap_err();
    says(&errors, Severity::Error, ("config.ini", 1), &["_url: required key is missing"]);
    let empty = GENERAL.replace("_url=http://x", "_url=");
    let errors = resolved_as("GENERIC", &empty, &[]).unwrap_err();
    says(&errors, Severity::Error, ("config.ini", 5), &["_url: it must not be empty"]);
    let upper = GENERAL.replace("0.0.1", "0.0.1-RC1");
    let errors = resolved_as("GENERIC", &upper, &[]).unwrap_err();
    says(&errors, Severity::Error, ("config.ini", 2), &["lower-case letters"]);
    let errors = resolved_as("GENERIC", "[custom]\n", &[]).unwrap_err();
    says(&errors, Severity::Error, ("config.ini", 0), &["there is no section [general]"]);
    let module = GENERAL.replace("0.0.1", "{{MFMODULE_VERSION}}");
    assert_eq!(resolved_as("GENERIC", &module, &[]).unwrap().0.general.version, "2.1.0");
}

#[test]
fn every_error_of_a_plugin_is_said_at_once() {
    let errors = plugin("[app_main]\na=1\nb=2\n[x]\n").unwrap_err();
    let lines: Vec<u32> = errors.iter().map(|error| error.at.as_ref().unwrap().line).collect();
    assert_eq!(lines, [9, 10, 11]);
}

#[test]
fn doubtful_values_are_coerced_with_a_warning_at_their_line() {
    let spec = warned("[app_main]\nmax_age=abc\n", 9, &["[app_main] max_age=abc is read as 0"]);
    assert_eq!(spec.apps[0].command.max_age_s, 0);
    let spec = warned("[app_main]\ndebug=on\n", 9, &["debug=on is read as 0", "write 1 for yes"]);
    assert!(!spec.apps[0].command.debug);
    let spec = warned("[app_main]\ntimeout=soon\n", 9, &["the timeout of the module"]);
    assert_eq!(spec.apps[0].timeout_s, None);
    let spec = warned("[app_main]\n_static_directory=web\n", 9, &["is read as \"/web\""]);
    assert_eq!(spec.apps[0].static_directory, "/web");
    warned("[app_main]\n_cmd_and_args=a\nnumprocesses={{NOPE}}\n", 10, &["is read as 0"]);
    warned("[app_main]\n_cmd_and_args=a\nnumprocesses=99999\n", 10, &["is read as 4096"]);
}

#[test]
fn a_key_that_is_uncommented_but_still_indented_is_explained() {
    let text = "[app_main]\n_cmd_and_args=foo\n  --bar=1\n numprocesses=2\n";
    let spec = warned(text, 9, &["numprocesses is not set", "continues the value of _cmd"]);
    assert_eq!(spec.apps[0].command.count, 0);
}

#[test]
fn bad_routes_and_files_refuse_the_plugin() {
    let key = "prefix_based_routing_extra_routes";
    refused(&format!("[app_main]\n{key}=a\n"), 9, &[key, "all routes must start by /"]);
    refused(&format!("[app_main]\n{key}=/a/\n"), 9, &["all routes must not end by /"]);
    refused(
        "_extra_nginx_http_conf_filename=no.conf\n",
        8,
        &["must exist as a relative path under plugin home (no.conf is not a file)"],
    );
    let spec = accepted(&format!("[app_main]\n{key}=/a;/\n"));
    assert_eq!(spec.apps[0].extra_routes, ["/a", "/"]);
}

#[test]
fn known_keys_that_are_not_obeyed_are_said_when_they_are_used() {
    accepted("_add_plugin_dir_to_lua_path=true\n");
    assert!(accepted("[app_main]\n_gateway_interface_mode=fastcgi\n").apps[0].fastcgi);
    assert!(!accepted("[app_main]\n_gateway_interface_mode=\n").apps[0].fastcgi);
    let spec = accepted("[app_main]\n_http_test_endpoint=/ok\n_http_test_timeout=3\n");
    let test = spec.apps[0].http_test.clone().unwrap();
    assert_eq!((test.path.as_str(), test.status, test.body.as_str()), ("/ok", 200, "OK"));
    assert_eq!(test.timeout_s, 3);
}

#[test]
fn a_command_is_checked_and_nothing_starts_without_one() {
    refused("[app_main]\n_cmd_and_args=foo 'bar\n", 9, &["a quote is not closed"]);
    let spec = warned("[app_main]\nnumprocesses=2\n", 9, &["starts nothing: it has no command"]);
    assert_eq!(spec.apps[0].command.count, 0);
    let spec = accepted("[extra_daemon_d]\n_cmd_and_args=bash -c \"a ; b\"\nnumprocesses=2\n");
    assert_eq!(spec.extra_daemons[0].command.command, "bash -c \"a ; b\"");
}

#[test]
fn debug_means_one_process_without_age_for_apps_only() {
    let text = "_cmd_and_args=a\nnumprocesses=4\nmax_age=9\ndebug=1\n";
    let spec = accepted(&format!("[app_main]\n{text}[extra_daemon_d]\n{text}"));
    let (app, extra) = (&spec.apps[0].command, &spec.extra_daemons[0].command);
    assert_eq!((app.count, app.max_age_s, app.debug), (1, 0, true));
    assert_eq!((extra.count, extra.max_age_s, extra.debug), (4, 9, true));
    let none = accepted("[app_main]\ndebug=1\n");
    assert_eq!(none.apps[0].command.count, 0);
}

#[test]
fn keys_of_ours_are_read_and_strict() {
    let spec = accepted(
        "_python=python3.12\n_persistent_paths=db.sqlite3;media/\n\
         [app_main]\n_ready=connect\n_start_timeout=90\n_overlap=0\n\
         _requests_per_worker=0\n_keep_alive=1\n[extra_daemon_d]\n_ready=notify\n_overlap=1\n\
         [internal]\ndisable_nginx_conf=1\n",
    );
    let app = &spec.apps[0];
    assert_eq!(spec.general.python.as_deref(), Some("python3.12"));
    assert_eq!(app.command.ready, Some(ReadyBy::Connect));
    assert_eq!((app.command.start_timeout_s, app.command.overlap), (Some(90), Some(false)));
    assert_eq!((app.requests_per_worker, app.keep_alive), (Some(0), Some(true)));
    assert_eq!(spec.extra_daemons[0].command.ready, Some(ReadyBy::Notify));
    assert!(spec.routes_disabled && spec.general.persistent_paths.len() == 2);
    refused("[app_main]\n_python_server=bjoern\n", 9, &["_python_server", "waitress or mfserv"]);
    refused("[app_main]\n_ready=maybe\n", 9, &["_ready", "http or connect or notify"]);
    refused("[extra_daemon_d]\n_ready=http\n", 9, &["is not possible here"]);
    refused("[app_main]\n_start_timeout=0\n", 9, &["_start_timeout"]);
    refused("[app_main]\n_keep_alive=perhaps\n", 9, &["neither yes nor no"]);
    refused("_persistent_paths=../x\n", 8, &["not a path below the plugin"]);
    refused("_python=/bin/python\n", 8, &["not the name of an interpreter"]);
}

#[test]
fn public_keys_are_exported_with_their_defaults_and_private_ones_not() {
    let spec = accepted(
        "[app_main]\ndebug=yes\n_cmd_and_args=x\n[custom]\nFoo=null\n_bar=1\n\
         [customer-x]\ndb_hostnames=localhost;db.example.org\n[_hidden]\nx=1\n",
    );
    assert_eq!(spec.exported[0], ("app_main".into(), "debug".into(), "1".into()));
    let exported = environment(&spec);
    let value = |name: &str| {
        let name = format!("MFSERV_CURRENT_PLUGIN_{name}");
        exported.variables.get(&name).map(String::as_str)
    };
    assert_eq!(value("APP_MAIN_DEBUG"), Some("1"));
    assert_eq!(value("APP_MAIN_TIMEOUT"), Some("45"));
    assert_eq!(value("APP_MAIN_NUMPROCESSES"), Some("0"));
    assert_eq!(value("APP_MAIN_LOG_SPLIT_STDOUT_STDERR"), Some("AUTO"));
    assert_eq!(value("APP_MAIN_PREFIX_BASED_ROUTING_EXTRA_ROUTES"), Some(""));
    assert_eq!(value("CUSTOM_FOO"), Some("null"));
    assert_eq!(value("CUSTOMER_X_DB_HOSTNAMES"), Some("localhost;db.example.org"));
    assert_eq!(exported.unresolved[0].hosts, ["localhost", "db.example.org"]);
    let variable = "MFSERV_CURRENT_PLUGIN_CUSTOMER_X_DB_HOSTNAMES_IPS";
    assert_eq!(exported.unresolved[0].variable, variable);
    let private = ["CMD", "_BAR", "HIDDEN", "VERSION"];
    assert!(exported.variables.keys().all(|name| private.iter().all(|p| !name.contains(p))));
}

#[test]
fn a_template_that_cannot_be_rendered_refuses_the_plugin() {
    refused("[custom]\nx={{ y\n", 9, &["can't render [custom] x"]);
    refused("[app_main]\nmax_age={{ y\n", 9, &["can't render [app_main] max_age"]);
}

#[test]
fn the_legacy_first_line_is_tolerated_in_overrides() {
    let (_, warnings) = resolved_as("GENERIC", GENERAL, &["[INCLUDE_config.ini]\n", ""]).unwrap();
    assert_eq!(warnings, []);
}

/// A small linear congruential generator: the same numbers in every run.
fn pick<'a>(seed: &mut u64, words: &[&'a str]) -> &'a str {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    words[(*seed >> 33) as usize % words.len()]
}

#[test]
fn whatever_is_written_every_diagnostic_has_a_place_and_help() {
    let sections =
        ["general", "app_main", "app_é", "extra_daemon_d", "internal", "custom", "_x", "x"];
    let mut keys: Vec<&str> = [Kind::General, Kind::App(""), Kind::Internal]
        .into_iter()
        .flat_map(Kind::keys)
        .map(|k| k.name)
        .collect();
    keys.extend(["version", "é", "numproceses", "hostname", "_ready"]);
    let values = [
        "",
        "0",
        "1",
        "-1",
        "null",
        "AUTO",
        "é",
        "/a",
        "/a/",
        "..",
        "{{CORES}}",
        "{{",
        "{% for %}",
        "@@@X@@@",
        "99999999999999999999",
        "http",
        "'",
        "/(",
        "a;b",
        "@@@",
        "9223372036854775807",
    ];
    let mut seed = 7;
    for _ in 0..3000 {
        let mut text = format!("[{}]\n", pick(&mut seed, &sections));
        for key in [pick(&mut seed, &keys), pick(&mut seed, &keys)] {
            let variant = pick(&mut seed, &["", "[]", "[generic]", "[x]", "[é"]);
            text.push_str(&format!("{key}{variant}={}\n", pick(&mut seed, &values)));
        }
        let Ok(own) = parse(&text, "config.ini", Dialect::Plugin) else { continue };
        let general = parse(GENERAL, "home.ini", Dialect::Plugin).unwrap();
        let result = resolve("foo", &own, &[general], &env(), "generic", &|_| true);
        for diagnostic in match &result {
            Ok((spec, warnings)) => {
                let _ = environment(spec);
                warnings
            }
            Err(errors) => errors,
        } {
            assert!(diagnostic.at.is_some() && diagnostic.help.is_some(), "{diagnostic}");
        }
        let _ = override_text("foo", &text);
    }
}

/// Keys that the plan does not read: packages, environments of processes, `status` and the
/// store of releases do. A test of all sources sees that the fields of these are read.
const READ_ELSEWHERE: &[&str] = &[
    "_summary",
    "_license",
    "_url",
    "_maintainer",
    "_vendor",
    "_python",
    "_add_plugin_dir_to_python_path",
    "_add_plugin_dir_to_lua_path",
    "_persistent_paths",
    "_http_test_expected_status_code",
    "_http_test_expected_body",
    "_http_test_timeout",
];

/// MFSERV accepts it for an app and ignores it: the stop delay of an app is its own key.
const IGNORED_BY_APPS: &str = "graceful_timeout";

const NO_ROUTE: (&str, &str) = ("_prefix_based_routing", "0");
/// Sections in which every key matters.
const SECTIONS: &[(&str, &[(&str, &str)])] = &[
    ("general", &[]),
    (
        "app_web",
        &[
            ("_cmd_and_args", "run {unix_socket_path} {debug_extra_options}"),
            ("numprocesses", "2"),
            ("debug", "1"),
            ("_http_test_endpoint", "/web/test"),
        ],
    ),
    (
        "app_many",
        &[
            ("_cmd_and_args", "run {unix_socket_path}"),
            ("numprocesses", "2"),
            ("_virtualdomain_based_routing", "1"),
        ],
    ),
    ("app_deaf", &[("_cmd_and_args", "run"), ("numprocesses", "1"), NO_ROUTE]),
    ("extra_daemon_one", &[("_cmd_and_args", "run"), ("numprocesses", "2")]),
    ("internal", &[]),
];

/// A spec, with one key of one section set to another value.
fn with(section: &str, key: &str, value: &str) -> PluginSpec {
    let mut text = String::new();
    for (name, keys) in SECTIONS {
        text += &format!("[{name}]\n");
        let general = GENERAL.lines().filter_map(|line| line.split_once('='));
        let general = general.filter(|_| *name == "general");
        let mut keys: BTreeMap<&str, &str> = general.chain(keys.iter().copied()).collect();
        if *name == section {
            keys.insert(key, value);
        }
        keys.iter().for_each(|(key, value)| text += &format!("{key}={value}\n"));
    }
    let (spec, warnings) = resolved_as("GENERIC", &text, &[]).unwrap_or_else(|e| panic!("{e:?}"));
    assert!(warnings.iter().all(|one| one.what.contains("is too small")), "{warnings:?}: {text}");
    PluginSpec { exported: Vec::new(), ..spec }
}

/// The plan of a node with this plugin alone.
fn planned(spec: PluginSpec) -> crate::plan::Plan {
    let loaded = crate::plan::Loaded::without_environment(spec, Vec::new());
    let (name, dir, loaded) = ("foo".into(), "/foo".into(), Ok(loaded));
    crate::plan::Plan::new(crate::plan::Inputs {
        generation: 1,
        module: &crate::module_config::resolve(&[], &[], &BTreeMap::new(), "").config,
        module_problems: Vec::new(),
        var_dir: "/var".into(),
        short_dir: "/short".into(),
        log_dir: "/log".into(),
        body_temp_dir: "/bodies".into(),
        uuid: String::new(),
        plugins: vec![crate::plan::PluginInput { name, dir, loaded }],
        front: None,
        telemetry: None,
        telegraf: None,
        held: BTreeMap::new(),
        host_names: vec!["localhost".into()],
        takers: BTreeMap::new(),
        previous: None,
    })
}

/// Values of a key, at least one of which is not its default.
fn values(row: &Row) -> &'static [&'static str] {
    use schema::Type;
    match row.kind {
        Type::Flag | Type::AutoFlag | Type::StrictFlag => &["0", "1"],
        Type::Word(words) => words,
        Type::Interpreter => &["python3.99"],
        Type::Paths | Type::Hosts => &["example.org"],
        Type::Affinity => &["cookie:x", "ip"],
        Type::SendfileRoots => &["/p=d"],
        Type::Size | Type::BodySize => &["1G"],
        Type::Routes | Type::StaticPrefix | Type::StaticDirectory => &["/other"],
        Type::Count(_) | Type::StrictCount(..) | Type::Signal | Type::Timeout => &["9"],
        Type::Text if row.name == schema::GATEWAY_MODE.row.name => &["fastcgi"],
        Type::ErrorPages => &["404:/404.html", "500-599:/oops.html 404:/x"],
        Type::Text | Type::NonEmpty | Type::Version | Type::Release | Type::File => &["other"],
    }
}

#[test]
fn each_obeyed_key_of_a_plugin_changes_its_spec_and_the_plan() {
    let base = with("", "", "");
    let before = planned(base.clone());
    let kinds = [Kind::General, Kind::App(""), Kind::Extra(""), Kind::Internal];
    for kind in kinds {
        let sections = SECTIONS.iter().map(|(name, _)| *name).filter(|name| {
            let same =
                |other: Kind| std::mem::discriminant(&other) == std::mem::discriminant(&kind);
            Kind::of(name).is_some_and(same)
        });
        for row in kind.keys().filter(|row| row.later.is_none()) {
            let set = |section: &'static str| {
                values(row).iter().map(move |value| with(section, row.name, value))
            };
            let specs: Vec<PluginSpec> = sections.clone().flat_map(set).collect();
            assert!(specs.iter().any(|spec| *spec != base), "{kind:?} {}", row.name);
            let planned = specs.into_iter().any(|spec| planned(spec) != before);
            let elsewhere = READ_ELSEWHERE.contains(&row.name)
                || (kind == Kind::App("") && row.name == IGNORED_BY_APPS);
            assert_eq!(planned, !elsewhere, "{kind:?} {} changes the plan", row.name);
        }
    }
}
