//! `socket_activate`: becomes a program that gets its socket as systemd gives one (sd_listen_fds(3)).

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

use mfserv_core::{Diagnostic, Kind};
use rustix::io::{FdFlags, fcntl_setfd};

use super::plugins::env::become_command;
use super::report::Outcome;

/// The number of the first socket (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

/// The name of the command, as plugins write it.
pub const NAME: &str = "socket_activate";

/// Runs it: `socket_activate UNIX_SOCKET PROGRAM [ARGUMENT]…`.
pub fn run() -> Result<Outcome, Diagnostic> {
    let mut words = std::env::args().skip_while(|word| word != NAME).skip(1);
    let (socket, command) = (words.next(), words.collect::<Vec<String>>());
    let Some(socket) = socket.filter(|_| !command.is_empty()) else {
        return Err(Diagnostic::error("socket_activate has nothing to run")
            .kind(Kind::Usage)
            .help("write `socket_activate {unix_socket_path} PROGRAM ARGUMENTS`"));
    };
    let failed = |why: std::io::Error| {
        Diagnostic::error(format!("{socket} cannot be listened on")).because(why)
    };
    let listener = OwnedFd::from(UnixListener::bind(&socket).map_err(failed)?);
    if listener.as_raw_fd() != FIRST {
        return Err(Diagnostic::error("the socket cannot be given to the program")
            .because(format!("descriptor {FIRST} was inherited, and is not closed")));
    }
    fcntl_setfd(&listener, FdFlags::empty()).map_err(|why| failed(why.into()))?;
    let mut env: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    env.insert("LISTEN_FDS".into(), "1".into());
    // The program has this number too.
    env.insert("LISTEN_PID".into(), std::process::id().to_string());
    Ok(become_command(&command, &env, None))
}
