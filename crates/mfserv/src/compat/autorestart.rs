//! `mfserv.autorestart`: the check that MFSERV's cron made every five minutes, for monitoring that
//! calls it. The keeper restarts what ends; this command brings a keeper back, and starts everything
//! anew when nothing else helps.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use mfserv_core::Diagnostic;
use mfserv_core::node_state::NodeState;
use mfserv_node::places::Places;
use mfserv_platform::disk::{self, Lock};
use serde::Serialize;

use super::status::ends_within;
use super::{failed, may_run, places};
use crate::cli::report::Outcome;
use crate::cli::{complain, keeper, print};

/// How long one check may take.
const CHECK: Duration = Duration::from_secs(60);
/// How long a node that is not well may take to be well again by itself, or after a start.
const RECOVERS: Duration = Duration::from_secs(30);
/// From one check to the next meanwhile.
const PAUSE: Duration = Duration::from_secs(3);
/// How long a start or a stop may take.
const CHANGE: Duration = Duration::from_secs(300);
/// A start, a stop or `var/block_autorestart` that is older than this counts no more.
const OLD: Duration = Duration::from_secs(600);

/// Check the node, and start it again if it is not well.
#[derive(Debug, Parser)]
#[command(name = "mfserv.autorestart")]
struct Args {}

/// What `var/status.json` says of the last check.
#[derive(Serialize)]
struct Report {
    status: BTreeMap<String, String>,
    date: String,
}

/// Exit code 0 if the node is well, is well again, or is not to be looked after; else 1.
pub fn run() -> Result<Outcome, Diagnostic> {
    Args::parse();
    if !may_run("mfserv.autorestart") {
        return failed();
    }
    let places = places()?;
    if !is_looked_after(&places) {
        return Ok(Outcome::Done);
    }
    let Ok(_lock) = Lock::take(&places.run().join("autorestart.lock"), "the node") else {
        print("another mfserv.autorestart is at work\n");
        return Ok(Outcome::Done);
    };
    if recovers(&places) {
        return Ok(Outcome::Done);
    }
    // What lives is taken over by a new keeper: nothing has to be stopped for it.
    if keeper::connect(&places).is_err() {
        complain("CRITICAL: mfserv is not well => mfserv.start");
        call("mfserv.start", &[]);
        if recovers(&places) {
            return Ok(Outcome::Done);
        }
    }
    complain("CRITICAL: mfserv is not well => mfserv.stop, mfserv.start");
    call("mfserv.stop", &["KEEPCRON"]);
    call("mfserv.start", &[]);
    if recovers(&places) {
        return Ok(Outcome::Done);
    }
    if keeper::connect(&places).is_err() {
        // It was not stopped by somebody: the next call tries again.
        let state = format!("{}\n", NodeState::Error);
        let written = disk::replace(&places.status_file(), 0o644, state.as_bytes());
        written.map_err(|error| disk::failed("write", &places.status_file(), error))?;
    }
    failed()
}

/// The node is meant to run, and nobody is about to start or stop it.
fn is_looked_after(places: &Places) -> bool {
    let block = places.var().join("block_autorestart");
    match age(&block) {
        Some(age) if age < OLD => return false,
        Some(_) => drop(fs::remove_file(&block)),
        None => {}
    }
    let file = places.status_file();
    match NodeState::parse(&fs::read_to_string(&file).unwrap_or_default()) {
        NodeState::Unknown | NodeState::Stopped => false,
        NodeState::Starting | NodeState::Stopping => age(&file).is_some_and(|age| age >= OLD),
        NodeState::Running | NodeState::Error => true,
    }
}

/// How long ago a file was written. A time in the future is none.
fn age(file: &Path) -> Option<Duration> {
    let written = fs::metadata(file).and_then(|found| found.modified()).ok()?;
    Some(SystemTime::now().duration_since(written).unwrap_or_default())
}

