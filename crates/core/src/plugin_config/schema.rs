//! Which sections and keys a plugin's configuration has.

use super::coerce::Read;
use crate::plugin_spec::ReadyBy;

/// How a value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    /// Text; `null` is empty.
    Text,
    /// Text that must not be empty.
    NonEmpty,
    /// `[a-z0-9-_.]+`.
    Version,
    /// Text that is no path.
    Release,
    /// yes or no; doubtful is no.
    Flag,
    /// A flag or AUTO.
    AutoFlag,
    /// A number from 0 to this; doubtful is 0.
    Count(i64),
    /// The number of a signal.
    Signal,
    /// Seconds above 0, else the module's timeout.
    Timeout,
    /// A regular file below the plugin home, or none.
    File,
    /// The URL part of static files.
    StaticPrefix,
    /// The directory of static files.
    StaticDirectory,
    /// Extra routes separated by `;`.
    Routes,
    // Keys of ours: what is written must be right.
    /// A flag, or unset.
    StrictFlag,
    /// A number in these limits, or unset.
    StrictCount(i64, i64),
    /// One of these words, or unset.
    Word(&'static [&'static str]),
    /// The name of a Python interpreter, or unset.
    Interpreter,
    /// Relative paths separated by `;`.
    Paths,
    /// Host names separated by `,`.
    Hosts,
    /// By what clients come back to their worker, or unset.
    Affinity,
    /// Directories separated by `,`, with a path for each.
    SendfileRoots,
    /// Statuses with a file for each, separated by blanks.
    ErrorPages,
    /// An amount of memory, or unset.
    Size,
    /// The length of a body, or unset.
    BodySize,
}

/// One key, without the type of its value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub name: &'static str,
    pub kind: Type,
    /// `None` = it must be written.
    pub default: Option<&'static str>,
    /// Why it has no effect in this version.
    pub later: Option<&'static str>,
}

impl Row {
    pub fn is_public(&self) -> bool {
        !self.name.starts_with('_')
    }
}

/// A key with the Rust type of its value.
pub(super) struct Key<T> {
    pub row: Row,
    pub take: fn(&Read) -> T,
}

/// A hundred years, seconds: no delay is longer, and no sum of delays overflows.
pub(super) const LONGEST_S: i64 = 3_155_760_000;
/// More processes of one app than any machine runs.
const MOST_PROCESSES: i64 = 4096;

/// What is said of files for nginx where another front is used.
pub(super) const FRAGMENT: &str = "fragments of nginx need nginx as the front: [front] kind=nginx";

// ---- The makers of keys: one for each pair of a type in the file and a Rust type ----

type Name = &'static str;

const fn obeyed<T>(name: Name, kind: Type, default: Name, take: fn(&Read) -> T) -> Key<T> {
    Key { row: Row { name, kind, default: Some(default), later: None }, take }
}

const fn required(name: Name, kind: Type) -> Key<String> {
    Key { row: Row { name, kind, default: None, later: None }, take: Read::text }
}

/// A key without an effect; what is written is checked.
const fn later(name: Name, kind: Type, default: Name, reason: Name) -> Key<String> {
    let row = Row { name, kind, default: Some(default), later: Some(reason) };
    Key { row, take: Read::text }
}

/// A file for nginx.
const fn fragment(name: Name) -> Key<String> {
    later(name, Type::File, "", FRAGMENT)
}

const fn text(name: Name, kind: Type, default: Name) -> Key<String> {
    obeyed(name, kind, default, Read::text)
}

const fn flag(name: Name, default: Name) -> Key<bool> {
    obeyed(name, Type::Flag, default, |read| read.flag().unwrap_or(false))
}

/// A flag or AUTO (`None`).
const fn auto_flag(name: Name) -> Key<Option<bool>> {
    obeyed(name, Type::AutoFlag, "AUTO", Read::flag)
}

