//! `jobs`: when they run, how they ended; a run by hand; the last runs with their output.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use clap_complete::engine::ArgValueCompleter;
use mfserv_core::job::{JobStatus, Run, RunResult};
use mfserv_core::{Diagnostic, Kind};
use mfserv_node::control::client;
use mfserv_node::places::Places;
use mfserv_node::render;
use mfserv_platform::clock::now_ms;

use super::keeper::QUICK;
use super::output::for_terminal;
use super::reach;
use super::report::{Colour, Outcome, paint};
use super::show::table;
use super::{completions, print, print_json};

/// How often it is looked whether a run has ended.
const LOOK: Duration = Duration::from_millis(100);
/// How long the daemon may be away while a run is waited for.
const AWAY: Duration = Duration::from_secs(30);
/// The most characters of a command in the list.
const COMMAND: usize = 48;
/// A run that begins so long after its minute is said to be late, milliseconds.
const LATE_MS: u64 = 5_000;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Jobs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a run of a job now.
    Run {
        /// `PLUGIN.NAME`, or `PLUGIN` if the plugin has one job.
        #[arg(add = ArgValueCompleter::new(completions::jobs))]
        name: String,
        /// Wait for its end, print its last lines, and exit with its code (12: it took too long).
        #[arg(long)]
        wait: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the last runs of a job, with the last lines of their output.
    History {
        /// `PLUGIN.NAME`, or `PLUGIN` if the plugin has one job.
        #[arg(add = ArgValueCompleter::new(completions::jobs))]
        name: String,
        /// At most so many runs, the newest first.
        #[arg(long, short, default_value_t = 10)]
        number: usize,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

impl Jobs {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        match self.verb {
            None => list(places, self.json),
            Some(Verb::Run { name, wait, json }) => run(places, &name, wait, json),
            Some(Verb::History { name, number, json }) => history(places, &name, number, json),
        }
    }
}

fn list(places: &Places, json: bool) -> Result<Outcome, Diagnostic> {
    let jobs = reach::ask(places, |socket| client::jobs(socket, QUICK))?;
    if json {
        print_json(&jobs)?;
    } else if jobs.is_empty() {
        print("no jobs: a plugin has them as lines of its crontab or as sections [job_NAME]\n");
    } else {
        print(&table(&rows(&jobs, now_ms())));
    }
    Ok(Outcome::Done)
}

fn rows(jobs: &[JobStatus], now_ms: u64) -> Vec<Vec<String>> {
    let head = ["JOB", "SCHEDULE", "NEXT", "NOW", "LAST", "ENDED", "TOOK", "COMMAND"];
    let mut rows = vec![head.map(String::from).to_vec()];
    let none = || "-".to_string();
    rows.extend(jobs.iter().map(|job| {
        let last = job.last.as_ref();
        let end = last.and_then(|run| run.end.as_ref());
        let running = match job.running.len() {
            0 => none(),
            1 => "runs".into(),
            n => format!("{n} run"),
        };
        vec![
            for_terminal(&job.name).into_owned(),
            for_terminal(&job.schedule).into_owned(),
            job.next_ms.map_or_else(none, minute),
            running,
            end.map_or_else(none, |end| result(&end.result)),
            end.map_or_else(none, |end| {
                format!("{} ago", render::span(now_ms.saturating_sub(end.at_ms)))
            }),
            last.and_then(Run::took_ms).map_or_else(none, render::span),
            shortened(&for_terminal(&job.command)),
        ]
    }));
    rows
}

/// `2026-01-31 12:00`.
fn minute(ms: u64) -> String {
    render::time(ms).chars().take(16).collect()
}

fn result(result: &RunResult) -> String {
    let colour = match result {
        RunResult::Ok => Colour::Good,
        result if result.is_failure() => Colour::Bad,
        _ => Colour::Doubtful,
    };
    paint(&for_terminal(&result.to_string()), colour)
}

fn shortened(command: &str) -> String {
    match command.chars().count() {
        0..=COMMAND => command.to_string(),
        _ => command.chars().take(COMMAND - 1).chain(['…']).collect(),
    }
}

fn run(places: &Places, name: &str, wait: bool, json: bool) -> Result<Outcome, Diagnostic> {
    let begun = client::run_job(&places.control_socket(), name, QUICK)?;
    if !wait {
        match json {
            true => print_json(&begun)?,
            false => print(&format!("run {} of {name} has begun\n", begun.id)),
        }
        return Ok(Outcome::Done);
    }
    let ended = until_ended(places, name, begun)?;
    let Some(end) = &ended.end else { return Ok(Outcome::NotWell) };
    match json {
        true => print_json(&ended)?,
        false => {
            print(&for_terminal(&end.output));
            let took = ended
                .took_ms()
                .map_or_else(String::new, |ms| format!(" after {}", render::span(ms)));
            print(&format!("run {} of {name}: {}{took}\n", ended.id, result(&end.result)));
        }
    }
    Ok(Outcome::Code(end.result.exit_code()))
}

/// Waits for the end of a run. The daemon may be replaced meanwhile.
fn until_ended(places: &Places, name: &str, begun: Run) -> Result<Run, Diagnostic> {
    let mut seen = Instant::now();
    loop {
        match client::job(&places.control_socket(), name, QUICK) {
            Ok(found) => {
                seen = Instant::now();
                let run = found.runs.into_iter().find(|run| run.id == begun.id);
                let Some(run) = run else {
                    return Err(Diagnostic::error(format!("run {} is not known", begun.id))
                        .because("the daemon has forgotten it, as runs that are long past"));
                };
                if run.end.is_some() {
                    return Ok(run);
                }
            }
            Err(problem) if problem.kind == Kind::NotRunning && seen.elapsed() < AWAY => {}
            Err(problem) => return Err(problem),
        }
        std::thread::sleep(LOOK);
    }
}

fn history(places: &Places, name: &str, number: usize, json: bool) -> Result<Outcome, Diagnostic> {
    let mut found = reach::ask(places, |socket| client::job(socket, name, QUICK))?;
    found.runs.truncate(number);
    if json {
        print_json(&found)?;
        return Ok(Outcome::Done);
    }
    let job = &found.job;
    print(&for_terminal(&format!(
        "{}: {} {}\n{}\nlog: {}\n",
        job.name,
        job.schedule,
        job.command,
        job.at,
        job.log.display()
    )));
    if found.runs.is_empty() {
        print("it has not run yet\n");
    }
    for run in &found.runs {
        let output = run.end.as_ref().map_or("", |end| &end.output);
        print(&described(run, &for_terminal(output)));
    }
    Ok(Outcome::Done)
}

/// `output`: what is shown of its output.
fn described(run: &Run, output: &str) -> String {
    let mut text = format!("\n{} {} ({}", render::time(run.began_ms), run.id, run.trigger.as_str());
    if run.attempt > 0 {
        text += &format!(" {}", run.attempt);
    }
    if let Some(late) = run.late_ms().filter(|late| *late >= LATE_MS) {
        text += &format!(", {} late", render::span(late));
    }
    text += "): ";
    let Some(end) = &run.end else { return text + "runs\n" };
    text += &result(&end.result);
    if let Some(took) = run.took_ms() {
        text += &format!(" after {}", render::span(took));
    }
    if end.left_behind > 0 {
        text += &format!("; {} processes it had left behind were killed", end.left_behind);
    }
    if !output.trim().is_empty() {
        text += &render::indented(output, usize::MAX);
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use mfserv_core::Location;
    use mfserv_core::diagnostic::shown;
    use mfserv_core::job::{RunEnd, Trigger};

    use super::*;

    fn run() -> Run {
        let result = RunResult::Failed { code: 3 };
        Run {
            id: "20260131-0230r1".into(),
            trigger: Trigger::Retry,
            attempt: 1,
            due_ms: Some(1_000),
            began_ms: 63_000,
            keeper: String::new(),
            pid: Some(1),
            end: Some(RunEnd {
                at_ms: 65_000,
                result,
                output: "a\x1b[2J\nb\n".into(),
                left_behind: 2,
            }),
        }
    }

    #[test]
    fn a_row_says_when_a_job_runs_and_how_it_ended() {
        let job = JobStatus {
            name: "shop.sweep".into(),
            plugin: "shop".into(),
            schedule: "@daily".into(),
            command: "x".repeat(60),
            at: Location::new("config.ini", 9),
            next_ms: None,
            running: vec![run(), run()],
            last: Some(run()),
            last_ok_ms: None,
            log: "/log/job_shop_sweep.log".into(),
        };
        let row = &rows(&[job], 75_000)[1];
        let expected =
            ["shop.sweep", "@daily", "-", "2 run", "failed with code 3", "10s ago", "2s"];
        assert_eq!(row[..7], expected);
        assert_eq!(row[7].chars().count(), COMMAND);
    }

    #[test]
    fn a_run_is_described_with_its_output_which_commands_no_terminal() {
        let run = run();
        let text = described(&run, &shown(&run.end.as_ref().unwrap().output));
        for part in
            ["20260131-0230r1 (retry 1, 1m 2s late)", "failed with code 3 after 2s", "2 processes"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.contains("| b") && !text.contains('\x1b'), "{text}");
    }
}
