//! Anything that takes a JSON array of documents by POST. Each has its id in the field `_id`, so
//! that a receiver can know one that it has already.

use super::document::Document;
use super::http::Nodes;
use super::sink::{Outcome, whole};

/// The receivers, of which one is asked.
pub struct Json {
    /// The receivers.
    pub nodes: Nodes,
}

impl Json {
    /// Sends documents.
    pub fn send(&mut self, documents: &[Document]) -> Outcome {
        match self.nodes.send("POST", "", "application/json", body(documents).as_bytes()) {
            Ok(answer) => whole(&answer, documents.len()),
            Err(why) => Outcome::Later(why),
        }
    }
}

fn body(documents: &[Document]) -> String {
    let mut body = String::from("[");
    for (count, document) in documents.iter().enumerate() {
        body.push_str(if count == 0 { "\n" } else { ",\n" });
        // A source is an object: the id goes before its first field.
        let rest = document.source.trim_start_matches('{');
        let comma = if rest == "}" { "" } else { "," };
        body.push_str(&format!("{{\"_id\":\"{}\"{comma}{rest}", document.id));
    }
    body.push_str("\n]\n");
    body
}
