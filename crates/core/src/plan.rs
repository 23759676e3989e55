//! The whole desired node, resolved: so detailed that carrying it out leaves
//! nothing to choose.

mod command;
mod counts;
mod jobs;
mod php;
pub mod preview;
mod routes;
mod taking;
mod transport;
mod upstreams;
mod watchers;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::alerts::Alert;
use crate::circus::Circus;
use crate::diagnostic::Diagnostic;
use crate::job::JobSpec;
use crate::keys::{AUTORESTART, AUTORESTART_CONFIGURATION, MISC_TMP_MAX_AGE_DAYS};
use crate::module_config::ModuleConfig;
use crate::names::WatcherName;
use crate::output::LogCare;
use crate::plugin_spec::PluginSpec;
use crate::route::{Fragments, Route, RouteTable, plugin_of};
use crate::secrets::Secrets;
use crate::telegraf;
use crate::watcher::WatcherSpec;

pub use command::{slots_of, split_command};
pub use counts::{Count, Held, HeldOptions};
pub use jobs::CrontabLine;
pub use php::{PROCESSES_VARIABLE, TIMEOUT_VARIABLE, is_php_wrapper};

/// Programs of a plugin that are this one: PHP, and sockets given as systemd gives them.
pub const OWN_PROGRAMS: [&str; 2] = ["php_wrapper", "socket_activate"];
/// The longest path of a unix socket that every program can bind, bytes.
pub const LONGEST_SOCKET_PATH: usize = 100;

/// One plugin as found on disk.
#[derive(Debug, Clone)]
pub struct PluginInput {
    /// Its name.
    pub name: String,
    /// The directory its workers use: a numbered release, or a developer's directory.
    pub dir: PathBuf,
    /// What its configuration says and the environment of its processes; or why it
    /// is refused.
    pub loaded: Result<Loaded, Vec<Diagnostic>>,
}

/// A plugin whose configuration is accepted.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The typed configuration.
    pub spec: PluginSpec,
    /// The environment of its processes.
    pub env: BTreeMap<String, String>,
    /// Those of its variables that are shown nowhere.
    pub secrets: Secrets,
    /// Warnings about its configuration.
    pub warnings: Vec<Diagnostic>,
    /// The lines of its `crontab` that are jobs.
    pub crontab: Vec<CrontabLine>,
    /// What it brings along for nginx.
    pub fragments: Fragments,
}

impl Loaded {
    /// A plugin of which nothing is started here.
    pub fn without_environment(spec: PluginSpec, warnings: Vec<Diagnostic>) -> Self {
        Self {
            spec,
            warnings,
            env: BTreeMap::new(),
            secrets: Secrets::default(),
            crontab: vec![],
            fragments: <_>::default(),
        }
    }
}

/// Everything a plan is made of.
#[derive(Debug, Clone)]
pub struct Inputs<'a> {
    /// The number of the plan.
    pub generation: u64,
    /// The module's configuration.
    pub module: &'a ModuleConfig,
    /// Problems found while reading it.
    pub module_problems: Vec<Diagnostic>,
    /// `var`: where sockets are.
    pub var_dir: PathBuf,
    /// A private directory with a short path, for sockets whose path in `var` would be too long.
    pub short_dir: PathBuf,
    /// `log`.
    pub log_dir: PathBuf,
    /// Where request bodies beyond memory are put.
    pub body_temp_dir: PathBuf,
    /// The node's identifier.
    pub uuid: String,
    /// The plugins, in any order.
    pub plugins: Vec<PluginInput>,
    /// The front's command, and its environment; `None` = no front.
    pub front: Option<RoleProgram>,
    /// The command of the telemetry role, and its environment; `None` = no such role.
    pub telemetry: Option<RoleProgram>,
    /// How Telegraf is started; `None` = it is not.
    pub telegraf: Option<telegraf::Program>,
    /// Worker counts and options that were asked for and are in no configuration.
    pub held: BTreeMap<WatcherName, Held>,
    /// The names of this machine: what the names of virtual domains end with.
    pub host_names: Vec<String>,
    /// Routes that a plugin was allowed to take from others (`--take-route`): the plugin, by route.
    pub takers: BTreeMap<String, String>,
    /// The plan in force: what a plugin that is refused now goes on running with.
    pub previous: Option<&'a Plan>,
}

/// How a role is started. `{unix_socket_path}` in the command is its control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleProgram {
    /// The command.
    pub argv: Vec<String>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Its working directory.
    pub cwd: PathBuf,
}

/// A listening socket that the keeper holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// The name it is inherited by.
    pub name: String,
    /// `HOST:PORT`.
    pub address: String,
}

/// A plugin in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedPlugin {
    /// Its name.
    pub name: String,
    /// `VERSION-RELEASE`.
    pub version: String,
    /// The directory its workers use.
    pub dir: PathBuf,
    /// How it takes part.
    pub state: PluginState,
    /// Where it answers, as URL paths.
    pub paths: Vec<String>,
    /// The hosts where it answers, at `/`; also wildcards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}

