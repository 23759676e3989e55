//! Steady load over kept connections, with a record of every failure.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::http::{Broken, Client, Method};
use crate::wait::until;

/// How long the answers that a test waits for may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The stack of a connection's thread, bytes.
const STACK: usize = 256 * 1024;

/// What load there is: each connection asks, waits for the answer, pauses, asks again.
#[derive(Debug, Clone)]
pub struct Load {
    address: SocketAddr,
    paths: Vec<String>,
    connections: usize,
    pause: Duration,
    post_every: u64,
    prefix: String,
}

/// A request that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Its id, as sent in `X-Load-Id`.
    pub id: String,
    /// GET or POST.
    pub method: Method,
    /// The status of the answer, when there was one.
    pub status: Option<u16>,
    /// The answer's `X-Mfserv-Cause`.
    pub cause: Option<String>,
    /// In words.
    pub why: String,
    /// It could not connect because nobody listened.
    pub refused: bool,
    /// When it failed, milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// What came of a load.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Ids of GETs answered with 2xx.
    pub gets: Vec<String>,
    /// Ids of POSTs answered with 2xx.
    pub posts: Vec<String>,
    /// All others.
    pub failures: Vec<Failure>,
    /// Requests asked again on a new connection, because the server had closed the kept
    /// one before it said anything (GETs only: every client does that).
    pub asked_again: u64,
    /// Connections made.
    pub connections: u64,
    /// From request to the end of the answer, of what was answered well, in order of size.
    pub latencies: Vec<Duration>,
    /// How long it lasted.
    pub elapsed: Duration,
}

/// A load that runs.
pub struct Running {
    ended: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Report>>,
    began: Instant,
    wrong: Arc<Mutex<Vec<Failure>>>,
}

impl Load {
    /// 64 connections that GET one path, ten requests a second each.
    pub fn new(address: SocketAddr, path: &str) -> Self {
        Load {
            address,
            paths: vec![path.into()],
            connections: 64,
            pause: Duration::from_millis(100),
            post_every: 0,
            prefix: "r".into(),
        }
    }

    /// The connections take turns with this path too.
    pub fn also(mut self, path: &str) -> Self {
        self.paths.push(path.into());
        self
    }

    /// Another number of connections.
    pub fn connections(mut self, count: usize) -> Self {
        self.connections = count;
        self
    }

    /// Another pause after each answer.
    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Every nth request is a POST.
    pub fn post_every(mut self, n: u64) -> Self {
        self.post_every = n;
        self
    }

    /// What the ids begin with.
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// When a thread cannot be started.
    pub fn start(self) -> Running {
        let ended = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let next = Arc::new(AtomicU64::new(1));
        let wrong = Arc::new(Mutex::new(Vec::new()));
        let threads = (0..self.connections).map(|number| {
            let one = Connection {
                load: self.clone(),
                number,
                ended: ended.clone(),
                answered: answered.clone(),
                next: next.clone(),
                wrong: wrong.clone(),
            };
            let thread = std::thread::Builder::new().stack_size(STACK).name(format!("c{number}"));
            thread.spawn(move || one.run()).expect("a thread of the load")
        });
        let threads = threads.collect();
        Running { ended, answered, threads, began: Instant::now(), wrong }
    }

    /// Runs it for a while.
    pub fn run_for(self, time: Duration) -> Report {
        let running = self.start();
        // The time is what was asked for.
        std::thread::sleep(time);
        running.stop()
    }
}

impl Running {
    /// How many requests have been answered well.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until this many more requests have been answered well: the load has gone on for
    /// as long as that takes.
    ///
    /// # Panics
    /// When they are not answered within a minute.
    #[track_caller]
    pub fn answers(&self, more: u64) {
        let wanted = self.answered() + more;
        until(&format!("{more} more answers"), PATIENCE, || self.answered() >= wanted);
    }

    /// What has failed so far.
    pub fn failures(&self) -> Vec<Failure> {
        self.wrong.lock().map(|wrong| wrong.clone()).unwrap_or_default()
    }

