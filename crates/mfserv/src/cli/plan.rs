//! `plan`, `reload --dry-run`: what would change, before it does.

use std::time::Duration;

use clap::Args;
use mfserv_core::plan::preview::{
    Action, JobChange, Memory, PlanPreview, PluginChange, RouteChange, Workers, WorkersChange,
};
use mfserv_core::{Diagnostic, Kind};
use mfserv_node::control::client;
use mfserv_node::daemon::{self, DaemonOptions};
use mfserv_node::places::Places;
use mfserv_node::render;
use mfserv_node::{certificates, configure};

use super::output::for_terminal;
use super::report::{self, Colour, Outcome, paint};
use super::{keeper, print, print_json, reach};

/// How long the daemon may read: a node may have thousands of plugins.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub struct Plan {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Plan {
    /// Exit code 0, whether something would change or not; else that of the refusal.
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        match of_running(places, self.json) {
            Err(problem)
                if problem.kind == Kind::NotRunning && keeper::connect(places).is_err() =>
            {
                let options = DaemonOptions { places: places.clone(), sets: Vec::new() };
                let mut preview = daemon::preview_of_start(&options)?;
                look_at_certificates(places, &mut preview)?;
                show(&preview, self.json)
            }
            shown => shown,
        }
    }
}

/// What a reload of the running node would do.
pub fn of_running(places: &Places, json: bool) -> Result<Outcome, Diagnostic> {
    let mut preview = reach::ask(places, |socket| client::preview(socket, PATIENCE))?;
    look_at_certificates(places, &mut preview)?;
    show(&preview, json)
}

/// What a restart is about to apply, which reads the configuration as a reload does: the text for
/// when it is done. Empty where nothing has changed, or where the daemon cannot say it.
pub fn of_restart(places: &Places) -> String {
    match client::preview(&places.control_socket(), PATIENCE) {
        Ok(preview) if !preview.changes_nothing() => {
            format!("applied what has changed in the configuration:\n{}", changes(&preview))
        }
        _ => String::new(),
    }
}

/// Says what the front would refuse. The daemon reads no keys, so it cannot say that.
fn look_at_certificates(places: &Places, preview: &mut PlanPreview) -> Result<(), Diagnostic> {
    let changes = |setting: &String| setting.starts_with("tls");
    if preview.in_force.is_some() && !preview.settings.iter().any(changes) {
        return Ok(());
    }
    match certificates::inspect(&configure::module(places, &[])?) {
        Ok(doubtful) => preview.problems.extend(doubtful),
        Err(problem) => preview.problems.push(problem),
    }
    Ok(())
}

fn show(preview: &PlanPreview, json: bool) -> Result<Outcome, Diagnostic> {
    if json {
        print_json(preview)?;
    } else {
        print(&text(preview));
        preview.problems.iter().for_each(report::print_problem);
    }
    let refused = preview.problems.iter().find(|problem| problem.is_error());
    Ok(refused.map_or(Outcome::Done, |problem| Outcome::Code(problem.kind.exit_code())))
}

fn text(preview: &PlanPreview) -> String {
    if preview.changes_nothing() {
        return "nothing would change\n".into();
    }
    let headline = match preview.in_force {
        Some(generation) => format!("a reload would change, of plan {generation}:\n"),
        None => "the node does not run; a start would bring up:\n".into(),
    };
    headline + &changes(preview) + &memory(&preview.memory)
}

fn changes(preview: &PlanPreview) -> String {
    let mut out = list("plugins", &preview.plugins, plugin);
    out += &list("workers", &preview.workers, workers);
    out += &list("routes", &preview.routes, route);
    out += &list("requests are passed on otherwise to", &preview.upstreams, |app| app.clone());
    out += &list("settings of the front", &preview.settings, |name| name.replace('_', " "));
    out += &list("listens on", &preview.listen, |address| marked(Action::Add, address));
    out += &list("closes", &preview.close, |address| marked(Action::Remove, address));
    out + &list("jobs", &preview.jobs, job)
}

fn list<T>(title: &str, entries: &[T], line: impl Fn(&T) -> String) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let lines = entries.iter().map(|one| format!("  {}\n", for_terminal(&line(one))));
    format!("{}\n{}", paint(title, Colour::Title), lines.collect::<String>())
}

fn marked(action: Action, text: &str) -> String {
    let mark = match action {
        Action::Add => "+",
        Action::Remove => "-",
        Action::Change => "~",
    };
    format!("{mark} {text}")
}

/// `before → after`, or the one that there is.
fn change(was: Option<&str>, becomes: Option<&str>) -> String {
    match (was, becomes) {
        (Some(was), Some(becomes)) => format!("{was} → {becomes}"),
        (one, other) => one.or(other).unwrap_or_default().to_string(),
    }
}

fn plugin(plugin: &PluginChange) -> String {
    let change = change(plugin.was.as_deref(), plugin.becomes.as_deref());
    marked(plugin.action, &format!("{} {change}", plugin.name))
}

fn workers(change: &WorkersChange) -> String {
    let WorkersChange { watcher, was, becomes, .. } = change;
    let because = match change.because.is_empty() {
        true => String::new(),
        false => format!(": {}", change.because.join(", ")),
    };
    match change.action {
        Workers::Start => format!("+ {watcher}: {becomes} started"),
        Workers::Stop => format!("- {watcher}: {was} drained and stopped"),
        Workers::Replace if was == becomes => {
            format!("~ {watcher}: {becomes} replaced one after the other{because}")
        }
        Workers::Replace => format!("~ {watcher}: {was} → {becomes}, all replaced{because}"),
        Workers::Rescale => format!("~ {watcher}: {was} → {becomes}{because}"),
        Workers::Adjust => format!("~ {watcher}: none replaced{because}"),
    }
}

fn route(route: &RouteChange) -> String {
    let change = change(route.was.as_deref(), route.becomes.as_deref());
    marked(route.action, &format!("{} of {}: {change}", route.prefix, route.app))
}

fn job(job: &JobChange) -> String {
    marked(job.action, &format!("{} ({})", job.name, job.schedule))
}

fn memory(memory: &Memory) -> String {
    let mut out = format!("{}\n", paint("memory of workers", Colour::Title));
    if memory.now_bytes > 0 {
        out += &format!(
            "  {} now, about {} then, at most {} meanwhile\n",
            render::bytes(memory.now_bytes),
            render::bytes(memory.then_bytes),
            render::bytes(memory.meanwhile_bytes),
        );
    }
    if memory.unknown_workers > 0 {
        let s = if memory.unknown_workers == 1 { "" } else { "s" };
        let unknown = memory.unknown_workers;
        out += &format!("  and that of {unknown} worker{s} of which none runs yet\n");
    }
    out
}
