//! Sends points to InfluxDB, 1.x or 2.x. What it does not take now is kept on the disk, within
//! a bound, and sent later, the oldest first.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use mfserv_core::Diagnostic;
use mfserv_core::telemetry::InfluxSettings;

use super::spool::Spool;
use crate::ship::http::{Credentials, Nodes, Target};

/// The first wait after a failure, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Lines for one resolution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The resolution, which is the retention policy of InfluxDB 1.x.
    pub resolution: String,
    /// The lines.
    pub lines: String,
}

/// Why InfluxDB did not take a batch.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// It may take it later.
    Later(String),
    /// It never will.
    Never(String),
}

/// Sends to one InfluxDB, in a thread.
pub struct Sender {
    nodes: Nodes,
    settings: InfluxSettings,
    spool: Spool,
    wait: Duration,
    again: Instant,
    said: String,
}

impl Sender {
    /// One that has sent nothing yet. `spool`: the directory of what could not be sent.
    pub fn new(settings: InfluxSettings, spool: PathBuf) -> Result<Self, Diagnostic> {
        let credentials = match (&settings.token, &settings.username) {
            (Some(token), _) => Credentials::Token(token.clone()),
            (None, Some(user)) => Credentials::Basic {
                user: user.clone(),
                password: settings.password.clone().unwrap_or_default(),
            },
            (None, None) => Credentials::None,
        };
        let target = Target {
            nodes: vec![settings.url.clone()],
            credentials,
            authorities: None,
            gzip: true,
        };
        let (wait, again) = (WAITS.0, Instant::now());
        let spool = Spool::open(spool)?;
        Ok(Self { nodes: Nodes::new(target)?, settings, spool, wait, again, said: String::new() })
    }

    /// Sends until the other end of `batches` is gone; what is left then is on the disk.
    pub fn run(mut self, batches: &Receiver<Batch>) {
        loop {
            let patience = match self.spool.is_empty() {
                true => Duration::from_secs(3600),
                false => self.again.saturating_duration_since(Instant::now()),
            };
            match batches.recv_timeout(patience) {
                Ok(batch) => self.take(batch),
                Err(RecvTimeoutError::Timeout) => self.send_oldest(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn take(&mut self, batch: Batch) {
        // While it does not answer, nobody waits for it: what is new goes to the disk too.
        let failure = match self.spool.is_empty() {
            true => self.send(&batch),
            false => Err(Failure::Later(String::new())),
        };
        if let Err(Failure::Later(why)) = failure {
            let was_empty = self.spool.is_empty();
            if let Err(why) = self.spool.push(&batch) {
                super::report_once(&mut self.said, format!("points are lost: {why}"));
            }
            if was_empty {
                self.fail(&why);
            }
        }
    }

    fn send_oldest(&mut self) {
        let Some((file, batch)) = self.spool.oldest() else { return };
        match self.send(&batch) {
            Err(Failure::Later(why)) => self.fail(&why),
            _ => {
                self.spool.remove(&file);
                (self.wait, self.again) = (WAITS.0, Instant::now());
            }
        }
    }

    fn fail(&mut self, why: &str) {
        self.again = Instant::now() + self.wait;
        self.wait = (self.wait * 2).min(WAITS.1);
        let text =
            format!("InfluxDB at {} takes no points, they are kept: {why}", self.nodes.current());
        super::report_once(&mut self.said, text);
    }

    fn send(&mut self, batch: &Batch) -> Result<(), Failure> {
        let path = self.path(&batch.resolution);
        let kind = "text/plain; charset=utf-8";
        let answer = self.nodes.send("POST", &path, kind, batch.lines.as_bytes());
        let answer = answer.map_err(Failure::Later)?;
        let said = || {
            let body = String::from_utf8_lossy(&answer.body);
            format!("{} {}", answer.status, body.chars().take(300).collect::<String>().trim())
        };
        match answer.status {
            200..=299 => Ok(()),
            // Some points are wrong (a field of another type…); the others were taken.
            400 | 413 | 422 => {
                super::report_once(&mut self.said, format!("InfluxDB refuses points: {}", said()));
                Err(Failure::Never(said()))
            }
            // No such database, wrong password, too busy: an operator or time mends it.
            _ => Err(Failure::Later(said())),
        }
    }

    fn path(&self, resolution: &str) -> String {
        let settings = &self.settings;
        match (&settings.token, &settings.org) {
            (Some(_), org) => format!(
                "/api/v2/write?org={}&bucket={}&precision=ns",
                encode(org.as_deref().unwrap_or_default()),
                encode(settings.bucket.as_deref().unwrap_or(&settings.database))
            ),
            (None, _) => {
                format!("/write?db={}&rp={resolution}&precision=ns", encode(&settings.database))
            }
        }
    }
}

/// Percent-encodes a value of a query.
fn encode(value: &str) -> String {
    let mut encoded = String::new();
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(byte as char);
            }
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
