//! The `build` script of an app, or the command of a plugin, runs again when a source changes.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mfserv_core::Diagnostic;
use mfserv_node::places::Places;
use mfserv_node::render;
use mfserv_plugin::sources::{Causes, QUIET, Sources};
use mfserv_plugin::{Cancel, Progress};

use super::super::app::App;
use super::super::build_when_free;
use crate::cli::output::for_terminal;
use crate::cli::report::{Colour, paint};

/// How often the sources are looked at…
const OFTEN: Duration = QUIET;
/// …if a look takes less than this part of it.
const SHARE: u32 = 20;
/// More files than this are named by their number.
const NAMED: usize = 3;

/// What is built again.
#[derive(Clone)]
pub enum Built {
    /// An app by its `build` script.
    App(Box<App>),
    /// A plugin with a `[build]`.
    Plugin {
        /// Its directory.
        dir: PathBuf,
        /// What its command makes.
        out: Vec<String>,
    },
}

impl Built {
    /// The sources that the build reads.
    fn sources(&self) -> Sources {
        match self {
            Built::App(app) => app.sources(),
            Built::Plugin { dir, out } => Sources::of_plugin(dir, out),
        }
    }

    /// Builds again, and lets the result serve. False if there was nothing to do.
    fn again(
        &self,
        places: &Places,
        cancel: Cancel,
        progress: &mut dyn Progress,
    ) -> Result<bool, Diagnostic> {
        match self {
            Built::App(app) => app.build_again(places, cancel, progress).map(|()| true),
            Built::Plugin { dir, .. } => {
                let report = build_when_free(places, dir, &cancel, progress)?;
                Ok(!report.is_unchanged())
            }
        }
    }

    /// From now on nobody builds it again at edits.
    fn leave_to_node(&mut self, places: &Places) -> Result<(), Diagnostic> {
        match self {
            Built::App(app) => app.leave_to_node(places),
            // The node follows its files in any case.
            Built::Plugin { .. } => Ok(()),
        }
    }
}

/// Follows the sources of what is built again.
pub struct Rebuild {
    places: Places,
    built: Built,
    interrupted: Cancel,
    sources: Sources,
    causes: Causes,
    running: Option<Running>,
    /// A build has made something that nobody has asked for yet.
    has_built: bool,
    looked: Instant,
    wait: Duration,
}

struct Running {
    began: Instant,
    lines: Receiver<String>,
    build: JoinHandle<Result<bool, Diagnostic>>,
}

/// The sources, looked at before the first build.
pub struct Before {
    sources: Sources,
    changed: Vec<PathBuf>,
}

impl Before {
    /// From now on no edit is missed.
    pub fn new(built: &Built) -> Self {
        Before { sources: built.sources(), changed: Vec::new() }
    }

    /// The first build has gone well: what was edited meanwhile is built after it.
    pub fn has_built(&mut self) {
        self.changed = self.sources.changed_meanwhile(true);
    }
}

impl Rebuild {
    /// Follows the sources after the first build.
    pub fn new(places: &Places, built: Built, before: Before, interrupted: Cancel) -> Self {
        let mut causes = Causes::default();
        causes.changed(before.changed, Instant::now());
        Rebuild {
            places: places.clone(),
            sources: before.sources,
            built,
            interrupted,
            causes,
            running: None,
            has_built: false,
            looked: Instant::now(),
            wait: OFTEN,
        }
    }

    /// Begins a build if a source has changed, and follows the one that runs. One at a time: what
    /// is edited meanwhile is built after it.
    /// Returns what is to be said.
    pub fn look(&mut self) -> Vec<String> {
        match self.running.take() {
            Some(running) => self.follow(running),
            None => self.look_at_sources(),
        }
    }

    /// Whether a build has made something since the last call.
    pub fn has_built(&mut self) -> bool {
        std::mem::take(&mut self.has_built)
    }

