//! Messages of Circus: what a client asks, and the shape of an answer.

use mfserv_core::Diagnostic;
use serde_json::{Map, Value, json};

/// The fields of an answer beside those that every answer has.
pub type Fields = Map<String, Value>;

/// The numbers that Circus gives errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errno {
    /// The message is not JSON.
    InvalidJson = 1,
    /// There is no such command.
    UnknownCommand = 2,
    /// What is asked cannot be: a name, a value.
    Message = 3,
    /// The command did not succeed.
    Command = 5,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of error.
    pub errno: Errno,
    /// The reason, for people.
    pub reason: String,
}

impl Refusal {
    /// What is asked cannot be.
    pub fn message(reason: impl Into<String>) -> Refusal {
        Refusal { errno: Errno::Message, reason: reason.into() }
    }

    /// The command did not succeed.
    pub fn command(reason: impl Into<String>) -> Refusal {
        Refusal { errno: Errno::Command, reason: reason.into() }
    }
}

impl From<Diagnostic> for Refusal {
    fn from(problem: Diagnostic) -> Refusal {
        let mut reason = problem.what.clone();
        for text in problem.because.iter().chain(&problem.help) {
            reason += &format!(": {text}");
        }
        Refusal::command(reason)
    }
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Chosen by the client; the answer carries it.
    pub id: Value,
    /// The command, in lower case.
    pub command: String,
    /// What it is about.
    properties: Fields,
    /// No answer is wanted.
    pub is_cast: bool,
}

impl Message {
    /// Reads a message. On an error, the id that the answer is to carry comes with it.
    pub fn parse(bytes: &[u8]) -> Result<Message, (Value, Refusal)> {
        let invalid = || {
            let reason = "json invalid".to_string();
            (Value::Null, Refusal { errno: Errno::InvalidJson, reason })
        };
        let Ok(Value::Object(mut fields)) = serde_json::from_slice(bytes) else {
            return Err(invalid());
        };
        let id = fields.remove("id").unwrap_or_default();
        let Some(command) = fields.get("command").and_then(Value::as_str).map(str::to_lowercase)
        else {
            return Err((id, Refusal::message("message invalid 'command' is missing")));
        };
        let properties = match fields.remove("properties") {
            Some(Value::Object(properties)) => properties,
            None | Some(Value::Null) => Fields::new(),
            Some(_) => return Err((id, Refusal::message("'properties' should be an object"))),
        };
        let is_cast = fields.get("msg_type").is_some_and(|kind| kind == "cast");
        Ok(Message { id, command, properties, is_cast })
    }

    /// A property, unless it is missing or null.
    pub fn get(&self, property: &str) -> Option<&Value> {
        self.properties.get(property).filter(|value| !value.is_null())
    }

    /// A property that must be there.
    pub fn required(&self, property: &str) -> Result<&Value, Refusal> {
        let missing = || Refusal::message(format!("message invalid '{property}' is missing"));
        self.get(property).ok_or_else(missing)
    }

    /// A text that may be missing.
    pub fn text(&self, property: &str) -> Result<Option<&str>, Refusal> {
        let wrong = || Refusal::message(format!("'{property}' isn't a string"));
        self.get(property).map(|value| value.as_str().ok_or_else(wrong)).transpose()
    }

    /// The name of a watcher, which must be there.
    pub fn name(&self) -> Result<&str, Refusal> {
        self.required("name")?;
        Ok(self.text("name")?.unwrap_or_default())
    }

    /// A switch.
    pub fn is_set(&self, property: &str) -> bool {
        self.get(property).and_then(Value::as_bool).unwrap_or(false)
    }

    /// A whole number that may be missing; `circusctl` writes some of them as texts.
    pub fn number<N: TryFrom<i64>>(&self, property: &str) -> Result<Option<N>, Refusal> {
        let read = |value: &Value| match value {
            Value::String(text) => text.trim().parse::<i64>().ok(),
            other => other.as_i64(),
        };
        let wrong = || Refusal::message(format!("'{property}' isn't a valid number"));
        let read = |value| read(value).and_then(|n| N::try_from(n).ok()).ok_or_else(wrong);
        self.get(property).map(read).transpose()
    }

