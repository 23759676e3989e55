//! The keys of mflog, read from a line that is no JSON.

use serde_json::{Map, Value};

use super::{Level, facts};

/// The keys of mflog of a text: `TIME [LEVEL] (NAME#PID) EVENT`, or as much of that as it has.
/// `role`: the log is that of a role of mfserv, which has this name.
pub fn parsed(text: &str, role: Option<&str>) -> Map<String, Value> {
    let mut object = Map::new();
    let own = facts(text.as_bytes());
    if let Some(level) = own.level {
        object.insert("level".into(), level.as_str().to_ascii_lowercase().into());
    }
    let mut rest = text;
    if let Some(stamp) = own.stamp {
        rest = rest.get(stamp.end..).unwrap_or_default().trim_start();
    }
    if let Some((level, behind)) = rest.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        // Other brackets are of the message: `[worker-1] starting`.
        if own.level.is_some() && Level::of(level) == own.level {
            rest = behind;
        }
    }
    let named = rest.strip_prefix('(').and_then(|rest| rest.split_once(") "));
    if let Some((name, behind)) = named.filter(|_| own.stamp.is_some()) {
        let numbered = name.rsplit_once('#');
        let numbered = numbered.and_then(|(name, pid)| Some((name, pid.parse::<u32>().ok()?)));
        object.insert("name".into(), numbered.map_or(name, |(name, _)| name).into());
        if let Some((_, pid)) = numbered {
            object.insert("pid".into(), pid.into());
        }
        rest = behind;
    } else if let Some(role) = role {
        object.insert("name".into(), format!("mfserv.{role}").into());
    }
    if role == Some("nginx_error") {
        let request = request_in_error(rest).map(|id| ("request_id", id));
        for (key, value) in request.into_iter().chain(worker_in_error(rest)) {
            object.insert(key.into(), value.into());
        }
    }
    object.insert("event".into(), rest.into());
    object
}

/// The id in a line of the error log: `… (request ID)` or `… (path /x, request ID)`.
pub(crate) fn request_in_error(text: &str) -> Option<&str> {
    let (_, id) = text.trim_end().strip_suffix(')')?.rsplit_once("request ")?;
    (!id.is_empty() && !id.contains(' ')).then_some(id)
}

/// The worker in the message of a line of the error log: `worker app.foo.main.1.7: reset: …`.
fn worker_in_error(event: &str) -> Option<(&'static str, &str)> {
    let (worker, _) = event.strip_prefix("worker ")?.split_once(": ")?;
    Some(("worker", worker))
}