const fn strict_flag(name: Name) -> Key<Option<bool>> {
    obeyed(name, Type::StrictFlag, "", Read::flag)
}

const fn count(name: Name, max: i64, default: Name) -> Key<u64> {
    obeyed(name, Type::Count(max), default, |read| read.number().unwrap_or(0))
}

const fn strict_count(name: Name, min: i64, max: i64) -> Key<Option<u64>> {
    obeyed(name, Type::StrictCount(min, max), "", Read::number)
}

const fn size(name: Name) -> Key<u64> {
    obeyed(name, Type::Size, "", |read| read.number().unwrap_or(0))
}

/// `Some(u64::MAX)`: no limit.
const fn body_size(name: Name) -> Key<Option<u64>> {
    obeyed(name, Type::BodySize, "", |read| match read.number() {
        Some(0) => Some(u64::MAX),
        limit => limit,
    })
}

const fn signal(name: Name, default: Name) -> Key<i32> {
    obeyed(name, Type::Signal, default, |read| {
        read.number().and_then(|signal| i32::try_from(signal).ok()).unwrap_or(15)
    })
}

const fn timeout(name: Name, default: Name) -> Key<Option<u64>> {
    obeyed(name, Type::Timeout, default, Read::number)
}

const fn list(name: Name, kind: Type) -> Key<Vec<String>> {
    obeyed(name, kind, "", |read| match read {
        Read::List(items) => items.clone(),
        _ => Vec::new(),
    })
}

const fn interpreter(name: Name) -> Key<Option<String>> {
    optional(name, Type::Interpreter)
}

const fn affinity(name: Name) -> Key<Option<String>> {
    optional(name, Type::Affinity)
}

const fn word(name: Name, words: &'static [&'static str]) -> Key<Option<String>> {
    optional(name, Type::Word(words))
}

const fn optional(name: Name, kind: Type) -> Key<Option<String>> {
    obeyed(name, kind, "", |read| Some(read.text()).filter(|text| !text.is_empty()))
}

const fn ready(name: Name, words: &'static [&'static str]) -> Key<Option<ReadyBy>> {
    obeyed(name, Type::Word(words), "", |read| match read.text().as_str() {
        "http" => Some(ReadyBy::Http),
        "connect" => Some(ReadyBy::Connect),
        "notify" => Some(ReadyBy::Notify),
        _ => None,
    })
}

