//! A session of `mfserv dev`: it shows the output of the plugin's programs, its events and the
//! result of each edit, and builds the environment again when its sources change.

mod environment;
mod of_node;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use mfserv_core::event::{Event, Fact};
use mfserv_core::keys::AUTORESTART;
use mfserv_core::names::WatcherName;
use mfserv_core::node_state::NodeState;
use mfserv_core::status::Status;
use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::build::BuildReport;
use mfserv_plugin::{Cancel, Home, dotenv, generate, store};
use mfserv_telemetry::Follower;

use self::of_node::{served_dirs, stop_node, stops_node};
use super::super::is_running;
use super::frames::folded;
use super::lines::{Lines, end_of, short};
use super::live::Live;
use super::own_node;
use super::rebuild::Rebuild;
use super::requests::Requests;
use crate::cli::keeper::QUICK;
use crate::cli::output::{for_terminal, is_lost, print};
use crate::cli::report::Outcome;
use crate::cli::report::{Colour, paint};
use mfserv_node::control::client;
use mfserv_node::places::Places;
use mfserv_node::{configure, render};

/// How often files and events are looked at.
const LOOK: Duration = Duration::from_millis(30);
/// How often the rest is looked at: the node, what the environment is made of.
const LOOK_AROUND: Duration = Duration::from_millis(500);
/// A daemon that is being replaced is away for less than this.
const AWAY: Duration = Duration::from_secs(10);

/// The state of one session.
pub struct DevSession<'a> {
    places: &'a Places,
    plugin: String,
    dir: PathBuf,
    interrupted: Cancel,
    /// Where the node answers.
    address: String,
    lines: Lines,
    requests: Requests,
    /// Where its variables for development are written.
    env_file: String,
    /// Its programs, as far as they are known.
    programs: Vec<WatcherName>,
    events: Follower,
    /// What the environment is made of, and when that was changed.
    sources: BTreeMap<PathBuf, Option<SystemTime>>,
    /// The environment is being built again.
    build: Option<JoinHandle<Result<BuildReport, Diagnostic>>>,
    /// The app has a build script, which runs again at each edit.
    rebuild: Option<Rebuild>,
    /// Pages are loaded again after edits.
    pub wants_live_reload: bool,
    live: Option<Live>,
    /// The directory is not there any more.
    gone: bool,
    /// Its programs have not been seen ready yet.
    starting: bool,
    /// The plan has changed: there may be other programs.
    replanned: bool,
    /// Nobody reads any more, or there is nothing to follow any more.
    over: Option<Outcome>,
}

