//! Reads every installed plugin: configuration, overrides, environment.

mod bases;
mod format_version;
mod fragments;
pub mod jobs;
mod php;
mod variables_set;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mfserv_core::ini::{Dialect, Document};
use mfserv_core::keys::GENERAL_PYTHON;
use mfserv_core::plan::{Loaded, PluginInput};
use mfserv_core::plugin_spec::PluginSpec;
use mfserv_core::{Diagnostic, Kind, Location, plugin_config};
use mfserv_plugin::base::{self, BaseEnvironment};
use mfserv_plugin::environment::{Placed, environment, variables};
use mfserv_plugin::store::{self, Prepared};
use mfserv_plugin::{Home, label, python2};

use crate::configure::{self, Module};
use crate::places::Places;

/// A plugin on disk, with its configuration.
struct Read {
    name: String,
    dir: PathBuf,
    spec: Result<(PluginSpec, Vec<Diagnostic>), Vec<Diagnostic>>,
    /// It is tried before it is current: a staged change of its variables counts.
    is_tried: bool,
}

/// Whether the TMPDIR and the data directory of a plugin are made with its environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directories {
    /// They are made.
    Made,
    /// They are left as they are: nothing is written.
    Left,
}

/// A plugin that is planned as if it were installed from this directory.
pub type Instead = (String, PathBuf);

/// Reads every plugin of `var/plugins`; `instead` replaces the directory of one of them. A broken
/// plugin is refused alone. The environment of a plugin that runs no program is left out: a node
/// may have thousands of static sites.
pub fn load_all(
    places: &Places,
    module: &Module,
    instead: Option<Instead>,
    directories: Directories,
) -> Result<Vec<PluginInput>, Diagnostic> {
    let home = Home::new(places.home());
    let read = read_all(&home, module, instead)?;
    let all: BTreeMap<&str, Placed> = read
        .iter()
        .filter_map(|plugin| {
            let (spec, _) = plugin.spec.as_ref().ok()?;
            Some((plugin.name.as_str(), Placed { dir: &plugin.dir, spec }))
        })
        .collect();
    let around = Around { home: &home, all: &all, bases: &base::list(&home), module, directories };
    let placed = read.iter().map(|plugin| load(&around, plugin, runs_something));
    Ok(placed.collect())
}

/// The same without the environments: nothing is written.
pub fn configurations(
    places: &Places,
    module: &Module,
    instead: Option<Instead>,
) -> Result<Vec<PluginInput>, Diagnostic> {
    let read = read_all(&Home::new(places.home()), module, instead)?;
    let inputs = read.into_iter().map(|Read { name, dir, spec, .. }| {
        let loaded = spec.map(|(spec, warnings)| Loaded::without_environment(spec, warnings));
        PluginInput { name, dir, loaded }
    });
    Ok(inputs.collect())
}

fn read_all(
    home: &Home,
    module: &Module,
    instead: Option<Instead>,
) -> Result<Vec<Read>, Diagnostic> {
    let mut links: BTreeMap<String, PathBuf> = links(home)?.into_iter().collect();
    let tried = instead.as_ref().map(|(name, _)| name.clone());
    links.extend(instead);
    let read = links.into_iter().map(|(name, dir)| {
        let spec = read_spec(home, &name, &dir, module);
        let is_tried = tried.as_ref() == Some(&name);
        Read { name, dir, spec, is_tried }
    });
    Ok(read.collect())
}

/// The configuration and environment of one plugin in any directory, as it would
/// run there (`mfserv env`, `mfserv exec`, `mfserv check`).
pub fn load_one(
    places: &Places,
    dir: &Path,
    module: &Module,
    directories: Directories,
) -> Result<Loaded, Vec<Diagnostic>> {
    let home = Home::new(places.home());
    let name = label::read_name(dir).map_err(|problem| vec![problem])?;
    let spec = read_spec(&home, &name, dir, module);
    let plugin = Read { name, dir: dir.to_owned(), spec, is_tried: false };
    let others = configurations(places, module, None).map_err(|problem| vec![problem])?;
    let all = placed(&others);
    let around = Around { home: &home, all: &all, bases: &base::list(&home), module, directories };
    load(&around, &plugin, |_| true).loaded
}

