//! What MFSERV (MetWork) has written into the crontab of the user: a block for itself and one for
//! each plugin, between marker lines. cron(8) runs these lines as long as they are there.

use std::collections::BTreeSet;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::python::on_path;

/// How long crontab(1) may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// So much of a crontab is read, bytes.
const MOST: u64 = 4 << 20;

/// The blocks of MFSERV in the crontab of this user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blocks {
    /// There is the one of MFSERV itself.
    pub module: bool,
    /// The plugins that have one.
    pub plugins: BTreeSet<String>,
}

/// What was found last: a crontab(1) that does not answer in time says nothing new, and lines
/// that cron(8) runs must not be run twice meanwhile.
static KNOWN: Mutex<Option<Blocks>> = Mutex::new(None);

/// The blocks that are there now, or that were there when crontab(1) answered last. None where the
/// machine has no crontab(1) or the user no crontab.
pub fn blocks() -> Blocks {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = ask() {
        *known = Some(found);
    }
    known.clone().unwrap_or_default()
}

/// `None`: no answer in time.
fn ask() -> Option<Blocks> {
    let Some(program) = on_path("crontab") else { return Some(Blocks::default()) };
    #[expect(clippy::disallowed_methods, reason = "only crontab(1) may read the user's crontab")]
    let mut command = Command::new(program);
    command.arg("-l").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return Some(Blocks::default()) };
    let stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(stdout) = stdout {
            let _ = stdout.take(MOST).read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    let deadline = Instant::now() + PATIENCE;
    while !reader.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    let in_time = reader.is_finished();
    let _ = child.kill();
    // One that waits for a file system that does not answer cannot be killed: nobody waits for it.
    std::thread::spawn(move || child.wait());
    if in_time { reader.join().ok().map(|text| in_text(&text)) } else { None }
}

fn in_text(crontab: &str) -> Blocks {
    let mut blocks = Blocks::default();
    for line in crontab.lines() {
        let inner = line.trim().strip_prefix("##### BEGINNING OF METWORK MFSERV ");
        match inner.and_then(|rest| rest.strip_suffix(" CRONTAB #####")) {
            Some("MODULE") => blocks.module = true,
            Some(rest) => blocks.plugins.extend(rest.strip_prefix("PLUGIN ").map(str::to_owned)),
            None => {}
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_lines_of_mfserv_are_found_among_lines_of_the_user() {
        let text = "MAILTO=me\n##### BEGINNING OF METWORK MFSERV MODULE CRONTAB #####\n\
                    */5 * * * * x\n##### END OF METWORK MFSERV MODULE CRONTAB #####\n\
                    ##### BEGINNING OF METWORK MFSERV PLUGIN my-shop CRONTAB #####\n\
                    # ##### BEGINNING OF METWORK MFSERV PLUGIN other CRONTAB #####\n\
                    ##### BEGINNING OF METWORK MFDATA PLUGIN third CRONTAB #####\n";
        let blocks = in_text(text);
        assert!(blocks.module);
        assert_eq!(blocks.plugins.into_iter().collect::<Vec<_>>(), ["my-shop"]);
        assert_eq!(in_text("0 1 * * * x\n"), Blocks::default());
    }
}