    /// Ends it after the requests that are under way.
    ///
    /// # Panics
    /// When a thread of the load panicked.
    pub fn stop(self) -> Report {
        self.ended.store(true, Ordering::Relaxed);
        let mut report = Report::default();
        for thread in self.threads {
            let one = thread.join().expect("a thread of the load");
            report.gets.extend(one.gets);
            report.posts.extend(one.posts);
            report.asked_again += one.asked_again;
            report.connections += one.connections;
            report.latencies.extend(one.latencies);
        }
        report.failures = self.wrong.lock().map(|wrong| wrong.clone()).unwrap_or_default();
        report.latencies.sort();
        report.elapsed = self.began.elapsed();
        report
    }
}

impl Report {
    /// How many requests were answered well.
    pub fn answered(&self) -> usize {
        self.gets.len() + self.posts.len()
    }

    /// How many there were.
    pub fn sent(&self) -> usize {
        self.answered() + self.failures.len()
    }

    /// The latency that this share of the requests did not exceed.
    pub fn percentile(&self, percent: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let index = (last as f64 * percent / 100.0).ceil() as usize;
        self.latencies.get(index).copied().unwrap_or_default()
    }

    /// The failures of one method.
    pub fn failed(&self, method: Method) -> impl Iterator<Item = &Failure> {
        self.failures.iter().filter(move |failure| failure.method == method)
    }

    /// In a line.
    pub fn sentence(&self) -> String {
        format!(
            "{} requests in {:.1} s: {} GETs and {} POSTs answered, {} failed, {} asked again, \
             {} connections, p50 {:.1?}, p99 {:.1?}, longest {:.1?}",
            self.sent(),
            self.elapsed.as_secs_f64(),
            self.gets.len(),
            self.posts.len(),
            self.failures.len(),
            self.asked_again,
            self.connections,
            self.percentile(50.0),
            self.percentile(99.0),
            self.percentile(100.0),
        )
    }

    /// Nothing failed, and something was answered.
    ///
    /// # Panics
    /// When that is not so; the first failures are shown.
    #[track_caller]
    pub fn assert_nothing_failed(&self) {
        let first: Vec<&Failure> = self.failures.iter().take(5).collect();
        assert!(self.failures.is_empty(), "{}\n{first:#?}", self.sentence());
        assert!(self.answered() > 0, "nothing was asked");
    }
}

struct Connection {
    load: Load,
    number: usize,
    ended: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    next: Arc<AtomicU64>,
    wrong: Arc<Mutex<Vec<Failure>>>,
}

impl Connection {
    fn run(self) -> Report {
        let mut client = Client::new(self.load.address);
        let mut report = Report::default();
        // The connections begin one after the other, spread over one pause: no condition.
        std::thread::sleep(self.load.pause * self.number as u32 / self.load.connections as u32);
        let mut turn = self.number;
        while !self.ended.load(Ordering::Relaxed) {
            let path = &self.load.paths[turn % self.load.paths.len()];
            turn += 1;
            self.one(&mut client, path, &mut report);
            // The pace of the load, not a wait for something.
            std::thread::sleep(self.load.pause);
        }
        report.connections = client.connections;
        report
    }

    fn one(&self, client: &mut Client, path: &str, report: &mut Report) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let is_post = self.load.post_every > 0 && number % self.load.post_every == 0;
        let method = if is_post { Method::Post } else { Method::Get };
        let id = format!("{}-{number}", self.load.prefix);
        let fields = [("X-Load-Id", id.as_str())];
        let began = Instant::now();
        let kept = client.is_connected();
        let mut outcome = client.ask(method, path, &fields, id.as_bytes());
        if kept && !is_post && matches!(outcome, Err(Broken::Unanswered(_))) {
            report.asked_again += 1;
            outcome = client.ask(method, path, &fields, b"");
        }
        let (status, cause, why, refused) = match outcome {
            Ok(answer) if (200..300).contains(&answer.status) => {
                report.latencies.push(began.elapsed());
                if is_post { &mut report.posts } else { &mut report.gets }.push(id);
                self.answered.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Ok(answer) => {
                let cause = answer.field("x-mfserv-cause").map(str::to_owned);
                (Some(answer.status), cause, format!("status {}", answer.status), false)
            }
            Err(broken) => (None, None, broken.to_string(), broken == Broken::ConnectRefused),
        };
        let at_ms = now_ms();
        if let Ok(mut wrong) = self.wrong.lock() {
            wrong.push(Failure { id, method, status, cause, why, refused, at_ms });
        }
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
