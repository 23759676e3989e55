//! The lines of a crontab.

use std::collections::BTreeMap;

use crate::command;
use crate::problem::Problem;
use crate::schedule::{Schedule, skip_blanks};
use crate::setting;

/// The shell of a job whose crontab sets no `SHELL`.
pub const DEFAULT_SHELL: &str = "/bin/sh";
/// The `PATH` of a job whose crontab sets none, under cron(8).
pub const DEFAULT_PATH: &str = "/usr/bin:/bin";
/// The bytes of a line, at most. Debian's cron(8) refuses a command of 999 bytes already.
pub const MAX_LINE: usize = 64 * 1024;
/// The lines of a crontab, at most, as in Debian.
pub const MAX_LINES: u32 = 10_000;
/// The most commands of a crontab, and the most assignments: each command has all assignments above
/// it.
pub const MAX_ENTRIES: usize = 1000;
/// See [`MAX_ENTRIES`].
pub const MAX_SETTINGS: usize = 200;

/// A crontab of a user, that is without a column for the user.
///
/// A line that is wrong has no effect and is among the problems; Debian's cron(8) refuses the
/// whole file. The last line may lack its newline, which cron(8) does not accept either.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Crontab {
    /// The jobs, in the order of their lines.
    pub entries: Vec<Entry>,
    /// What is wrong, in the order of the lines.
    pub problems: Vec<Problem>,
    settings: Vec<(Box<str>, Box<str>)>,
    /// There is a problem that says so.
    is_full: bool,
}

/// A job of a crontab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its line, counted from 1.
    pub line: u32,
    /// When it runs.
    pub schedule: Schedule,
    /// What [`Crontab::shell`] gets as the argument of `-c`.
    pub command: Box<str>,
    /// What the command reads on its standard input; often nothing.
    pub input: Box<str>,
    /// How many settings are above it.
    settings: usize,
}

impl Crontab {
    /// Reads the text of a crontab.
    pub fn parse(text: &str) -> Self {
        let mut crontab = Self::default();
        let mut has_returns = false;
        for (number, line) in (1..).zip(text.split('\n')) {
            if number > MAX_LINES && !line.is_empty() {
                let what = format!("the crontab has more than {MAX_LINES} lines");
                let why = "the lines from here on have no effect";
                let help = "generate fewer lines, or put several commands into a script";
                crontab.problems.push(Problem::error(what, why, help).on_line(number));
                break;
            }
            let without = line.strip_suffix('\r');
            if without.is_some() && !has_returns {
                has_returns = true;
                let why = "cron(8) would take each carriage return for a part of the command";
                let help = "convert the file, for example with sed -i 's/\\r$//'";
                let problem = Problem::warning("the lines end in CR LF", why, help);
                crontab.problems.push(problem.on_line(number));
            }
            crontab.line(number, without.unwrap_or(line));
        }
        crontab
    }

    fn line(&mut self, number: u32, line: &str) {
        let mut doubts = Vec::new();
        let result = self.active(number, line, &mut doubts);
        let found = doubts.into_iter().chain(result.err());
        self.problems.extend(found.map(|problem| problem.on_line(number)));
    }

    fn active(
        &mut self,
        number: u32,
        line: &str,
        doubts: &mut Vec<Problem>,
    ) -> Result<(), Problem> {
        let begin = skip_blanks(line, 0);
        let text = &line[begin..];
        if text.is_empty() || text.starts_with('#') {
            return Ok(());
        }
        bounded(line)?;
        let indented = |mut problem: Problem| {
            // Blanks are one byte each.
            problem.column = problem.column.map(|column| column + begin as u32);
            problem
        };
        if let Some(setting) = setting::parse(text) {
            let (name, value) = setting.map_err(indented)?;
            let mut found = Vec::new();
            setting::doubts(name, value, text, &mut found);
            doubts.extend(found.into_iter().map(indented));
            if self.settings.len() >= MAX_SETTINGS {
                return self.one_too_many(format!("more than {MAX_SETTINGS} assignments"));
            }
            self.settings.push((name.into(), value.into()));
            return Ok(());
        }
        if self.entries.len() >= MAX_ENTRIES {
            return self.one_too_many(format!("more than {MAX_ENTRIES} commands"));
        }
        let (schedule, end) = Schedule::read(line, doubts)?;
        let raw = &line[end..];
        check_command(line, end, doubts)?;
        let (command, input) = command::split(raw);
        let settings = self.settings.len();
        let (command, input) = (command.into(), input.into());
        self.entries.push(Entry { line: number, schedule, command, input, settings });
        Ok(())
    }

    /// The line has no effect; that is said of the first one.
    fn one_too_many(&mut self, what: String) -> Result<(), Problem> {
        if std::mem::replace(&mut self.is_full, true) {
            return Ok(());
        }
        let why = "this line, and those like it from here on, have no effect";
        let help = "generate fewer lines, or put several commands into a script";
        Err(Problem::error(format!("the crontab has {what}"), why, help))
    }

    /// The variables that the lines above an entry of this crontab set, each with its last
    /// value. They go over those that its caller has for it; `LOGNAME` is not among them.
    /// `MAILTO` is one of them, and may be empty.
    pub fn environment(&self, entry: &Entry) -> BTreeMap<&str, &str> {
        let above = self.settings.iter().take(entry.settings);
        let set = above.map(|(name, value)| (&**name, &**value));
        set.filter(|(name, _)| *name != "LOGNAME").collect()
    }

    /// The shell that runs an entry: `SHELL`, else [`DEFAULT_SHELL`].
    pub fn shell(&self, entry: &Entry) -> &str {
        self.environment(entry).get("SHELL").copied().unwrap_or(DEFAULT_SHELL)
    }
}

fn bounded(line: &str) -> Result<(), Problem> {
    if line.len() > MAX_LINE {
        let what = format!("the line has {} bytes", line.len());
        let why = format!("a line has at most {MAX_LINE}");
        return Err(Problem::error(what, why, "put the command into a script"));
    }
    if let Some(at) = line.find('\0') {
        let why = "no command and no variable can hold one";
        let problem = Problem::error("the line has a NUL character", why, "remove it");
        return Err(problem.at(line, at));
    }
    Ok(())
}

/// What can be wrong with the command, the text of `line` from `at` on.
fn check_command(line: &str, at: usize, doubts: &mut Vec<Problem>) -> Result<(), Problem> {
    let command = &line[at..];
    if command.trim().is_empty() {
        let why = "nothing follows the schedule";
        let help = "write the command behind the schedule, on the same line";
        return Err(Problem::error("the command is missing", why, help).at(line, at));
    }
    if command.starts_with('*') {
        let why = "a command that begins with * is one field too many";
        let help = "a schedule has five fields: minute, hour, day of month, month, day of week";
        return Err(Problem::error("there are six fields", why, help).at(line, at));
    }
    let mut words = command.split_ascii_whitespace();
    if words.next() == Some("root") && words.next().is_some() {
        let why = "only /etc/crontab has a column for the user; here root is the program";
        let help = "remove the word: a job runs as the user of the node";
        doubts.push(Problem::warning("the command begins with a user", why, help).at(line, at));
    }
    Ok(())
}
