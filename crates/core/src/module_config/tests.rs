//! Files and `--set` in, settings and diagnostics out.

use std::path::PathBuf;

use super::*;
use crate::diagnostic::{Location, Severity};
use crate::ini::{Dialect, parse};
use crate::keys::*;
use crate::route::{HeadLimits, ServerSettings, SpoolLimits, Symlinks, UnknownHost};
use crate::tls::{ClientCertificates, SUITES, TlsSettings, Version};

fn env() -> BTreeMap<String, String> {
    [
        ("MFMODULE_RUNTIME_HOME", "/home/mfserv"),
        ("MFHARDWARE_NUMBER_OF_CPU_CORES_MULTIPLIED_BY_2", "16"),
        ("MFHARDWARE_NUMBER_OF_CPU_CORES_DIVIDED_BY_4", "2"),
    ]
    .map(|(name, value)| (name.to_string(), value.to_string()))
    .into()
}

fn resolved(files: &[&str], sets: &[&str], config_name: &str) -> Resolution {
    let names = ["home.ini", "site.ini"];
    let documents: Vec<Document> = files
        .iter()
        .zip(names)
        .map(|(text, name)| parse(text, name, Dialect::Module).unwrap())
        .collect();
    let sets: Vec<_> = sets.iter().map(|set| crate::layers::parse_set(set).unwrap()).collect();
    resolve(&documents, &sets, &env(), config_name)
}

fn home(text: &str) -> Resolution {
    resolved(&[text], &[], "GENERIC")
}

#[track_caller]
fn only(resolution: &Resolution) -> &Diagnostic {
    assert_eq!(resolution.diagnostics.len(), 1, "{:?}", resolution.diagnostics);
    &resolution.diagnostics[0]
}

