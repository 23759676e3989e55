//! `logs`: it reads files, so it works while nothing runs.

mod crash;
mod follow;
mod names;
mod request;
mod show;

use std::path::PathBuf;

use clap::Args;
use clap_complete::ArgValueCompleter;
use jiff::Zoned;
use mfserv_core::{Diagnostic, Kind};
use mfserv_node::places::Places;
use mfserv_telemetry::logs::{Level, Order, Pattern, Selection, find_request, search, when};

use super::completions;
use super::output::is_lost;
use super::plugins::env::{if_not_installed, unknown_app};
use super::report::Outcome;
use names::Meant;
use show::Show;

/// How many past lines are printed where nothing else bounds them.
const LINES: usize = 50;

/// Lines of logs, also of rotated and compressed files.
///
/// Without an option that selects lines, the last ones of each log. With one, all lines that
/// match, of all logs together, by time. Exits with 1 if none matches.
#[derive(Debug, Args)]
pub struct Logs {
    /// Plugins (`foo`), apps (`foo.main`), `front` (its access log), `errors` (its error log), `daemon`, `keeper`; without any: all apps.
    #[arg(add = ArgValueCompleter::new(completions::apps))]
    names: Vec<String>,
    /// Follow new lines.
    #[arg(long, short)]
    follow: bool,
    /// Number of past lines: 50, or all where an option selects lines.
    #[arg(long, short = 'n')]
    lines: Option<usize>,
    /// Lines since then: `10m` or `2h` ago, `14:30`, `yesterday`, `"2026-01-31 14:30"`.
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    since: Option<u64>,
    /// Lines until then.
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    until: Option<u64>,
    /// Lines at least as severe: DEBUG, INFO, WARNING, ERROR or CRITICAL. A line without a level has that of the message which it continues (a traceback), else INFO.
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    level: Option<Level>,
    /// Lines with this text (a regular expression), the newest first, each as soon as it is found.
    #[arg(long, value_name = "PATTERN")]
    grep: Option<String>,
    /// Lines of one worker (`app.foo.main.1.7`), or of one slot or app (`foo.main.1`, `foo.main`).
    #[arg(long, value_name = "WORKER", value_parser = some)]
    worker: Option<String>,
    /// Lines of workers of one release, by its number.
    #[arg(long, value_name = "NUMBER", value_parser = some)]
    release: Option<String>,
    /// A request, by its id or that of its trace: its line in the access log, its worker, what happened to that, and its lines; of these --level, --grep and names choose some.
    #[arg(long, value_name = "ID", value_parser = some, conflicts_with_all = ["follow", "lines", "since", "until", "worker", "release", "last_crash"])]
    request: Option<String>,
    /// The last lines of the worker that crashed last, and how it ended.
    #[arg(long, conflicts_with_all = ["follow", "since", "until", "grep", "worker", "release"])]
    last_crash: bool,
    /// Print one JSON object a line, with the keys of mflog, log, line, worker, stream and release.
    #[arg(long)]
    json: bool,
    /// Begin each line with its time and its worker.
    #[arg(long, short = 't', conflicts_with = "json")]
    timestamps: bool,
    /// Print control characters as they are, also on a terminal, which obeys them.
    #[arg(long)]
    raw: bool,
}

impl Logs {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let selection = self.selection()?;
        let meant = Meant::new(&self.names, places);
        if let Some(id) = &self.request {
            return request::run(places, &self, id, &meant, selection);
        }
        let files = files(places, &meant)?;
        if files.is_empty() && !self.follow {
            return Err(nothing(places, &self.names));
        }
        if let Some(name) = self.names.iter().find(|name| is_nobody(places, name)) {
            return Err(nothing(places, std::slice::from_ref(name)));
        }
        if self.last_crash {
            return crash::run(places, &self, &meant, &files, selection);
        }
        let several = files.len() > 1 || self.follow && self.names.len() != 1;
        let show = Show::new(&self, several);
        if self.follow {
            return follow::run(&self, places, &meant, selection, &show);
        }
        let selects = self.selects();
        let found = if selects {
            let order = match self.grep {
                Some(_) => Order::NewestFirst(self.lines),
                None => Order::OldestFirst(self.lines),
            };
            find(&files, &selection, order, &show)?
        } else {
            each_log(&files, &selection, self.lines.unwrap_or(LINES), &show)?
        };
        match found {
            0 if selects && self.lines != Some(0) => Err(no_match(&files)),
            0 if show.has_said_unread() => Err(Diagnostic::error("there is no line to show")
                .because("of all files that have lines, none can be read: see above")),
            _ => Ok(Outcome::Done),
        }
    }

    /// An option says which lines are wanted.
    fn selects(&self) -> bool {
        self.since.is_some()
            || self.until.is_some()
            || self.level.is_some()
            || self.grep.is_some()
            || self.worker.is_some()
            || self.release.is_some()
    }

    fn selection(&self) -> Result<Selection, Diagnostic> {
        let usage = |what: String, help: &str| Diagnostic::error(what).kind(Kind::Usage).help(help);
        if self.since.zip(self.until).is_some_and(|(since, until)| since > until) {
            let help = "--since is the earlier time, for example `--since 2h --until 1h`";
            return Err(usage("--since is later than --until".into(), help));
        }
        let bad = |(text, e): (&str, String)| {
            let help = "for a text with special characters, put a backslash before each: `a\\.b`";
            usage(format!("{text:?} is no regular expression: {e}"), help)
        };
        let pattern = |text: &String| Pattern::new(text).map_err(|e| bad((text, e)));
        Ok(Selection {
            since_ms: self.since,
            until_ms: self.until,
            level: self.level,
            wants_level: self.json,
            pattern: self.grep.as_ref().map(pattern).transpose()?,
            worker: self.worker.clone(),
            release: self.release.clone(),
            ..Selection::default()
        })
    }
}

