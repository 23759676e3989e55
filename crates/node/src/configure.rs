//! Reading what the node should be: configuration files, environment, plugins.
//! Nothing is bound or started here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mfserv_core::ini::{self, Dialect, Document};
use mfserv_core::keys::{
    LOG_FILE_MODE, LOG_JSON_FILE, LOG_JSON_MINIMAL_LEVEL, LOG_MFADMIN_MINIMAL_LEVEL,
    LOG_MINIMAL_LEVEL, LOG_ROTATED_FILES, LOG_ROTATION_MAX_AGE_S, LOG_ROTATION_MAX_BYTES,
};
use mfserv_core::log_outputs;
use mfserv_core::module_config::{self, Resolution};
use mfserv_core::shipping::ShippingSettings;
use mfserv_core::{Diagnostic, Kind, Location};
use mfserv_plugin::environment;

use crate::host;
use crate::places::Places;

/// The variable of the daemon's environment that plugins find programs by; with those that
/// [`environment::passed`] names.
const PATH: &str = "PATH";

/// One `--set section.key=value`.
pub type Set = (String, String, String);

/// The module's configuration, and the environment that it gives.
pub struct Module {
    /// The typed configuration with the history of each value.
    pub resolution: Resolution,
    /// The environment of plugins and commands.
    pub env: BTreeMap<String, String>,
}

/// Reads the module's configuration.
pub fn module(places: &Places, sets: &[Set]) -> Result<Module, Diagnostic> {
    module_passing(places, sets, &environment::own())
}

/// The same for a process that has other variables to pass on than this one.
pub fn module_passing(
    places: &Places,
    sets: &[Set],
    variables: &BTreeMap<String, String>,
) -> Result<Module, Diagnostic> {
    let mut env = environment_passing(places, variables);
    let config_name = config_name();
    let documents = [places.config_file(), site_dir().join("mfserv/config.ini")]
        .iter()
        .filter_map(|path| read_document(path, Dialect::Module).transpose())
        .collect::<Result<Vec<Document>, Diagnostic>>()?;
    let mut resolution = module_config::resolve(&documents, sets, &env, &config_name);
    resolve_hosts(&mut resolution);
    env.insert("MFCONFIG".into(), config_name);
    env.extend(resolution.exported.clone());
    env.extend(log_environment(places, &resolution));
    Ok(Module { resolution, env })
}

/// Resolves the host names that the configuration exports.
fn resolve_hosts(resolution: &mut Resolution) {
    for unresolved in std::mem::take(&mut resolution.unresolved) {
        let address = |host: &String| host::resolve(host).unwrap_or_else(|| "dns_error".into());
        let addresses: Vec<String> = unresolved.hosts.iter().map(address).collect();
        resolution.exported.insert(unresolved.variable, addresses.join(";"));
    }
}

/// The root of the site's configuration, `/etc/metwork.config.d` or `MFSERV_SITE_DIR`.
pub fn site_dir() -> PathBuf {
    std::env::var_os("MFSERV_SITE_DIR")
        .map_or_else(|| PathBuf::from("/etc/metwork.config.d"), PathBuf::from)
}

/// The site's overrides of a plugin: `mfserv/plugins/NAME.ini` of [`site_dir`].
pub fn site_override(plugin: &str) -> PathBuf {
    site_dir().join(format!("mfserv/plugins/{plugin}.ini"))
}

/// The file with the configuration name of this machine.
pub const NAME_FILE: &str = "/etc/metwork.config";

/// The configuration name that chooses variants: `MFCONFIG`, else the first line
/// of [`NAME_FILE`], else `GENERIC`.
pub fn config_name() -> String {
    if let Ok(name) = std::env::var("MFCONFIG") {
        if !name.is_empty() {
            return name;
        }
    }
    let text = std::fs::read_to_string(NAME_FILE).unwrap_or_default();
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    line.map_or_else(|| "GENERIC".into(), |line| line.replace(' ', ""))
}

/// Reads an INI file; `None` when there is none.
pub fn read_document(path: &Path, dialect: Dialect) -> Result<Option<Document>, Diagnostic> {
    let name = path.to_string_lossy();
    match std::fs::read(path) {
        Ok(bytes) => ini::parse_bytes(&bytes, &name, dialect).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Diagnostic::error("a configuration file cannot be read")
            .kind(Kind::BadConfiguration)
            .because(error)
            .at(Location::new(name, 0))
            .help("make it readable for the user that runs mfserv")),
    }
}

/// The environment before any configuration is read.
pub fn base_environment(places: &Places) -> BTreeMap<String, String> {
    environment_passing(places, &environment::own())
}

