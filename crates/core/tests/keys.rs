//! A key that is in the table as obeyed has an effect: another value changes the plan, or the
//! key is read by name outside of this crate.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first thing that is wrong"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mfserv_core::ini::{self, Dialect};
use mfserv_core::keys::{KEYS, Row, Type};
use mfserv_core::module_config::{self, Resolution};
use mfserv_core::plan::{Inputs, Loaded, Plan, PluginInput, RoleProgram};
use mfserv_core::plugin_config;

/// Keys that are read outside of the plan, by their constants.
const READ_ELSEWHERE: &[(&str, &str, &str)] = &[
    ("startup", "flag", "STARTUP_ENABLED"),
    ("general", "_python", "GENERAL_PYTHON"),
    ("python", "legacy_layers", "PYTHON_LEGACY_LAYERS"),
    ("telegraf", "program", "TELEGRAF_PROGRAM"),
    ("nginx", "smart_start_delay", "NGINX_START_DELAY_S"),
    ("nginx", "smart_stop_delay", "NGINX_STOP_DELAY_S"),
    ("front", "kind", "FRONT_KIND"),
    ("front", "nginx_program", "FRONT_NGINX_PROGRAM"),
    ("front", "nginx_modules", "FRONT_NGINX_MODULES"),
    ("front", "fragments", "FRONT_FRAGMENTS"),
    ("nginx", "workers", "NGINX_WORKERS"),
    ("log", "minimal_level", "LOG_MINIMAL_LEVEL"),
    ("log", "mfadmin_minimal_level", "LOG_MFADMIN_MINIMAL_LEVEL"),
    ("internal_plugins", "install_welcome", "internal_plugins"),
];

/// Values that make other keys matter.
const BASE: &[(&str, &str, &str)] = &[
    ("nginx", "real_ip", "1"),
    ("nginx", "https_port", "18843"),
    ("nginx", "ssl_certificate", "/c.pem"),
    ("nginx", "ssl_certificate_key", "/k.pem"),
    ("front", "tls_client_authorities", "/ca.pem"),
    ("front", "tls_client_certificates", "optional"),
    ("front", "hsts_max_age", "60"),
    ("admin", "hostname", "admin.example.org"),
    ("admin", "loki_http_port", "3100"),
    ("elasticsearch", "user", "u"),
    ("elasticsearch", "_password", "p"),
    ("elasticsearch", "nginx_index", "nginx"),
    ("elasticsearch", "mflog_index", "mflog"),
    ("loki", "user", "u"),
    ("loki", "_password", "p"),
    ("influxdb", "org", "o"),
    ("log", "journald", "1"),
    ("log", "syslog", "udp://127.0.0.1:514"),
    ("log", "json_file", "/var/log/mflog.json"),
];

const PLUGIN: &str = "[general]\n_version=1\n_summary=s\n_license=l\n_url=u\n_maintainer=m\n\
     _vendor=v\n[app_main]\n_cmd_and_args=bjoern_wrapper.py m {unix_socket_path}\n\
     numprocesses=2\n";

fn resolved(sets: &[(&str, &str, &str)]) -> Resolution {
    let sets: Vec<_> = BASE
        .iter()
        .chain(sets)
        .map(|(section, key, value)| (section.to_string(), key.to_string(), value.to_string()))
        .collect();
    module_config::resolve(&[], &sets, &BTreeMap::new(), "GENERIC")
}

/// The plan of a node with one plugin, without the environment of its processes: each key is
/// exported, and that alone is no effect.
fn plan(resolution: &Resolution) -> Plan {
    let document = ini::parse(PLUGIN, "config.ini", Dialect::Plugin).unwrap();
    let env = BTreeMap::new();
    let (spec, warnings) =
        plugin_config::resolve("p", &document, &[], &env, "GENERIC", &|_| false).unwrap();
    let loaded = Ok(Loaded {
        spec,
        env: env.clone(),
        secrets: Default::default(),
        warnings,
        crontab: Vec::new(),
        fragments: Default::default(),
    });
    Plan::new(Inputs {
        generation: 1,
        module: &resolution.config,
        module_problems: Vec::new(),
        var_dir: "/var".into(),
        short_dir: "/short".into(),
        log_dir: "/log".into(),
        body_temp_dir: "/bodies".into(),
        uuid: "u".into(),
        plugins: vec![PluginInput { name: "p".into(), dir: "/p".into(), loaded }],
        front: Some(role("front")),
        telemetry: Some(role("telemetry")),
        telegraf: None,
        held: BTreeMap::new(),
        host_names: Vec::new(),
        takers: BTreeMap::new(),
        previous: None,
    })
}

fn role(name: &str) -> RoleProgram {
    RoleProgram { argv: vec![name.into()], env: BTreeMap::new(), cwd: "/".into() }
}