/// What an installation needs to know of the plugin in a directory.
pub fn prepare(places: &Places, dir: &Path, module: &Module) -> Result<Prepared, Vec<Diagnostic>> {
    let home = Home::new(places.home());
    let name = label::read_name(dir).map_err(|problem| vec![problem])?;
    let (spec, mut warnings) = read_spec(&home, &name, dir, module)?;
    warnings.extend(jobs::problems(&spec, dir, &jobs::crontab(dir), &module.env));
    let others = configurations(places, module, None).map_err(|problem| vec![problem])?;
    let all = placed(&others);
    let read = Ok((spec.clone(), Vec::new()));
    let plugin = Read { name, dir: dir.to_owned(), spec: read, is_tried: false };
    let dependencies = dependencies(&plugin.name, direct(&plugin), &plugin.dir, &all)?;
    let dependencies =
        dependencies.iter().map(|other| (other.dir.to_owned(), other.spec.clone())).collect();
    Ok(Prepared { spec, warnings, dependencies, module: module.env.clone() })
}

/// The configuration of a directory by itself, without the overrides of this machine.
pub fn own_spec(dir: &Path, module: &Module) -> Result<PluginSpec, Vec<Diagnostic>> {
    let name = label::read_name(dir).map_err(|problem| vec![problem])?;
    read_spec_with(None, &name, dir, module).map(|(spec, _)| spec)
}

fn placed(inputs: &[PluginInput]) -> BTreeMap<&str, Placed<'_>> {
    let accepted = inputs.iter().filter_map(|input| {
        let loaded = input.loaded.as_ref().ok()?;
        Some((input.name.as_str(), Placed { dir: &input.dir, spec: &loaded.spec }))
    });
    accepted.collect()
}

/// The links of `var/plugins` and their directories: a numbered release for an installed plugin,
/// the link itself for a linked plugin.
fn links(home: &Home) -> Result<Vec<(String, PathBuf)>, Diagnostic> {
    let dir = home.plugins();
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(Diagnostic::error(format!("cannot read {}", dir.display()))
                .because(error)
                .help("make it readable for the user that runs mfserv"));
        }
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "base" {
            continue;
        }
        let link = entry.path();
        let target = std::fs::canonicalize(&link).unwrap_or_else(|_| link.clone());
        let releases = home.releases().canonicalize().unwrap_or_else(|_| home.releases());
        found.push((name, if target.starts_with(releases) { target } else { link }));
    }
    found.sort();
    Ok(found)
}

fn read_spec(
    home: &Home,
    name: &str,
    dir: &Path,
    module: &Module,
) -> Result<(PluginSpec, Vec<Diagnostic>), Vec<Diagnostic>> {
    read_spec_with(Some(home), name, dir, module).map(|read| php::with_own_numbers(dir, read))
}

fn read_spec_with(
    overrides_of: Option<&Home>,
    name: &str,
    dir: &Path,
    module: &Module,
) -> Result<(PluginSpec, Vec<Diagnostic>), Vec<Diagnostic>> {
    if dir.is_symlink() && !dir.exists() {
        let known = overrides_of.and_then(|home| store::current(home, name).ok());
        if let Some(gone) = known.and_then(|plugin| plugin.problem) {
            return Err(vec![gone.because("workers that live go on serving")]);
        }
    }
    let known = label::read_name(dir).map_err(|problem| vec![problem])?;
    if known != name {
        return Err(vec![
            Diagnostic::error(format!("plugin {name} is refused"))
                .kind(Kind::BadConfiguration)
                .because(format!("its label says that its name is {known}"))
                .at(Location::new(dir.join(".layerapi2_label").to_string_lossy(), 1))
                .help("install it under its own name"),
        ]);
    }
    let path = dir.join(".plugin_format_version");
    let texts = Texts {
        dir,
        format_version: std::fs::read_to_string(&path).ok(),
        config: document(&dir.join("config.ini"))?,
        is_file: &|path| dir.join(path).is_file(),
        layers: python2::layers_of(dir),
        has_python2_sources: python2::has_sources(dir),
    };
    resolve(overrides_of, name, texts, module)
}

