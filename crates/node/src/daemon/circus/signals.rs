//! Signals to workers and to what they have started.

use std::path::Path;

use mfserv_core::names::WorkerId;
use mfserv_core::wire::keeper::{Ask, Scope};
use mfserv_platform::proc::ProcessTable;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

use super::Circus;
use super::message::Refusal;

/// SIGTERM of signal(7).
pub const TERM: i32 = 15;
/// SIGKILL of signal(7).
pub const KILL: i32 = 9;

/// The names of signal(7), by number from 1 on.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// `15`, `"15"`, `"TERM"` or `"SIGTERM"`. Signals without a name of their own are not sent.
pub fn number(value: &Value) -> Result<i32, Refusal> {
    let given = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let text = given.trim().to_uppercase();
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    let named = NAMES.iter().zip(1..).find(|(known, _)| **known == name).map(|(_, n)| n);
    named
        .or_else(|| text.parse().ok())
        .filter(|signal| (1..=NAMES.len() as i32).contains(signal))
        .ok_or_else(|| {
            // Circus has no more words; it sends these.
            let is_of_real_time =
                name.starts_with("RT") || text.parse().is_ok_and(|n: i32| (32..=64).contains(&n));
            let why = if is_of_real_time { ": real-time signals are not sent" } else { "" };
            Refusal::message(format!("signal invalid: {given}{why}"))
        })
}

/// Whom a signal is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// The processes of workers themselves.
    Workers,
    /// They and everything that they have started.
    Trees,
    /// What they have started themselves.
    Children,
    /// One process that they have started, themselves or through others.
    Child(u32),
}

impl Circus {
    /// Sends a signal to workers, or to what they have started.
    pub(super) async fn send(
        &self,
        workers: &[(WorkerId, u32)],
        signal: i32,
        to: To,
    ) -> Result<(), Refusal> {
        let scope = match to {
            To::Workers => Scope::Process,
            To::Trees => Scope::Tree,
            To::Children | To::Child(_) => return self.send_below(workers, signal, to).await,
        };
        for (id, pid) in workers {
            let ask = Ask::Signal { id: id.to_string(), signal, scope };
            let Err(problem) = self.node.parts.world.keeper.ask(ask).await else { continue };
            // One that has just ended needs no signal.
            if Path::new("/proc").join(pid.to_string()).exists() {
                return Err(problem.into());
            }
        }
        Ok(())
    }

    async fn send_below(
        &self,
        workers: &[(WorkerId, u32)],
        signal: i32,
        to: To,
    ) -> Result<(), Refusal> {
        let roots: Vec<u32> = workers.iter().map(|(_, pid)| *pid).collect();
        let sent = tokio::task::spawn_blocking(move || send_below(&roots, signal, to)).await;
        sent.map_err(|why| Refusal::command(why.to_string()))?
    }
}

/// Sends a signal to descendants of these processes. A descriptor is opened before its process is
/// looked at a second time, so that the signal reaches no process that has got its number since.
fn send_below(roots: &[u32], signal: i32, to: To) -> Result<(), Refusal> {
    let meant = || -> Vec<u32> {
        let table = ProcessTable::read(Path::new("/proc"));
        let below = |root: &u32| {
            let tree = table.tree(*root).into_iter().skip(1).copied().collect::<Vec<_>>();
            let is_meant = |process: &mfserv_platform::proc::Process| match to {
                To::Child(pid) => process.pid == pid,
                _ => process.parent == *root,
            };
            tree.into_iter().filter(is_meant).map(|process| process.pid).collect::<Vec<_>>()
        };
        roots.iter().flat_map(below).collect()
    };
    let found = meant();
    if let (To::Child(pid), true) = (to, found.is_empty()) {
        return Err(Refusal::message(format!("process {pid} was not started by this one")));
    }
    let open = |pid: u32| {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        pidfd_open(pid, PidfdFlags::empty()).ok()
    };
    let opened: Vec<_> = found.into_iter().filter_map(|pid| Some((pid, open(pid)?))).collect();
    let invalid = || Refusal::message(format!("signal invalid: {signal}"));
    let signal = Signal::from_named_raw(signal).ok_or_else(invalid)?;
    let still = meant();
    for (_, process) in opened.iter().filter(|(pid, _)| still.contains(pid)) {
        // One that has just ended is of no interest.
        let _ = pidfd_send_signal(process, signal);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_signal_is_a_number_or_a_name() {
        for (value, expected) in [
            (json!(15), 15),
            (json!("15"), 15),
            (json!("TERM"), 15),
            (json!("sigusr1"), 10),
            (json!("SIGSYS"), 31),
        ] {
            assert_eq!(number(&value), Ok(expected), "{value}");
        }
        for value in [
            json!(0),
            json!(32),
            json!("RTMIN+1"),
            json!(-9),
            json!("SIGNOPE"),
            json!("0x7"),
            json!(null),
        ] {
            let refusal = number(&value).unwrap_err();
            assert!(refusal.reason.starts_with("signal invalid: "), "{value}");
            let is_of_real_time = value == json!(32) || value == json!("RTMIN+1");
            let says = refusal.reason.ends_with(": real-time signals are not sent");
            assert_eq!(says, is_of_real_time, "{value}: {}", refusal.reason);
        }
    }
}