/// Another value of a key, and for a key of a few words all others.
fn others(row: &Row) -> Vec<String> {
    let set = BASE.iter().find(|(section, key, _)| (*section, *key) == (row.section, row.key));
    let now = set.map_or(row.default.unwrap_or(""), |(_, _, value)| value);
    let text = |text: &str| vec![text.to_string()];
    match row.kind {
        Type::Flag if now == "1" => text("0"),
        Type::Flag => text("1"),
        Type::Integer { .. } => text("7"),
        Type::Port => text("80"),
        Type::FileMode => text("0600"),
        Type::OneOf { words, .. } => {
            words.iter().filter(|word| **word != now).map(ToString::to_string).collect()
        }
        Type::Path | Type::UrlPath => text("/other"),
        Type::Host | Type::Addresses => text("127.0.0.1"),
        Type::HttpUrl | Type::HttpUrls => text("http://127.0.0.1:8086"),
        Type::IndexName => text("other-%Y"),
        Type::SyslogAddress => text("tcp://127.0.0.1:601"),
        Type::Endpoint => text("tcp://127.0.0.1:602"),
        Type::Networks => text("192.0.2.0/24"),
        Type::Program => text("python3.99"),
        Type::TlsVersions => text("TLSv1.3"),
        Type::TlsCiphers => text("CHACHA20"),
        Type::Text => text("other"),
    }
}

#[test]
fn each_obeyed_key_changes_the_plan_or_is_read_elsewhere() {
    let sources = sources_outside("core");
    let base = resolved(&[]);
    assert!(!base.has_errors(), "{:?}", base.diagnostics);
    let before = plan(&base);
    assert_eq!(plan(&resolved(&[])), before, "the same configuration gives the same plan");
    for row in KEYS.iter().filter(|row| row.obeyed) {
        let (section, key) = (row.section, row.key);
        let reader = READ_ELSEWHERE.iter().find(|(s, k, _)| (*s, *k) == (section, key));
        for value in others(row) {
            let name = format!("[{section}] {key}={value}");
            let resolution = resolved(&[(section, key, &value)]);
            assert!(!resolution.has_errors(), "{name}: {:?}", resolution.diagnostics);
            let changed = plan(&resolution) != before;
            match reader {
                None => assert!(changed, "{name} has no effect"),
                Some((_, _, reader)) => {
                    assert!(!changed, "{name} changes the plan: take it off the list");
                    assert_ne!(resolution.config, base.config, "{name}");
                    assert!(sources.contains(reader), "nobody reads {reader}");
                }
            }
        }
    }
}

#[test]
fn a_key_without_an_effect_changes_no_plan_and_says_so() {
    let before = plan(&resolved(&[]));
    for row in KEYS.iter().filter(|row| !row.obeyed) {
        let (section, key) = (row.section, row.key);
        for value in others(row) {
            let resolution = resolved(&[(section, key, &value)]);
            assert_eq!(plan(&resolution), before, "[{section}] {key}={value}");
            let told = |text: &str| text.contains("has no effect in this version");
            let told = resolution.diagnostics.iter().any(|one| told(&one.what));
            assert!(told, "[{section}] {key}={value}: {:?}", resolution.diagnostics);
        }
    }
}

/// Whoever adds a field to the configuration of a plugin must also read it.
#[test]
fn each_field_of_the_configuration_of_a_plugin_is_read_by_somebody() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let spec = std::fs::read_to_string(crates.join("core/src/plugin_spec.rs")).unwrap();
    let fields: Vec<&str> = spec
        .lines()
        .filter_map(|line| line.strip_prefix("    pub ")?.split_once(':'))
        .map(|(field, _)| field)
        .collect();
    assert!(fields.len() > 30, "{fields:?}");
    let mut readers = sources_outside("core");
    readers += &text_of(&crates.join("core/src/plan"));
    readers += &std::fs::read_to_string(crates.join("core/src/plan.rs")).unwrap();
    // What is exported becomes the environment.
    readers += &std::fs::read_to_string(crates.join("core/src/plugin_config.rs")).unwrap();
    for field in fields {
        let read = format!(".{field}");
        let end = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let is_read = readers.split(&read).skip(1).any(end);
        assert!(is_read, "nobody reads the field {field}");
    }
}

/// The shipped code of all crates but one, and but the test code in it.
fn sources_outside(name: &str) -> String {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let dirs = std::fs::read_dir(crates).unwrap().map(|entry| entry.unwrap().path());
    let shipped = dirs.filter(|dir| ![name, "testkit", "xtask"].iter().any(|n| dir.ends_with(n)));
    shipped.map(|dir| text_of(&dir.join("src"))).collect()
}

fn text_of(dir: &Path) -> String {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let text = |path: PathBuf| match path.is_dir() {
        true => text_of(&path),
        false if path.extension().is_none_or(|end| end != "rs") => String::new(),
        false if path.ends_with("tests.rs") => String::new(),
        false => {
            let text = std::fs::read_to_string(&path).unwrap();
            text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_string()
        }
    };
    entries.into_iter().map(text).collect()
}
