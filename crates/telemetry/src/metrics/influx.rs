//! Sends points to InfluxDB, 1.x or 2.x. What it does not take now is kept on the disk, within
//! a bound, and sent later, the oldest first. The resolutions do not wait for each other: a
//! retention policy that is missing stops its own points alone.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mfserv_core::Diagnostic;
use mfserv_core::telemetry::InfluxSettings;
use mfserv_platform::sync::lock;

use super::spool::{Batch, Spool};
use crate::ship::http::{Credentials, Nodes, Target};
use crate::troubles::Troubles;

/// The first wait after a failure, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long nothing is looked for while nothing waits.
const IDLE: Duration = Duration::from_secs(3600);

/// Why InfluxDB did not take a batch.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// It may take it later.
    Later(String),
    /// It never will.
    Never,
}

/// When a resolution is tried, after failures.
#[derive(Debug, Clone, Copy)]
struct Turn {
    wait: Duration,
    at: Instant,
}

/// Sends to one InfluxDB, in a thread.
pub struct Sender {
    nodes: Nodes,
    settings: InfluxSettings,
    spool: Arc<Mutex<Spool>>,
    /// By resolution.
    turns: BTreeMap<&'static str, Turn>,
    /// What was said last, by resolution.
    said: BTreeMap<&'static str, String>,
    troubles: Arc<Troubles>,
}

impl Sender {
    /// One that has sent nothing yet. `spool`: what it sends.
    pub fn new(
        settings: InfluxSettings,
        spool: Arc<Mutex<Spool>>,
        troubles: Arc<Troubles>,
    ) -> Result<Self, Diagnostic> {
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
        let nodes = Nodes::new(target)?;
        let (turns, said) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { nodes, settings, spool, turns, said, troubles })
    }

    /// Sends whenever `woken` says that there is something, until its other end is gone; what
    /// InfluxDB does not take then is on the disk.
    pub fn run(mut self, woken: &Receiver<()>) {
        loop {
            let patience = self.patience();
            match woken.recv_timeout(patience) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => drop(self.send_next()),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        while self.send_next() {}
        self.store();
    }

    /// How long to wait until a resolution is to be tried.
    fn patience(&self) -> Duration {
        let next = self.next().map(|(at, _)| at);
        next.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()))
    }

    /// The resolution that has waited longest for its turn, and when that is.
    fn next(&self) -> Option<(Instant, &'static str)> {
        let now = Instant::now();
        let waiting = lock(&self.spool).resolutions().into_iter();
        let turn = |resolution| (self.turns.get(resolution).map_or(now, |it| it.at), resolution);
        waiting.map(turn).min_by_key(|(at, _)| *at)
    }

    /// Sends a batch whose turn it is. Returns whether there was one.
    fn send_next(&mut self) -> bool {
        let next = self.next();
        let Some((_, resolution)) = next.filter(|(at, _)| *at <= Instant::now()) else {
            return false;
        };
        let Some((number, batch)) = lock(&self.spool).oldest(resolution) else { return true };
        match self.send(&batch) {
            Err(Failure::Later(why)) => self.fail(resolution, &why),
            taken => {
                let mut spool = lock(&self.spool);
                spool.remove(number);
                spool.refused += u64::from(taken.is_err());
                drop(spool);
                self.troubles.over(&self.what(resolution));
                self.turns.insert(resolution, Turn { wait: WAITS.0, at: Instant::now() });
            }
        }
        true
    }

    fn fail(&mut self, resolution: &'static str, why: &str) {
        let wait = self.turns.get(resolution).map_or(WAITS.0, |turn| turn.wait);
        let turn = Turn { wait: (wait * 2).min(WAITS.1), at: Instant::now() + wait };
        self.turns.insert(resolution, turn);
        let text = format!("InfluxDB takes none, they are kept: {why}");
        self.troubles.say(&self.what(resolution), &text);
        self.store();
    }

    /// What does not work while points of a resolution are not taken.
    fn what(&self, resolution: &str) -> String {
        format!("points of {resolution} to {}", self.nodes.current())
    }

    /// A process that is killed now loses nothing.
    fn store(&mut self) {
        let stored = lock(&self.spool).store();
        if let Err(why) = stored {
            let said = self.said.entry("").or_default();
            super::report_once(said, format!("points cannot be kept: {why}"));
        }
    }

    fn send(&mut self, batch: &Batch) -> Result<(), Failure> {
        let path = self.path(batch.resolution);
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
                let last = self.said.entry(batch.resolution).or_default();
                super::report_once(last, format!("InfluxDB refuses points: {}", said()));
                Err(Failure::Never)
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
                let (database, policy) = (encode(&settings.database), encode(resolution));
                format!("/write?db={database}&rp={policy}&precision=ns")
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc::{Sender as Channel, channel};

    use super::*;

    /// Answers 500 to points of `medres`, 204 to others, and tells what was asked for.
    fn answer(listener: &TcpListener, asked: &Channel<String>) {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap().to_lowercase();
            let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
            stream.read_exact(&mut vec![0; length.parse().unwrap()]).unwrap();
            let policy = head.split("rp=").nth(1).unwrap().split('&').next().unwrap().to_string();
            let status = if policy == "medres" { "500 No Policy" } else { "204 No Content" };
            let text =
                format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            // Before the answer: who has it looks at what was asked.
            if asked.send(policy).is_err() {
                return;
            }
            stream.write_all(text.as_bytes()).unwrap();
        }
    }

    #[test]
    fn a_resolution_that_is_refused_does_not_stop_the_others() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, was_asked) = channel();
        std::thread::spawn(move || answer(&listener, &asked));
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("points");
        let mut spool = Spool::open(kept.clone()).unwrap();
        for resolution in ["medres", "fullres", "medres", "lowres", "fullres"] {
            spool.push(Batch { resolution, lines: "m f=1 1\n".into() }).unwrap();
        }
        let spool = Arc::new(Mutex::new(spool));
        let settings = InfluxSettings { url, database: "db".into(), ..InfluxSettings::default() };
        let file = dir.path().join("reports.json");
        let troubles = Arc::new(Troubles::new(file.clone(), Arc::new(|_: &str| {})));
        let sender = Sender::new(settings, spool.clone(), troubles).unwrap();
        // The other end is gone: everything is tried, and what is refused is stored.
        let (wake, woken) = channel();
        drop(wake);
        sender.run(&woken);
        let mut all: Vec<String> = was_asked.try_iter().collect();
        all.sort();
        all.dedup();
        assert_eq!(all, ["fullres", "lowres", "medres"]);
        assert_eq!(lock(&spool).resolutions(), ["medres"], "the others are sent");
        assert_eq!(std::fs::read_dir(kept).unwrap().count(), 2);
        let reports = std::fs::read_to_string(file).unwrap();
        assert!(reports.contains("points of medres to http://127.0.0.1:"), "{reports}");
        assert!(!reports.contains("of fullres"), "{reports}");
    }
}
