//! Elasticsearch 7 and 8, OpenSearch: `_bulk` with `create`, so that a document that is there
//! already is known by its id and not indexed again.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use super::document::Document;
use super::http::Nodes;
use super::sink::{Outcome, Verdict, said};

/// Only this is read of an answer.
const BULK: &str = "/_bulk?filter_path=errors,items.*.status,items.*.error,error";

/// A template of indices.
#[derive(Debug, Clone, Copy)]
pub struct Template {
    /// Its name.
    pub name: &'static str,
    /// Its body, JSON, for `_index_template`.
    pub body: &'static str,
}

/// The templates that MFSERV's monitoring server has for the messages of mflog and for access
/// logs.
pub const TEMPLATES: [Template; 2] = [
    Template {
        name: "template_mflog",
        body: include_str!("../../../../contrib/elasticsearch/template_mflog.json"),
    },
    Template {
        name: "template_nginx",
        body: include_str!("../../../../contrib/elasticsearch/template_nginx.json"),
    },
];

/// The nodes of a cluster.
pub struct Elasticsearch {
    /// Its nodes.
    pub nodes: Nodes,
    /// Templates that are still to be installed.
    pub templates: Vec<Template>,
}

#[derive(Deserialize)]
struct Bulk {
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    create: ItemResult,
}

#[derive(Deserialize)]
struct ItemResult {
    status: u16,
    #[serde(default)]
    error: Value,
}

impl Elasticsearch {
    /// Installs the templates that are not there. One of the same name is left as it is.
    pub fn prepare(&mut self, notice: &mut dyn FnMut(&str)) -> Result<(), String> {
        while let Some(template) = self.templates.last() {
            let name = template.name;
            if !self.has_template(name)? {
                let path = format!("/_index_template/{name}");
                let answer = self.nodes.send("PUT", &path, JSON, template.body.as_bytes())?;
                match answer.status {
                    200..=299 => notice(&format!("index template {name} is installed")),
                    429 | 500.. => return Err(said(&answer)),
                    _ => notice(&format!("index template {name} is refused: {}", said(&answer))),
                }
            }
            self.templates.pop();
        }
        Ok(())
    }

    fn has_template(&self, name: &str) -> Result<bool, String> {
        for kind in ["_index_template", "_template"] {
            let answer = self.nodes.send("GET", &format!("/{kind}/{name}"), JSON, b"")?;
            match answer.status {
                200..=299 => return Ok(true),
                429 | 500.. => return Err(said(&answer)),
                _ => {}
            }
        }
        Ok(false)
    }

    /// Sends documents.
    pub fn send(&mut self, documents: &[Document]) -> Outcome {
        let answer = match self.nodes.send("POST", BULK, NDJSON, body(documents).as_bytes()) {
            Ok(answer) => answer,
            Err(why) => return Outcome::Later(why),
        };
        match answer.status {
            200 => match serde_json::from_slice::<Bulk>(&answer.body) {
                Ok(bulk) if bulk.items.len() == documents.len() => {
                    let pairs = bulk.items.into_iter().zip(documents);
                    Outcome::Each(pairs.map(|(item, it)| verdict(item, is_far(it.time))).collect())
                }
                Ok(_) => Outcome::Later("an answer without a result for each document".into()),
                Err(e) => Outcome::Later(format!("an answer that is none of _bulk: {e}")),
            },
            413 => Outcome::Smaller(413, said(&answer)),
            // A proxy may say 400 to everything: only the index itself means a document by it.
            400 if is_error_of_index(&answer.body) => Outcome::Smaller(400, said(&answer)),
            _ => Outcome::Later(said(&answer)),
        }
    }
}

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