/// The files that make the configuration of a plugin, read from a directory or from a package.
pub struct Texts<'a> {
    /// Where the plugin is, or would be.
    pub dir: &'a Path,
    /// `.plugin_format_version`, if it is there.
    pub format_version: Option<String>,
    /// `config.ini`, if it is there.
    pub config: Option<Document>,
    /// Whether the plugin has a file, by its path.
    pub is_file: &'a dyn Fn(&str) -> bool,
    /// `.layerapi2_dependencies`; empty if there is none.
    pub layers: String,
    /// Whether it has packages for Python 2.
    pub has_python2_sources: bool,
}

/// The configuration of a plugin with its warnings; with the overrides of a home and of the site,
/// or by itself.
pub fn resolve(
    overrides_of: Option<&Home>,
    name: &str,
    texts: Texts,
    module: &Module,
) -> Result<(PluginSpec, Vec<Diagnostic>), Vec<Diagnostic>> {
    let dir = texts.dir;
    format_version::check(name, &texts)?;
    let own = texts.config.ok_or_else(|| {
        vec![
            Diagnostic::error(format!("plugin {name} is refused"))
                .kind(Kind::BadConfiguration)
                .because("it has no configuration file")
                .at(Location::new(dir.join("config.ini").to_string_lossy(), 0))
                .help("a plugin made by `mfserv new` has one: compare with it"),
        ]
    })?;
    let mut overrides = Vec::new();
    if let Some(home) = overrides_of {
        for path in [home.override_file(name), configure::site_override(name)] {
            overrides.extend(document(&path)?);
        }
    }
    let mut env = module.env.clone();
    env.insert("MFSERV_CURRENT_PLUGIN_NAME".into(), name.into());
    env.insert("MFSERV_CURRENT_PLUGIN_DIR".into(), dir.to_string_lossy().into_owned());
    let config_name = configure::config_name();
    let resolved =
        plugin_config::resolve(name, &own, &overrides, &env, &config_name, texts.is_file);
    let (mut spec, mut warnings) = resolved?;
    spec.general.python =
        match python2::reason(dir, &spec, &texts.layers, texts.has_python2_sources) {
            Some(reason) => Some(python2::interpreter(&spec, reason).map_err(|no| vec![no])?),
            None => spec.general.python.or_else(|| module.resolution.config.get(GENERAL_PYTHON)),
        };
    warnings.extend(jobs::check_schedules(&spec)?);
    Ok((spec, warnings))
}

fn document(path: &Path) -> Result<Option<Document>, Vec<Diagnostic>> {
    configure::read_document(path, Dialect::Plugin).map_err(|problem| vec![problem])
}

/// What the environment of a plugin depends on, beside the plugin.
struct Around<'a> {
    home: &'a Home,
    all: &'a BTreeMap<&'a str, Placed<'a>>,
    bases: &'a [BaseEnvironment],
    module: &'a Module,
    directories: Directories,
}