impl<'a> DevSession<'a> {
    /// From now on nothing is missed.
    pub fn new(
        places: &'a Places,
        plugin: &str,
        dir: &Path,
        interrupted: Cancel,
        rebuild: Option<Rebuild>,
    ) -> DevSession<'a> {
        let events = places.events_file();
        let mut session = DevSession {
            places,
            plugin: plugin.into(),
            dir: dir.to_owned(),
            interrupted,
            address: String::new(),
            lines: Lines::new(places.log()),
            requests: Requests::new(places.access_log(), plugin),
            env_file: dotenv::place(dir).display().to_string(),
            programs: Vec::new(),
            events: Follower::new([(events.clone(), end_of(&events))]),
            sources: BTreeMap::new(),
            build: None,
            rebuild,
            wants_live_reload: false,
            live: None,
            gone: false,
            starting: true,
            replanned: false,
            over: None,
        };
        session.sources = session.sources_now();
        session
    }

    /// Follows until Ctrl-C. `started`: the node runs for this alone, and ends with it.
    pub fn run(mut self, started: bool) -> Result<Outcome, Diagnostic> {
        let guard = started.then(|| stops_node(self.places));
        let ended = self.follow();
        if let Some(build) = self.build.take() {
            // What ends the session ends it, too; it leaves nothing half done.
            self.interrupted.cancel();
            let _ = build.join();
        }
        if let Some(rebuild) = &mut self.rebuild {
            rebuild.stop();
        }
        let stopped = if started { stop_node(self.places) } else { Ok(()) };
        drop(guard);
        // It stays linked: a node that is started later follows it.
        let left = self.rebuild.take().map(|rebuild| rebuild.leave(self.places));
        stopped?;
        let outcome = ended?;
        left.transpose()?;
        let name = &self.plugin;
        // In a node of its own nothing is in its way.
        let is_own = own_node::is_own(self.places);
        if is_own && started {
            own_node::unlink(self.places, name)?;
        }
        if !is_own && store::current(&Home::new(self.places.home()), name).is_ok() {
            self.say(&format!(
                "{name} stays linked: `mfserv dev` follows it again, `mfserv uninstall {name}` \
                 ends that"
            ));
        }
        if started {
            self.say("mfserv is stopped: it was started for this alone");
        }
        Ok(outcome)
    }

    fn follow(&mut self) -> Result<Outcome, Diagnostic> {
        self.greet();
        let mut looked = Instant::now();
        let mut seen = Instant::now();
        while !self.interrupted.is_cancelled() {
            self.look();
            self.follow_rebuild();
            if let Some(outcome) = self.over {
                return Ok(outcome);
            }
            if looked.elapsed() >= LOOK_AROUND {
                looked = Instant::now();
                if is_running(self.places) {
                    seen = Instant::now();
                } else if seen.elapsed() > AWAY {
                    return Err(Diagnostic::error("the node is not running any more")
                        .kind(Kind::NotRunning)
                        .help("`mfserv events` shows why"));
                }
                // A program that has said nothing before has a log only now.
                self.lines.follow(&self.programs);
                self.look_at_sources();
            }
            std::thread::sleep(LOOK);
        }
        self.look();
        Ok(Outcome::Done)
    }

    /// Where it answers, and from where it runs.
    fn greet(&mut self) {
        let status = self.status();
        let dir = generate::made_of(&self.dir).unwrap_or_else(|| self.dir.clone());
        let (name, dir) = (self.plugin.clone(), dir.display().to_string());
        self.say(&paint(&format!("{name} runs from {dir}"), Colour::Title));
        let Some(status) = status else { return };
        self.learn_programs(&status);
        let address = status.address.clone().unwrap_or_default();
        self.address.clone_from(&address);
        let planned = status.plugins.iter().find(|plugin| plugin.name == name);
        for url in planned.iter().flat_map(|plugin| plugin.urls(&address)) {
            self.say(&format!("  {url}"));
        }
        if self.wants_live_reload {
            self.start_live_reload(&status);
        }
        let own = status.problems.iter().filter(|problem| problem.is_about(&name));
        own.for_each(|problem| self.say(&problem.to_string()));
        let own = status.watchers.iter().filter(|w| w.plugin.as_deref() == Some(&name));
        self.starting = own.clone().any(|watcher| watcher.ready < watcher.wanted);
        for end in own.filter(|w| w.ready == 0).filter_map(|w| w.last_end.as_ref()) {
            let watcher = &end.worker.watcher;
            self.say_failed(watcher, &format!("does not start: {}", end.why), &end.last_output);
        }
        let rules = [".autorestart_includes", ".autorestart_excludes"];
        let ruled = rules.iter().any(|file| self.dir.join(file).exists());
        let flag =
            configure::module(self.places, &[]).map(|m| m.resolution.config.get(AUTORESTART));
        let has_programs = !self.programs.is_empty();
        self.say(match (ruled, flag) {
            _ if self.rebuild.is_some() => {
                "what you save is built, and served if that goes well; Ctrl-C ends this\n"
            }
            (false, _) if !has_programs => "what you save is served at once; Ctrl-C ends this\n",
            (_, Ok(false)) => {
                "no file is watched, because [autorestart] flag is 0; Ctrl-C ends this\n"
            }
            (true, _) => "what you save is served as soon as it starts; Ctrl-C ends this\n",
            (false, _) => {
                "no file is watched, because there is no .autorestart_includes (`*.py` would do); \
                 Ctrl-C ends this\n"
            }
        });
    }

    fn status(&self) -> Option<Status> {
        client::status(&self.places.control_socket(), QUICK).ok()
    }

    fn learn_programs(&mut self, status: &Status) {
        let own = status.watchers.iter().filter(|w| w.plugin.as_ref() == Some(&self.plugin));
        self.programs = own.map(|watcher| watcher.name.clone()).collect();
        self.lines.follow(&self.programs);
    }

    /// What has come since the last look: lines first, because they came first.
    fn look(&mut self) {
        self.lines.take().iter().for_each(|line| self.say(line));
        self.requests.take().iter().for_each(|line| self.say(line));
        let mut events: Vec<Event> = Vec::new();
        self.events.poll(&mut |_, line| events.extend(serde_json::from_slice(line)));
        events.into_iter().for_each(|event| self.report(event.fact));
        if std::mem::take(&mut self.replanned) {
            self.look_at_plan();
        }
    }

    fn look_at_plan(&mut self) {
        let Some(status) = self.status() else { return };
        self.learn_programs(&status);
        if status.generation > 0 && !status.plugins.iter().any(|p| p.name == self.plugin) {
            self.say(&format!("{} was uninstalled", self.plugin));
            self.over = Some(Outcome::Done);
        }
    }

    fn report(&mut self, fact: Fact) {
        match fact {
            Fact::FilesChanged { plugin, files, .. }
                if plugin == self.plugin && files == [generate::BUILT] => {}
            Fact::FilesChanged { plugin, files, more } if plugin == self.plugin => {
                let what = match files.is_empty() {
                    true => "its files have changed".into(),
                    false => format!("{} changed", render::changed(&files, more)),
                };
                self.say(&paint(&what, Colour::Doubtful));
            }
            Fact::Renewed { plugin, after_ms } if plugin == self.plugin => {
                self.starting = false;
                self.rebuild.iter_mut().for_each(Rebuild::serves);
                self.reload_pages();
                let text = format!("serves the new code after {}", render::span(after_ms));
                self.say(&paint(&text, Colour::Good));
            }
            Fact::NotRenewed { plugin, problem } if plugin == self.plugin => {
                self.say_broken(&problem);
            }
            Fact::Problem { problem } if problem.is_about(&self.plugin) => {
                self.say(&paint(&problem.to_string(), Colour::Bad));
            }
            Fact::WorkerReady { worker, after_ms } if self.is_own(&worker.watcher) => {
                if std::mem::take(&mut self.starting) {
                    self.reload_pages();
                    let program = short(&worker.watcher);
                    let text = format!("{program} serves after {}", render::span(after_ms));
                    self.say(&paint(&text, Colour::Good));
                }
                self.replanned = true;
            }
            Fact::WorkerEnded {
                worker, why, last_output, restart_in_ms: Some(wait_ms), ..
            } if self.is_own(&worker.watcher) && why.is_crash() => {
                let again = match wait_ms {
                    0 => "it is started again".into(),
                    ms => format!("it is started again in {}", render::span(ms)),
                };
                self.say_failed(&worker.watcher, &format!("ended: {why}; {again}"), &last_output);
                self.replanned = true;
            }
            Fact::Note { text } if text.contains(&self.env_file) => {
                self.starting = true;
                self.say(&paint(&text, Colour::Doubtful));
            }
            Fact::PlanApplied { .. } => self.replanned = true,
            Fact::NodeState { state: NodeState::Stopped } => {
                self.say("the node was stopped");
                self.over = Some(Outcome::Done);
            }
            _ => {}
        }
    }

    /// An edit does not start. Its traceback has just come by, unless it went elsewhere.
    fn say_broken(&mut self, problem: &Diagnostic) {
        self.say(&paint(&problem.what, Colour::Bad));
        for reason in &problem.because {
            let known = reason.lines().last().is_some_and(|line| self.lines.have_said(line));
            if !known {
                self.say(
                    &folded(reason).lines().map(|line| format!("  {line}\n")).collect::<String>(),
                );
            }
        }
        let page = format!("{}/__dev/{}", self.address, self.plugin);
        let text = format!("the old code goes on serving; the page says why too ({page})");
        self.say(&paint(&text, Colour::Bad));
    }

    fn say_failed(&mut self, watcher: &WatcherName, what: &str, output: &str) {
        self.say(&paint(&format!("{} {what}", short(watcher)), Colour::Bad));
        let last = output.trim_end().lines().last();
        if last.is_some_and(|line| !self.lines.have_said(line)) {
            self.say(render::indented(&folded(&for_terminal(output)), 40).trim_start_matches('\n'));
        }
    }

    fn is_own(&self, watcher: &WatcherName) -> bool {
        watcher.plugin() == Some(&self.plugin)
    }

    /// What the build script does, and what came of it.
    fn follow_rebuild(&mut self) {
        let said = self.rebuild.as_mut().map(Rebuild::look);
        said.iter().flatten().for_each(|line| self.say(line));
        let is_site = self.programs.is_empty();
        // A build that finds nothing to do is no reason for new workers.
        let has_built = self.rebuild.as_mut().is_some_and(Rebuild::has_built);
        if has_built && !is_site && self.rebuild.as_ref().is_some_and(Rebuild::is_of_plugin) {
            self.renew();
        }
        match &mut self.live {
            // Of a server the new workers say it, when they are ready.
            Some(live) if has_built && is_site => live.reload(),
            Some(live) if self.rebuild.is_none() => live.look(is_site),
            _ => {}
        }
    }

    /// An address whose pages are loaded again after edits; without it the session goes on.
    fn start_live_reload(&mut self, status: &Status) {
        let dir = generate::made_of(&self.dir).unwrap_or_else(|| self.dir.clone());
        let served = served_dirs(self.places, &self.plugin);
        let Some(live) = self.complain(Live::start(&self.address, &dir, &served)) else { return };
        let planned = status.plugins.iter().find(|plugin| plugin.name == self.plugin);
        let urls = planned.map(|plugin| plugin.urls(&live.address)).unwrap_or_default();
        urls.iter().for_each(|url| self.say(&format!("  {url} (live reload)")));
        self.live = Some(live);
    }

    fn reload_pages(&self) {
        self.live.iter().for_each(Live::reload);
    }

    // ---- saying ----

    /// An error ends nothing here: the developer mends it.
    fn complain<T>(&mut self, result: Result<T, Diagnostic>) -> Option<T> {
        let problem = match result {
            Ok(value) => return Some(value),
            Err(problem) => problem,
        };
        self.say(&paint(&problem.to_string(), Colour::Bad));
        None
    }

    /// A terminal that has gone ends the session, in order.
    fn say(&mut self, text: &str) {
        print(&format!("{}\n", text.trim_end_matches('\n')));
        if is_lost() {
            self.over = Some(Outcome::Done);
        }
    }
}