    /// True if a build makes the environment too, and workers that run have to be renewed for it.
    pub fn is_of_plugin(&self) -> bool {
        matches!(self.built, Built::Plugin { .. })
    }

    /// The new code serves.
    pub fn serves(&mut self) {
        self.causes.serves(Instant::now());
    }

    fn look_at_sources(&mut self) -> Vec<String> {
        let now = Instant::now();
        if now.duration_since(self.looked) < self.wait {
            return Vec::new();
        }
        let changed = self.sources.changed();
        self.looked = Instant::now();
        self.wait = OFTEN.max(now.elapsed() * SHARE);
        let mut said = self.note(changed, now);
        if let Some(files) = self.causes.due(now) {
            self.causes.begin(now);
            said.push(self.begin(&files));
        }
        said
    }

    fn note(&mut self, changed: Vec<PathBuf>, now: Instant) -> Vec<String> {
        let left_out = self.causes.changed(changed, now);
        let sentence = |file: &PathBuf| {
            let text = format!(
                "{} changes with each build: it is taken for a file that the build or the app \
                 writes, and is no reason for a build any more (.gitignore leaves it out at once)",
                file.display()
            );
            paint(&text, Colour::Doubtful)
        };
        left_out.iter().map(sentence).collect()
    }

    fn begin(&mut self, files: &[PathBuf]) -> String {
        let named: Vec<String> =
            files.iter().take(NAMED).map(|file| file.display().to_string()).collect();
        let more = files.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let (sender, lines) = channel();
        let (built, places, cancel) =
            (self.built.clone(), self.places.clone(), self.interrupted.clone());
        let build = std::thread::spawn(move || built.again(&places, cancel, &mut Output(sender)));
        self.running = Some(Running { began: Instant::now(), lines, build });
        paint(&format!("{}{more} changed: building", named.join(", ")), Colour::Doubtful)
    }

    fn follow(&mut self, running: Running) -> Vec<String> {
        // Asked first: what it has written is complete then.
        let is_finished = running.build.is_finished();
        let lines = running.lines.try_iter();
        let mut said: Vec<String> =
            lines.map(|line| format!("build | {}", for_terminal(&line))).collect();
        if !is_finished {
            self.running = Some(running);
            return said;
        }
        let built = running.build.join().unwrap_or_else(|_| Err(Diagnostic::error("it failed")));
        let changed = self.sources.changed_meanwhile(built.is_ok());
        let left_out = self.note(changed, Instant::now());
        self.causes.end(built.is_ok(), Instant::now());
        self.has_built |= matches!(built, Ok(true));
        said.push(match built {
            Ok(has_made) => {
                let what = if has_made { "built" } else { "nothing to build" };
                let after_ms = running.began.elapsed().as_millis() as u64;
                paint(&format!("{what} after {}", render::span(after_ms)), Colour::Good)
            }
            // What it has written has been said; the rest of the reasons is that.
            Err(Diagnostic { what, because, .. }) => {
                let why = because.first().and_then(|why| why.lines().next()).unwrap_or("unknown");
                let text = format!("{what}: {why}; what was built before goes on serving");
                paint(&text, Colour::Bad)
            }
        });
        said.extend(left_out);
        said
    }

    /// Waits for the build that runs, and lets nobody begin another one.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            // What ends the session ends it, too.
            self.interrupted.cancel();
            let _ = running.build.join();
        }
    }

    /// From now on the node follows the files itself, also one that is started later.
    pub fn leave(mut self, places: &Places) -> Result<(), Diagnostic> {
        self.stop();
        self.built.leave_to_node(places)
    }
}

/// Hands on what a build writes.
struct Output(Sender<String>);

impl Progress for Output {
    fn step(&mut self, _what: &str) {}

    fn line(&mut self, text: &str) {
        // Nobody listens any more when the session has ended.
        let _ = self.0.send(text.to_owned());
    }

    fn notice(&mut self, notice: Diagnostic) {
        notice.to_string().lines().for_each(|line| self.line(line));
    }
}
