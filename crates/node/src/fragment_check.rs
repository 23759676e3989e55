//! What nginx says of the fragments of plugins before they are installed, by `nginx -t`.

use std::collections::hash_map::RandomState;
use std::fs::DirBuilder;
use std::hash::{BuildHasher, Hasher};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use mfserv_core::keys::{FRONT_KIND, FRONT_NGINX_MODULES, FRONT_NGINX_PROGRAM};
use mfserv_core::plan::PluginInput;
use mfserv_core::plugin_spec::PluginSpec;
use mfserv_core::route::RouteTable;
use mfserv_core::{Diagnostic, Kind};
use mfserv_front::nginx::{Asked, RefusedFragment, examine, examine_plugin};
use mfserv_plugin::fragments;

use crate::configure::Module;
use crate::installed::{self, Directories};
use crate::places::Places;
use crate::taking;

/// The fragments that nginx refuses, where it is the front, or why it cannot be asked.
pub fn warnings(module: &Module, table: RouteTable) -> Vec<Diagnostic> {
    let has_any = table.fragments.values().any(|one| !one.is_empty());
    let Some((program, modules)) = asked(module).filter(|_| has_any) else { return Vec::new() };
    let warning = |sentence: String| {
        Diagnostic::warning(sentence).help(
            "correct the file; a variable or a zone may be missing that another plugin brings",
        )
    };
    let said = with_dir(|dir| {
        examine(Asked { program: &program, modules: modules.as_deref(), dir }, table)
    });
    match said {
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
    let plugin = spec.name.as_str();
    let Some((program, modules)) = asked(module) else { return Ok(Vec::new()) };
    let current = installed::load_all(places, module, None, Directories::Left)?;
    let has_some = |plugins: &[PluginInput]| {
        let own = plugins.iter().find(|one| one.name == plugin);
        own.and_then(|one| one.loaded.as_ref().ok()).is_some_and(|own| !own.fragments.is_empty())
    };
    // What it has no more may be what a fragment of another plugin needs.
    if !fragments::names_any(spec) && !has_some(&current) {
        return Ok(Vec::new());
    }
    let instead = Some((plugin.to_string(), dir.to_owned()));
    let plugins = installed::load_all(places, module, instead, Directories::Left)?;
    let own = plugins.iter().find(|one| one.name == plugin).map(|one| &one.loaded);
    if let Some(Err(problems)) = own {
        // The reason may be a fragment that cannot be filled in, or that the hook is to write.
        let problem = problems.first().filter(|_| !dir.join("postinstall").exists());
        return problem.cloned().map_or(Ok(Vec::new()), Err);
    }
    if !has_some(&plugins) && !has_some(&current) {
        return Ok(Vec::new());
    }
    let current = taking::plan(places, module, current).table;
    let table = taking::plan(places, module, plugins).table;
    let refused = with_dir(|dir| {
        let asked = Asked { program: &program, modules: modules.as_deref(), dir };
        examine_plugin(asked, plugin, current, table)
    });
    match refused {
        Ok(refused) => judged(plugin, refused),
        Err(why) => Ok(vec![unasked(why)]),
    }
}

/// What becomes of a plugin with these refusals: an error, or what is doubtful.
fn judged(plugin: &str, refused: Vec<RefusedFragment>) -> Result<Vec<Diagnostic>, Diagnostic> {
    let (slow, wrong): (Vec<_>, Vec<_>) = refused.into_iter().partition(is_doubtful);
    let because = |one: &RefusedFragment| match one.plugin == plugin {
        true => format!("{}: {}", one.place, one.why),
        false => format!("{} of plugin {}: {}", one.place, one.plugin, one.why),
    };
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
            .help(match one.is_slow {
                true => {
                    "does it name a host that is slow to resolve? It is left out while nginx hangs"
                }
                false => {
                    "nothing is to be done if the plugin makes the file; else correct the fragment"
                }
            })
    };
    Ok(slow.iter().map(doubtful).collect())
}

/// True if the refusal says little before an installation: a check that has not ended, or a file that is
/// not there yet. Data directories, persistent paths and what the postinstall hook makes come later.
fn is_doubtful(one: &RefusedFragment) -> bool {
    one.is_slow || one.why.contains("(2: No such file or directory)")
}

/// Runs a check in a directory that is gone afterwards. Nobody can guess its name, and make it first.
fn with_dir<T>(check: impl FnOnce(&Path) -> Result<T, Diagnostic>) -> Result<T, Diagnostic> {
    let chance = RandomState::new().build_hasher().finish();
    let dir = std::env::temp_dir().join(format!("mfserv-nginx-{chance:016x}"));
    DirBuilder::new().mode(0o700).create(&dir).map_err(|why| {
        let why = format!("cannot make {}: {why}", dir.display());
        Diagnostic::error("nginx cannot be asked").because(why)
    })?;
    let outcome = check(&dir);
    let _ = std::fs::remove_dir_all(&dir);
    outcome
}

/// The program and the directory of its modules, where nginx is the front.
fn asked(module: &Module) -> Option<(PathBuf, Option<PathBuf>)> {
    let config = &module.resolution.config;
    let is_nginx = config.get(FRONT_KIND) == "nginx";
    is_nginx.then(|| (config.get(FRONT_NGINX_PROGRAM).into(), config.get(FRONT_NGINX_MODULES)))
}

fn unasked(why: Diagnostic) -> Diagnostic {
    let why = why.because.first().unwrap_or(&why.what).clone();
    Diagnostic::warning(format!("nginx could not be asked about fragments: {why}")).help(
        "correct [front] nginx_program, or TMPDIR; a node that cannot start nginx has no front",
    )
}
