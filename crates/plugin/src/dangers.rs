//! What an installed plugin could break for the others: said, and never refused.

use mfserv_core::plugin_spec::PluginSpec;

/// MFSERV's warnings about a plugin, in its words; `spec` is what is in force. Fragments of the
/// configuration of nginx break nothing where nginx is not the front (`is_nginx`).
pub fn dangers(spec: &PluginSpec, is_nginx: bool) -> Vec<String> {
    let mut said = Vec::new();
    let files = &spec.general.nginx;
    for (key, file) in [
        ("_extra_nginx_http_conf_filename", &files.http),
        ("_extra_nginx_server_conf_filename", &files.server),
        ("_extra_nginx_init_worker_by_lua_block_filename", &files.init_worker),
    ] {
        if is_nginx && file.is_some() {
            said.push(format!("WARNING: this plugin has a non empty {key} key"));
        }
    }
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