/// Makes the rows of each kind of section, and a constant for each key that is read.
macro_rules! keys {
    ($($(#[$about:meta])* $rows:ident { $($name:tt: $type:ty = $maker:ident($($part:expr),*);)* })*) => {
        $(
            $(#[$about])*
            const $rows: &[Row] = &[$($maker($($part),*).row),*];
            $(keys!(@constant $name, $type, $maker($($part),*));)*
        )*
    };
    (@constant _, $type:ty, $key:expr) => {};
    (@constant $name:ident, $type:ty, $key:expr) => {
        pub(super) const $name: Key<$type> = $key;
    };
}

// One line each: it is read as a table.
#[rustfmt::skip]
keys! {
    GENERAL {
        VERSION: String = required("_version", Type::Version);
        RELEASE: String = text("_release", Type::Release, "1");
        SUMMARY: String = required("_summary", Type::NonEmpty);
        LICENSE: String = required("_license", Type::NonEmpty);
        URL: String = required("_url", Type::NonEmpty);
        MAINTAINER: String = required("_maintainer", Type::NonEmpty);
        VENDOR: String = required("_vendor", Type::NonEmpty);
        ADD_TO_PYTHON_PATH: bool = flag("_add_plugin_dir_to_python_path", "1");
        NGINX_HTTP: String = fragment("_extra_nginx_http_conf_filename");
        NGINX_SERVER: String = fragment("_extra_nginx_server_conf_filename");
        NGINX_INIT_WORKER: String = fragment("_extra_nginx_init_worker_by_lua_block_filename");
        // It only matters to Lua, and is yes by default: no other front says a word of it.
        ADD_TO_LUA_PATH: bool = flag("_add_plugin_dir_to_lua_path", "1");
        PYTHON: Option<String> = interpreter("_python");
        PERSISTENT_PATHS: Vec<String> = list("_persistent_paths", Type::Paths);
    }

    COMMAND {
        COMMAND_LINE: String = text("_cmd_and_args", Type::Text, "");
        PROCESSES: u64 = count("numprocesses", MOST_PROCESSES, "0");
        GRACEFUL_TIMEOUT_S: u64 = count("graceful_timeout", LONGEST_S, "10");
        MAX_AGE_S: u64 = count("max_age", LONGEST_S, "0");
        RLIMIT_AS: u64 = count("rlimit_as", i64::MAX, "0");
        RLIMIT_NOFILE: u64 = count("rlimit_nofile", i64::MAX, "0");
        RLIMIT_STACK: u64 = count("rlimit_stack", i64::MAX, "0");
        RLIMIT_FSIZE: u64 = count("rlimit_fsize", i64::MAX, "0");
        MEMORY_LIMIT: u64 = size("memory_limit");
        MEMORY_HIGH: u64 = size("memory_high");
        DEBUG: bool = flag("debug", "0");
        SPLIT_STREAMS: Option<bool> = auto_flag("log_split_stdout_stderr");
        SPLIT_WORKERS: Option<bool> = auto_flag("log_split_multiple_workers");
        START_TIMEOUT_S: Option<u64> = strict_count("_start_timeout", 1, LONGEST_S);
        OVERLAP: Option<bool> = strict_flag("_overlap");
    }

    APP {
        TIMEOUT_S: Option<u64> = timeout("timeout", "0");
        STOP_SIGNAL: i32 = signal("smart_stop_signal", "15");
        STOP_DELAY_S: u64 = count("smart_stop_delay", LONGEST_S, "3");
        START_DELAY_S: u64 = count("smart_start_delay", LONGEST_S, "3");
        DEBUG_OPTIONS: String = text("_debug_extra_options", Type::Text, "");
        PREFIX_ROUTING: bool = flag("_prefix_based_routing", "1");
        VIRTUAL_DOMAINS: bool = flag("_virtualdomain_based_routing", "0");
        EXTRA_VHOSTS: Vec<String> = list("virtualdomain_based_routing_extra_vhosts", Type::Hosts);
        HOSTS: Vec<String> = list("_hosts", Type::Hosts);
        STATIC_ROUTING: bool = flag("_static_routing", "1");
        STATIC_PREFIX: String = text("_static_url_prefix", Type::StaticPrefix, "/static");
        STATIC_DIRECTORY: String = text("_static_directory", Type::StaticDirectory, "/static");
        STATIC_FALLBACK: String = text("_static_fallback", Type::StaticDirectory, "");
        ERROR_PAGES: Vec<String> = list("_error_pages", Type::ErrorPages);
        EXTRA_ROUTES: Vec<String> = list("prefix_based_routing_extra_routes", Type::Routes);
        SENDFILE_ROOTS: Vec<String> = list("_sendfile_roots", Type::SendfileRoots);
        STRIP_PREFIX: Option<bool> = strict_flag("_strip_prefix");
        // Whatever is not `fastcgi` is the default way to talk to an app.
        GATEWAY_MODE: String = text("_gateway_interface_mode", Type::Text, "proxy");
        NGINX_LOCATION: String = fragment("_extra_nginx_conf_filename");
        NGINX_STATIC: String = fragment("_extra_nginx_conf_static_filename");
        TEST_PATH: String = text("_http_test_endpoint", Type::Text, "");
        TEST_STATUS: u64 = count("_http_test_expected_status_code", 999, "200");
        TEST_BODY: String = text("_http_test_expected_body", Type::Text, "OK");
        TEST_TIMEOUT_S: u64 = count("_http_test_timeout", LONGEST_S, "10");
        READY: Option<ReadyBy> = ready("_ready", &["http", "connect", "notify"]);
        REQUESTS_PER_WORKER: Option<u64> = strict_count("_requests_per_worker", 0, 1_000_000);
        MAX_BODY: Option<u64> = body_size("_max_body_size");
        AFFINITY: Option<String> = affinity("_affinity");
        KEEP_ALIVE: Option<bool> = strict_flag("_keep_alive");
        PYTHON_SERVER: Option<String> = word("_python_server", &["waitress", "mfserv"]);
        PYTHON_THREADS: Option<u64> = strict_count("_python_threads", 1, 256);
        ASGI_SERVER: Option<String> = word("_python_asgi_server", &["uvicorn", "mfserv"]);
    }

    /// An extra daemon has no socket: only it can say that it is ready.
    EXTRA {
        _: Option<ReadyBy> = ready("_ready", &["notify"]);
    }

    JOB {
        SCHEDULE: String = required("schedule", Type::NonEmpty);
        _: String = required("_cmd_and_args", Type::NonEmpty);
        JOB_TIMEOUT_S: u64 = count("timeout", LONGEST_S, "3600");
        DRAIN_TIMEOUT_S: u64 = count("drain_timeout", LONGEST_S, "0");
        _: u64 = count("graceful_timeout", LONGEST_S, "10");
        RETRIES: u64 = count("retries", 1000, "0");
        RETRY_DELAY_S: u64 = count("retry_delay", LONGEST_S, "60");
        NICE: Option<u64> = strict_count("nice", 0, 19);
        _: u64 = count("rlimit_as", i64::MAX, "0");
        _: u64 = count("rlimit_nofile", i64::MAX, "0");
        _: u64 = count("rlimit_stack", i64::MAX, "0");
        _: u64 = count("rlimit_fsize", i64::MAX, "0");
        _: u64 = size("memory_limit");
        _: bool = flag("debug", "0");
        _: Option<bool> = strict_flag("_overlap");
        CATCH_UP: Option<bool> = strict_flag("_catch_up");
    }

    /// A command that makes a part of what is packed.
    BUILD {
        BUILD_COMMAND: String = required("cmd", Type::NonEmpty);
        BUILD_OUT: Vec<String> = list("out", Type::Paths);
    }

    INTERNAL {
        ROUTES_DISABLED: bool = flag("disable_nginx_conf", "0");
    }
}

/// What a section is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    General,
    Internal,
    Build,
    App(&'a str),
    Extra(&'a str),
    Job(&'a str),
    Custom,
}

impl<'a> Kind<'a> {
    /// The kind of a section by its name; `None` for one that plugins do not have.
    pub fn of(section: &'a str) -> Option<Self> {
        match section {
            "general" => Some(Kind::General),
            "internal" => Some(Kind::Internal),
            "build" => Some(Kind::Build),
            _ if section.starts_with("custom") => Some(Kind::Custom),
            _ => section
                .strip_prefix("app_")
                .map(Kind::App)
                .or_else(|| section.strip_prefix("extra_daemon_").map(Kind::Extra))
                .or_else(|| section.strip_prefix("job_").map(Kind::Job)),
        }
    }

    /// Its keys; none for custom sections, where every key is allowed.
    pub fn keys(self) -> impl Iterator<Item = &'static Row> + Clone {
        let (first, second): (&[Row], &[Row]) = match self {
            Kind::General => (GENERAL, &[]),
            Kind::Internal => (INTERNAL, &[]),
            Kind::Build => (BUILD, &[]),
            Kind::App(_) => (COMMAND, APP),
            Kind::Extra(_) => (COMMAND, EXTRA),
            Kind::Job(_) => (JOB, &[]),
            Kind::Custom => (&[], &[]),
        };
        first.iter().chain(second)
    }
}
