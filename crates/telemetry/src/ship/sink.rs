//! Where documents go, and what may come of it.

use super::document::Document;
use super::elasticsearch::Elasticsearch;
use super::http::{Answer, Nodes};
use super::journal::Journal;
use super::json::Json;
use super::json_file::JsonFile;
use super::loki::Loki;
use super::syslog::Syslog;

/// What came of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It has arrived.
    Done,
    /// It had arrived before.
    Known,
    /// It is to be sent again.
    Later(String),
    /// It will never be taken: the status and the reason.
    Refused(u16, String),
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A verdict for each document, in their order.
    Each(Vec<Verdict>),
    /// It was refused as a whole, because of its size or of one of its documents.
    Smaller(u16, String),
    /// It is to be sent again; another node may take it.
    Later(String),
}

/// A kind of receiver.
pub enum Sink {
    /// Elasticsearch or OpenSearch.
    Elasticsearch(Elasticsearch),
    /// Loki.
    Loki(Loki),
    /// Anything that takes a JSON array.
    Json(Json),
    /// journald.
    Journal(Journal),
    /// A syslog server.
    Syslog(Syslog),
    /// The JSON file of mflog.
    JsonFile(JsonFile),
}

impl Sink {
    /// Makes the receiver ready (index templates). Asked before the first documents.
    ///
    /// # Errors
    /// Why it is to be tried again.
    pub fn prepare(&mut self, notice: &mut dyn FnMut(&str)) -> Result<(), String> {
        match self {
            Sink::Elasticsearch(sink) => sink.prepare(notice),
            _ => Ok(()),
        }
    }

    /// Sends documents, at least one.
    pub fn send(&mut self, documents: &[Document]) -> Outcome {
        match self {
            Sink::Elasticsearch(sink) => sink.send(documents),
            Sink::Loki(sink) => sink.send(documents),
            Sink::Json(sink) => sink.send(documents),
            Sink::Journal(sink) => sink.send(documents),
            Sink::Syslog(sink) => sink.send(documents),
            Sink::JsonFile(sink) => sink.send(documents),
        }
    }

    /// The receiver that is asked next, for people.
    pub fn current(&mut self) -> String {
        match self {
            Sink::Journal(sink) => sink.name(),
            Sink::Syslog(sink) => sink.name(),
            Sink::JsonFile(sink) => sink.name(),
            _ => self.nodes().map_or_else(String::new, |nodes| nodes.current().to_string()),
        }
    }

    /// From now on another node is asked, if there is one.
    pub fn turn(&mut self) {
        if let Some(nodes) = self.nodes() {
            nodes.next();
        }
    }

    /// How many nodes there are.
    pub fn count(&mut self) -> usize {
        self.nodes().map_or(1, |nodes| nodes.count())
    }

    fn nodes(&mut self) -> Option<&mut Nodes> {
        match self {
            Sink::Elasticsearch(sink) => Some(&mut sink.nodes),
            Sink::Loki(sink) => Some(&mut sink.nodes),
            Sink::Json(sink) => Some(&mut sink.nodes),
            Sink::Journal(_) | Sink::Syslog(_) | Sink::JsonFile(_) => None,
        }
    }
}

/// The first documents have arrived; the others are to be sent again.
pub fn partly(done: usize, count: usize, why: &str) -> Outcome {
    let done = std::iter::repeat_n(Verdict::Done, done);
    Outcome::Each(done.chain(std::iter::repeat(Verdict::Later(why.into()))).take(count).collect())
}

/// What an answer to a whole request means where the receiver has no verdicts for documents.
pub fn whole(answer: &Answer, count: usize) -> Outcome {
    // A proxy in between may say 400 to everything, in HTML.
    let is_page = answer.body.trim_ascii_start().starts_with(b"<");
    match answer.status {
        200..=299 => Outcome::Each(vec![Verdict::Done; count]),
        413 => Outcome::Smaller(413, said(answer)),
        400 | 422 if !is_page => Outcome::Smaller(answer.status, said(answer)),
        _ => Outcome::Later(said(answer)),
    }
}

/// The status of an answer and the beginning of its text.
pub fn said(answer: &Answer) -> String {
    const LONGEST: usize = 300;
    let text = String::from_utf8_lossy(&answer.body);
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text: String = text.chars().take(LONGEST).collect();
    match text.is_empty() {
        true => format!("status {}", answer.status),
        false => format!("status {}: {text}", answer.status),
    }
}