fn environment_passing(
    places: &Places,
    variables: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut env = environment::passed(variables);
    env.extend(variables.get(PATH).map(|path| (PATH.into(), path.clone())));
    env.extend(host::variables());
    let home = places.home().to_string_lossy().into_owned();
    let prefix = installation_dir().to_string_lossy().into_owned();
    let version = env!("CARGO_PKG_VERSION");
    let user = env.get("USER").or_else(|| env.get("LOGNAME")).cloned();
    for (key, value) in [
        ("MFMODULE", "MFSERV"),
        ("MFMODULE_LOWERCASE", "mfserv"),
        ("MFMODULE_HOME", &prefix),
        ("MFSERV_HOME", &prefix),
        ("MFEXT_HOME", &prefix),
        ("MFMODULE_VERSION", version),
        ("MFSERV_VERSION", version),
        ("MFMODULE_RUNTIME_HOME", &home),
        ("MFMODULE_RUNTIME_USER", user.as_deref().unwrap_or("mfserv")),
        ("MFMODULE_PLUGINS_BASE_DIR", &format!("{home}/var/plugins")),
        ("TMPDIR", &format!("{home}/tmp")),
        ("PYTHON_EGG_CACHE", &format!("{home}/tmp/python_cache")),
        ("LC_NUMERIC", "C"),
        ("METWORK_PROFILE_LOADED", "1"),
    ] {
        env.insert(key.into(), value.into());
    }
    env
}

/// `MFSERV_HOME`: where the program is installed (the directory above its `bin`,
/// or the one it is in).
fn installation_dir() -> PathBuf {
    if let Some(home) = std::env::var_os("MFSERV_HOME") {
        return home.into();
    }
    let program = crate::program();
    let dir = program.parent().unwrap_or(Path::new("/"));
    match dir.file_name() {
        Some(name) if name == "bin" => dir.parent().unwrap_or(dir).to_owned(),
        _ => dir.to_owned(),
    }
}

/// The JSON file of mflog, as the log library of plugins reads it.
fn json_file(resolution: &Resolution) -> String {
    log_outputs::json_file(resolution.text(LOG_JSON_FILE)).unwrap_or("null").into()
}

/// The files with levels of single loggers, the first one first: of the site, of the home, of the
/// installation. They need not exist.
fn level_files(places: &Places) -> String {
    let dirs = [site_dir().join("mfserv"), places.home().to_owned(), installation_dir()];
    let files = dirs.iter().map(|dir| dir.join("config/mflog_override.conf"));
    files.map(|file| file.to_string_lossy().into_owned()).collect::<Vec<_>>().join(";")
}

/// The variables that the log library of plugins reads.
fn log_environment(places: &Places, resolution: &Resolution) -> Vec<(String, String)> {
    let shipping = ShippingSettings::new(&resolution.config);
    let syslog = shipping.and_then(|settings| settings.mflog_address());
    [
        ("LOGPROXY_LOG_DIRECTORY", places.log().to_string_lossy().into_owned()),
        ("LOGPROXY_ROTATED_FILES", resolution.text(LOG_ROTATED_FILES).to_string()),
        ("LOGPROXY_ROTATION_TIME", resolution.text(LOG_ROTATION_MAX_AGE_S).to_string()),
        ("LOGPROXY_ROTATION_SIZE", resolution.text(LOG_ROTATION_MAX_BYTES).to_string()),
        ("LOGPROXY_CHMOD", resolution.text(LOG_FILE_MODE).to_string()),
        ("MFLOG_MINIMAL_LEVEL", resolution.text(LOG_MINIMAL_LEVEL).to_string()),
        ("MFLOG_JSON_FILE", json_file(resolution)),
        ("MFLOG_JSON_MINIMAL_LEVEL", resolution.text(LOG_JSON_MINIMAL_LEVEL).to_string()),
        ("MFLOG_SYSLOG_ADDRESS", syslog.unwrap_or_else(|| "null".into())),
        ("MFLOG_SYSLOG_MINIMAL_LEVEL", resolution.text(LOG_MFADMIN_MINIMAL_LEVEL).to_string()),
        ("MFLOG_SYSLOG_FORMAT", "json".into()),
        ("MFLOG_JSON_ONLY_KEYS", "plugin".into()),
        ("MFLOG_EXTRA_CONTEXT_FUNC", "mfext.mflog_addon.extra_context".into()),
        ("MFLOG_MINIMAL_LEVEL_OVERRIDE_FILES", level_files(places)),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_string(), value))
    .collect()
}