fn load(
    around: &Around<'_>,
    plugin: &Read,
    has_environment: fn(&PluginSpec) -> bool,
) -> PluginInput {
    let Around { home, all, bases: all_bases, module, directories } = *around;
    let loaded = plugin.spec.clone().and_then(|(spec, warnings)| {
        let placed = Placed { dir: &plugin.dir, spec: &spec };
        let dependencies = dependencies(&plugin.name, direct(plugin), &plugin.dir, all)?;
        let fragments = fragments::of(around, placed, &dependencies)?;
        let crontab = jobs::crontab(&plugin.dir);
        if !has_environment(&spec) && jobs::of(&crontab).is_empty() {
            return Ok(Loaded { fragments, ..Loaded::without_environment(spec, warnings) });
        }
        let base = bases::base_for(&spec, &plugin.dir, all_bases);
        if directories == Directories::Made && base.is_none() {
            bases::refuse_without_base(&spec).map_err(|problem| vec![problem])?;
        }
        let mut env = match directories {
            Directories::Made => environment(home, placed, &dependencies, base, &module.env)
                .map_err(|problem| vec![problem])?,
            Directories::Left => variables(home, placed, &dependencies, base, &module.env),
        };
        if plugin.dir.starts_with(home.plugins()) {
            // Python compares bytecode with its source by size and second of modification: it
            // would miss the second of two quick edits. (Packages are compiled when built.)
            env.entry("PYTHONDONTWRITEBYTECODE".into()).or_insert_with(|| "1".into());
        }
        let mut set =
            variables_set::add(home, plugin, &mut env).map_err(|problem| vec![problem])?;
        let (crontab, problems) =
            jobs::lines(home, (&plugin.name, &plugin.dir), &crontab, &env, &set);
        if problems.iter().any(Diagnostic::is_error) {
            return Err(problems);
        }
        let warnings = [warnings, std::mem::take(&mut set.warnings), problems].concat();
        Ok(Loaded { spec, env, secrets: set.secrets, warnings, crontab, fragments })
    });
    PluginInput { name: plugin.name.clone(), dir: plugin.dir.clone(), loaded }
}

fn runs_something(spec: &PluginSpec) -> bool {
    let serves = spec.apps.iter().any(|app| !app.command.command.is_empty());
    serves || !spec.extra_daemons.is_empty() || !spec.jobs.is_empty()
}

/// Refuses a plugin of this name, in this directory, whose dependencies (each with whether it
/// may be missing) or those of these are not among the others.
pub fn check_dependencies(
    name: &str,
    direct: Vec<(String, bool)>,
    dir: &Path,
    others: &[PluginInput],
) -> Result<(), Vec<Diagnostic>> {
    dependencies(name, direct, dir, &placed(others)).map(drop)
}

fn direct(plugin: &Read) -> Vec<(String, bool)> {
    label::plugin_dependencies(&plugin.dir)
}

/// The plugins that this one depends on, recursively, the nearest first.
fn dependencies<'a>(
    plugin: &str,
    direct: Vec<(String, bool)>,
    dir: &Path,
    all: &BTreeMap<&str, Placed<'a>>,
) -> Result<Vec<Placed<'a>>, Vec<Diagnostic>> {
    let mut found: Vec<(String, Placed)> = Vec::new();
    let mut todo = direct;
    while !todo.is_empty() {
        let (name, optional) = todo.remove(0);
        if name == plugin || found.iter().any(|(known, _)| *known == name) {
            continue;
        }
        match all.get(name.as_str()) {
            Some(placed) => {
                todo.extend(label::plugin_dependencies(placed.dir));
                found.push((name, *placed));
            }
            None if optional => {}
            None => {
                let at = dir.join(".layerapi2_dependencies");
                return Err(vec![
                    Diagnostic::error(format!("plugin {plugin} is refused"))
                        .kind(Kind::BadConfiguration)
                        .because(format!(
                            "it depends on the plugin {name}, which is not installed or refused"
                        ))
                        .at(Location::new(at.to_string_lossy(), 0))
                        .help(format!(
                            "install {name}, or make the dependency optional with a leading -"
                        )),
                ]);
            }
        }
    }
    Ok(found.into_iter().map(|(_, placed)| placed).collect())
}
