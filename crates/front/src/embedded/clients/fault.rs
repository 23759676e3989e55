//! Why a request is not answered as its app would have answered it.

use mfserv_core::memory::size_text;
use mfserv_core::wire::front::TroubleCause;

/// How a request ended that did not end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The front answers itself, with the status of this cause.
    Answer(Cause),
    /// The client has gone.
    Gone,
    /// The answer has begun and cannot be finished.
    Cut,
}

/// When a client may try again while the node is being stopped, seconds: a node that is started
/// again at once serves by then.
const STOPPING_RETRY_S: u32 = 5;

/// When a client may try again while an app is in maintenance, seconds.
const MAINTENANCE_RETRY_S: u32 = 30;

/// The cause of an answer that the front gives in place of an app or a file. It decides
/// the status; its word is in the header `X-Mfserv-Cause` and in the error log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The head of the request is malformed, too large or late; with the status that
    /// says so (400, 405, 408, 431, …).
    BadRequest(u16),
    /// A request in clear came to the TLS listener.
    PlainHttp,
    /// The path cannot be decoded.
    BadPath,
    /// The body is not framed as its head says.
    BadBody,
    /// An inner endpoint was called with something that is no socket.
    BadSocket,
    /// An inner endpoint is not for this client, or a file is not to be read.
    Forbidden,
    /// An inner endpoint was asked for by a web page, or by a name that is not this machine's.
    ForeignPage,
    /// There is no such file.
    NotFound,
    /// No route matches.
    NoRoute,
    /// The host is that of no app; with the status that the settings choose.
    UnknownHost(u16),
    /// The method is not allowed here.
    Method,
    /// An inner endpoint with an effect was not asked for with POST.
    PostOnly,
    /// The client sends its body too slowly.
    SlowBody,
    /// A precondition (`If-Match`…) failed.
    Precondition,
    /// The body is larger than this, bytes.
    TooLarge(u64),
    /// None of the wanted ranges is in the file.
    Range,
    /// The disk gave an error.
    Disk,
    /// The node is being stopped.
    Stopping,
    /// The app is in maintenance.
    Maintenance,
    /// The app has been removed.
    Removed,
    /// Too many requests wait for a worker.
    QueueFull,
    /// No worker became free in time.
    QueueTimeout,
    /// The app has no worker.
    NoWorker,
    /// All workers of the app have crashed; the first one starts again in so many seconds.
    Crashing(u32),
    /// Too many bodies are in temporary files.
    NoRoom,
    /// The front has no descriptor or memory to spare.
    Busy,
    /// A worker did not become idle while its app's timeout lasted.
    StillBusy,
    /// A worker did not behave.
    Worker(TroubleCause),
}

impl Cause {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Cause::BadRequest(status) | Cause::UnknownHost(status) => status,
            Cause::PlainHttp | Cause::BadPath | Cause::BadBody | Cause::BadSocket => 400,
            Cause::Forbidden | Cause::ForeignPage => 403,
            Cause::NotFound | Cause::NoRoute => 404,
            Cause::Method | Cause::PostOnly => 405,
            Cause::SlowBody => 408,
            Cause::Precondition => 412,
            Cause::TooLarge(_) => 413,
            Cause::Range => 416,
            Cause::Disk => 500,
            Cause::Stopping
            | Cause::Maintenance
            | Cause::Removed
            | Cause::QueueFull
            | Cause::QueueTimeout
            | Cause::NoWorker
            | Cause::Crashing(_)
            | Cause::NoRoom
            | Cause::Busy
            | Cause::Worker(TroubleCause::Overloaded) => 503,
            Cause::StillBusy | Cause::Worker(TroubleCause::Timeout) => 504,
            Cause::Worker(_) => 502,
        }
    }

    /// The cause in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::BadRequest(_) => "bad_request",
            Cause::PlainHttp => "plain_http",
            Cause::BadPath => "bad_path",
            Cause::BadBody => "bad_body",
            Cause::BadSocket => "bad_socket",
            Cause::Forbidden => "forbidden",
            Cause::ForeignPage => "foreign_page",
            Cause::NotFound => "not_found",
            Cause::NoRoute => "no_route",
            Cause::UnknownHost(_) => "unknown_host",
            Cause::Method => "method",
            Cause::PostOnly => "post_only",
            Cause::SlowBody => "slow_body",
            Cause::Precondition => "precondition",
            Cause::TooLarge(_) => "too_large",
            Cause::Range => "range",
            Cause::Disk => "disk",
            Cause::Stopping => "stopping",
            Cause::Maintenance => "maintenance",
            Cause::Removed => "removed",
            Cause::QueueFull => "queue_full",
            Cause::QueueTimeout => "queue_timeout",
            Cause::NoWorker => "no_worker",
            Cause::Crashing(_) => "crashing",
            Cause::NoRoom => "no_room",
            Cause::Busy => "busy",
            Cause::StillBusy => "still_busy",
            Cause::Worker(cause) => cause.as_str(),
        }
    }

    /// What the page says of the cause, beside its word.
    pub fn explanation(self) -> Option<String> {
        match self {
            Cause::TooLarge(limit) => {
                Some(format!("the body of a request has at most {} here", size_text(limit)))
            }
            Cause::Maintenance => {
                Some("This site is being worked on, and will be back in a short while.".into())
            }
            _ => None,
        }
    }

    /// When another try is worth it, where that is known; seconds.
    pub fn retry_after_s(self) -> Option<u32> {
        match self {
            Cause::Crashing(seconds) => Some(seconds),
            Cause::Stopping => Some(STOPPING_RETRY_S),
            Cause::Maintenance => Some(MAINTENANCE_RETRY_S),
            _ => None,
        }
    }

    /// The fields that a client needs besides the status.
    pub fn fields(self) -> &'static [(&'static str, &'static str)] {
        match self.status() {
            503 if self.retry_after_s().is_some() => &[],
            503 => &[("Retry-After", "1")],
            405 if self == Cause::PostOnly => &[("Allow", "POST")],
            405 => &[("Allow", "GET, HEAD")],
            _ => &[],
        }
    }
}

impl From<Cause> for Fault {
    fn from(cause: Cause) -> Self {
        Fault::Answer(cause)
    }
}
