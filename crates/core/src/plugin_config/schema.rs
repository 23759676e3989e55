//! Which sections and keys a plugin's configuration has.

/// How a value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    /// Text; `null` is empty.
    Text,
    /// Text that must not be empty.
    NonEmpty,
    /// `[a-z0-9-_.]+`.
    Version,
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
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    pub name: &'static str,
    pub kind: Type,
    /// `None` = it must be written.
    pub default: Option<&'static str>,
    /// Why this version does not obey it.
    pub later: Option<&'static str>,
}

impl Key {
    pub fn is_public(&self) -> bool {
        !self.name.starts_with('_')
    }
}

const fn required(name: &'static str, kind: Type) -> Key {
    Key { name, kind, default: None, later: None }
}

const fn key(name: &'static str, kind: Type, default: &'static str) -> Key {
    Key { name, kind, default: Some(default), later: None }
}

const fn later(name: &'static str, kind: Type, default: &'static str, reason: &'static str) -> Key {
    Key { name, kind, default: Some(default), later: Some(reason) }
}

/// A hundred years, seconds: no delay is longer, and no sum of delays overflows.
pub(super) const LONGEST_S: i64 = 3_155_760_000;
/// More processes of one app than any machine runs.
const MOST_PROCESSES: i64 = 4096;

const SECONDS: Type = Type::Count(LONGEST_S);
const LIMIT: Type = Type::Count(i64::MAX);
const FRAGMENT: &str = "fragments of nginx need nginx as the front, which this version has not";
const LUA: &str = "Lua needs nginx as the front, which this version has not";
const VHOST: &str = "routing by host name is not in this version";
const FASTCGI: &str = "FastCGI is not in this version";

const GENERAL: &[Key] = &[
    required("_version", Type::Version),
    key("_release", Type::Text, "1"),
    required("_summary", Type::NonEmpty),
    required("_license", Type::NonEmpty),
    required("_url", Type::NonEmpty),
    required("_maintainer", Type::NonEmpty),
    required("_vendor", Type::NonEmpty),
    key("_add_plugin_dir_to_python_path", Type::Flag, "1"),
    later("_extra_nginx_http_conf_filename", Type::File, "", FRAGMENT),
    later("_extra_nginx_server_conf_filename", Type::File, "", FRAGMENT),
    later("_extra_nginx_init_worker_by_lua_block_filename", Type::File, "", LUA),
    // MFSERV's default is yes; it only matters to Lua, so only a
    // written yes is worth a word.
    later("_add_plugin_dir_to_lua_path", Type::Flag, "0", LUA),
    key("_python", Type::Interpreter, ""),
    key("_persistent_paths", Type::Paths, ""),
];

const COMMAND: &[Key] = &[
    key("_cmd_and_args", Type::Text, ""),
    key("numprocesses", Type::Count(MOST_PROCESSES), "0"),
    key("graceful_timeout", SECONDS, "10"),
    key("max_age", SECONDS, "0"),
    key("rlimit_as", LIMIT, "0"),
    key("rlimit_nofile", LIMIT, "0"),
    key("rlimit_stack", LIMIT, "0"),
    key("rlimit_fsize", LIMIT, "0"),
    key("debug", Type::Flag, "0"),
    key("log_split_stdout_stderr", Type::AutoFlag, "AUTO"),
    key("log_split_multiple_workers", Type::AutoFlag, "AUTO"),
    key("_start_timeout", Type::StrictCount(1, LONGEST_S), ""),
    key("_overlap", Type::StrictFlag, ""),
];

