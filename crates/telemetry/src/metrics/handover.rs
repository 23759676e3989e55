//! `[telegraf] agent=telegraf`: the points of mfserv itself are handed to Telegraf, over
//! `var/telegraf.socket`, as MFSERV's collector did.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mfserv_platform::clock::now_ms;
use mfserv_platform::sync::lock;

use super::LOOK;
use super::own::Own;
use super::point::Point;
use super::registry::Registry;

/// How often, milliseconds.
const EVERY_MS: u64 = 10_000;
/// How long after the beginning of Telegraf's window: its aggregators begin a new one meanwhile.
const OFFSET_MS: u64 = 2_000;
/// The most starts and stops of the node that wait for Telegraf.
const CHANGES_MAX: usize = 8;
/// How long Telegraf may take to read.
const PATIENCE: Duration = Duration::from_secs(5);

/// Hands points over, in a thread.
pub struct Handover {
    /// Set when it is to end.
    pub ends: Arc<AtomicBool>,
    /// What was counted.
    pub registry: Arc<Mutex<Registry>>,
    /// The points of mfserv.
    pub own: Own,
    /// Where Telegraf receives lines.
    pub socket: PathBuf,
}

impl Handover {
    /// Hands points over until it is to end; then the last ones.
    pub fn run(mut self) {
        let (mut said, mut next, mut changes) = (String::new(), next_turn(), Vec::new());
        loop {
            std::thread::sleep(LOOK);
            let is_end = self.ends.load(Ordering::Relaxed);
            let now = now_ms();
            // A turn that is too far away was chosen before the clock went back.
            let is_due = now >= next || next > next_turn() || is_end;
            changes.extend(self.own.changes(is_end));
            if is_due || !changes.is_empty() {
                match self.hand_over(&changes, is_due) {
                    Ok(()) => {
                        said.clear();
                        changes.clear();
                    }
                    Err(why) => super::report_once(
                        &mut said,
                        format!("Telegraf takes no points at {}: {why}", self.socket.display()),
                    ),
                }
                next = if is_due { next_turn() } else { next };
                // Telegraf may be starting: they are handed over when it listens.
                changes.truncate(CHANGES_MAX);
            }
            if is_end {
                return;
            }
        }
    }

    /// Hands over these points, and those of everything that was counted if that `is_due`. Nothing
    /// is taken out of the registry before Telegraf listens: what was counted meanwhile is in the
    /// points of the next time.
    fn hand_over(&mut self, changes: &[Point], is_due: bool) -> std::io::Result<()> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut points = changes.to_vec();
        if is_due {
            let (snapshot, timings) = {
                let mut registry = lock(&self.registry);
                (registry.snapshot(), registry.take_timings())
            };
            points.extend(self.own.points(&snapshot, timings));
        }
        let (mut lines, at_ns) = (String::new(), now_ms() as i64 * 1_000_000);
        points.iter().for_each(|point| point.write(&mut lines, at_ns));
        stream.write_all(lines.as_bytes())
    }
}

fn next_turn() -> u64 {
    let now = now_ms().saturating_sub(OFFSET_MS);
    (now / EVERY_MS + 1) * EVERY_MS + OFFSET_MS
}
