//! `layer_wrapper`, which Makefiles and crontabs of plugins call: it runs a command with what the
//! layers of MFSERV contained: programs of the host, the base environment, or another plugin.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Parser;
use mfserv_core::Diagnostic;
use mfserv_node::configure;
use mfserv_node::places::Places;
use mfserv_plugin::{Home, base, python, store};

use super::environment::is_there;
use super::{failed, places, prefix};
use crate::cli::complain;
use crate::cli::plugins::env::{become_command, load};
use crate::cli::report::Outcome;

/// What every program needs of its environment.
const ALWAYS: &[&str] = &["HOME", "USER", "LOGNAME", "PATH", "LANG", "LC_ALL", "TERM", "TZ"];

/// Run a command with layers; this process becomes the command.
#[derive(Debug, Parser)]
#[command(name = "layer_wrapper")]
struct LayerWrapper {
    /// (accepted: nothing of the caller's layers is kept anyway)
    #[arg(long = "empty")]
    _empty: bool,
    /// Begin with an empty environment.
    #[arg(long)]
    empty_env: bool,
    /// Variables that --empty-env keeps, separated by commas.
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    empty_env_keeps: Vec<String>,
    /// Go to the directory of the last layer first.
    #[arg(long)]
    cwd: bool,
    /// The labels of the layers, separated by commas; one with a leading - may be missing.
    #[arg(long, value_name = "L1,-L2", value_delimiter = ',', allow_hyphen_values = true)]
    layers: Vec<String>,
    /// Set PREFIX_DIR and PREFIX_LABEL to the directory and the label of the last layer.
    #[arg(long, value_name = "PREFIX")]
    extra_env_prefix: Option<String>,
    /// Put a value before those of a variable.
    #[arg(long, value_name = "VAR,VALUE")]
    prepend_env: Vec<String>,
    /// Put it there also if the variable has it already.
    #[arg(long)]
    force_prepend: bool,
    /// Leave out layers that may be missing.
    #[arg(long)]
    dont_load_optional: bool,
    /// The command.
    #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub fn layer_wrapper() -> Result<Outcome, Diagnostic> {
    let args = LayerWrapper::parse();
    let places = places()?;
    let mut env = args.outer();
    let mut last = None;
    for layer in args.layers.iter().map(|layer| layer.trim()).filter(|layer| !layer.is_empty()) {
        let (label, optional) = match layer.strip_prefix('-') {
            Some(label) => (label.trim(), true),
            None => (layer, false),
        };
        if optional && args.dont_load_optional {
            continue;
        }
        match loaded(&places, label, &mut env)? {
            Some(dir) => last = Some((label.to_string(), dir)),
            None if optional => {}
            None => {
                complain(&format!("WARNING: the layer {label} is not there: nothing is run"));
                complain("(`is_layer_installed LABEL` tells which layers are)");
                return failed();
            }
        }
    }
    if let (Some(prefix), Some((label, dir))) = (&args.extra_env_prefix, &last) {
        env.insert(format!("{prefix}_DIR"), dir.to_string_lossy().into_owned());
        env.insert(format!("{prefix}_LABEL"), label.clone());
    }
    for pair in &args.prepend_env {
        let Some((name, value)) = pair.split_once(',') else {
            complain(&format!("ERROR: --prepend-env {pair} is not VAR,VALUE"));
            return Ok(Outcome::Code(2));
        };
        prepend(&mut env, name, value, args.force_prepend);
    }
    let words = match args.command.split_first() {
        Some((first, rest)) if first == "--" => rest,
        _ => &args.command,
    };
    if words.is_empty() {
        complain("ERROR: you have to provide a command to execute");
        return Ok(Outcome::Code(2));
    }
    let dir = last.map(|(_, dir)| dir).filter(|_| args.cwd);
    Ok(become_command(words, &env, dir.as_deref()))
}

impl LayerWrapper {
    /// The environment of the caller, or what is kept of it.
    fn outer(&self) -> BTreeMap<String, String> {
        let all = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let kept = |name: &String| {
            !self.empty_env
                || ALWAYS.contains(&name.as_str())
                || self.empty_env_keeps.contains(name)
        };
        let mut env: BTreeMap<String, String> = all.filter(|(name, _)| kept(name)).collect();
        // Programs there stand in for layers, and call this one.
        let opt = prefix().unwrap_or_default().join("opt");
        if let Some(path) = env.get_mut("PATH") {
            let dirs = path.split(':').filter(|dir| !Path::new(dir).starts_with(&opt));
            *path = dirs.collect::<Vec<_>>().join(":");
        }
        env
    }
}

/// Adds what a layer carried to an environment; the directory of the layer, `None` if it is not
/// there.
fn loaded(
    places: &Places,
    label: &str,
    env: &mut BTreeMap<String, String>,
) -> Result<Option<PathBuf>, Diagnostic> {
    if !is_there(places, label) {
        return Ok(None);
    }
    let home = Home::new(places.home());
    if let Some(name) = label.strip_prefix("plugin_").and_then(|rest| rest.strip_suffix("@mfserv"))
    {
        let (_, plugin) = load(places, name)?;
        env.extend(plugin.env);
        return Ok(store::current(&home, name).ok().map(|plugin| plugin.dir));
    }
    let (layer, module) = label.split_once('@').unwrap_or((label, ""));
    if layer.starts_with("python2") {
        // Its own interpreter, also without a base environment: `python` is no Python 3 then.
        let base = base::find(&home, "2.7").map(|base| base.bin());
        let bin =
            base.or_else(|| Some(python::find(Some("python2.7")).ok()?.path.parent()?.into()));
        bin.iter().for_each(|bin| prepend(env, "PATH", &bin.to_string_lossy(), false));
    }
    if layer.starts_with("python3") {
        let host = python::find(None).ok();
        let own = host.and_then(|python| base::find(&home, &python.short_version));
        let newest = || base::list(&home).into_iter().rfind(|base| !base.interpreter.is_2());
        if let Some(base) = own.or_else(newest) {
            prepend(env, "PATH", &base.bin().to_string_lossy(), false);
        }
    }
    if module == "mfserv" {
        let module = configure::module(places, &[])?;
        env.extend(module.env.clone());
    }
    let prefix = prefix().unwrap_or_default();
    let dir = prefix.join("opt").join(layer);
    Ok(Some(if dir.is_dir() { dir } else { prefix }))
}

/// Puts a value before those of a variable; once, unless it is forced.
fn prepend(env: &mut BTreeMap<String, String>, name: &str, value: &str, force: bool) {
    let before = env.get(name).cloned().unwrap_or_default();
    if !force && before.split(':').any(|one| one == value) {
        return;
    }
    let whole = if before.is_empty() { value.into() } else { format!("{value}:{before}") };
    env.insert(name.into(), whole);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_put_before_the_others_once() {
        let mut env = BTreeMap::from([("PATH".to_string(), "/bin".to_string())]);
        prepend(&mut env, "PATH", "/x", false);
        prepend(&mut env, "PATH", "/x", false);
        prepend(&mut env, "NEW", "/y", false);
        assert_eq!((env["PATH"].as_str(), env["NEW"].as_str()), ("/x:/bin", "/y"));
        prepend(&mut env, "PATH", "/x", true);
        assert_eq!(env["PATH"], "/x:/x:/bin");
    }
}
