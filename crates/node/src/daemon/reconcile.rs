//! The path of every change: read the configuration and the plugins, make a plan, compare it with
//! the plan in force, apply the difference.

use std::sync::Arc;
use std::time::Duration;

use mfserv_core::diff::Changes;
use mfserv_core::event::Fact;
use mfserv_core::plan::{Inputs, Listen, Plan, PluginInput};
use mfserv_core::wire::keeper::Ask as AskKeeper;
use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::disk::Disk;
use mfserv_plugin::user_crontab;
use tokio::time::Instant;

use super::node::Node;
use super::{DaemonOptions, breakages, held, last_plan, programs, shown_config, takes_over};
use crate::installed::{Directories, Instead};
use crate::operations::Counts;
use crate::places::Places;
use crate::{configure, host, installed, maintenance, port_holder, taking, telegraf};

/// How long a port may stay taken before that is an error: a living front gives its socket back
/// to a new keeper within this time.
const PORT_PATIENCE: Duration = Duration::from_secs(2);
/// listen(2) backlog: connections wait in it while no front lives.
pub(super) const BACKLOG: i32 = 40_000;

impl Node {
    /// Reads everything again and applies what changed.
    pub(super) async fn reconcile(&self) -> Result<Changes, Diagnostic> {
        let _turn = self.turn.lock().await;
        self.reconcile_in_turn().await
    }

    pub(super) async fn reconcile_in_turn(&self) -> Result<Changes, Diagnostic> {
        self.reconcile_unless(|_, _| false).await
    }

    /// The same, if there is a plan and the next one differs from it in more than its number.
    pub(super) async fn reconcile_if_different(&self) -> Result<Changes, Diagnostic> {
        let is_same = |before: &Plan, plan: &Plan| {
            *before == Plan { generation: before.generation, ..plan.clone() }
        };
        self.reconcile_unless(is_same).await
    }

    async fn reconcile_unless(
        &self,
        is_same: impl FnOnce(&Plan, &Plan) -> bool,
    ) -> Result<Changes, Diagnostic> {
        let previous = self.plan.lock().ok().and_then(|plan| plan.clone());
        let (options, disk) = (self.parts.options.clone(), self.parts.world.disk.clone());
        let before = previous.clone();
        let comes_back = previous.is_none() && self.found_something_alive();
        if previous.is_none() && !comes_back {
            // A node that starts is as it is configured.
            self.forget_all_counts()?;
        }
        let generation = before.as_ref().map_or(self.parts.generation, |plan| plan.generation) + 1;
        // The disk and the resolver may be slow: the event loop must not wait for them.
        let made = tokio::task::spawn_blocking(move || {
            let kept = comes_back.then(|| last_plan::load(&*disk, &options.places)).flatten();
            let basis = (before.as_deref().or(kept.as_ref()), generation);
            make(&options, &*disk, basis, None)
        });
        let Made { plan, config } =
            made.await.map_err(|e| Diagnostic::error("making the plan failed").because(e))??;
        if previous.as_deref().is_some_and(|previous| is_same(previous, &plan)) {
            self.forget_refusal();
            self.show_configuration(plan.generation - 1, config);
            return Ok(Changes::default());
        }
        let changes = Changes::between(previous.as_deref(), &plan);
        self.apply(previous.as_deref(), plan, &changes).await?;
        self.show_configuration(generation, config);
        Ok(changes)
    }

    /// Applies a plan, and keeps it.
    async fn apply(
        &self,
        previous: Option<&Plan>,
        plan: Plan,
        changes: &Changes,
    ) -> Result<(), Diagnostic> {
        self.carry_out(previous, &plan, changes).await?;
        let disk = &*self.parts.world.disk;
        let forgotten = taking::forget(disk, &self.parts.options.places, &plan);
        for problem in [self.settle_counts(&plan), forgotten].into_iter().filter_map(Result::err) {
            self.parts.events.record(Fact::Problem { problem });
        }
        self.keep(&plan);
        let plugins = self.parts.options.places.var().join("plugins");
        let since = (&plan, self.parts.world.clock.now_ms());
        breakages::followed(&self.parts.breakages, since, &plugins, &*self.parts.world.fronts);
        let plan = Arc::new(plan);
        self.parts.jobs.planned(plan.clone());
        self.parts.plans.send_replace(Some(plan.clone()));
        if previous.is_none() {
            self.close_unknown_listeners(&plan);
        }
        self.show(plan);
        self.forget_refusal();
        Ok(())
    }

    /// The configuration as it is now is in force.
    fn forget_refusal(&self) {
        if let Ok(mut refused) = self.refused.lock() {
            *refused = None;
        }
    }

    /// Makes this the plan in force.
    pub(super) fn show(&self, plan: Arc<Plan>) {
        if let Ok(mut shown) = self.plan.lock() {
            *shown = Some(plan);
        }
    }

