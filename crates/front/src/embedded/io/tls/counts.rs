//! What is counted of handshakes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mfserv_platform::sync::lock;
use rustls::Error;

/// How often it is said that clients were refused, of each kind of failure.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// Why there is no TLS connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The client has sent a request in clear.
    PlainHttp,
    /// The client went away, or was too slow.
    Abandoned,
    /// The two have no version or cipher in common.
    NothingInCommon,
    /// The client has refused the certificate, or something else (an alert).
    Alert,
    /// The certificate of the client is missing, or no authority vouches for it.
    ClientCertificate,
    /// What came was no TLS, or was altered.
    Malformed,
    /// The front has no certificate.
    NoCertificate,
}

/// The words of all failures, in the order of their numbers.
pub const FAILURES: [&str; 7] = [
    "plain_http",
    "abandoned",
    "nothing_in_common",
    "alert",
    "client_certificate",
    "malformed",
    "no_certificate",
];

impl Failure {
    /// The failure that an error of the session means.
    pub fn of(why: &Error) -> Self {
        match why {
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Failure::NothingInCommon,
            Error::AlertReceived(_) => Failure::Alert,
            Error::InvalidCertificate(_) | Error::NoCertificatesPresented => {
                Failure::ClientCertificate
            }
            _ => Failure::Malformed,
        }
    }
}

/// Handshakes since the front was started.
#[derive(Debug, Default)]
pub struct Counts {
    full: AtomicU64,
    resumed: AtomicU64,
    failed: [AtomicU64; FAILURES.len()],
    /// What is to be said of clients that were refused, by the number of the failure.
    refused: Mutex<[Refused; FAILURES.len()]>,
}

/// Clients that were refused for one reason.
#[derive(Debug, Default)]
struct Refused {
    /// How many since that was last said, and the words of the last one.
    count: u64,
    why: String,
    said: Option<Instant>,
}

impl Counts {
    /// A handshake has ended well.
    pub fn opened(&self, resumed: bool) {
        let counter = if resumed { &self.resumed } else { &self.full };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// There will be no connection.
    pub fn failed(&self, why: Failure) {
        self.failed[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The same, and the words are for the log.
    pub fn refused(&self, failure: Failure, why: &dyn std::fmt::Display) {
        self.failed(failure);
        if matches!(failure, Failure::Malformed) {
            // Whoever scans ports would fill the log.
            return;
        }
        let refused = &mut lock(&self.refused)[failure as usize];
        refused.count += 1;
        if refused.count == 1 {
            refused.why = why.to_string();
        }
    }

    /// What is to be said of clients that were refused: of each kind of failure once in a while.
    pub fn refusals(&self) -> Vec<String> {
        let now = Instant::now();
        let is_due = |one: &&mut Refused| {
            one.count > 0 && one.said.is_none_or(|said| now.duration_since(said) >= SAID_EVERY)
        };
        let mut all = lock(&self.refused);
        let due = all.iter_mut().zip(FAILURES).filter(|(one, _)| is_due(one));
        due.map(|(one, word)| {
            one.said = Some(now);
            let count = std::mem::take(&mut one.count);
            format!("handshakes that failed ({word}): {count}; the first one: {}", one.why)
        })
        .collect()
    }

    /// All counters with their words: `full`, `resumed`, and those of [`FAILURES`].
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let good = [("full", &self.full), ("resumed", &self.resumed)];
        let failed = FAILURES.into_iter().zip(&self.failed);
        good.into_iter().chain(failed).map(|(word, n)| (word, n.load(Ordering::Relaxed)))
    }
}
