//! Alerts: conditions over what the history counts, looked at once a second, shown by `mfserv
//! alerts` and sent to webhooks. What fires is stored, so that a new process resolves it.

mod evaluate;
mod webhook;
mod window;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mfserv_core::alerts::Alert;
use mfserv_platform::clock::now_ms;
use mfserv_platform::disk;
use mfserv_platform::sync::lock;
use serde::{Deserialize, Serialize};

use super::history::History;
use super::registry::Registry;
use super::{LOOK, report_once};
use evaluate::{Change, Evaluator, Firing, Now};
use webhook::{Receiver, Unsent, Webhooks};

/// How often conditions are looked at.
const EVERY: Duration = Duration::from_secs(1);

/// What an alert does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its condition does not hold.
    Ok,
    /// Its condition holds, not for long enough yet.
    Pending,
    /// It fires.
    Firing,
}

/// An alert, as it is shown: one for each app where it is pending or fires, else one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub alert: String,
    /// Its condition, as it is written.
    pub condition: String,
    /// What it does.
    pub state: State,
    /// The plugin; empty for the whole node.
    pub plugin: String,
    /// The app; empty for the whole node.
    pub app: String,
    /// The value, with its unit; empty while the state is `ok`.
    pub value: String,
    /// Since when it is in this state, milliseconds since the Unix epoch; 0 while it is `ok`.
    pub since_ms: u64,
}

/// What is shown to whoever asks.
pub type Shown = Arc<Mutex<Vec<Status>>>;

/// What the next process has to know.
#[derive(Default, Serialize, Deserialize)]
struct Stored {
    #[serde(default)]
    firing: Vec<Firing>,
    #[serde(default)]
    unsent: Vec<Unsent>,
}

/// How far the file has what it is to have.
#[derive(Default)]
struct Kept {
    /// What of the messages that no receiver has taken was last written.
    unsent: Vec<Unsent>,
    /// Something is not written yet: it is tried again until it is.
    is_dirty: bool,
    problem: String,
}

/// Looks at the conditions, in a thread of its own.
pub struct Watch {
    /// The alerts.
    pub alerts: Vec<Alert>,
    /// The name of this host.
    pub host: String,
    /// The file of what fires.
    pub state: PathBuf,
    /// What is counted.
    pub history: Arc<History>,
    /// What the daemon says.
    pub registry: Arc<Mutex<Registry>>,
    /// What is shown.
    pub shown: Shown,
    /// Raised when it is to end.
    pub ends: Arc<AtomicBool>,
}