#[track_caller]
fn says(diagnostic: &Diagnostic, severity: Severity, line: u32, parts: &[&str]) {
    let text = diagnostic.to_string();
    assert_eq!(diagnostic.severity, severity, "{text}");
    assert_eq!(diagnostic.at, Some(Location::new("home.ini", line)), "{text}");
    assert!(diagnostic.help.is_some(), "{text}");
    assert_eq!(diagnostic.kind, Kind::BadConfiguration, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn without_any_file_the_settings_are_those_of_the_reference() {
    let resolution = resolved(&[], &[], "GENERIC");
    assert_eq!(resolution.diagnostics, []);
    let config = &resolution.config;
    assert!(config.get(STARTUP_ENABLED) && config.get(NGINX_ENABLED));
    assert!(config.get(AUTORESTART) && !config.get(LOG_SPLIT_STREAMS));
    assert_eq!(config.get(NGINX_PORT), Some(18868));
    assert_eq!(config.get(NGINX_TIMEOUT_S), 60);
    assert_eq!((config.get(NGINX_START_DELAY_S), config.get(NGINX_STOP_DELAY_S)), (0, 0));
    assert_eq!((config.get(FRONT_QUEUE_MAX), config.get(FRONT_QUEUE_TIMEOUT_S)), (10_000, None));
    assert_eq!(config.rotation(), crate::output::Rotation::default());
    assert_eq!(config.front_rotation(), config.rotation());
    assert_eq!(config.get(LOG_MINIMAL_LEVEL), "INFO");
    assert_eq!(config.internal_plugins, ["welcome"]);
    assert_eq!(config.get(GENERAL_PYTHON), None);
    assert_eq!(config.listen_addresses()[0].to_string(), "0.0.0.0:18868");
}

#[test]
fn the_front_of_a_node_without_any_file_is_set_as_the_reference_says() {
    let server = resolved(&[], &[], "GENERIC").config.server_settings("abc", PathBuf::new());
    let expected = ServerSettings {
        max_body_bytes: 104_857_600,
        access_log: true,
        add_request_id: true,
        accept_request_id: false,
        trace_sample: Some(100),
        server_timing: false,
        add_forwarded: true,
        ignore_client_abort: true,
        unknown_host: UnknownHost::Default,
        health_path: Some("/__health".into()),
        health_access_log: false,
        server_tokens: true,
        port_in_redirect: true,
        uuid: "abc".into(),
        uuid_allows: Vec::new(),
        body_temp_dir: "/home/mfserv/var/nginx2".into(),
        spool: SpoolLimits { per_answer: 1 << 30, per_app: 4 << 30, all: 8 << 30 },
        request_head: HeadLimits { bytes: 32 << 10, fields: 100 },
        answer_head: HeadLimits { bytes: 64 << 10, fields: 1000 },
        threads: 2,
        max_connections: 40_000,
        static_symlinks: Symlinks::Follow,
        static_dotfiles: false,
        static_compression: true,
        header_timeout_ms: 60_000,
        keepalive_timeout_ms: 75_000,
        client_timeout_ms: 60_000,
        upgrade_drain_timeout_ms: 30_000,
        real_ip: None,
        tls: None,
        stopping: false,
    };
    assert_eq!(server, expected);
    let without_host = ServerSettings {
        uuid: String::new(),
        body_temp_dir: "/tmp".into(),
        threads: 1,
        ..expected
    };
    assert_eq!(ServerSettings::default(), without_host);
}

#[test]
fn an_environment_without_hardware_still_gives_settings() {
    let resolution = resolve(&[], &[], &BTreeMap::new(), "GENERIC");
    assert_eq!(resolution.diagnostics, []);
    assert_eq!(resolution.config.server_settings("", PathBuf::new()).threads, 1);
}

#[test]
fn defaults_lose_to_the_home_which_loses_to_the_site_which_loses_to_set() {
    let home = "[nginx]\nport=1\ntimeout=1\nsmart_stop_delay=1\n";
    let site = "[nginx]\nport=2\ntimeout=2\n";
    let resolution = resolved(&[home, site], &["nginx.port=3"], "GENERIC");
    let config = &resolution.config;
    assert_eq!((config.get(NGINX_PORT), config.get(NGINX_TIMEOUT_S)), (Some(3), 2));
    assert_eq!((config.get(NGINX_STOP_DELAY_S), config.get(NGINX_START_DELAY_S)), (1, 0));
    let port = resolution.value("nginx", "port").unwrap();
    assert_eq!(port.origin.to_string(), "--set");
    let history: Vec<String> =
        port.overrides.iter().map(|o| format!("{}={} {}", o.key, o.raw, o.origin)).collect();
    assert_eq!(history, ["port=2 site.ini:2", "port=1 home.ini:2", "port=18868 built-in default"]);
}

#[test]
fn a_variant_for_this_configuration_beats_the_plain_key_of_a_later_file() {
    let files = ["[nginx]\nport[PROD]=80\n", "[nginx]\nport=8080\n"];
    let port = |name| resolved(&files, &[], name).config.get(NGINX_PORT);
    assert_eq!(port("prod_south"), Some(80));
    assert_eq!(port("dev"), Some(8080));
}

#[test]
fn a_bad_number_is_an_error_at_its_line_and_the_default_stands() {
    let resolution = home("[nginx]\nport=80\n\ntimeout=soon\n");
    says(
        only(&resolution),
        Severity::Error,
        4,
        &["[nginx] timeout", "\"soon\"", "not a whole number", "seconds"],
    );
    assert!(resolution.has_errors());
    assert_eq!(resolution.config.get(NGINX_TIMEOUT_S), 60);
    assert_eq!(resolution.config.get(NGINX_PORT), Some(80));
}

#[test]
fn a_comment_after_a_number_is_explained() {
    let resolution = home("[nginx]\nport=80 # http\n");
    says(only(&resolution), Severity::Error, 2, &["a comment must be a line of its own"]);
}

#[test]
fn a_key_that_is_uncommented_but_still_indented_is_explained() {
    let resolution = home("[nginx]\nhealth_location=/x\n# text\n port=80\n");
    says(&resolution.diagnostics[0], Severity::Warning, 2, &["port is not set", "indented"]);
    assert_eq!(resolution.config.get(NGINX_PORT), Some(18868));
}

#[test]
fn a_bad_set_says_that_it_was_set() {
    let resolution = resolved(&[], &["nginx.port=x"], "GENERIC");
    assert_eq!(only(&resolution).at, Some(Location::new("--set", 0)));
}

#[test]
fn a_doubtful_flag_is_a_warning_and_read_as_mfserv_reads_it() {
    let resolution = home("[nginx]\nlogging=true\n");
    says(only(&resolution), Severity::Warning, 2, &["[nginx] logging=true is read as 0"]);
    assert!(!resolution.config.get(NGINX_ACCESS_LOG));
    assert_eq!(resolution.exported["MFSERV_NGINX_LOGGING"], "true");
}

#[test]
fn an_unknown_key_of_a_known_section_is_a_warning_with_a_suggestion() {
    let resolution = home("[nginx]\nporte=80\n[log]\nbanana=1\n");
    assert_eq!(resolution.diagnostics.len(), 2);
    says(&resolution.diagnostics[0], Severity::Warning, 2, &["porte", "did you mean port?"]);
    says(&resolution.diagnostics[1], Severity::Warning, 4, &["banana", "mfserv config show"]);
    assert_eq!(resolution.exported["MFSERV_NGINX_PORTE"], "80");
}

#[test]
fn an_unknown_section_is_accepted_and_exported() {
    let resolution = home("[Custom-App]\nBar=1\n_private=2\n[_hidden]\nx=1\n");
    assert_eq!(resolution.diagnostics, []);
    assert_eq!(resolution.exported["MFSERV_CUSTOM_APP_BAR"], "1");
    assert!(resolution.exported.keys().all(|name| !name.contains("PRIVATE")));
    assert!(resolution.exported.keys().all(|name| !name.contains("HIDDEN")));
}

#[test]
fn a_section_that_is_nearly_a_known_one_is_said() {
    let resolution = home("[INCLUDE_config.ini]\n\n[ngnix]\nport=80\n");
    says(only(&resolution), Severity::Warning, 3, &["[ngnix]", "did you mean [nginx]?"]);
    assert_eq!(resolution.config.get(NGINX_PORT), Some(18868));
}

#[test]
fn a_known_key_that_is_not_obeyed_is_said_only_when_it_is_changed() {
    let file = "[nginx]\nhttps_port=null\n[admin]\nhostname=localhost\n\
                [vector]\nnginxlog_port=1\n";
    let resolution = home(file);
    says(only(&resolution), Severity::Warning, 6, &["[vector] nginxlog_port has no effect"]);
    assert_eq!(resolution.exported["MFSERV_ADMIN_HOSTNAME_IP"], "127.0.0.1");
}

#[test]
fn a_node_with_a_port_for_tls_has_its_settings_or_is_refused() {
    for port in ["443", "28443", "65535"] {
        let resolution = home(&format!("[nginx]\nhttps_port={port}\nssl_certificate=/c\n"));
        says(only(&resolution), Severity::Error, 2, &["https_port", "ssl_certificate_key is not"]);
        assert_eq!(resolution.config.tls_settings(), None);
    }
    for none in ["null", "0", ""] {
        assert_eq!(home(&format!("[nginx]\nhttps_port={none}\n")).diagnostics, [], "{none:?}");
    }
    says(only(&home("[nginx]\nhttps_port=x\n")), Severity::Error, 2, &["whole number"]);
    let resolution = home(
        "[nginx]\nhttps_port=443\nssl_certificate=/c\nssl_certificate_key=/k\n\
         [front]\nhost=::1\nhsts_max_age=60\n",
    );
    assert_eq!(resolution.diagnostics, []);
    assert_eq!(resolution.config.tls_addresses()[0].to_string(), "[::1]:443");
    let tls = resolution.config.tls_settings().unwrap();
    let expected = TlsSettings {
        port: 443,
        certificate: "/c".into(),
        key: "/k".into(),
        directory: None,
        versions: vec![Version::V1_2, Version::V1_3],
        ciphers: SUITES.map(String::from).to_vec(),
        client_certificates: ClientCertificates::Off,
        client_authorities: None,
        redirect: false,
        strict_transport: Some("max-age=60".into()),
        ticket_keys: None,
    };
    assert_eq!(tls, expected);
    assert_eq!(resolution.config.server_settings("", PathBuf::new()).tls, Some(expected));
}

#[test]
fn the_front_is_embedded_or_nginx() {
    let resolution = home("[front]\nkind=nginx\n");
    assert_eq!(resolution.diagnostics, []);
    assert_eq!(resolution.config.get(FRONT_KIND), "nginx");
    says(only(&home("[front]\nkind=apache\n")), Severity::Error, 2, &["write one of embedded"]);
}

#[test]
fn a_bad_template_is_an_error_at_its_line() {
    let resolution = home("[nginx]\nport={{ x\n");
    says(only(&resolution), Severity::Error, 2, &["can't render [nginx] port"]);
    assert_eq!(resolution.config.get(NGINX_PORT), Some(18868));
}

#[test]
fn values_are_rendered_from_the_environment() {
    let resolution = home("[my]\na=@@@MFMODULE_RUNTIME_HOME@@@/x\nb={{NOPE}}.\n");
    assert_eq!(resolution.exported["MFSERV_MY_A"], "/home/mfserv/x");
    assert_eq!(resolution.exported["MFSERV_MY_B"], ".");
    let value = resolution.value("my", "a").unwrap();
    assert_eq!(value.raw, "@@@MFMODULE_RUNTIME_HOME@@@/x");
}

#[test]
fn every_default_is_exported_and_hosts_that_need_a_resolver_are_handed_over() {
    let resolution = home("[db]\nhostname=db.example.org\n");
    assert_eq!(resolution.exported["MFSERV_NGINX_PORT"], "18868");
    assert_eq!(resolution.exported["MFSERV_NGINX_WORKERS"], "16");
    assert_eq!(resolution.exported["MFSERV_ADMIN_HOSTNAME_IP"], "null");
    assert!(!resolution.exported.contains_key("MFSERV_NGINX_PROXY_TEMP_PATH"));
    assert!(!resolution.exported.contains_key("MFSERV_GENERAL__PYTHON"));
    assert_eq!(resolution.unresolved[0].variable, "MFSERV_DB_HOSTNAME_IP");
    assert_eq!(resolution.unresolved[0].hosts, ["db.example.org"]);
}

#[test]
fn null_and_zero_switch_things_off() {
    let text = "[nginx]\nport=null\nhealth_location=null\nupload_max_body_size=0\n\
                [log]\nchmod=null\nmax_age_before_rotation=-1\n[front]\nqueue_timeout=NULL\n";
    let resolution = home(text);
    assert_eq!(resolution.diagnostics, []);
    let config = &resolution.config;
    assert_eq!((config.get(NGINX_PORT), config.listen_addresses()), (None, vec![]));
    assert_eq!(config.get(NGINX_HEALTH_PATH), None);
    assert_eq!(config.server_settings("", PathBuf::new()).max_body_bytes, u64::MAX);
    assert_eq!((config.rotation().mode, config.rotation().max_age_s), (None, 0));
}

#[test]
fn hosts_of_no_app_get_what_the_key_says() {
    for (value, expected, status) in [
        ("default", UnknownHost::Default, None),
        ("404", UnknownHost::NotFound, Some(404)),
        ("421", UnknownHost::Misdirected, Some(421)),
        ("close", UnknownHost::Close, Some(444)),
    ] {
        let config = home(&format!("[front]\nunknown_host={value}\n")).config;
        let settings = config.server_settings("", PathBuf::new());
        assert_eq!((settings.unknown_host, expected.status()), (expected, status));
    }
    let resolution = home("[front]\nunknown_host=444\n");
    says(only(&resolution), Severity::Error, 2, &["unknown_host", "close"]);
}

#[test]
fn the_interpreter_is_a_name() {
    let resolution = home("[general]\n_python=/usr/bin/python3 -S\n");
    says(only(&resolution), Severity::Error, 2, &["_python", "python3.12"]);
}

#[test]
fn other_internal_plugins_are_installed_by_their_name() {
    let resolution = home("[internal_plugins]\ninstall_welcome=0\ninstall_foo=1\n");
    assert_eq!(resolution.diagnostics, []);
    assert_eq!(resolution.config.internal_plugins, ["foo"]);
}

#[test]
fn the_front_gets_its_settings_in_milliseconds() {
    let text = "[nginx]\nuuid_endpoint_extra_allows=10.0.0.0/8,1.2.3.4\n\
                max_size_before_rotation=1000\n[front]\nheader_timeout=5\nqueue_timeout=7\n\
                [general]\n_python=python3.12\n";
    let config = home(text).config;
    let server = config.server_settings("abc", PathBuf::from("/tmp/x"));
    assert_eq!(server.header_timeout_ms, 5000);
    assert_eq!(server.uuid_allows, ["10.0.0.0/8", "1.2.3.4/32"]);
    assert_eq!((server.uuid.as_str(), server.threads), ("abc", 2));
    assert_eq!(config.front_rotation().max_bytes, 1000);
    assert_eq!(config.get(FRONT_QUEUE_TIMEOUT_S), Some(7));
    assert_eq!(config.get(GENERAL_PYTHON).as_deref(), Some("python3.12"));
}

#[test]
fn every_key_takes_any_text_without_a_panic_and_says_where_and_what_to_do() {
    let values = [
        "",
        "0",
        "1",
        "-1",
        "null",
        "é",
        "/",
        "/a b",
        "{{",
        "@@@X@@@",
        "99999999999999999999",
        "9223372036854775807",
        "1125899906842624",
        "0644",
        "::1",
        "10.0.0.0/99",
        "x;y",
        "%",
        "[a]",
    ];
    for key in KEYS {
        for value in values {
            let resolution = home(&format!("[{}]\n{}={value}\n", key.section, key.key));
            for diagnostic in &resolution.diagnostics {
                assert_eq!(diagnostic.at, Some(Location::new("home.ini", 2)), "{diagnostic}");
                assert!(diagnostic.help.is_some(), "{diagnostic}");
            }
            let _ = resolution.config.server_settings("x", PathBuf::new());
        }
    }
}
