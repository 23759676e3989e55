//! What an installed plugin could break for the others: said, and never refused.

use mfserv_core::ini::Document;
use mfserv_core::plugin_spec::PluginSpec;

/// Keys of `[general]` that put text of the plugin into the configuration of nginx.
const FRAGMENTS: &[&str] = &[
    "_extra_nginx_http_conf_filename",
    "_extra_nginx_server_conf_filename",
    "_extra_nginx_init_worker_by_lua_block_filename",
];

/// MFSERV's warnings about a plugin, in its words; `own` is its
/// `config.ini`, `spec` what is in force.
pub fn dangers(own: &Document, spec: &PluginSpec) -> Vec<String> {
    let set = |key: &&&str| {
        let general = own.section("general");
        let entry = general.and_then(|general| general.entries.iter().find(|one| one.key == **key));
        entry.is_some_and(|entry| !["", "null"].contains(&entry.value.as_str()))
    };
    let mut said: Vec<String> = FRAGMENTS
        .iter()
        .filter(set)
        .map(|key| format!("WARNING: this plugin has a non empty {key} key"))
        .collect();
    for app in &spec.apps {
        let name = &app.command.name;
        if app.command.debug {
            said.push(format!("WARNING: this plugin has a debug == 1 setting for the app: {name}"));
        }
        if !app.extra_routes.is_empty() {
            said.push(format!(
                "WARNING: this plugin has a prefix_based_routing_extra_routes == {} (!= null) for the app: {name}",
                app.extra_routes.join(";")
            ));
        }
    }
    said
}