/// The live log files that are meant, by name.
fn files(places: &Places, meant: &Meant) -> Result<Vec<PathBuf>, Diagnostic> {
    let mut files = live_files(places)?;
    files.retain(|(stem, path)| meant.has_log(stem, path));
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

/// The live files of all logs, with their names.
fn live_files(places: &Places) -> Result<Vec<(String, PathBuf)>, Diagnostic> {
    let entries = std::fs::read_dir(places.log()).map_err(|e| {
        Diagnostic::error("there are no logs")
            .kind(Kind::NotRunning)
            .because(format!("{}: {e}", places.log().display()))
            .help("logs are written once the node runs: `mfserv start`")
    })?;
    let mut files = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let end = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if ["log", "stdout", "stderr"].contains(&&*end) && !stem.starts_with('.') {
            files.push((stem, path));
        }
    }
    files.sort();
    Ok(files)
}

/// Shows the lines that match, of all logs together; returns how many.
fn find(
    files: &[PathBuf],
    selection: &Selection,
    order: Order,
    show: &Show,
) -> Result<usize, Diagnostic> {
    let mut each = |line| {
        show.line(&line);
        !is_lost()
    };
    let searched = search(files, selection, order, &mut each)
        .map_err(|e| Diagnostic::error("the logs cannot be read").because(e))?;
    show.unread(&searched.unread);
    Ok(searched.count)
}

/// Shows the last lines of each log, one log after the other.
fn each_log(
    files: &[PathBuf],
    selection: &Selection,
    lines: usize,
    show: &Show,
) -> Result<usize, Diagnostic> {
    let mut count = 0;
    for file in files {
        let last = Order::OldestFirst(Some(lines));
        count += find(std::slice::from_ref(file), selection, last, show)?;
    }
    Ok(count)
}

/// A time as people write it, milliseconds since the Unix epoch.
pub fn time(text: &str) -> Result<u64, String> {
    when(text, &Zoned::now()).map_err(|e| e.to_string())
}

/// A text that selects something: an empty one would be in every line, or in none.
fn some(text: &str) -> Result<String, String> {
    let text = text.trim();
    match text.is_empty() {
        true => Err("it is empty, so it selects nothing".into()),
        false => Ok(text.to_owned()),
    }
}

fn level(text: &str) -> Result<Level, String> {
    let names = || Level::ALL.map(Level::as_str).join(", ");
    Level::of(text).ok_or_else(|| format!("the levels are {}: `--level ERROR`", names()))
}

fn nothing(places: &Places, names: &[String]) -> Diagnostic {
    let access_log = places.access_log();
    let is_request = |name: &&String| {
        let found = find_request(&access_log, name, &mut Vec::new());
        found.is_ok_and(|it| it.is_some())
    };
    if let Some(id) = names.iter().find(is_request) {
        return Diagnostic::error(format!("{id} is a request, and has no log of its own"))
            .help(format!("`mfserv logs --request {id}` shows all that is known of it"));
    }
    if let Some(problem) = names.iter().find_map(|name| unknown_app(places, name)) {
        return problem;
    }
    let problem = Diagnostic::error(format!("no log of {} yet", names.join(", ")))
        .because(format!("no such file in {}", places.log().display()))
        .help("`mfserv status` shows what runs; an app that has said nothing has no log");
    names.iter().fold(problem, |problem, name| if_not_installed(places, name, problem))
}

/// Nothing is called so, and no log: there is nothing to follow either.
fn is_nobody(places: &Places, name: &String) -> bool {
    let meant = Meant::new(std::slice::from_ref(name), places);
    let problem = Diagnostic::error(String::new());
    files(places, &meant).is_ok_and(|files| files.is_empty())
        && !meant.may_be_log(name)
        && (unknown_app(places, name).is_some()
            || if_not_installed(places, name, problem).kind == Kind::Usage)
}

fn no_match(files: &[PathBuf]) -> Diagnostic {
    let names = files.iter().map(|file| file.file_name().unwrap_or_default().to_string_lossy());
    let names: Vec<_> = names.collect();
    Diagnostic::error("no line matches")
        .because(format!("searched {} and what they were rotated to", names.join(", ")))
        .help("an earlier --since, a lower --level, or other names find more: `mfserv logs --since 1d`")
}