fn body(documents: &[Document]) -> String {
    let length = documents.iter().map(|it| it.source.len() + it.id.len() + it.index.len() + 64);
    let mut body = String::with_capacity(length.sum());
    for document in documents {
        // Neither has a character that JSON escapes: see `IndexPattern`.
        body.push_str(r#"{"create":{"_index":""#);
        body.push_str(&document.index);
        body.push_str(r#"","_id":""#);
        body.push_str(&document.id);
        body.push_str("\"}}\n");
        body.push_str(&document.source);
        body.push('\n');
    }
    body
}

/// A time that is so far away from now is not that of a message that has waited: the day of an
/// index follows from what a sender writes, and an index that is closed or cannot be made would
/// keep all that come after it.
const FAR: SignedDuration = SignedDuration::from_hours(7 * 24);

fn is_far(time: Timestamp) -> bool {
    Timestamp::now().duration_since(time).abs() > FAR
}

/// `is_far`: see [`FAR`].
fn verdict(item: Item, is_far: bool) -> Verdict {
    let ItemResult { status, error } = item.create;
    let reason = || match error.is_null() {
        true => format!("status {status}"),
        false => error.to_string(),
    };
    match status {
        200..=299 => Verdict::Done,
        409 => Verdict::Known,
        // An index of long ago that is read-only by now stays so.
        403 if is_far && error["type"] == "cluster_block_exception" => {
            Verdict::Refused(status, reason())
        }
        // Rejected for now; without rights, an operator has to act: nothing is thrown away.
        401 | 403 | 408 | 429 | 500.. => Verdict::Later(format!("status {status}: {}", reason())),
        _ if is_of_index(&error) && !is_far => {
            Verdict::Later(format!("status {status}: {}", reason()))
        }
        _ => Verdict::Refused(status, reason()),
    }
}

/// The index cannot take any document now (no shards are left, it is closed or not made): the
/// document itself may be good.
fn is_of_index(error: &Value) -> bool {
    let reason = error["reason"].as_str().unwrap_or_default();
    match error["type"].as_str().unwrap_or_default() {
        "validation_exception" | "index_not_found_exception" | "index_closed_exception" => true,
        // Older versions say this of too many shards, and of wrong documents, too.
        "illegal_argument_exception" => {
            reason.contains("maximum") && reason.contains("shards open")
        }
        _ => false,
    }
}

fn is_error_of_index(body: &[u8]) -> bool {
    serde_json::from_slice::<Value>(body).is_ok_and(|value| !value["error"].is_null())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_of_an_item_has_its_verdict() {
        let of = |status: u16| {
            let json = format!(r#"{{"create":{{"status":{status},"error":{{"type":"t"}}}}}}"#);
            verdict(serde_json::from_str(&json).unwrap(), true)
        };
        assert_eq!((of(201), of(409)), (Verdict::Done, Verdict::Known));
        for later in [401, 403, 429, 500, 503] {
            assert!(matches!(of(later), Verdict::Later(_)), "{later}");
        }
        for refused in [400, 404, 413] {
            assert_eq!(of(refused), Verdict::Refused(refused, r#"{"type":"t"}"#.into()));
        }
    }

    #[test]
    fn a_document_that_its_index_cannot_take_now_is_sent_later() {
        let of = |status: u16, kind: &str, reason: &str| {
            let error = serde_json::json!({"type": kind, "reason": reason});
            let item = || Item { create: ItemResult { status, error: error.clone() } };
            // A document of long ago waits for no index.
            assert!(matches!(verdict(item(), true), Verdict::Refused(..)), "{kind}");
            verdict(item(), false)
        };
        let shards = "this action would add [2] shards, but this cluster currently has [1000]/[1000] \
                      maximum normal shards open;";
        for (status, kind, reason) in [
            (400, "validation_exception", shards),
            (400, "illegal_argument_exception", shards),
            (404, "index_not_found_exception", "no such index [mflog-2026.01.31]"),
            (400, "index_closed_exception", "closed"),
            (403, "cluster_block_exception", "blocked by: [FORBIDDEN/8/index write (api)];"),
        ] {
            assert!(matches!(of(status, kind, reason), Verdict::Later(_)), "{kind}");
        }
        for (kind, reason) in [
            ("illegal_argument_exception", "mapper [a] cannot be changed"),
            ("illegal_argument_exception", "the maximum of [1000] fields"),
            ("mapper_parsing_exception", "failed to parse field [a]"),
        ] {
            assert!(matches!(of(400, kind, reason), Verdict::Refused(400, _)), "{reason}");
        }
    }

    #[test]
    fn a_time_is_far_when_no_message_has_waited_so_long() {
        let now = Timestamp::now();
        for (hours, far) in
            [(0, false), (-24 * 6, false), (24 * 6, false), (-24 * 8, true), (24 * 8, true)]
        {
            assert_eq!(is_far(now + SignedDuration::from_hours(hours)), far, "{hours}");
        }
    }

    #[test]
    fn templates_are_json_for_the_indices_of_their_name() {
        for (template, pattern) in TEMPLATES.iter().zip(["mflog-*", "nginx-*"]) {
            let value: Value = serde_json::from_str(template.body).unwrap();
            assert_eq!(value["index_patterns"][0], pattern);
        }
    }
}
