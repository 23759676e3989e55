//! Loki: each set of labels is a stream, each document a line of it.

use std::collections::BTreeMap;

use serde_json::json;

use super::document::Document;
use super::http::Nodes;
use super::sink::{Outcome, whole};

/// The nodes of Loki.
pub struct Loki {
    /// Its nodes.
    pub nodes: Nodes,
    /// The value of the label `source`.
    pub source: String,
}

impl Loki {
    /// Sends documents.
    pub fn send(&mut self, documents: &[Document]) -> Outcome {
        let body = self.body(documents);
        match self.nodes.send("POST", "/loki/api/v1/push", "application/json", body.as_bytes()) {
            Ok(answer) => whole(&answer, documents.len()),
            Err(why) => Outcome::Later(why),
        }
    }

    fn body(&self, documents: &[Document]) -> String {
        let mut streams: BTreeMap<Vec<(&str, &str)>, Vec<[String; 2]>> = BTreeMap::new();
        for document in documents {
            let mut labels = vec![("source", &*self.source)];
            labels.extend(document.labels.iter().map(|(name, value)| (&**name, &**value)));
            let line = [document.time.as_nanosecond().to_string(), document.source.clone()];
            streams.entry(labels).or_default().push(line);
        }
        let streams = streams.into_iter().map(|(labels, values)| {
            let labels: BTreeMap<&str, &str> = labels.into_iter().collect();
            json!({"stream": labels, "values": values})
        });
        json!({"streams": streams.collect::<Vec<_>>()}).to_string()
    }
}