    /// Carries out the difference between two plans. What can be refused comes first, so that a
    /// refusal changes nothing.
    pub(super) async fn carry_out(
        &self,
        previous: Option<&Plan>,
        plan: &Plan,
        changes: &Changes,
    ) -> Result<(), Diagnostic> {
        self.listen(&changes.listen).await?;
        if changes.table {
            let published = self.parts.world.fronts.publish(plan.generation, plan.table.clone());
            if let Err(refused) = published.await {
                // Nobody would accept on these: their clients would wait for ever.
                for Listen { name, .. } in &changes.listen {
                    self.parts.world.keeper.send(AskKeeper::Unlisten { name: name.clone() });
                }
                return Err(refused);
            }
        }
        self.parts.supervisor.apply(plan.watchers.values().cloned().collect());
        for name in &changes.unlisten {
            self.parts.world.keeper.send(AskKeeper::Unlisten { name: name.clone() });
        }
        let news = |problem: &&Diagnostic| previous.is_none_or(|p| !p.problems.contains(problem));
        for problem in plan.problems.iter().filter(news) {
            self.parts.events.record(Fact::Problem { problem: problem.clone() });
        }
        if !changes.is_empty() {
            let taken_over = previous.is_none() && self.found_something_alive();
            let changes = match taken_over {
                true => "takes over what lives".into(),
                false => changes.to_string(),
            };
            self.parts.events.record(Fact::PlanApplied { generation: plan.generation, changes });
        }
        Ok(())
    }

    /// Applies the last plan of the previous daemon unchanged, so that nothing that serves
    /// changes. Returns whether there is one.
    pub(super) async fn go_on_as_before(&self) -> bool {
        let _turn = self.turn.lock().await;
        let kept = match self.found_something_alive() {
            true => last_plan::load(&*self.parts.world.disk, &self.parts.options.places),
            false => None,
        };
        let Some(plan) = kept else { return false };
        // The keeper holds its sockets already: nothing is listened on anew.
        let fronts = &self.parts.world.fronts;
        let table = fronts.publish(plan.generation.max(self.parts.generation), plan.table.clone());
        let _ = table.await;
        self.parts.supervisor.apply(plan.watchers.values().cloned().collect());
        let plan = Arc::new(plan);
        self.parts.jobs.planned(plan.clone());
        self.show(plan);
        true
    }

    /// Closes sockets that the keeper holds for a plan that no daemon remembers.
    fn close_unknown_listeners(&self, plan: &Plan) {
        let known = |name: &String| plan.listeners.iter().any(|listen| listen.name == *name);
        for name in self.parts.found.listeners.iter().filter(|name| !known(name)) {
            self.parts.world.keeper.send(AskKeeper::Unlisten { name: name.clone() });
        }
    }

    /// Keeps the plan for the next daemon.
    pub(super) fn keep(&self, plan: &Plan) {
        let places = &self.parts.options.places;
        if let Err(error) = last_plan::store(&*self.parts.world.disk, places, plan) {
            let text = format!("the plan cannot be remembered: {error}");
            self.parts.events.record(Fact::Note { text });
        }
    }

    /// Whether this daemon has taken over workers of an earlier one.
    pub(super) fn found_something_alive(&self) -> bool {
        takes_over(&self.parts.found)
    }