const APP: &[Key] = &[
    key("timeout", Type::Timeout, "0"),
    key("smart_stop_signal", Type::Signal, "15"),
    key("smart_stop_delay", SECONDS, "3"),
    key("smart_start_delay", SECONDS, "3"),
    key("_debug_extra_options", Type::Text, ""),
    key("_prefix_based_routing", Type::Flag, "1"),
    later("_virtualdomain_based_routing", Type::Flag, "0", VHOST),
    later("virtualdomain_based_routing_extra_vhosts", Type::Text, "", VHOST),
    key("_static_routing", Type::Flag, "1"),
    key("_static_url_prefix", Type::StaticPrefix, "/static"),
    key("_static_directory", Type::StaticDirectory, "/static"),
    key("prefix_based_routing_extra_routes", Type::Routes, ""),
    later("_gateway_interface_mode", Type::Text, "proxy", FASTCGI),
    later("_extra_nginx_conf_filename", Type::File, "", FRAGMENT),
    later("_extra_nginx_conf_static_filename", Type::File, "", FRAGMENT),
    key("_http_test_endpoint", Type::Text, ""),
    key("_http_test_expected_status_code", Type::Count(999), "200"),
    key("_http_test_expected_body", Type::Text, "OK"),
    key("_http_test_timeout", SECONDS, "10"),
    key("_ready", Type::Word(&["http", "connect", "notify"]), ""),
    key("_requests_per_worker", Type::StrictCount(0, 1_000_000), ""),
    key("_keep_alive", Type::StrictFlag, ""),
];

/// An extra daemon has no socket: only it can say that it is ready.
const EXTRA: &[Key] = &[key("_ready", Type::Word(&["notify"]), "")];

const INTERNAL: &[Key] = &[key("disable_nginx_conf", Type::Flag, "0")];

/// What a section is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    General,
    Internal,
    App(&'a str),
    Extra(&'a str),
    Custom,
}

impl<'a> Kind<'a> {
    /// The kind of a section by its name; `None` for one that plugins do not have.
    pub fn of(section: &'a str) -> Option<Self> {
        match section {
            "general" => Some(Kind::General),
            "internal" => Some(Kind::Internal),
            _ if section.starts_with("custom") => Some(Kind::Custom),
            _ => section
                .strip_prefix("app_")
                .map(Kind::App)
                .or_else(|| section.strip_prefix("extra_daemon_").map(Kind::Extra)),
        }
    }

    /// Its keys; none for custom sections, where every key is allowed.
    pub fn keys(self) -> impl Iterator<Item = &'static Key> + Clone {
        let (first, second): (&[Key], &[Key]) = match self {
            Kind::General => (GENERAL, &[]),
            Kind::Internal => (INTERNAL, &[]),
            Kind::App(_) => (COMMAND, APP),
            Kind::Extra(_) => (COMMAND, EXTRA),
            Kind::Custom => (&[], &[]),
        };
        first.iter().chain(second)
    }
}

/// What to say of a key of MFSERV's first format, which had other
/// names; `None` when the key is simply unknown.
pub(super) fn legacy_key(kind: Kind, key: &str) -> Option<String> {
    let private = format!("_{key}");
    if kind.keys().any(|known| known.name == private) {
        return Some(format!(
            "this is the format of before 1.0: the key is now {private}, as all that only \
             developers decide"
        ));
    }
    let now = match (kind, key) {
        (Kind::General, "name") => "the name of a plugin is in .layerapi2_label",
        (Kind::General, "type") => "a plugin has no type any more: remove it",
        (Kind::General, "packager") => "the key is now _maintainer",
        (Kind::App(_) | Kind::Extra(_), "main_arg" | "type") => "write the whole _cmd_and_args",
        (Kind::App(_) | Kind::Extra(_), "workers") => "the key is now numprocesses",
        (Kind::App(_) | Kind::Extra(_), "rlimit_core") => "there is no rlimit_core: remove it",
        _ => return None,
    };
    Some(format!("this is the format of before 1.0: {now}"))
}

/// What to write instead of a section that plugins do not have.
pub(super) fn unknown_section_help(section: &str) -> String {
    let known = "a plugin has [general], [app_NAME], [extra_daemon_NAME] and [custom…]";
    match section {
        "app" => "write [app_NAME]".into(),
        "extra_daemon" => "write [extra_daemon_NAME]".into(),
        _ if section.starts_with("redis_service") => {
            format!("this is the format of before 1.0, when modules ran redis; now {known}")
        }
        _ if section.starts_with("step_") => {
            format!("steps belong to plugins of mfdata; in mfserv {known}")
        }
        _ => {
            let (head, tail) = match section.rsplit_once('_') {
                Some((head, tail)) if !tail.is_empty() => (head, format!("_{tail}")),
                _ => (section, String::new()),
            };
            match crate::suggest::nearest(head, ["general", "app", "extra_daemon", "custom"]) {
                Some(near) => format!("did you mean [{near}{tail}]? {known}"),
                None => known.into(),
            }
        }
    }
}
