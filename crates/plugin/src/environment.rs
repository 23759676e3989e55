//! The environment that the programs of a plugin run in: workers, hooks, jobs,
//! `mfserv exec`.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::export::address;
use mfserv_core::plugin_config;
use mfserv_core::plugin_spec::PluginSpec;

use crate::base::{BaseEnvironment, LAYERS_VARIABLE, layers_beside};
use crate::home::Home;
use crate::label::read_small;
use mfserv_platform::disk;

/// Variables of a process that its plugins see as they are.
const PASSED: &[&str] = &[
    "HOME",
    "USER",
    "LOGNAME",
    "USERNAME",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TERM",
    "COLORTERM",
    "HOSTNAME",
    "SHELL",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];
/// The proxy of this machine: programs that fetch something need it, and what they make does not
/// depend on it.
pub const PROXY: [&str; 6] =
    ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];
/// How long the resolver may take for one host.
const RESOLVER_PATIENCE: Duration = Duration::from_secs(3);
/// What PATH ends with when we have none.
const LAST_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A plugin at the place where it runs.
#[derive(Debug, Clone, Copy)]
pub struct Placed<'a> {
    /// Its directory: the numbered release, or the developer's directory.
    pub dir: &'a Path,
    /// Its configuration.
    pub spec: &'a PluginSpec,
}

