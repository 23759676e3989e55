//! `restart`, `reload`, `scale`, `upgrade`: a running node changes, under load.

use std::time::{Duration, Instant};

use clap::Args;
use clap_complete::ArgValueCompleter;
use mfserv_core::status::Status;
use mfserv_core::wire::keeper as keep;
use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::{Cancel, Progress};

use super::completions;
use super::keeper::{self, LOOK, QUICK};
use super::progress::Steps;
use super::report::{self, Outcome};
use super::start::wait_until_running;
use super::{print, print_json};
use mfserv_node::control::client;
use mfserv_node::control::protocol::{Applied, Ask};
use mfserv_node::places::Places;

/// How long an operation that changes workers is waited for.
#[derive(Debug, Args)]
pub struct Wait {
    /// Return before the change is served.
    #[arg(long)]
    pub no_wait: bool,
    /// Longest wait, seconds.
    #[arg(long, default_value_t = 120)]
    pub timeout: u64,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
}

impl Wait {
    fn seconds(&self) -> u64 {
        if self.no_wait { 0 } else { self.timeout.max(1) }
    }

    /// Asks the daemon, waits, and says what changed.
    pub fn ask(
        &self,
        places: &Places,
        what: &str,
        ask: impl Fn(u64) -> Ask,
    ) -> Result<Applied, Diagnostic> {
        self.ask_unless(places, what, &Cancel::default(), ask)
    }

    /// [`Wait::ask`], unless the user has enough of it.
    pub fn ask_unless(
        &self,
        places: &Places,
        what: &str,
        cancel: &Cancel,
        ask: impl Fn(u64) -> Ask,
    ) -> Result<Applied, Diagnostic> {
        let mut steps = Steps::new();
        let seconds = self.seconds();
        if seconds > 0 {
            steps.step(what);
        }
        let patience = QUICK + Duration::from_secs(seconds * 2 + 60);
        client::ask_unless(&places.control_socket(), &ask(seconds), patience, cancel)
    }

    fn say(&self, applied: &Applied) -> Result<Outcome, Diagnostic> {
        if self.json {
            print_json(applied)?;
            return Ok(Outcome::Done);
        }
        print(&format!("done: {}\n", applied.changes));
        applied.problems.iter().for_each(report::print_problem);
        Ok(Outcome::Done)
    }
}

#[derive(Debug, Args)]
pub struct Restart {
    /// Plugins (`foo`), apps (`foo.main`) or `front`; without any: everything.
    #[arg(add = ArgValueCompleter::new(completions::apps))]
    apps: Vec<String>,
    #[command(flatten)]
    wait: Wait,
}

impl Restart {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let applied = self.wait.ask(places, "replacing workers one after the other", |wait_s| {
            Ask::Restart { apps: self.apps.clone(), wait_s }
        })?;
        if self.apps.is_empty() {
            self.wait.ask(places, "replacing the front", |wait_s| Ask::Restart {
                apps: vec!["front".into()],
                wait_s,
            })?;
        }
        self.wait.say(&applied)
    }
}

#[derive(Debug, Args)]
pub struct Reload {
    #[command(flatten)]
    wait: Wait,
}

impl Reload {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let applied =
            self.wait.ask(places, "reading everything again", |wait_s| Ask::Reload { wait_s })?;
        self.wait.say(&applied)
    }
}

#[derive(Debug, Args)]
pub struct Scale {
    /// The app (`foo`, `foo.main`).
    #[arg(add = ArgValueCompleter::new(completions::apps))]
    app: String,
    /// The number of workers; `config` returns to the configured number.
    count: String,
    #[command(flatten)]
    wait: Wait,
}

impl Scale {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let count = match self.count.as_str() {
            "config" => None,
            text => Some(text.parse::<u32>().ok().filter(|n| *n <= 4096).ok_or_else(|| {
                Diagnostic::error(format!("{text:?} is not a number of workers"))
                    .kind(Kind::Usage)
                    .help("say a number from 0 to 4096, or `config`")
            })?),
        };
        let applied = self.wait.ask(places, "scaling", |wait_s| Ask::Scale {
            app: self.app.clone(),
            count,
            wait_s,
        })?;
        self.wait.say(&applied)
    }
}

#[derive(Debug, Args)]
pub struct Upgrade {
    #[command(flatten)]
    wait: Wait,
}

impl Upgrade {
    /// Keeper by execve, then the daemon, then the front by handover. Apps are not touched.
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let before: Status = client::status(&places.control_socket(), QUICK)?;
        let mut keeper = keeper::connect(places)?;
        if let keep::Answer::Refused { reason, .. } =
            keeper.ask(keep::Ask::Upgrade { program: mfserv_node::program() })?
        {
            return Err(Diagnostic::error("the keeper goes on as it was").because(reason));
        }
        drop(keeper);
        let mut keeper = keeper::reconnect(places)?;
        let daemon = mfserv_keeper::DAEMON.to_string();
        keeper.ask(keep::Ask::Signal { id: daemon, signal: 15, scope: keep::Scope::Process })?;
        let mut steps = Steps::new();
        let began = Instant::now();
        while wait_until_running(places, Duration::from_secs(60), &mut steps)?.daemon.pid
            == before.daemon.pid
        {
            if began.elapsed() > Duration::from_secs(60) {
                return Err(Diagnostic::error("the daemon was not replaced").kind(Kind::Timeout));
            }
            std::thread::sleep(LOOK);
        }
        let front = self.wait.ask(places, "replacing the front", |wait_s| Ask::Restart {
            apps: vec!["front".into()],
            wait_s,
        })?;
        self.wait.say(&front)
    }
}