    /// Seconds that may be missing.
    pub fn seconds(&self, property: &str) -> Result<Option<f64>, Refusal> {
        self.get(property).map(|value| seconds(property, value)).transpose()
    }
}

/// A hundred years: no wait is longer.
const LONGEST_S: f64 = 3_155_760_000.0;

/// A time from 0 to a hundred years, seconds.
pub fn seconds(property: &str, value: &Value) -> Result<f64, Refusal> {
    let read = match value {
        Value::String(text) => text.trim().parse::<f64>().ok(),
        other => other.as_f64(),
    };
    read.filter(|seconds| (0.0..=LONGEST_S).contains(seconds))
        .ok_or_else(|| Refusal::message(format!("'{property}' isn't a valid number of seconds")))
}

/// The answer, as it is sent.
pub fn answer(id: Value, done: Result<Fields, Refusal>, now_ms: u64) -> Fields {
    let mut answer = Fields::new();
    match done {
        Ok(fields) => {
            answer.insert("status".into(), "ok".into());
            // The answer about one watcher has its state there, as at Circus.
            answer.extend(fields);
        }
        Err(Refusal { errno, reason }) => {
            answer.insert("status".into(), "error".into());
            answer.insert("reason".into(), reason.into());
            answer.insert("tb".into(), Value::Null);
            answer.insert("errno".into(), json!(errno as u32));
        }
    }
    answer.insert("time".into(), json!(now_ms as f64 / 1000.0));
    answer.insert("id".into(), id);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_circus_reads_it() {
        let text = br#"{"command": "Stop", "properties": {"name": "web", "waiting": true,
            "nb": "3", "match": null}, "id": "7", "msg_type": "cast"}"#;
        let message = Message::parse(text).unwrap();
        assert_eq!((message.command.as_str(), message.is_cast), ("stop", true));
        assert_eq!(message.name(), Ok("web"));
        assert_eq!(message.number::<u32>("nb"), Ok(Some(3)));
        assert_eq!(message.text("match"), Ok(None));
        assert!(message.is_set("waiting") && !message.is_set("other"));
    }

    #[test]
    fn a_message_that_is_wrong_is_refused_with_its_id_and_the_number_of_circus() {
        for (text, id, errno) in [
            (&b"{"[..], Value::Null, 1),
            (b"[]", Value::Null, 1),
            (b"", Value::Null, 1),
            (b"\xff\xfe", Value::Null, 1),
            (br#"{"id": 5}"#, json!(5), 3),
            (br#"{"id": 5, "command": 1}"#, json!(5), 3),
            (br#"{"id": 5, "command": "stop", "properties": [1]}"#, json!(5), 3),
        ] {
            let (given, refusal) = Message::parse(text).unwrap_err();
            let answer = answer(given, Err(refusal), 1500);
            assert_eq!((&answer["id"], &answer["errno"]), (&id, &json!(errno)));
            assert_eq!((&answer["status"], &answer["time"]), (&json!("error"), &json!(1.5)));
        }
        let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
        assert!(Message::parse(&deep).is_err());
    }

    #[test]
    fn numbers_and_times_that_cannot_be_are_refused() {
        let with = |value: &str| {
            let text = format!(r#"{{"command": "x", "properties": {{"v": {value}}}}}"#);
            Message::parse(text.as_bytes()).unwrap()
        };
        assert!(with("-1").number::<u32>("v").is_err() && with("1.5").number::<u32>("v").is_err());
        assert!(
            with("\"a\"").number::<u32>("v").is_err() && with("true").number::<u8>("v").is_err()
        );
        assert_eq!(with("\"1.5\"").seconds("v"), Ok(Some(1.5)));
        for value in ["-1", "\"nan\"", "\"inf\"", "1e300", "[]"] {
            assert!(with(value).seconds("v").is_err(), "{value}");
        }
        assert!(with("1").name().unwrap_err().reason.contains("'name' is missing"));
    }
}
