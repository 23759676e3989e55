//! `logs` and `events`: they read files, so they work while nothing runs.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCompleter;
use mfserv_core::diagnostic::shown;
use mfserv_core::event::Event;
use mfserv_core::{Diagnostic, Kind};
use mfserv_telemetry::{Follower, tail};

use super::completions;
use super::output::{for_terminal, is_lost, print_bytes};
use super::print;
use super::report::Outcome;
use mfserv_node::places::Places;
use mfserv_node::render;

/// How often followed files are looked at.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub struct Logs {
    /// Plugins (`foo`), apps (`foo.main`), `front` (its access log), `daemon`, `keeper`; without any: all apps.
    #[arg(add = ArgValueCompleter::new(completions::apps))]
    names: Vec<String>,
    /// Follow new lines.
    #[arg(long, short)]
    follow: bool,
    /// Number of past lines.
    #[arg(long, short = 'n', default_value_t = 50)]
    lines: usize,
    /// Print one JSON object a line: file and line.
    #[arg(long)]
    json: bool,
    /// Print control characters as they are, also on a terminal, which obeys them.
    #[arg(long)]
    raw: bool,
}

impl Logs {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let files = self.files(places)?;
        if files.is_empty() && !self.follow {
            return Err(nothing(places, &self.names));
        }
        let several = files.len() > 1 || self.follow && self.names.len() != 1;
        let mut ends = BTreeMap::new();
        for file in &files {
            let (lines, end) = tail(file, self.lines).unwrap_or_default();
            ends.insert(file.clone(), end);
            lines.iter().for_each(|line| self.say(file, line, several));
        }
        if !self.follow {
            return Ok(Outcome::Done);
        }
        let mut follower = Follower::new(ends);
        while !is_lost() {
            for file in self.files(places)? {
                follower.add(file);
            }
            follower.poll(&mut |file, line| self.say(file, line, several));
            std::thread::sleep(LOOK);
        }
        Ok(Outcome::Done)
    }

    fn say(&self, file: &Path, line: &[u8], several: bool) {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let text = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
        if self.json {
            let object = serde_json::json!({ "log": stem, "line": text });
            return print(&format!("{object}\n"));
        }
        let start = if several { format!("{stem} | ") } else { String::new() };
        match self.raw || !std::io::stdout().is_terminal() {
            true => print_bytes(&[start.as_bytes(), line, b"\n"].concat()),
            false => print(&format!("{start}{}\n", shown(&text))),
        }
    }

    /// The live log files that are meant, by name.
    fn files(&self, places: &Places) -> Result<Vec<PathBuf>, Diagnostic> {
        let entries = std::fs::read_dir(places.log()).map_err(|e| {
            Diagnostic::error("there are no logs")
                .kind(Kind::NotRunning)
                .because(format!("{}: {e}", places.log().display()))
                .help("logs are written once the node runs: `mfserv start`")
        })?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|path| {
            let end = path.extension().unwrap_or_default().to_string_lossy();
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let live = ["log", "stdout", "stderr"].contains(&&*end) && !stem.starts_with('.');
            live && self.is_meant(&stem)
        });
        files.sort();
        Ok(files)
    }

    fn is_meant(&self, stem: &str) -> bool {
        let of_plugin = stem.strip_prefix("app_").or_else(|| stem.strip_prefix("extra_"));
        if self.names.is_empty() {
            return of_plugin.is_some();
        }
        self.names.iter().any(|name| {
            let plain = name.replace(['.', '/'], "_");
            let below = |rest: &str| rest == plain || rest.starts_with(&format!("{plain}_"));
            match name.as_str() {
                "front" => stem == "nginx_access",
                "errors" => stem == "nginx_error",
                _ => of_plugin.is_some_and(below) || stem == plain,
            }
        })
    }
}

fn nothing(places: &Places, names: &[String]) -> Diagnostic {
    Diagnostic::error(format!("no log of {} yet", names.join(", ")))
        .because(format!("no such file in {}", places.log().display()))
        .help("`mfserv status` shows what runs; an app that has said nothing has no log")
}

#[derive(Debug, Args)]
pub struct Events {
    /// Follow new events.
    #[arg(long, short)]
    follow: bool,
    /// Number of past events.
    #[arg(long, short = 'n', default_value_t = 50)]
    lines: usize,
    /// Print one JSON object a line, as recorded.
    #[arg(long)]
    json: bool,
}

impl Events {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let file = places.events_file();
        let (lines, end) = tail(&file, self.lines).unwrap_or_default();
        if !file.exists() && !self.follow {
            return Err(Diagnostic::error("nothing has happened yet")
                .kind(Kind::NotRunning)
                .help("start the node with `mfserv start`"));
        }
        lines.iter().for_each(|line| self.say(line));
        if !self.follow {
            return Ok(Outcome::Done);
        }
        let mut follower = Follower::new([(file, end)]);
        while !is_lost() {
            follower.poll(&mut |_, line| self.say(line));
            std::thread::sleep(LOOK);
        }
        Ok(Outcome::Done)
    }

    fn say(&self, line: &[u8]) {
        let text = match serde_json::from_slice::<Event>(line) {
            Ok(event) if !self.json => render::event(&event),
            _ => String::from_utf8_lossy(line).into_owned(),
        };
        print(&format!("{}\n", for_terminal(&text)));
    }
}