/// How a plugin takes part in a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PluginState {
    /// As its configuration says.
    Active,
    /// Its configuration is refused.
    Refused,
    /// Its configuration is refused now; it goes on with the last one that was accepted.
    LastGood,
}

impl PluginState {
    /// All states.
    pub const ALL: [PluginState; 3] =
        [PluginState::Active, PluginState::Refused, PluginState::LastGood];

    /// The state as people read it, for example `last good`.
    pub fn as_str(self) -> &'static str {
        match self {
            PluginState::Active => "active",
            PluginState::Refused => "refused",
            PluginState::LastGood => "last good",
        }
    }
}

impl std::fmt::Display for PluginState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// The whole desired node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Its number; each plan of a daemon has a greater one.
    pub generation: u64,
    /// What runs.
    pub watchers: BTreeMap<WatcherName, WatcherSpec>,
    /// How many workers each app and extra daemon has, and who says so.
    #[serde(default)]
    pub counts: BTreeMap<WatcherName, Count>,
    /// Which request goes where.
    pub table: RouteTable,
    /// The jobs, by their name in the node (`PLUGIN.NAME`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub jobs: BTreeMap<String, JobSpec>,
    /// What listens.
    pub listeners: Vec<Listen>,
    /// The plugins, by name.
    pub plugins: Vec<PlannedPlugin>,
    /// Routes that are not served, because another plugin was allowed to take them.
    #[serde(default)]
    pub given_up: Vec<Route>,
    /// Workers are renewed when files of their plugin change.
    #[serde(default)]
    pub autorestart: bool,
    /// Changed configuration files are applied without being asked.
    #[serde(default)]
    pub watches_configuration: bool,
    /// What is done with rotated log files.
    #[serde(default)]
    pub log_care: LogCare,
    /// The alerts, with their commands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alerts: Vec<Alert>,
    /// Files in `tmp` are removed at this age, days; 0 = never.
    #[serde(default)]
    pub tmp_max_age_days: u64,
    /// Where the protocol of Circus is spoken.
    #[serde(default)]
    pub circus: Circus,
    /// What is in maintenance.
    #[serde(default)]
    pub maintenance: crate::maintenance::Marks,
    /// What is wrong or doubtful.
    pub problems: Vec<Diagnostic>,
}

impl Plan {
    /// Resolves everything. Never fails: what is wrong is left out and said in
    /// [`Plan::problems`]; a plugin that was accepted before goes on as it was.
    pub fn new(inputs: Inputs) -> Plan {
        let mut plan = Plan {
            generation: inputs.generation,
            watchers: BTreeMap::new(),
            counts: BTreeMap::new(),
            table: RouteTable::empty(
                inputs.module.server_settings(&inputs.uuid, inputs.body_temp_dir.clone()),
            ),
            jobs: BTreeMap::new(),
            listeners: Vec::new(),
            plugins: Vec::new(),
            given_up: Vec::new(),
            maintenance: Default::default(),
            autorestart: inputs.module.get(AUTORESTART),
            watches_configuration: inputs.module.get(AUTORESTART)
                && inputs.module.get(AUTORESTART_CONFIGURATION),
            log_care: inputs.module.log_care(),
            alerts: inputs.module.alerts.clone(),
            tmp_max_age_days: inputs.module.get(MISC_TMP_MAX_AGE_DAYS),
            circus: Circus::new(inputs.module),
            problems: inputs.module_problems.clone(),
        };
        let mut plugins: Vec<&PluginInput> = inputs.plugins.iter().collect();
        plugins.sort_by(|a, b| a.name.cmp(&b.name));
        for plugin in plugins {
            match &plugin.loaded {
                Ok(loaded) => plan.add(plugin, loaded, &inputs),
                Err(problems) => plan.refuse(plugin, problems, &inputs),
            }
        }
        routes::give_up_taken(&mut plan, &inputs.takers);
        routes::diagnose_overlaps(&mut plan);
        routes::diagnose_own_pages(&mut plan);
        plan.diagnose_alerts();
        plan.add_front(&inputs);
        if let Some(program) = &inputs.telemetry {
            let telemetry = watchers::of_telemetry(program, &inputs);
            plan.watchers.insert(telemetry.name.clone(), telemetry);
        }
        let telegraf = inputs.telegraf.as_ref();
        if let Some(telegraf) = telegraf.and_then(|it| watchers::of_telegraf(it, &inputs)) {
            plan.watchers.insert(telegraf.name.clone(), telegraf);
        }
        plan
    }

    /// Alerts about what is not there.
    fn diagnose_alerts(&mut self) {
        for alert in &self.alerts {
            let fits = |name: &WatcherName| match (name.plugin(), name.short()) {
                (Some(plugin), app) => alert.is_about(plugin, app),
                (None, _) => false,
            };
            let is_narrow = alert.plugin.is_some() || alert.app.is_some();
            if is_narrow && !self.watchers.keys().any(fits) && !self.counts.keys().any(fits) {
                let of = [&alert.plugin, &alert.app].map(|it| it.as_deref().unwrap_or("*"));
                self.problems.push(
                    Diagnostic::warning(format!("[alert_{}] is about nothing", alert.name))
                        .because(format!("no app or extra daemon is called {}", of.join(".")))
                        .help("correct its plugin and app; `mfserv ps` shows what there is"),
                );
            }
        }
    }