/// Waits until the node is well, for some time. Without a keeper nothing comes back by itself.
fn recovers(places: &Places) -> bool {
    let began = Instant::now();
    loop {
        if is_well(places) {
            return true;
        }
        if began.elapsed() > RECOVERS || keeper::connect(places).is_err() {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Runs `mfserv.status` and leaves what it said in `var/status.json`.
fn is_well(places: &Places) -> bool {
    let mut command = command("mfserv.status", &[]);
    // A pipe that is not read would hold it up: a file holds everything.
    let said = places.tmp().join("autorestart.status");
    let Ok(out) = fs::File::create(&said) else { return false };
    command.stdout(out).stderr(Stdio::null());
    let code = command.spawn().and_then(|mut child| ends_within(&mut child, CHECK));
    let text = fs::read_to_string(&said).unwrap_or_default();
    let _ = fs::remove_file(&said);
    let report = Report {
        status: checks(&text),
        date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    };
    let json = serde_json::to_vec_pretty(&report).unwrap_or_default();
    if let Err(error) = disk::replace(&places.var().join("status.json"), 0o644, &json) {
        complain(&format!("var/status.json cannot be written: {error}"));
    }
    matches!(code, Ok(0))
}

/// The checks in the output of `mfserv.status`, by title: `- Checking TITLE... [ STATUS ]`.
fn checks(text: &str) -> BTreeMap<String, String> {
    let checks = text.lines().filter_map(|line| {
        let line = line.strip_prefix("- ")?;
        let of = ["Checking ", "Collecting ", "Testing "];
        let line = of.iter().find_map(|verb| line.strip_prefix(verb))?;
        let (title, rest) = line.split_once("... [ ")?;
        let (status, _) = rest.split_once(" ]")?;
        Some((title.to_owned(), status.to_owned()))
    });
    checks.collect()
}

/// Runs another command of MFSERV; what it says is said.
fn call(name: &str, args: &[&str]) {
    let ended = command(name, args).spawn().and_then(|mut child| ends_within(&mut child, CHANGE));
    if let Err(error) = ended {
        complain(&format!("{name}: {error}"));
    }
}

/// This program under another of its names, in a process group of its own.
fn command(name: &str, args: &[&str]) -> Command {
    #[expect(clippy::disallowed_methods, reason = "it is this program, under another name")]
    let mut command = Command::new(mfserv_node::program());
    command.arg0(name).args(args).env("NOINTERACTIVE", "1").stdin(Stdio::null()).process_group(0);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checks_of_a_status_are_read_by_their_titles() {
        let text = "***\n- Checking circus status... [ OK ]\n\
                    - Checking plugin: a (http)... [ WARNING ] \n=> why\n- Starting x... [ OK ]\n\
                    - Checking nginx uuid... [ ERROR ]\nOK !\n";
        let wanted =
            [("circus status", "OK"), ("nginx uuid", "ERROR"), ("plugin: a (http)", "WARNING")];
        let found = checks(text);
        let found: Vec<(&str, &str)> =
            found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_node_is_looked_after_unless_it_is_stopped_blocked_or_changing() {
        let home = tempfile::tempdir().unwrap();
        let places = Places::choose(Some(home.path())).unwrap();
        places.create().unwrap();
        let long_ago = SystemTime::now() - OLD - Duration::from_secs(1);
        let date_back = |file: &Path| {
            fs::File::options().write(true).open(file).unwrap().set_modified(long_ago).unwrap();
        };
        assert!(!is_looked_after(&places), "it was never started");
        for (state, now, later) in [
            ("RUNNING", true, true),
            ("ERROR", true, true),
            ("STOPPED", false, false),
            ("STARTING", false, true),
            ("STOPPING", false, true),
        ] {
            fs::write(places.status_file(), state).unwrap();
            assert_eq!(is_looked_after(&places), now, "{state}");
            date_back(&places.status_file());
            assert_eq!(is_looked_after(&places), later, "{state}, long ago");
        }
        fs::write(places.status_file(), "RUNNING").unwrap();
        let block = places.var().join("block_autorestart");
        fs::write(&block, "").unwrap();
        assert!(!is_looked_after(&places));
        date_back(&block);
        assert!(is_looked_after(&places) && !block.exists());
    }
}
