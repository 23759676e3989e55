//! The table itself, in the order in which people read it.

use std::net::IpAddr;
use std::path::PathBuf;

use super::kinds::*;
use super::{Key, Row, Type};
use crate::circus::Endpoint;
use crate::log_outputs::{self, SyslogAddress};
use crate::route::{Symlinks, UnknownHost};
use crate::tls::{ClientCertificates, Version};

/// A hundred years, seconds: no delay is longer, and no sum of delays overflows.
const LONGEST_S: i64 = 3_155_760_000;

const LEVELS: Type = Type::OneOf { words: &["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] };

const MFADMIN: Type = Type::OneOf { words: &["AUTO", "null"] };

const AGENTS: Type = Type::OneOf { words: &["builtin", "telegraf"] };

const PYTHON_SERVERS: Type = Type::OneOf { words: &["waitress", "mfserv"] };
const ASGI_SERVERS: Type = Type::OneOf { words: &["uvicorn", "mfserv"] };

const FACILITIES: Type = Type::OneOf { words: log_outputs::FACILITIES };

const FRONTS: Type = Type::OneOf { words: &["embedded", "nginx"] };

const fn at_least(min: i64, unit: &'static str) -> Type {
    Type::Integer { min, max: 1 << 50, unit }
}

const fn between(min: i64, max: i64, unit: &'static str) -> Type {
    Type::Integer { min, max, unit }
}

const fn seconds(min: i64) -> Type {
    between(min, LONGEST_S, "seconds")
}

/// Makes [`KEYS`], and a constant for each row that has a name. A row with `_` for its name
/// is read by nobody through a constant: it has no effect in this version, or its values are
/// only checked.
macro_rules! keys {
    ($($name:tt: $type:ty = $make:ident($section:literal, $key:literal, $($rest:expr),*);)*) => {
        /// Every key, section after section.
        pub const KEYS: &[Row] = &[$($make(($section, $key), $($rest),*).row),*];
        $(keys!(@constant $name, $type, $make, $section, $key, $($rest),*);)*
    };
    (@constant _, $($ignored:tt)*) => {};
    (@constant $name:ident, $type:ty, $make:ident, $section:literal, $key:literal, $($rest:expr),*) => {
        #[doc = concat!("`[", $section, "] ", $key, "`: ", keys!(@meaning $($rest),*), ".")]
        pub const $name: Key<$type> = $make(($section, $key), $($rest),*);
    };
    (@meaning $default:expr, $meaning:expr) => { $meaning };
    (@meaning $default:expr, $kind:expr, $meaning:expr) => { $meaning };
}

// One line each: it is read as a table.
#[rustfmt::skip]
keys! {
    // [nginx]: MFSERV's names; they drive the front whichever it is.
    NGINX_ENABLED: bool = flag("nginx", "flag", "1", "0: no HTTP front at all");
    NGINX_PORT: Option<u16> = port("nginx", "port", "18868", "port of the front; 0 or null: no plain listener");
    NGINX_UPLOAD_MAX_BODY_MB: u64 = count("nginx", "upload_max_body_size", "100", between(0, 1 << 30, "MB"), "largest request body, 413 beyond, of apps that set none; 0: no limit");
    NGINX_TIMEOUT_S: u64 = count("nginx", "timeout", "60", seconds(1), "timeout of a request, for apps that set none");
    NGINX_ACCESS_LOG: bool = flag("nginx", "logging", "1", "write the access log");
    NGINX_BODY_TEMP_DIR: Option<PathBuf> = path("nginx", "clientbody_temp_path", "@@@MFMODULE_RUNTIME_HOME@@@/var/nginx2", "where big request bodies, and answers to slow clients, are buffered");
    NGINX_ADD_REQUEST_ID: bool = flag("nginx", "add_request_id_header", "1", "add X-Request-Id to the proxied request and to the answer");
    NGINX_ACCEPT_REQUEST_ID: bool = flag("nginx", "accept_incoming_request_id_header", "0", "1: keep the X-Request-Id that a client sent; 0: always a new one");
    NGINX_ADD_FORWARDED: bool = flag("nginx", "add_x_forwarded_headers", "1", "add X-Real-IP and X-Forwarded-* to the proxied request");
    NGINX_UUID_ALLOWS: Vec<String> = networks("nginx", "uuid_endpoint_extra_allows", "null", "networks allowed on /uuid besides 127.0.0.1/32");
    NGINX_HEALTH_PATH: Option<String> = url_path("nginx", "health_location", "/__health", "exact path of the health check; null: none");
    NGINX_HEALTH_ACCESS_LOG: bool = flag("nginx", "health_access_log", "0", "write health checks to the access log");
    NGINX_STOP_DELAY_S: u64 = count("nginx", "smart_stop_delay", "0", seconds(0), "pause at the beginning of a stop, with the health check at 503");
    NGINX_START_DELAY_S: u64 = count("nginx", "smart_start_delay", "0", seconds(0), "pause at the end of a start, before the node says that it runs");
    NGINX_IGNORE_CLIENT_ABORT: bool = flag("nginx", "proxy_ignore_client_abort", "1", "1: a request goes on in the app when its client has gone");
    NGINX_SERVER_TOKENS: bool = flag("nginx", "server_tokens", "1", "say the version in the Server header and in error pages");
    NGINX_PORT_IN_REDIRECT: bool = flag("nginx", "port_in_redirect", "1", "put the port into redirects made by the front");
    NGINX_ROTATION_MAX_BYTES: u64 = count("nginx", "max_size_before_rotation", "-1", at_least(-1, "bytes"), "rotation size of the front's logs; not above 0: as [log]");
    NGINX_WORKERS: u32 = small("nginx", "workers", "{{MFHARDWARE_NUMBER_OF_CPU_CORES_MULTIPLIED_BY_2}}", between(1, 10_000, ""), "worker processes of nginx (the embedded front has [front] threads)");
    NGINX_REAL_IP: bool = flag("nginx", "real_ip", "0", "take the client address from a header of trusted proxies");
    NGINX_REAL_IP_RECURSIVE: bool = flag("nginx", "real_ip_recursive", "1", "skip trusted addresses from the right");
    NGINX_REAL_IP_HEADER: String = text("nginx", "real_ip_header", "X-Forwarded-For", "the header that real_ip reads");
    NGINX_REAL_IP_PROXIES: Vec<String> = networks("nginx", "real_ip_set_from", "172.16.0.0/12,192.168.0.0/16,10.0.0.0/8", "the trusted proxies of real_ip");
    NGINX_HTTPS_PORT: Option<u16> = port("nginx", "https_port", "null", "port of the TLS listener; 0 or null: none");
    NGINX_CERTIFICATE: Option<PathBuf> = path("nginx", "ssl_certificate", "/dev/null", "certificate of the TLS listener with its chain, PEM");
    NGINX_CERTIFICATE_KEY: Option<PathBuf> = path("nginx", "ssl_certificate_key", "/dev/null", "private key of the TLS listener, PEM");
    NGINX_CIPHERS: Vec<String> = tls_ciphers("nginx", "ssl_ciphers", "HIGH:!aNULL:!MD5", "ciphers, as OpenSSL writes them; the default: all that are safe");
    NGINX_TLS_VERSIONS: Vec<Version> = tls_versions("nginx", "ssl_protocols", "TLSv1 TLSv1.1 TLSv1.2", "TLS versions; the default: TLS 1.2 and 1.3");
    _: () = unset("nginx", "proxy_temp_path", Type::Path, "where nginx buffers answers of apps");
    _: () = unset("nginx", "fastcgi_temp_path", Type::Path, "where nginx buffers answers of FastCGI apps");
    // [front]: what MFSERV had no name for.
    FRONT_KIND: String = one_of("front", "kind", "embedded", FRONTS, "what listens for HTTP: the front that is built in, or nginx before it");
    FRONT_NGINX_PROGRAM: String = text("front", "nginx_program", "nginx", "nginx, where it is the front: a path, or a name in PATH");
    FRONT_NGINX_MODULES: Option<PathBuf> = path("front", "nginx_modules", "null", "directory of the modules of nginx; null: where nginx looks for them");
    FRONT_FRAGMENTS: String = text("front", "fragments", "all", "plugins whose fragments nginx gets: all, none, or names separated by commas");
    FRONT_HOST: Vec<IpAddr> = addresses("front", "host", "0.0.0.0", "addresses to listen on; :: for all, also of IPv6");
    FRONT_UNKNOWN_HOST: UnknownHost = unknown_host("front", "unknown_host", "default", "what a request gets whose Host is that of no app: the pages without a host, 404, 421, or the end of its connection");
    FRONT_THREADS: u32 = small("front", "threads", "{{MFHARDWARE_NUMBER_OF_CPU_CORES_DIVIDED_BY_4}}", between(1, 1024, ""), "threads that forward requests");
    FRONT_MAX_CONNECTIONS: u32 = small("front", "max_connections", "40000", between(1, 1_000_000, ""), "most client connections at a time");
    FRONT_REQUEST_HEAD_KB: u32 = small("front", "request_head_max", "32", between(1, 1024, "kB"), "a request with so large a head, or a larger one, gets 431");
    FRONT_REQUEST_FIELDS: u32 = small("front", "request_fields_max", "100", between(1, 1000, ""), "most fields in the head of a request");
    FRONT_ANSWER_HEAD_KB: u32 = small("front", "answer_head_max", "64", between(1, 1024, "kB"), "an answer of an app with so large a head, or a larger one, becomes a 502");
    FRONT_ANSWER_FIELDS: u32 = small("front", "answer_fields_max", "1000", between(1, 1000, ""), "most fields in the head of an answer");
    FRONT_SPOOL_PER_ANSWER_MB: u64 = count("front", "spool_max_per_answer", "1024", between(0, 1 << 30, "MB"), "most of an answer that is kept in a file for a slow client; 0: no files");
    FRONT_SPOOL_PER_APP_MB: u64 = count("front", "spool_max_per_app", "4096", between(0, 1 << 30, "MB"), "the same for all answers of an app together");
    FRONT_SPOOL_ALL_MB: u64 = count("front", "spool_max", "8192", between(0, 1 << 30, "MB"), "the same for all answers; one app gets at most as much as is left free");
    FRONT_STATIC_SYMLINKS: Symlinks = symlinks("front", "static_symlinks", "follow", "symbolic links to static files; beneath: only those that stay below the root");
    FRONT_STATIC_DOTFILES: bool = flag("front", "static_dotfiles", "0", "1: serve static files with a name that begins with a dot in their path");
    FRONT_STATIC_COMPRESSION: bool = flag("front", "static_compression", "1", "1: static files of text are compressed (br, zstd, gzip) for clients that accept it");
    FRONT_HEADER_TIMEOUT_S: u64 = count("front", "header_timeout", "60", seconds(1), "longest wait for the head of a request");
    FRONT_KEEPALIVE_TIMEOUT_S: u64 = count("front", "keepalive_timeout", "75", seconds(1), "an idle client connection is closed after this");
    FRONT_CLIENT_TIMEOUT_S: u64 = count("front", "client_timeout", "60", seconds(1), "longest wait between two reads of a body or two writes of an answer");
    FRONT_UPGRADE_DRAIN_TIMEOUT_S: u64 = count("front", "upgrade_drain_timeout", "30", seconds(0), "how long WebSockets of a worker that is replaced may go on");
    FRONT_QUEUE_MAX: u32 = small("front", "queue_max", "10000", between(0, 1_000_000, ""), "most requests of an app that wait for a free worker");
    FRONT_QUEUE_TIMEOUT_S: Option<u64> = optional("front", "queue_timeout", "null", seconds(1), "longest wait for a free worker; null: the timeout of the app");
    FRONT_SLOW_LANE_WAIT_S: u64 = count("front", "slow_lane_wait", "1", seconds(0), "how long slow requests leave the last free slot to the others; 0: first come, first served");
    FRONT_TRACE_CONTEXT: bool = flag("front", "trace_context", "1", "pass a valid traceparent and tracestate on to apps, else begin a trace; 0: pass both on as they come");
    FRONT_TRACE_SAMPLE: u32 = small("front", "trace_sample", "100", between(0, 100, "percent"), "traces begun here that apps are asked to record (flag sampled)");
    FRONT_SERVER_TIMING: bool = flag("front", "server_timing", "0", "1: add Server-Timing to answers: queue, app and total in milliseconds, which anybody can read");
    FRONT_CERTIFICATES: Option<PathBuf> = path("front", "tls_certificates", "null", "directory with further certificates: NAME.crt or NAME.pem with NAME.key, or NAME/fullchain.pem with NAME/privkey.pem");
    FRONT_CLIENT_CERTIFICATES: ClientCertificates = client_certificates("front", "tls_client_certificates", "off", "whether clients have to show a certificate of tls_client_authorities");
    FRONT_CLIENT_AUTHORITIES: Option<PathBuf> = path("front", "tls_client_authorities", "null", "authorities that vouch for clients, PEM");
    FRONT_HTTPS_REDIRECT: bool = flag("front", "https_redirect", "0", "1: requests that come in clear are redirected to the TLS listener");
    FRONT_HSTS_MAX_AGE_S: u64 = count("front", "hsts_max_age", "0", seconds(0), "answers over TLS have Strict-Transport-Security with this age; 0: they have not");
    FRONT_HSTS_SUBDOMAINS: bool = flag("front", "hsts_subdomains", "0", "1: Strict-Transport-Security is meant for all subdomains too");
    // [log]
    LOG_MINIMAL_LEVEL: String = one_of("log", "minimal_level", "INFO", LEVELS, "least severe level of the messages of plugins (mflog)");
    LOG_ROTATED_FILES: u32 = small("log", "number_of_rotated_files", "5", between(0, 1_000_000, "files"), "log files kept, the live one included; 0: all");
    LOG_ROTATION_MAX_AGE_S: u64 = count("log", "max_age_before_rotation", "86400", seconds(-1), "age at which a log file is rotated; not above 0: never");
    LOG_ROTATION_MAX_BYTES: u64 = count("log", "max_size_before_rotation", "104857600", at_least(-1, "bytes"), "size at which a log file is rotated; not above 0: never");
    LOG_COMPRESS: bool = flag("log", "compress_rotated_files", "0", "1: rotated files are compressed (zstd), except the newest of each log");
    LOG_MAX_TOTAL_BYTES: u64 = count("log", "max_total_size", "-1", at_least(-1, "bytes"), "size of all log files together, beyond which the oldest rotated ones are removed; not above 0: no bound");
    LOG_FILE_MODE: Option<u32> = file_mode("log", "chmod", "0644", "mode of log files; null: as umask gives");
    LOG_SPLIT_STREAMS: bool = flag("log", "try_to_split_stdout_stderr", "0", "for apps with log_split_stdout_stderr=AUTO: two files");
    LOG_SPLIT_WORKERS: bool = flag("log", "try_to_split_multiple_workers", "0", "for apps with log_split_multiple_workers=AUTO: a file per worker");
    LOG_JSON_FILE: String = text("log", "json_file", "null", "extra JSON file of the messages of mflog, and of mfserv itself; null or AUTO: none");
    LOG_JSON_MINIMAL_LEVEL: String = one_of("log", "json_minimal_level", "WARNING", LEVELS, "least severe level in that file");
    LOG_JOURNALD: bool = flag("log", "journald", "0", "1: lines of apps and of mfserv itself go to journald too");
    LOG_JOURNALD_SOCKET: Option<PathBuf> = path("log", "journald_socket", "/run/systemd/journal/socket", "socket of journald");
    LOG_SYSLOG: Option<SyslogAddress> = syslog_address("log", "syslog", "null", "syslog server that they go to too: udp://HOST:PORT, tcp://HOST:PORT or unix:///dev/log");
    LOG_SYSLOG_FACILITY: String = one_of("log", "syslog_facility", "daemon", FACILITIES, "facility of these lines, in syslog and in journald");
    LOG_MFADMIN_FLAG: String = one_of("log", "mfadmin_flag", "AUTO", MFADMIN, "AUTO: send messages of mflog to the host of [admin]; null: never");
    LOG_MFADMIN_MINIMAL_LEVEL: String = one_of("log", "mfadmin_minimal_level", "WARNING", LEVELS, "least severe level that is sent");
    // [startup], [internal_plugins], [general], [python], [misc], [autorestart]
    STARTUP_ENABLED: bool = flag("startup", "flag", "1", "0: mfserv start and stop do nothing");
    _: bool = flag("internal_plugins", "install_welcome", "1", "install or update the built-in plugin welcome at start");
    GENERAL_PYTHON: Option<String> = program("general", "_python", "null", "interpreter of plugins that name none (python3.12); null: python3 of the host");
    PYTHON_LEGACY_LAYERS: bool = flag("python", "legacy_layers", "0", "1: plugins find the packages that the layers of MFSERV offered without a declaration");
    PYTHON_SERVER: String = one_of("python", "server", "mfserv", PYTHON_SERVERS, "the server behind bjoern_wrapper.py, of apps that name none: that of mfserv, or waitress");
    PYTHON_THREADS: u64 = count("python", "threads", "1", between(1, 256, "threads"), "requests that a worker with the server mfserv runs at a time for a WSGI app that says nothing else, each in a thread");
    PYTHON_ASGI_SERVER: String = one_of("python", "asgi_server", "mfserv", ASGI_SERVERS, "the server behind mfserv_worker --asgi, of apps that name none: that of mfserv, or uvicorn");
    AUTORESTART: bool = flag("autorestart", "flag", "1", "renew workers when files of their plugin change");
    AUTORESTART_CONFIGURATION: bool = flag("autorestart", "configuration", "1", "with flag=1: apply configuration files when they change; 0: at mfserv reload");
    MISC_CORE_SIZE_KIB: Option<u64> = optional("misc", "core_size", "0", at_least(-1, "KiB"), "size of core files of workers and jobs; 0: none; -1: as mfserv was started");
    MISC_TMP_MAX_AGE_DAYS: u64 = count("misc", "tmp_max_age", "2", between(0, 1_000_000, "days"), "files in tmp are removed at this age; 0: never");
    // Monitoring.
    ADMIN_HOST: Option<String> = host("admin", "hostname", "null", "host of the monitoring server; null: no monitoring");
    ADMIN_INFLUXDB_PORT: Option<u16> = port("admin", "influxdb_http_port", "18086", "InfluxDB on that host; 0: not used");
    ADMIN_ELASTICSEARCH_PORT: Option<u16> = port("admin", "elasticsearch_http_port", "15603", "Elasticsearch on that host; 0: not used");
    ADMIN_LOKI_PORT: Option<u16> = port("admin", "loki_http_port", "0", "Loki on that host; 0: not used");
    ADMIN_SEND_ACCESS_LOG: bool = flag("admin", "send_nginx_logs", "1", "send access logs there");
    ADMIN_SEND_MFLOG: bool = flag("admin", "send_mflog_logs", "1", "send messages of mflog there");
    VECTOR_MFLOG_PORT: Option<u16> = port("vector", "mflog_port", "5144", "UDP port on 127.0.0.1 for messages of mflog; 0: none");
    _: () = known("vector", "nginxlog_port", "5145", Type::Port, "UDP port for access logs (they are read from their file)");
    TELEGRAF_STATSD_PORT: Option<u16> = port("telegraf", "statsd_port", "18127", "UDP port for statsd on 127.0.0.1; 0: none");
    TELEGRAF_DEBUG: bool = flag("telegraf", "debug", "0", "write every point that is sent to the log too: log/telemetry.log, or log/telegraf.log");
    TELEGRAF_AGENT: String = one_of("telegraf", "agent", "builtin", AGENTS, "who receives, aggregates and sends points: mfserv itself, or the program telegraf");
    TELEGRAF_PROGRAM: String = text("telegraf", "program", "telegraf", "that program: a name on the PATH, or a path");
    TELEGRAF_HOST: bool = flag("telegraf", "host", "0", "1: send points of this machine (cpu, mem, disk, net...) too, where no mfsysmon does");
    // [elasticsearch], [loki], [influxdb]: what MFSERV had no name for.
    ELASTICSEARCH_URL: Vec<String> = http_urls("elasticsearch", "url", "null", "Elasticsearch or OpenSearch that logs are shipped to; several nodes of one cluster: with commas; null: that of [admin]");
    ELASTICSEARCH_USER: Option<String> = some_text("elasticsearch", "user", "null", "user of Elasticsearch; null: none");
    ELASTICSEARCH_PASSWORD: Option<String> = some_text("elasticsearch", "_password", "null", "password of that user");
    ELASTICSEARCH_API_KEY: Option<String> = some_text("elasticsearch", "_api_key", "null", "API key, as Elasticsearch encodes it, in place of a user");
    ELASTICSEARCH_CA: Option<PathBuf> = path("elasticsearch", "ca", "null", "PEM file with the certificates to trust at https:// addresses; null: those of the system");
    ELASTICSEARCH_NGINX_INDEX: String = index_name("elasticsearch", "nginx_index", "nginx-%Y.%m.%d", "index of the access log; directives of strftime, in UTC");
    ELASTICSEARCH_MFLOG_INDEX: String = index_name("elasticsearch", "mflog_index", "mflog-%Y.%m.%d", "index of messages of mflog");
    ELASTICSEARCH_DATA_STREAM: bool = flag("elasticsearch", "data_stream", "0", "1: both are data streams (names without directives): each document gets @timestamp, templates are yours");
    _: () = unset("elasticsearch", "indices_lifetime", at_least(0, "days"), "age at which the monitoring server removes indices: not a task of mfserv");
    LOKI_URL: Option<String> = http_url("loki", "url", "null", "Loki that logs are shipped to; null: that of [admin]");
    LOKI_USER: Option<String> = some_text("loki", "user", "null", "user of Loki; null: none");
    LOKI_PASSWORD: Option<String> = some_text("loki", "_password", "null", "password of that user");
    LOKI_CA: Option<PathBuf> = path("loki", "ca", "null", "PEM file with the certificates to trust at an https:// address; null: those of the system");
    INFLUXDB_URL: Option<String> = http_url("influxdb", "url", "null", "address of InfluxDB, http://HOST:PORT; null: that of [admin]");
    INFLUXDB_DATABASE: String = text("influxdb", "database", "metrics", "database that points are written to");
    INFLUXDB_USERNAME: Option<String> = some_text("influxdb", "username", "null", "user of InfluxDB 1.x; null: none");
    INFLUXDB_PASSWORD: Option<String> = some_text("influxdb", "_password", "null", "password of that user");
    INFLUXDB_ORG: Option<String> = some_text("influxdb", "org", "null", "organisation of InfluxDB 2.x");
    INFLUXDB_BUCKET: Option<String> = some_text("influxdb", "bucket", "null", "bucket of InfluxDB 2.x; null: the name of database");
    INFLUXDB_TOKEN: Option<String> = some_text("influxdb", "_token", "null", "token of InfluxDB 2.x; with it, points are written as 2.x takes them");
    // [metrics]: what MFSERV had no name for.
    METRICS_PORT: Option<u16> = port("metrics", "port", "null", "port of Prometheus metrics on 127.0.0.1, path /metrics; 0 or null: none");
    METRICS_HISTORY_MAX_BYTES: u64 = count("metrics", "history_max_size", "67108864", at_least(0, "bytes"), "size of the history (`mfserv history`); 0: none is kept on the disk");
    CIRCUS_ENDPOINT: Option<Endpoint> = endpoint("circus", "endpoint", "ipc://@@@MFMODULE_RUNTIME_HOME@@@/var/circus.socket", "where `circusctl` and other clients of Circus are answered: a unix socket or an address of loopback");
    CIRCUS_PUBSUB: Option<Endpoint> = endpoint("circus", "pubsub_endpoint", "ipc://@@@MFMODULE_RUNTIME_HOME@@@/var/circus_pubsub.socket", "where events are published as Circus does it");
    CIRCUS_TCP_MAY_CHANGE: bool = flag("circus", "tcp_may_change", "0", "1: commands over `tcp://` may change the node, whichever user of the machine sends them");
    CIRCUS_CHECK_DELAY_S: u64 = count("circus", "check_delay", "15", seconds(1), "what `circusctl globaloptions` shows as the time between two passes (workers that end are replaced at once)");
}
