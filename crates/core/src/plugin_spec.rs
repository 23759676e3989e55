//! A plugin's configuration, typed: what `config.ini` and its overrides say.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Location;
use crate::route::{Affinity, ErrorPage, SendfileRoot};
use crate::watcher::Rlimits;

/// The typed configuration of one plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginSpec {
    /// Its name, from `.layerapi2_label`.
    pub name: String,
    /// `[general]`.
    pub general: General,
    /// `[app_*]`, in file order.
    pub apps: Vec<AppSpec>,
    /// `[extra_daemon_*]`, in file order.
    pub extra_daemons: Vec<ExtraSpec>,
    /// `[job_*]`, in file order.
    #[serde(default)]
    pub jobs: Vec<JobSection>,
    /// `[build]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildSection>,
    /// `[internal] disable_nginx_conf`: it contributes no route.
    pub routes_disabled: bool,
    /// Every public key of every section (defaults included), as
    /// (section, key, value) in file order: what is exported as
    /// `MFSERV_CURRENT_PLUGIN_SECTION_KEY`. Booleans are `1`/`0`.
    pub exported: Vec<(String, String, String)>,
}

/// `[build]`: a command that makes a part of what is packed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildSection {
    /// `cmd`, a line for a shell.
    pub command: String,
    /// `out`, split: the directories and files that it makes, below the plugin.
    pub out: Vec<String>,
}

/// `[general]` of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct General {
    /// `_version`.
    pub version: String,
    /// `_release`.
    pub release: String,
    /// `_summary`.
    pub summary: String,
    /// `_license`.
    pub license: String,
    /// `_url`.
    pub url: String,
    /// `_maintainer`.
    pub maintainer: String,
    /// `_vendor`.
    pub vendor: String,
    /// `_add_plugin_dir_to_python_path`.
    pub add_plugin_dir_to_python_path: bool,
    /// `_python`: the interpreter to use, by name (`python3.12`); `None` = the host's python3.
    pub python: Option<String>,
    /// Every path of `_persistent_paths` (`;` list), relative to the plugin home.
    pub persistent_paths: Vec<PathBuf>,
    /// What it brings along for nginx.
    #[serde(default)]
    pub nginx: NginxFiles,
}

/// Files of a plugin for nginx as the front, relative to its home.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NginxFiles {
    /// `_extra_nginx_http_conf_filename`.
    pub http: Option<String>,
    /// `_extra_nginx_server_conf_filename`.
    pub server: Option<String>,
    /// `_extra_nginx_init_worker_by_lua_block_filename`.
    pub init_worker: Option<String>,
    /// `_add_plugin_dir_to_lua_path`.
    pub add_to_lua_path: bool,
}

/// What apps and extra daemons have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandSpec {
    /// The name, without `app_` or `extra_daemon_`.
    pub name: String,
    /// `_cmd_and_args`, as written; empty = no command.
    pub command: String,
    /// `numprocesses`.
    pub count: u32,
    /// Where an override file says so; `None` = the plugin's own configuration.
    pub count_at: Option<Location>,
    /// `graceful_timeout`, seconds (extra daemons only).
    pub graceful_timeout_s: u64,
    /// `max_age`, seconds; 0 = never.
    pub max_age_s: u64,
    /// `rlimit_*`.
    pub rlimits: Rlimits,
    /// `debug`.
    pub debug: bool,
    /// `log_split_stdout_stderr`; `None` = AUTO.
    pub split_streams: Option<bool>,
    /// `log_split_multiple_workers`; `None` = AUTO.
    pub split_workers: Option<bool>,
    /// `_ready`: `http`, `connect` or `notify`; `None` = by kind.
    pub ready: Option<ReadyBy>,
    /// `_start_timeout`, seconds: longest wait for readiness.
    pub start_timeout_s: Option<u64>,
    /// `_overlap`: a replacement may run beside the old one; `None` = by kind
    /// (apps yes, extra daemons no).
    pub overlap: Option<bool>,
}

/// `_ready` of an app or extra daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadyBy {
    /// Any answer to a HEAD.
    Http,
    /// An accepted connection.
    Connect,
    /// sd_notify(3).
    Notify,
}