/// The [`variables`] of a plugin. Creates its TMPDIR and its data directory.
pub fn environment(
    home: &Home,
    plugin: Placed<'_>,
    dependencies: &[Placed<'_>],
    base: Option<&BaseEnvironment>,
    module: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Diagnostic> {
    let name = &plugin.spec.name;
    disk::create_dir(&home.tmp_of(name))?;
    disk::create_dir(&home.plugin_data(name))?;
    Ok(variables(home, plugin, dependencies, base, module))
}

/// The environment of a plugin. Nothing is written.
///
/// `dependencies` are the plugins that it depends on, recursively, the nearest
/// first: it inherits their paths and variables. `module` is the environment of
/// the module (`MFSERV_*`, `MFMODULE_*`, `MFHARDWARE_*`…), with what is [`passed`] on; without
/// one that is of our own environment. The plugin's own packages come first, those of the
/// base environment last.
pub fn variables(
    home: &Home,
    plugin: Placed<'_>,
    dependencies: &[Placed<'_>],
    base: Option<&BaseEnvironment>,
    module: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut variables = if module.is_empty() { passed(&own()) } else { module.clone() };
    let mode = if base.is_some_and(|base| base.interpreter.is_2()) { "2" } else { "3" };
    for (name, value) in
        [("PYTHONUNBUFFERED", "x"), ("METWORK_PYTHON_MODE", mode), ("NO_UPDATE_NOTIFIER", "1")]
    {
        variables.insert(name.into(), value.into());
    }
    if let Some(base) = base {
        variables.insert("PYTHON_SHORT_VERSION".into(), base.interpreter.short_version.clone());
        variables.insert("PYTHON".into(), base.bin().join("python").to_string_lossy().into_owned());
        variables
            .entry("MFLOG_EXTRA_CONTEXT_FUNC".into())
            .or_insert_with(|| "mfext.mflog_addon.extra_context".into());
    }
    identify(home, plugin, &mut variables);
    let mut paths = Paths::default();
    for one in std::iter::once(&plugin).chain(dependencies) {
        paths.add(one, base);
    }
    paths.finish(base, &mut variables);
    for one in dependencies.iter().rev().chain([&plugin]) {
        export(one.spec, &mut variables);
        extra(one.dir, &mut variables);
    }
    variables
}

/// The variables of a process that its plugins see as they are: what a program needs to find its
/// user and its language.
pub fn passed(variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let wanted = |name: &str| PASSED.contains(&name) || name.starts_with("LC_");
    let passed = variables.iter().filter(|(name, _)| wanted(name));
    passed.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The variables of this process; one that is not text is none.
pub fn own() -> BTreeMap<String, String> {
    let texts = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    texts.collect()
}

fn export(spec: &PluginSpec, variables: &mut BTreeMap<String, String>) {
    let exported = plugin_config::environment(spec);
    variables.extend(exported.variables);
    for one in exported.unresolved {
        let addresses: Vec<String> = one.hosts.iter().map(|host| resolve(host)).collect();
        variables.insert(one.variable, addresses.join(";"));
    }
}

/// The first IPv4 address of a host; `dns_error` if it has none, or if the
/// resolver does not answer in time.
fn resolve(host: &str) -> String {
    if let Some(address) = address(host) {
        return address;
    }
    let (sender, receiver) = mpsc::sync_channel(1);
    let target = (host.to_string(), 0);
    // the resolver can not be interrupted: its thread ends by itself
    std::thread::spawn(move || {
        let found = target.to_socket_addrs().ok().and_then(|mut all| all.find(SocketAddr::is_ipv4));
        let _ = sender.send(found.map(|address| address.ip().to_string()));
    });
    let answer = receiver.recv_timeout(RESOLVER_PATIENCE).ok().flatten();
    answer.unwrap_or_else(|| "dns_error".into())
}

/// `.layerapi2_extra_env`: lines `KEY=VALUE`, where `{VAR}` is the value of a variable.
fn extra(dir: &Path, variables: &mut BTreeMap<String, String>) {
    let Ok(text) = read_small(&dir.join(".layerapi2_extra_env")) else { return };
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    for (name, value) in lines.filter_map(|line| line.split_once('=')) {
        let name = name.trim();
        if !name.is_empty() {
            let value = substitute(value.trim(), variables);
            variables.insert(name.into(), value);
        }
    }
}

fn substitute(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        result.push_str(before);
        match after.split_once('}') {
            Some((name, tail)) => {
                result.push_str(variables.get(name).map_or("", String::as_str));
                rest = tail;
            }
            None => {
                result.push('{');
                rest = after;
            }
        }
    }
    result + rest
}

fn identify(home: &Home, plugin: Placed<'_>, variables: &mut BTreeMap<String, String>) {
    let name = &plugin.spec.name;
    let (tmp, data) = (home.tmp_of(name), home.plugin_data(name));
    let values = [
        ("MFSERV_CURRENT_PLUGIN_NAME", name.clone()),
        ("MFSERV_CURRENT_PLUGIN_DIR", plugin.dir.to_string_lossy().into_owned()),
        ("MFSERV_CURRENT_PLUGIN_LABEL", format!("plugin_{name}@mfserv")),
        ("MFSERV_CURRENT_PLUGIN_DATA_DIR", data.to_string_lossy().into_owned()),
        ("TMPDIR", tmp.to_string_lossy().into_owned()),
    ];
    variables.extend(values.map(|(key, value)| (key.to_string(), value)));
}

/// The search paths, first entry first.
#[derive(Default)]
struct Paths {
    programs: Vec<PathBuf>,
    python: Vec<PathBuf>,
    node: Vec<PathBuf>,
    libraries: Vec<PathBuf>,
    pkg_config: Vec<PathBuf>,
}

impl Paths {
    fn add(&mut self, plugin: &Placed<'_>, base: Option<&BaseEnvironment>) {
        let dir = plugin.dir;
        let modules = ["node_modules", "local/lib/node_modules", "lib/node_modules"];
        for name in ["local/bin", "bin"] {
            add_dir(&mut self.programs, dir.join(name));
        }
        for name in modules {
            add_dir(&mut self.programs, dir.join(name).join(".bin"));
            add_dir(&mut self.node, dir.join(name));
        }
        if let Some(version) = python_version(dir, base) {
            for name in ["local/lib", "lib"] {
                add_dir(
                    &mut self.python,
                    dir.join(name).join(format!("python{version}/site-packages")),
                );
            }
        }
        for name in ["local/lib", "lib"] {
            let library = dir.join(name);
            // a directory with nothing to find in it only costs time at each import and at each start
            if has_entry(&library, |entry| {
                !entry.starts_with("python")
                    && !entry.contains(".so")
                    && entry != "node_modules"
                    && entry != "pkgconfig"
            }) {
                add_dir(&mut self.python, library.clone());
            }
            if has_entry(&library, |entry| entry.contains(".so")) {
                add_dir(&mut self.libraries, library.clone());
            }
            add_dir(&mut self.pkg_config, library.join("pkgconfig"));
        }
        if plugin.spec.general.add_plugin_dir_to_python_path {
            add_dir(&mut self.python, dir.to_path_buf());
        }
    }

    fn finish(mut self, base: Option<&BaseEnvironment>, variables: &mut BTreeMap<String, String>) {
        if let Some(base) = base {
            add_dir(&mut self.programs, base.bin());
            add_dir(&mut self.python, base.site_packages());
            let wanted = variables.get(LAYERS_VARIABLE).is_some_and(|flag| flag == "1");
            if let Some(layers) = layers_beside(base).filter(|_| wanted) {
                add_dir(&mut self.python, layers);
            }
        }
        let last = std::env::var("PATH")
            .ok()
            .filter(|path| !path.is_empty())
            .unwrap_or_else(|| LAST_PATH.into());
        self.programs.extend(std::env::split_paths(&last).filter(|dir| dir.is_absolute()));
        for (name, list) in [
            ("PATH", self.programs),
            ("PYTHONPATH", self.python),
            ("NODE_PATH", self.node),
            ("LD_LIBRARY_PATH", self.libraries),
            ("PKG_CONFIG_PATH", self.pkg_config),
        ] {
            if !list.is_empty() {
                let texts: Vec<_> = list.iter().map(|dir| dir.to_string_lossy()).collect();
                variables.insert(name.into(), texts.join(":"));
            }
        }
    }
}

/// Adds a directory that exists, once. One with a `:` in its name can't be in a
/// list of paths.
fn add_dir(list: &mut Vec<PathBuf>, dir: PathBuf) {
    if dir.is_dir() && !list.contains(&dir) && !dir.to_string_lossy().contains(':') {
        list.push(dir);
    }
}

fn has_entry(dir: &Path, wanted: impl Fn(&str) -> bool) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| wanted(&entry.file_name().to_string_lossy()))
}

/// The Python version of a plugin's environment: the base's, else the one that
/// its `local/lib` is made for.
fn python_version(dir: &Path, base: Option<&BaseEnvironment>) -> Option<String> {
    if let Some(base) = base {
        return Some(base.interpreter.short_version.clone());
    }
    let entries = fs::read_dir(dir.join("local/lib")).ok()?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix("python").map(str::to_string)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_variables_may_use_the_others() {
        let variables = BTreeMap::from([("A".to_string(), "1".to_string())]);
        assert_eq!(substitute("x{A}y{B}z", &variables), "x1yz");
        assert_eq!(substitute("{open", &variables), "{open");
    }
}
