//! What is counted of handshakes.

use std::sync::atomic::{AtomicU64, Ordering};

use rustls::Error;

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

    /// All counters with their words: `full`, `resumed`, and those of [`FAILURES`].
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let good = [("full", &self.full), ("resumed", &self.resumed)];
        let failed = FAILURES.into_iter().zip(&self.failed);
        good.into_iter().chain(failed).map(|(word, n)| (word, n.load(Ordering::Relaxed)))
    }
}