impl Watch {
    /// Looks until it is to end.
    pub fn run(self) {
        let Stored { firing, unsent } = self.restore();
        let (mut evaluator, removed) = Evaluator::new(self.alerts.clone(), firing, now_ms());
        let all = self.alerts.iter().chain(removed.iter().map(|change| &change.alert));
        let receivers = all.filter_map(Receiver::of);
        let receivers = receivers.chain(unsent.iter().map(|one| one.to.clone()));
        let webhooks = Webhooks::start(receivers, &self.host);
        webhooks.send_again(unsent.clone());
        let mut kept = Kept { unsent, ..Kept::default() };
        self.publish(&evaluator, removed, &webhooks, &mut kept);
        *lock(&self.shown) = evaluator.shown();
        let window_s = evaluator.longest_window_s();
        self.history.read_back(window_s, &mut |tick| evaluator.add(&tick));
        let mut looked = Instant::now();
        while !self.ends.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK);
            if looked.elapsed() < EVERY {
                continue;
            }
            looked = Instant::now();
            let now = Now {
                disk_free: self.state.parent().and_then(free_percent),
                state: lock(&self.registry).node().map(|(_, node)| node.state),
                ticks: self.history.after(evaluator.last()),
            };
            let changes = evaluator.step(now_ms(), &now);
            *lock(&self.shown) = evaluator.shown();
            self.publish(&evaluator, changes, &webhooks, &mut kept);
        }
        self.publish(&evaluator, Vec::new(), &webhooks, &mut kept);
    }

    /// Says what has changed, and stores what fires and what no receiver has taken.
    fn publish(
        &self,
        evaluator: &Evaluator,
        changes: Vec<Change>,
        webhooks: &Webhooks,
        kept: &mut Kept,
    ) {
        kept.is_dirty |= changes.iter().any(|change| !change.is_repeated);
        for change in changes {
            webhooks.send(&change);
        }
        let unsent = webhooks.unsent();
        kept.is_dirty |= unsent != kept.unsent;
        if !kept.is_dirty {
            return;
        }
        kept.unsent.clone_from(&unsent);
        match self.store(&Stored { firing: evaluator.firing(), unsent }) {
            Ok(()) => (kept.is_dirty, kept.problem) = (false, String::new()),
            Err(why) => {
                report_once(&mut kept.problem, format!("what fires is not stored: {why}"));
            }
        }
    }

    /// What fired when the last process ended. A file that cannot be read is as good as none.
    fn restore(&self) -> Stored {
        let text = std::fs::read(&self.state).unwrap_or_default();
        let stored = serde_json::from_slice(&text).or_else(|_| {
            // An older process has stored what fires only.
            serde_json::from_slice(&text).map(|firing| Stored { firing, ..Stored::default() })
        });
        stored.unwrap_or_default()
    }

    fn store(&self, stored: &Stored) -> Result<(), String> {
        if let Some(dir) = self.state.parent() {
            disk::create_dir(dir).map_err(|problem| problem.to_string())?;
        }
        let text = serde_json::to_vec(stored).map_err(|e| e.to_string())?;
        // The addresses of receivers are often secrets.
        disk::replace(&self.state, 0o600, &text).map_err(|why| why.to_string())
    }
}

/// The space that users may still use, percent. The directory, or one above it, exists.
fn free_percent(dir: &Path) -> Option<f64> {
    let found = dir.ancestors().find_map(|dir| rustix::fs::statvfs(dir).ok())?;
    (found.f_blocks > 0).then(|| found.f_bavail as f64 / found.f_blocks as f64 * 100.0)
}

#[cfg(test)]
mod tests {
    use mfserv_core::alerts::Quantity;

    use super::*;

    /// What watches an alert that fires for a full disk.
    fn watch(state: PathBuf) -> Watch {
        let alert = Alert {
            name: "x".into(),
            condition: "disk < 5%".into(),
            quantity: Quantity::Disk,
            threshold: 5.0,
            for_s: 0,
            window_s: 60,
            plugin: None,
            app: None,
            webhook: None,
            ca: None,
            command: None,
            repeat_s: 0,
        };
        Watch {
            alerts: vec![alert],
            host: "h".into(),
            state,
            history: Arc::new(History::new(None)),
            registry: Arc::new(Mutex::new(Registry::new(false))),
            shown: Shown::default(),
            ends: Arc::default(),
        }
    }

    #[test]
    fn what_fires_is_stored_later_if_it_cannot_be_now_and_read_as_older_processes_wrote_it() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("below");
        std::fs::write(&below, "a file in the place of the directory").unwrap();
        let watch = watch(below.join("alerts.json"));
        let (mut evaluator, _) = Evaluator::new(watch.alerts.clone(), Vec::new(), 0);
        let webhooks = Webhooks::start(std::iter::empty(), "h");
        let mut kept = Kept::default();
        let now = Now { disk_free: Some(1.0), ..Now::default() };
        let changes = evaluator.step(60_000, &now);
        assert_eq!(changes.len(), 1);
        watch.publish(&evaluator, changes, &webhooks, &mut kept);
        std::fs::remove_file(&below).unwrap();
        watch.publish(&evaluator, Vec::new(), &webhooks, &mut kept);
        assert_eq!(watch.restore().firing, evaluator.firing());

        let stored: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&watch.state).unwrap()).unwrap();
        let fewer = serde_json::json!({"firing": [{"alert": stored["firing"][0]["alert"]}]});
        for older in [&stored["firing"], &fewer] {
            std::fs::write(&watch.state, older.to_string()).unwrap();
            assert_eq!(watch.restore().firing.len(), 1, "{older}");
        }
    }
}
