//! Pieces of nginx's own configuration that plugins bring along: fragments.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A piece of configuration, as nginx reads it: its placeholders are filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fragment {
    /// The file that it was read from, relative to the home of the plugin.
    pub file: String,
    /// The text.
    pub text: String,
}

/// What one app brings along.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AppFragments {
    /// `_extra_nginx_conf_filename`: inside the locations of its workers.
    pub location: Option<Fragment>,
    /// `_extra_nginx_conf_static_filename`: inside the locations of its static files.
    pub static_location: Option<Fragment>,
}

/// What one plugin brings along.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fragments {
    /// `_extra_nginx_http_conf_filename`: inside `http`, before the server.
    pub http: Option<Fragment>,
    /// `_extra_nginx_server_conf_filename`: inside the main server.
    pub server: Option<Fragment>,
    /// `_extra_nginx_init_worker_by_lua_block_filename`: Lua that runs when a worker of nginx starts.
    pub init_worker: Option<Fragment>,
    /// `_add_plugin_dir_to_lua_path`: the home of the plugin, where Lua looks for modules.
    pub lua_dir: Option<PathBuf>,
    /// The home of the plugin. A new release has another one, whose Lua nginx reads anew.
    pub home: Option<PathBuf>,
    /// The directory where the name of the plugin leads to its home: Lua looks there for
    /// `PLUGIN.module`.
    pub lua_base: Option<PathBuf>,
    /// By app.
    pub apps: BTreeMap<String, AppFragments>,
}

impl Fragments {
    /// True if the plugin brings nothing along.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// True if it may bring along locations, where nginx itself has what an app names in
    /// `X-Accel-Redirect`.
    pub fn have_locations(&self) -> bool {
        self.http.is_some() || self.server.is_some()
    }
}
