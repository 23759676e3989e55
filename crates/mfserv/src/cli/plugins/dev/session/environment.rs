//! The environment of a plugin is built again when what it is made of changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::SystemTime;

use mfserv_core::Diagnostic;
use mfserv_node::operations::Request;
use mfserv_plugin::Silent;
use mfserv_plugin::build::{self, BuildReport};

use super::super::super::{build_when_free, sentence};
use super::super::rebuild::Rebuild;
use super::DevSession;
use crate::cli::operation::Operation;
use crate::cli::report::{Colour, paint};

impl DevSession<'_> {
    pub(super) fn sources_now(&self) -> BTreeMap<PathBuf, Option<SystemTime>> {
        let changed = |file: &Path| file.metadata().and_then(|meta| meta.modified()).ok();
        let files = build::sources(&self.dir).into_iter();
        files.map(|file| (file.clone(), changed(&file))).collect()
    }

    /// Builds beside what runs, if there is something to build.
    pub(super) fn look_at_sources(&mut self) {
        match self.build.take() {
            Some(build) if build.is_finished() => return self.follow_build(build),
            building @ Some(_) => return self.build = building,
            None => {}
        }
        // Its builds are builds of the environment, too.
        let is_built_at_edits = self.rebuild.as_ref().is_some_and(Rebuild::is_of_plugin);
        let gone = !self.dir.is_dir();
        if gone && !self.gone {
            let dir = self.dir.display();
            self.say(&paint(&format!("{dir} is not there any more"), Colour::Doubtful));
        }
        self.gone = gone;
        if gone || is_built_at_edits {
            return;
        }
        let now = self.sources_now();
        let changed = now.iter().find(|(file, time)| self.sources.get(*file) != Some(time));
        let Some((file, _)) = changed else { return };
        let name = file.strip_prefix(&self.dir).unwrap_or(file).display().to_string();
        self.say(&paint(&format!("{name} changed: building"), Colour::Doubtful));
        let (places, dir) = (self.places.clone(), self.dir.clone());
        let cancel = self.interrupted.clone();
        let build = move || build_when_free(&places, &dir, &cancel, &mut Silent);
        self.build = Some(std::thread::spawn(build));
    }

    /// Lets workers with the new environment take over.
    fn follow_build(&mut self, build: JoinHandle<Result<BuildReport, Diagnostic>>) {
        let built = build.join().unwrap_or_else(|_| Err(Diagnostic::error("the build failed")));
        // What the build itself has written is no change.
        self.sources = self.sources_now();
        let Some(report) = self.complain(built) else { return };
        self.say(sentence(&report).trim_end());
        if !report.is_unchanged() {
            self.renew();
        }
    }

    /// Lets new workers take over.
    pub(super) fn renew(&mut self) {
        let restart = Request::Restart { apps: vec![self.plugin.clone()] };
        let mut op = Operation::silent(self.places, "mfserv dev", 0, self.interrupted.clone());
        let submitted = op.submit(restart);
        let asked = op.end(submitted, serde_json::Value::Null);
        if self.complain(asked).is_some() {
            self.starting = true;
        }
    }
}
