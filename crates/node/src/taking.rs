//! A plugin takes no route from another one, unless that is insisted on (`--take-route`).

use std::collections::BTreeMap;
use std::path::Path;

use mfserv_core::plan::{Inputs, Plan, PlannedPlugin, PluginInput, PluginState};
use mfserv_core::route::{Route, Taken};
use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::disk::{self, Disk};

use crate::configure::{self, Module};
use crate::host;
use crate::installed::{self, Instead};
use crate::places::Places;

/// Which plugin has taken a route, by route.
pub type Takers = BTreeMap<String, String>;

/// The routes that were taken, as they are remembered.
pub fn read(disk: &dyn Disk, places: &Places) -> Takers {
    let text = disk.read(&places.takers_file()).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Forgets those of plugins that do not declare the route any more. What a refused plugin declares
/// is not known.
pub fn forget(disk: &dyn Disk, places: &Places, plan: &Plan) -> Result<(), Diagnostic> {
    let mut takers = read(disk, places);
    let known = takers.len();
    takers.retain(|route, plugin| {
        let declares = |one: &Route| one.label() == *route && one.plugin == *plugin;
        let refused =
            |one: &PlannedPlugin| one.name == *plugin && one.state == PluginState::Refused;
        plan.table.routes.iter().any(declares) || plan.plugins.iter().any(refused)
    });
    if takers.len() == known { Ok(()) } else { write(disk, places, &takers) }
}

/// From now on the plugin has these routes.
pub fn remember(places: &Places, plugin: &str, taken: &[Taken]) -> Result<(), Diagnostic> {
    let mut takers = read(&disk::RealDisk, places);
    takers.extend(taken.iter().map(|one| (one.route.clone(), plugin.to_string())));
    write(&disk::RealDisk, places, &takers)
}

fn write(disk: &dyn Disk, places: &Places, takers: &Takers) -> Result<(), Diagnostic> {
    disk.write(&places.takers_file(), &serde_json::to_vec(takers).unwrap_or_default())
}

/// The routes that a plugin would take if this directory were current, by what is installed.
/// Nothing is written.
pub fn by_disk(places: &Places, instead: Instead) -> Result<Vec<Taken>, Diagnostic> {
    let module = configure::module(places, &[])?;
    let plugin = instead.0.clone();
    let (now, next) = now_and_next(places, &module, instead)?;
    Ok(now.newly_taken(&plugin, &next))
}

/// What is routed, by what is installed.
pub fn by_disk_now(places: &Places) -> Result<Plan, Diagnostic> {
    let module = configure::module(places, &[])?;
    Ok(plan(places, &module, installed::configurations(places, &module, None)?))
}

/// What is routed, and what would be if this directory were current.
pub fn now_and_next(
    places: &Places,
    module: &Module,
    instead: Instead,
) -> Result<(Plan, Plan), Diagnostic> {
    let configured = |instead| installed::configurations(places, module, instead);
    let now = plan(places, module, configured(None)?);
    let next = plan(places, module, configured(Some(instead))?);
    Ok((now, next))
}

/// Refuses a plugin that would take routes from others if this directory were current.
pub fn refuse_by_disk(places: &Places, plugin: &str, dir: &Path) -> Result<(), Diagnostic> {
    refuse(plugin, &by_disk(places, (plugin.into(), dir.to_owned()))?)
}

/// Refuses a plugin that takes these routes, if there are any.
pub fn refuse(plugin: &str, taken: &[Taken]) -> Result<(), Diagnostic> {
    if taken.is_empty() {
        return Ok(());
    }
    let problem = Diagnostic::error(format!("{plugin} would take a route from another plugin"))
        .kind(Kind::Refused)
        .about(plugin);
    let by = |one: &Taken| format!("requests of {} go to {}/{}", one.route, one.plugin, one.app);
    let problem = taken.iter().map(by).fold(problem, Diagnostic::because);
    Err(problem.help(
        "change prefix_based_routing_extra_routes or _hosts (`mfserv release DIR --no-root` packs \
         an app without /), or install it under another name; --take-route of mfserv install, \
         deploy, dev and rollback takes the route all the same",
    ))
}

/// What would be routed with these plugins; nothing is started.
pub fn plan(places: &Places, module: &Module, plugins: Vec<PluginInput>) -> Plan {
    Plan::new(Inputs {
        generation: 0,
        module: &module.resolution.config,
        module_problems: Vec::new(),
        var_dir: places.var(),
        short_dir: places.short_dir(),
        log_dir: places.log(),
        body_temp_dir: places.tmp(),
        uuid: String::new(),
        plugins,
        front: None,
        telemetry: None,
        telegraf: None,
        held: BTreeMap::new(),
        host_names: host::host_names(&module.env),
        takers: read(&disk::RealDisk, places),
        previous: None,
    })
}