    async fn listen(&self, listeners: &[Listen]) -> Result<(), Diagnostic> {
        let began = Instant::now();
        for Listen { name, address } in listeners {
            loop {
                let (name, address) = (name.clone(), address.clone());
                let ask = AskKeeper::Listen { name, address: address.clone(), backlog: BACKLOG };
                let Err(problem) = self.parts.world.keeper.ask(ask).await else { break };
                if began.elapsed() > PORT_PATIENCE {
                    return Err(port_holder::refused(&address, &problem.what));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }
}

/// Reads the module's configuration, and refuses a wrong one. Nothing is written.
pub fn configured(options: &DaemonOptions) -> Result<configure::Module, Diagnostic> {
    let module = configure::module(&options.places, &options.sets)?;
    let mut errors = module.resolution.diagnostics.iter().filter(|d| d.is_error());
    match errors.next() {
        Some(first) => Err(first.clone().kind(Kind::BadConfiguration)),
        None => Ok(module),
    }
}

/// A plan, and the configuration of the node that it was made from, for people.
pub struct Made {
    pub plan: Plan,
    pub config: String,
}

/// Reads the configuration and the plugins, and makes the plan of this generation that follows a
/// previous one.
pub fn make(
    options: &DaemonOptions,
    disk: &dyn Disk,
    (previous, generation): (Option<&Plan>, u64),
    instead: Option<Instead>,
) -> Result<Made, Diagnostic> {
    let places = &options.places;
    let module = configured(options)?;
    let uuid = uuid(disk, places)?;
    let plugins = installed::load_all(places, &module, instead, Directories::Made)?;
    let basis = Basis { previous, generation, uuid, held: held::read(disk, places) };
    let plan = planned(options, disk, (&module, plugins), basis);
    if uses_short_dir(places, &plan) {
        ensure_short_dir(places)?;
    }
    Ok(Made { plan, config: shown_config::text(places, &module) })
}

/// What a plan has from the node that it is for.
struct Basis<'a> {
    previous: Option<&'a Plan>,
    generation: u64,
    uuid: String,
    held: Counts,
}

fn planned(
    options: &DaemonOptions,
    disk: &dyn Disk,
    (module, mut plugins): (&configure::Module, Vec<PluginInput>),
    Basis { previous, generation, uuid, held }: Basis<'_>,
) -> Plan {
    let places = &options.places;
    let mut module_problems = module.resolution.diagnostics.clone();
    let left = installed::jobs::leave_to_cron(&mut plugins, user_crontab::blocks);
    module_problems.extend(left);
    let telegraf =
        telegraf::program(places, module, |argv| programs::of_environment(options, module, argv));
    let telegraf = telegraf.unwrap_or_else(|problem| {
        module_problems.push(problem);
        None
    });
    let mut plan = Plan::new(Inputs {
        generation,
        module: &module.resolution.config,
        module_problems,
        var_dir: places.var(),
        short_dir: places.short_dir(),
        log_dir: places.log(),
        body_temp_dir: places.tmp().join("bodies"),
        uuid,
        plugins,
        front: Some(programs::front(options, module)),
        telemetry: Some(programs::telemetry(options, module)),
        telegraf,
        held,
        host_names: host::host_names(&module.env),
        takers: taking::read(disk, places),
        previous,
    });
    put_in_maintenance(&mut plan, disk, (places, previous));
    plan
}

/// Has a plan obey what is written down. Where that cannot be read, what was in maintenance before
/// stays so: apps are not opened by mistake.
fn put_in_maintenance(
    plan: &mut Plan,
    disk: &dyn Disk,
    (places, previous): (&Places, Option<&Plan>),
) {
    plan.maintenance = maintenance::read(disk, places).unwrap_or_else(|problem| {
        plan.problems.push(problem);
        let known = previous.map(|plan| plan.maintenance.clone());
        let kept = || last_plan::load(disk, places).map(|plan| plan.maintenance);
        known.or_else(kept).unwrap_or_default()
    });
    mfserv_core::maintenance::apply(&mut plan.table, &plan.maintenance);
}

/// What a daemon would read and plan. Nothing is written.
pub struct Looked {
    /// The module's configuration.
    pub module: configure::Module,
    /// The plugins.
    pub plugins: Vec<PluginInput>,
    /// The plan.
    pub plan: Plan,
}

/// Reads what a daemon would read, and plans it: what it would start with, or what a reload of
/// this plan would lead to.
pub fn look(
    options: &DaemonOptions,
    disk: &dyn Disk,
    previous: Option<&Plan>,
) -> Result<Looked, Diagnostic> {
    let module = configured(options)?;
    let plugins = installed::load_all(&options.places, &module, None, Directories::Left)?;
    let generation = previous.map_or(0, |plan| plan.generation) + 1;
    let uuid = previous.map_or_else(String::new, |plan| plan.table.server.uuid.clone());
    // Neither a start nor a reload keeps counts that are in no configuration; a reload leaves
    // apps stopped.
    let held = previous.map(|_| held::stopped(&held::read(disk, &options.places)));
    let basis = Basis { previous, generation, uuid, held: held.unwrap_or_default() };
    let plan = planned(options, disk, (&module, plugins.clone()), basis);
    Ok(Looked { module, plugins, plan })
}

/// Some sockets of this plan are in the short directory.
pub fn uses_short_dir(places: &Places, plan: &Plan) -> bool {
    let short = places.short_dir();
    let mut stems = plan.watchers.values().filter_map(|watcher| watcher.socket_stem.as_ref());
    stems.any(|stem| stem.starts_with(&short))
}

/// The identifier of the node: 32 hexadecimal digits, made by its first daemon.
fn uuid(disk: &dyn Disk, places: &Places) -> Result<String, Diagnostic> {
    let path = places.uuid_file();
    let known = disk.read(&path).unwrap_or_default();
    let known = String::from_utf8_lossy(&known);
    if !known.trim().is_empty() {
        return Ok(known.trim().to_string());
    }
    let mut bytes = [0u8; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut bytes))
        .map_err(|e| Diagnostic::error("the node's identifier cannot be made").because(e))?;
    let fresh = mfserv_platform::disk::hex(&bytes);
    disk.write(&path, format!("{fresh}\n").as_bytes())?;
    Ok(fresh)
}

/// Creates the short directory. Its parent is writable for everybody: the directory must belong to
/// this user.
pub fn ensure_short_dir(places: &Places) -> Result<(), Diagnostic> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    let dir = places.short_dir();
    let _ = std::fs::DirBuilder::new().mode(0o700).create(&dir);
    let ours = std::fs::symlink_metadata(&dir).is_ok_and(|meta| {
        meta.is_dir()
            && meta.uid() == rustix::process::getuid().as_raw()
            && meta.mode() & 0o077 == 0
    });
    match ours {
        true => Ok(()),
        false => Err(Diagnostic::error(format!("{} is not usable for sockets", dir.display()))
            .kind(Kind::Refused)
            .because("it is not a private directory of this user")
            .help("remove it, or find out who made it")),
    }
}
