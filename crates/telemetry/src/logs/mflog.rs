//! The keys of mflog, read from a line that is no JSON.

use serde_json::{Map, Value};

use super::facts;

/// The keys of mflog of a text: `TIME [LEVEL] (NAME#PID) EVENT`, or as much of that as it has.
/// `role`: the log is that of a role of mfserv, which has this name.
pub fn parsed(text: &str, role: Option<&str>) -> Map<String, Value> {
    let mut object = Map::new();
    let own = facts(text.as_bytes());
    if let Some(level) = own.level {
        object.insert("level".into(), level.as_str().to_ascii_lowercase().into());
    }
    let mut rest = text;
    if own.at_ms.is_some() {
        // The date and the clock time, which a blank may divide.
        let time = if rest.as_bytes().get(10) == Some(&b' ') { 2 } else { 1 };
        rest = rest.splitn(time + 1, ' ').nth(time).unwrap_or_default().trim_start();
    }
    if let Some((level, behind)) = rest.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        if level.len() <= 10 {
            rest = behind;
        }
    }
    let named = rest.strip_prefix('(').and_then(|rest| rest.split_once(") "));
    if let Some((name, behind)) = named.filter(|_| own.at_ms.is_some()) {
        let (name, pid) = name.rsplit_once('#').unwrap_or((name, ""));
        object.insert("name".into(), name.into());
        if let Ok(pid) = pid.parse::<u32>() {
            object.insert("pid".into(), pid.into());
        }
        rest = behind;
    } else if let Some(role) = role {
        object.insert("name".into(), format!("mfserv.{role}").into());
    }
    object.insert("event".into(), rest.into());
    object
}