    fn add(&mut self, plugin: &PluginInput, loaded: &Loaded, inputs: &Inputs) {
        self.report(&plugin.name, &loaded.warnings);
        for (watcher, count) in watchers::of_plugin(plugin, loaded, inputs, &mut self.problems) {
            self.counts.insert(watcher.name.clone(), count.clone());
            // One that is scaled to nothing is still there, and can be scaled again.
            if watcher.count > 0 || count.is_scaled() {
                self.watchers.insert(watcher.name.clone(), watcher);
            }
        }
        for job in jobs::of_plugin(plugin, loaded, inputs, &mut self.problems) {
            self.jobs.insert(job.id(), job);
        }
        let routes = routes::of_plugin(plugin, loaded, &self.counts, &inputs.host_names);
        if plugin.name == "welcome" && !loaded.spec.routes_disabled {
            self.table.not_found_page = routes::not_found_page(plugin, loaded);
        }
        for (name, upstream) in upstreams::of_plugin(plugin, loaded, inputs.module, &self.counts) {
            self.table.upstreams.insert(name, upstream);
        }
        routes::put_fragments(&mut self.table, loaded);
        let general = &loaded.spec.general;
        self.plugins.push(PlannedPlugin {
            name: plugin.name.clone(),
            version: format!("{}-{}", general.version, general.release),
            dir: plugin.dir.clone(),
            state: PluginState::Active,
            paths: routes::paths_for_people(&routes),
            hosts: routes::hosts_for_people(&routes),
        });
        self.table.routes.extend(routes);
    }

    fn refuse(&mut self, plugin: &PluginInput, problems: &[Diagnostic], inputs: &Inputs) {
        self.report(&plugin.name, problems);
        let before = inputs.previous.and_then(|plan| {
            let known = plan.plugins.iter().find(|p| p.name == plugin.name)?;
            (known.state != PluginState::Refused).then_some((plan, known))
        });
        let Some((previous, known)) = before else {
            self.plugins.push(PlannedPlugin {
                name: plugin.name.clone(),
                version: String::new(),
                dir: plugin.dir.clone(),
                state: PluginState::Refused,
                paths: Vec::new(),
                hosts: Vec::new(),
            });
            return;
        };
        let own = |name: &WatcherName| name.plugin() == Some(plugin.name.as_str());
        let watchers = previous.watchers.iter().filter(|(name, _)| own(name));
        self.watchers.extend(watchers.map(|(name, spec)| (name.clone(), spec.clone())));
        let counts = previous.counts.iter().filter(|(name, _)| own(name));
        self.counts.extend(counts.map(|(name, count)| (name.clone(), count.clone())));
        let jobs = previous.jobs.iter().filter(|(_, job)| job.plugin == plugin.name);
        self.jobs.extend(jobs.map(|(id, job)| (id.clone(), job.clone())));
        let upstreams = &previous.table.upstreams;
        let upstreams = upstreams.iter().filter(|(name, _)| plugin_of(name) == plugin.name);
        self.table.upstreams.extend(upstreams.map(|(name, spec)| (name.clone(), spec.clone())));
        routes::keep(&mut self.table, &previous.table, &plugin.name);
        if plugin.name == "welcome" {
            self.table.not_found_page = previous.table.not_found_page.clone();
        }
        self.plugins.push(PlannedPlugin { state: PluginState::LastGood, ..known.clone() });
    }

    /// Adds problems that were found while a plugin was read.
    fn report(&mut self, plugin: &str, problems: &[Diagnostic]) {
        self.problems.extend(problems.iter().map(|problem| problem.clone().about(plugin)));
    }

    fn add_front(&mut self, inputs: &Inputs) {
        // Named by its address: another address is another socket, and another front.
        let (plain, tls) = (inputs.module.listen_addresses(), inputs.module.tls_addresses());
        let listens = !plain.is_empty() || !tls.is_empty();
        let Some(program) = inputs.front.as_ref().filter(|_| listens) else { return };
        let all = plain.iter().map(|it| ("http", it)).chain(tls.iter().map(|it| ("https", it)));
        for (scheme, address) in all.map(|(scheme, address)| (scheme, address.to_string())) {
            self.listeners.push(Listen { name: format!("{scheme}:{address}"), address });
        }
        if let Some(tls) = &mut self.table.server.tls {
            tls.ticket_keys = Some(inputs.var_dir.join("run/tls_ticket_keys.json"));
        }
        let names = self.listeners.iter().map(|listen| listen.name.clone()).collect();
        let front = watchers::of_front(program, inputs, names);
        self.watchers.insert(front.name.clone(), front);
    }
}

#[cfg(test)]
mod tests;
