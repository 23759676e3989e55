//! What nginx says of the fragments of plugins before they are installed, by `nginx -t`.

use std::path::{Path, PathBuf};

use mfserv_core::keys::{FRONT_KIND, FRONT_NGINX_MODULES, FRONT_NGINX_PROGRAM};
use mfserv_core::layers::Origin;
use mfserv_core::plugin_spec::PluginSpec;
use mfserv_core::route::RouteTable;
use mfserv_core::{Diagnostic, Kind};
use mfserv_front::nginx::{RefusedFragment, examine, examine_plugin, examine_program};
use mfserv_plugin::fragments;

use crate::configure::Module;
use crate::installed::{self, Directories};
use crate::places::Places;
use crate::taking;

/// Why the program that is to be the front cannot be it, where nginx is the front.
pub fn missing_program(module: &Module) -> Option<Diagnostic> {
    let (program, modules) = asked(module)?;
    let problem = examine_program(&program, modules.as_deref()).err()?;
    let row = FRONT_NGINX_PROGRAM.row();
    let value = module.resolution.value(row.section, row.key);
    let written = value.filter(|value| value.origin != Origin::Default);
    let problem = problem.kind(Kind::BadConfiguration);
    Some(match written {
        Some(value) => problem.at(value.origin.location()),
        None => problem,
    })
}

/// The fragments that nginx refuses, where it is the front, or why it cannot be asked.
pub fn warnings(module: &Module, table: RouteTable) -> Vec<Diagnostic> {
    let has_any = table.fragments.values().any(|one| !one.is_empty());
    let Some((program, modules)) = asked(module).filter(|_| has_any) else { return Vec::new() };
    let warning = |sentence: String| {
        Diagnostic::warning(sentence).help(
            "correct the file; a variable or a zone may be missing that another plugin brings",
        )
    };
    match examine(&program, modules.as_deref(), table) {
        Ok(said) => said.into_iter().map(warning).collect(),
        Err(why) => vec![unasked(why)],
    }
}

/// Refuses the plugin of a directory for a fragment that nginx refuses, where nginx is the front: it
/// would be left out, and the rules in it with it. Returns what is doubtful: a check that does not end,
/// or an nginx that cannot be asked.
pub fn refuse(
    places: &Places,
    spec: &PluginSpec,
    dir: &Path,
    module: &Module,
) -> Result<Vec<Diagnostic>, Diagnostic> {
    let (plugin, has_any) = (spec.name.as_str(), fragments::names_any(spec));
    let Some((program, modules)) = asked(module).filter(|_| has_any) else { return Ok(Vec::new()) };
    let instead = Some((plugin.to_string(), dir.to_owned()));
    let plugins = installed::load_all(places, module, instead, Directories::Left)?;
    let own = plugins.iter().find(|one| one.name == plugin).map(|one| &one.loaded);
    match own {
        // The reason may be a fragment that cannot be filled in.
        Some(Err(problems)) => return problems.first().cloned().map_or(Ok(Vec::new()), Err),
        Some(Ok(loaded)) if !loaded.fragments.is_empty() => {}
        _ => return Ok(Vec::new()),
    }
    let table = taking::plan(places, module, plugins).table;
    let refused = match examine_plugin(&program, modules.as_deref(), plugin, table) {
        Ok(refused) => refused,
        Err(why) => return Ok(vec![unasked(why)]),
    };
    let (slow, wrong): (Vec<_>, Vec<_>) = refused.into_iter().partition(|one| one.is_slow);
    let because = |one: &RefusedFragment| format!("{}: {}", one.place, one.why);
    if !wrong.is_empty() {
        let problem = Diagnostic::error(format!("nginx refuses what plugin {plugin} has for it"))
            .kind(Kind::BadConfiguration)
            .about(plugin);
        let problem = wrong.iter().map(because).fold(problem, Diagnostic::because);
        return Err(problem.help(
            "correct the file; what another plugin brings (a variable, a zone) is installed first. \
             [front] fragments names the plugins whose fragments count",
        ));
    }
    let doubtful = |one: &RefusedFragment| {
        Diagnostic::warning(format!("a fragment of plugin {plugin} could not be checked"))
            .because(because(one))
            .help("does it name a host that is slow to resolve? It is left out while nginx hangs")
    };
    Ok(slow.iter().map(doubtful).collect())
}

/// The program and the directory of its modules, where nginx is the front.
fn asked(module: &Module) -> Option<(PathBuf, Option<PathBuf>)> {
    let config = &module.resolution.config;
    let is_nginx = config.get(FRONT_KIND) == "nginx";
    is_nginx.then(|| (config.get(FRONT_NGINX_PROGRAM).into(), config.get(FRONT_NGINX_MODULES)))
}

fn unasked(why: Diagnostic) -> Diagnostic {
    let why = why.because.first().unwrap_or(&why.what).clone();
    Diagnostic::warning(format!("nginx could not be asked about fragments: {why}"))
        .help("correct [front] nginx_program; a node that cannot start nginx has no front")
}
