//! What an installed plugin could break for the others: said, and never refused.

use mfserv_core::plugin_spec::PluginSpec;

/// MFSERV's warnings about a plugin, in its words; `spec` is what is in force. Fragments of nginx
/// configuration, which it warned of too, have no effect in this version and break nothing.
pub fn dangers(spec: &PluginSpec) -> Vec<String> {
    let mut said = Vec::new();
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