/// `[app_*]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppSpec {
    /// The common part.
    pub command: CommandSpec,
    /// `timeout`, seconds; `None` = the module's.
    pub timeout_s: Option<u64>,
    /// `smart_stop_signal`.
    pub stop_signal: i32,
    /// `smart_stop_delay`, seconds; 0 = for ever.
    pub stop_delay_s: u64,
    /// `smart_start_delay`, seconds.
    pub start_delay_s: u64,
    /// `_debug_extra_options`.
    pub debug_extra_options: String,
    /// `_prefix_based_routing`.
    pub prefix_routing: bool,
    /// `_static_routing`.
    pub static_routing: bool,
    /// `_static_url_prefix`.
    pub static_url_prefix: String,
    /// `_static_directory`.
    pub static_directory: String,
    /// `_static_fallback`: the file that answers paths without a file, below the static
    /// directory; empty for none.
    #[serde(default)]
    pub static_fallback: String,
    /// `_error_pages`: what is shown where the front answers an error in its place, by files below
    /// the static directory.
    #[serde(default)]
    pub error_pages: Vec<ErrorPage>,
    /// `prefix_based_routing_extra_routes`, split.
    pub extra_routes: Vec<String>,
    /// `_virtualdomain_based_routing`.
    #[serde(default)]
    pub virtual_domains: bool,
    /// `virtualdomain_based_routing_extra_vhosts`, split.
    #[serde(default)]
    pub extra_vhosts: Vec<String>,
    /// `_hosts`, split: it answers at `/` of these hosts.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// `_strip_prefix`: workers get the path without the prefix of the route.
    #[serde(default)]
    pub strip_prefix: bool,
    /// `_sendfile_roots`: the directories whose files the front sends for it.
    #[serde(default)]
    pub sendfile_roots: Vec<SendfileRoot>,
    /// `_gateway_interface_mode` is `fastcgi`.
    pub fastcgi: bool,
    /// `_http_test_*`; `None` = none.
    pub http_test: Option<HttpTest>,
    /// `_requests_per_worker`: `None` = by command; `Some(0)` = unlimited.
    pub requests_per_worker: Option<u32>,
    /// `_max_body_size`; `None` = the module's; `Some(u64::MAX)` = no limit.
    #[serde(default)]
    pub max_body_bytes: Option<u64>,
    /// `_affinity`: by what clients come back to their worker; `None` = they do not.
    #[serde(default)]
    pub affinity: Option<Affinity>,
    /// `_keep_alive`; `None` = by command.
    pub keep_alive: Option<bool>,
    /// `_python_server`: the server behind `bjoern_wrapper.py`; `None` = the module's.
    pub python_server: Option<String>,
    /// `_python_threads`: requests that a worker of our WSGI server runs at a time; `None` = the
    /// module's.
    #[serde(default)]
    pub python_threads: Option<u32>,
    /// `_python_asgi_server`: the server behind `mfserv_worker --asgi`; `None` = the module's.
    pub asgi_server: Option<String>,
    /// `_extra_nginx_conf_filename`, relative to the home of the plugin.
    #[serde(default)]
    pub nginx_location: Option<String>,
    /// `_extra_nginx_conf_static_filename`, the same.
    #[serde(default)]
    pub nginx_static: Option<String>,
}

impl AppSpec {
    /// True for a static site: its files are all that it has.
    pub fn is_site(&self) -> bool {
        self.static_routing && self.command.command.trim().is_empty()
    }

    /// True if its static files are served as hosts of static sites do, with `_redirects`: those of a
    /// site, and of a single-page app.
    pub fn has_redirects(&self) -> bool {
        self.is_site() || (self.static_routing && !self.static_fallback.is_empty())
    }
}

/// What the status of a plugin asks for, and what is expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpTest {
    /// `_http_test_endpoint`: the path that is asked of the front.
    pub path: String,
    /// `_http_test_expected_status_code`.
    pub status: u16,
    /// `_http_test_expected_body`: a part of the body.
    pub body: String,
    /// `_http_test_timeout`, seconds: it is asked again until then.
    pub timeout_s: u64,
}

/// `[extra_daemon_*]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraSpec {
    /// The common part.
    pub command: CommandSpec,
}

/// `[job_*]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSection {
    /// The name, without `job_`.
    pub name: String,
    /// `schedule`: five fields or a name such as `@daily`, as in crontab(5).
    pub schedule: String,
    /// Where that is written.
    pub at: Location,
    /// `_cmd_and_args`, as written.
    pub command: String,
    /// `timeout`, seconds; 0 = any time.
    pub timeout_s: u64,
    /// `drain_timeout`, seconds.
    pub drain_timeout_s: u64,
    /// `graceful_timeout`, seconds.
    pub graceful_timeout_s: u64,
    /// `retries`.
    pub retries: u32,
    /// `retry_delay`, seconds.
    pub retry_delay_s: u64,
    /// `nice`.
    pub nice: i32,
    /// `rlimit_*`.
    pub rlimits: Rlimits,
    /// `debug`.
    pub debug: bool,
    /// `_overlap`: a run may begin while the one before it goes on.
    pub overlap: bool,
    /// `_catch_up`: a run that was missed while the node was down is made up for.
    pub catch_up: bool,
}
