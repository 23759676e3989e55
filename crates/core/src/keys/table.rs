//! The table itself, in the order in which people read it.

use super::{Key, Type};

const LEVELS: Type = Type::OneOf(&["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]);

const fn at_least(min: i64, unit: &'static str) -> Type {
    Type::Integer { min, max: 1 << 50, unit }
}

const fn between(min: i64, max: i64, unit: &'static str) -> Type {
    Type::Integer { min, max, unit }
}

/// A hundred years, seconds: no delay is longer, and no sum of delays overflows.
const LONGEST_S: i64 = 3_155_760_000;

const fn seconds(min: i64) -> Type {
    between(min, LONGEST_S, "seconds")
}

/// A key that this version obeys.
const fn key(
    section: &'static str,
    key: &'static str,
    default: &'static str,
    kind: Type,
    meaning: &'static str,
) -> Key {
    Key { section, key, default: Some(default), kind, meaning, obeyed: true }
}

/// A key that is known, accepted and exported, and does nothing in this version.
const fn known(
    section: &'static str,
    key: &'static str,
    default: &'static str,
    kind: Type,
    meaning: &'static str,
) -> Key {
    Key { section, key, default: Some(default), kind, meaning, obeyed: false }
}

/// Every key, section after section. One line each: it is read as a table.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    // [nginx]: MFSERV's names; they drive the front whichever it is.
    key("nginx", "flag", "1", Type::Flag, "0: no HTTP front at all"),
    key("nginx", "port", "18868", Type::Port, "port of the front; 0 or null: no plain listener"),
    key("nginx", "upload_max_body_size", "100", between(0, 1 << 30, "MB"), "largest request body, 413 beyond; 0: no limit"),
    key("nginx", "timeout", "60", seconds(1), "timeout of a request, for apps that set none"),
    key("nginx", "logging", "1", Type::Flag, "write the access log"),
    key("nginx", "clientbody_temp_path", "@@@MFMODULE_RUNTIME_HOME@@@/var/nginx2", Type::Path, "where big request bodies are buffered"),
    key("nginx", "add_request_id_header", "1", Type::Flag, "add X-Request-Id to the proxied request and to the answer"),
    key("nginx", "accept_incoming_request_id_header", "0", Type::Flag, "1: keep the X-Request-Id that a client sent; 0: always a new one"),
    key("nginx", "add_x_forwarded_headers", "1", Type::Flag, "add X-Real-IP and X-Forwarded-* to the proxied request"),
    key("nginx", "uuid_endpoint_extra_allows", "null", Type::Networks, "networks allowed on /uuid besides 127.0.0.1/32"),
    key("nginx", "health_location", "/__health", Type::UrlPath, "exact path of the health check; null: none"),
    key("nginx", "health_access_log", "0", Type::Flag, "write health checks to the access log"),
    key("nginx", "smart_stop_delay", "0", seconds(0), "pause at the beginning of a stop, with the health check at 503"),
    key("nginx", "smart_start_delay", "0", seconds(0), "pause at the end of a start, before the node says that it runs"),
    key("nginx", "proxy_ignore_client_abort", "1", Type::Flag, "1: a request goes on in the app when its client has gone"),
    key("nginx", "server_tokens", "1", Type::Flag, "say the version in the Server header and in error pages"),
    key("nginx", "port_in_redirect", "1", Type::Flag, "put the port into redirects made by the front"),
    key("nginx", "max_size_before_rotation", "-1", at_least(-1, "bytes"), "rotation size of the front's logs; not above 0: as [log]"),
    known("nginx", "workers", "{{MFHARDWARE_NUMBER_OF_CPU_CORES_MULTIPLIED_BY_2}}", between(1, 10_000, ""), "front processes (the embedded front has [front] threads)"),
    key("nginx", "real_ip", "0", Type::Flag, "take the client address from a header of trusted proxies"),
    key("nginx", "real_ip_recursive", "1", Type::Flag, "skip trusted addresses from the right"),
    key("nginx", "real_ip_header", "X-Forwarded-For", Type::Text, "the header that real_ip reads"),
    key("nginx", "real_ip_set_from", "172.16.0.0/12,192.168.0.0/16,10.0.0.0/8", Type::Networks, "the trusted proxies of real_ip"),
    known("nginx", "https_port", "null", Type::Port, "port of the TLS listener; 0 or null: none"),
    known("nginx", "ssl_certificate", "/dev/null", Type::Path, "certificate of the TLS listener"),
    known("nginx", "ssl_certificate_key", "/dev/null", Type::Path, "private key of the TLS listener"),
    known("nginx", "ssl_ciphers", "HIGH:!aNULL:!MD5", Type::Text, "ciphers, as OpenSSL writes them"),
    known("nginx", "ssl_protocols", "TLSv1 TLSv1.1 TLSv1.2", Type::Text, "TLS versions"),
    Key { section: "nginx", key: "proxy_temp_path", default: None, kind: Type::Path, meaning: "where nginx buffers answers of apps", obeyed: false },
    Key { section: "nginx", key: "fastcgi_temp_path", default: None, kind: Type::Path, meaning: "where nginx buffers answers of FastCGI apps", obeyed: false },
    // [front]: what MFSERV had no name for.
    key("front", "kind", "embedded", Type::OneOf(&["embedded", "nginx"]), "what listens for HTTP (nginx: not in this version)"),
    key("front", "host", "0.0.0.0", Type::Address, "address to listen on; :: for IPv6"),
    key("front", "threads", "{{MFHARDWARE_NUMBER_OF_CPU_CORES_DIVIDED_BY_4}}", between(1, 1024, ""), "threads that forward requests"),
    key("front", "max_connections", "40000", between(1, 1_000_000, ""), "most client connections at a time"),
    key("front", "static_symlinks", "follow", Type::OneOf(&["follow", "beneath"]), "symbolic links to static files; beneath: only those that stay below the root"),
    key("front", "static_dotfiles", "0", Type::Flag, "1: serve static files with a name that begins with a dot in their path"),
    key("front", "header_timeout", "60", seconds(1), "longest wait for the head of a request"),
    key("front", "keepalive_timeout", "75", seconds(1), "an idle client connection is closed after this"),
    key("front", "client_timeout", "60", seconds(1), "longest wait between two reads of a body or two writes of an answer"),
    key("front", "upgrade_drain_timeout", "30", seconds(0), "how long WebSockets of a worker that is replaced may go on"),
    key("front", "queue_max", "10000", between(0, 1_000_000, ""), "most requests of an app that wait for a free worker"),
    key("front", "queue_timeout", "null", seconds(1), "longest wait for a free worker; null: the timeout of the app"),
    // [log]
    key("log", "minimal_level", "INFO", LEVELS, "least severe level that is logged"),
    key("log", "number_of_rotated_files", "5", between(0, 1_000_000, "files"), "log files kept, the live one included; 0: all"),
    key("log", "max_age_before_rotation", "86400", seconds(-1), "age at which a log file is rotated; not above 0: never"),
    key("log", "max_size_before_rotation", "104857600", at_least(-1, "bytes"), "size at which a log file is rotated; not above 0: never"),
    key("log", "chmod", "0644", Type::FileMode, "mode of log files; null: as umask gives"),
    key("log", "try_to_split_stdout_stderr", "0", Type::Flag, "for apps with log_split_stdout_stderr=AUTO: two files"),
    key("log", "try_to_split_multiple_workers", "0", Type::Flag, "for apps with log_split_multiple_workers=AUTO: a file per worker"),
    known("log", "json_file", "null", Type::Path, "extra JSON file of the messages of mflog; null or AUTO: none"),
    known("log", "json_minimal_level", "WARNING", LEVELS, "least severe level in that file"),
    known("log", "mfadmin_flag", "AUTO", Type::Text, "AUTO: send messages of mflog to the host of [admin]; null: never"),
    known("log", "mfadmin_minimal_level", "WARNING", LEVELS, "least severe level that is sent"),
    // [startup], [internal_plugins], [general], [misc], [autorestart]
    key("startup", "flag", "1", Type::Flag, "0: mfserv start and stop do nothing"),
    key("internal_plugins", "install_welcome", "1", Type::Flag, "install or update the built-in plugin welcome at start"),
    key("general", "_python", "null", Type::Program, "interpreter of plugins that name none (python3.12); null: python3 of the host"),
    key("autorestart", "flag", "1", Type::Flag, "renew workers when files of their plugin change"),
    known("misc", "core_size", "0", at_least(-1, "blocks"), "limit of core files; -1: untouched"),
    known("misc", "tmp_max_age", "2", between(0, 1_000_000, "days"), "files in tmp are removed at this age; 0: never"),
    // Monitoring.
    known("admin", "hostname", "null", Type::Host, "host of the monitoring server; null: no monitoring"),
    known("admin", "influxdb_http_port", "18086", Type::Port, "InfluxDB on that host"),
    known("admin", "elasticsearch_http_port", "15603", Type::Port, "Elasticsearch on that host; 0: not used"),
    known("admin", "loki_http_port", "0", Type::Port, "Loki on that host; 0: not used"),
    known("admin", "send_nginx_logs", "1", Type::Flag, "send access logs there"),
    known("admin", "send_mflog_logs", "1", Type::Flag, "send messages of mflog there"),
    known("vector", "mflog_port", "5144", Type::Port, "local UDP port for messages of mflog"),
    known("vector", "nginxlog_port", "5145", Type::Port, "local UDP port for access logs"),
    known("telegraf", "statsd_port", "18127", Type::Port, "local UDP port for statsd"),
    known("telegraf", "debug", "0", Type::Flag, "write every metric to the log too"),
    // MFSERV's process manager: nothing here replaces these.
    known("circus", "endpoint", "ipc://@@@MFMODULE_RUNTIME_HOME@@@/var/circus.socket", Type::Text, "control socket of circus"),
    known("circus", "pubsub_endpoint", "ipc://@@@MFMODULE_RUNTIME_HOME@@@/var/circus_pubsub.socket", Type::Text, "event socket of circus"),
    known("circus", "check_delay", "15", seconds(1), "time between two passes of circus (workers that end are replaced at once)"),
];
