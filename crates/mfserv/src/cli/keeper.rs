//! Starting a keeper, and finding one that lives.

use std::io::BufRead;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mfserv_core::{Diagnostic, Kind};
use mfserv_keeper::Client;

use mfserv_node::control::client;
use mfserv_node::host;
use mfserv_node::places::Places;

/// How long a daemon may take to answer a question about itself.
pub const QUICK: Duration = Duration::from_secs(10);
/// How often a state that is waited for is looked at.
pub const LOOK: Duration = Duration::from_millis(50);

/// A link to the keeper that lives.
pub fn connect(places: &Places) -> Result<Client, Diagnostic> {
    Client::connect(&places.keep_socket(), "cli")
}

/// Starts a keeper that outlives this command; returns when its socket listens.
pub fn start_keeper(places: &Places, sets: &[String]) -> Result<(), Diagnostic> {
    let mut command = keeper_command(places)?;
    for set in sets {
        command.args(["--set", set]);
    }
    ready(command)
}

/// A node of another user is not started or stopped by a new keeper of ours: the daemon of that
/// user may not connect to it, and files that only root may write would be left in the home.
pub fn refuse_other_user(places: &Places) -> Result<(), Diagnostic> {
    let Ok(run) = std::fs::metadata(places.run()) else { return Ok(()) };
    if run.uid() == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let user = host::user_name(run.uid()).unwrap_or_else(|| run.uid().to_string());
    Err(Diagnostic::error(format!("the node belongs to the user {user}"))
        .kind(Kind::Refused)
        .because(format!("{} is that user's", places.run().display()))
        .help("run the command as that user (runuser -u USER -- mfserv …)"))
}

pub fn keeper_command(places: &Places) -> Result<Command, Diagnostic> {
    refuse_other_user(places)?;
    let path = places.log().join("keeper.log");
    let log = std::fs::File::options().create(true).append(true).open(&path);
    let log =
        log.map_err(|e| Diagnostic::error(format!("cannot write {}", path.display())).because(e))?;
    #[expect(
        clippy::disallowed_methods,
        reason = "the keeper has no parent of ours but the command line"
    )]
    let mut command = Command::new(mfserv_node::program());
    command.args(["keep", "--ready-on-stdout", "--home"]).arg(places.home());
    command.current_dir(places.home()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    Ok(command)
}

pub fn ready(mut command: Command) -> Result<(), Diagnostic> {
    let failed =
        |e: &dyn std::fmt::Display| Diagnostic::error("the keeper does not start").because(e);
    let mut child: Child = command.spawn().map_err(|e| failed(&e))?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        let _ = std::io::BufReader::new(out).read_line(&mut line);
    }
    if line.trim() == "ready" {
        return Ok(());
    }
    let status = child.wait().map_err(|e| failed(&e))?;
    Err(failed(&format!("it ended: {status}")).help("log/keeper.log in the runtime home says why"))
}

/// Without a keeper nothing can be stopped in order: a new one adopts what an
/// earlier one left. Returns once a daemon that lives knows of it, and whether there is a new one:
/// it starts no daemon.
pub fn bring_back_keeper(places: &Places) -> Result<bool, Diagnostic> {
    let left_something = places.run().join("keeper.json").exists();
    if !left_something || connect(places).is_ok() {
        return Ok(false);
    }
    let mut command = keeper_command(places)?;
    command.arg("--no-daemon");
    ready(command)?;
    let began = Instant::now();
    while began.elapsed() < QUICK {
        let status = client::status(&places.control_socket(), QUICK);
        if !status.is_ok_and(|status| status.keeper.is_none()) {
            break;
        }
        std::thread::sleep(LOOK);
    }
    Ok(true)
}

pub fn reconnect(places: &Places) -> Result<mfserv_keeper::Client, Diagnostic> {
    let began = Instant::now();
    loop {
        match connect(places) {
            Err(_) if began.elapsed() < QUICK => std::thread::sleep(LOOK),
            other => return other,
        }
    }
}
