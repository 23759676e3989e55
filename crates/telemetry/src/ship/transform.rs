//! What is changed in a document before it is sent.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use mfserv_core::{Diagnostic, Kind};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::{RawValue, to_raw_value};

/// The fields of a document, each as it was written; most of them lie in the line.
pub type Fields<'a> = BTreeMap<Cow<'a, str>, Cow<'a, RawValue>>;

/// The fields of a line; `None` if it is no JSON object. Of a field that is there twice the last
/// one counts.
pub fn fields(line: &str) -> Option<Fields<'_>> {
    struct OfMap;
    impl<'de> Visitor<'de> for OfMap {
        type Value = Fields<'de>;

        fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
            to.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut fields = Fields::new();
            while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                fields.insert(name, Cow::Borrowed(value));
            }
            Ok(fields)
        }
    }
    /// Owned only where it has escapes.
    #[derive(Deserialize)]
    struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

    let mut json = serde_json::Deserializer::from_str(line);
    let fields = json.deserialize_map(OfMap).ok()?;
    json.end().is_ok().then_some(fields)
}

/// One change of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transform {
    /// The field gets this text, whatever it was.
    Set(String, String),
    /// The field gets this text if it is not there.
    Default(String, String),
    /// The field is removed.
    Remove(String),
    /// The field gets another name.
    Rename(String, String),
    /// The document is not sent if the field is this text.
    Drop(String, String),
}

/// How transforms are written, for people.
pub const SYNTAX: &str =
    "set:FIELD=TEXT, default:FIELD=TEXT, remove:FIELD, rename:FIELD=NEW or drop:FIELD=TEXT";

impl Transform {
    /// Reads one as it is written on a command line.
    ///
    /// # Errors
    /// Kind `Usage` for anything else.
    pub fn parse(text: &str) -> Result<Self, Diagnostic> {
        let bad = || {
            Diagnostic::error(format!("{text:?} is no transform"))
                .kind(Kind::Usage)
                .help(format!("write {SYNTAX}"))
        };
        let (verb, rest) = text.split_once(':').ok_or_else(bad)?;
        if verb == "remove" && !rest.is_empty() {
            return Ok(Self::Remove(rest.into()));
        }
        let (field, value) = rest.split_once('=').ok_or_else(bad)?;
        let (field, value) = (field.to_string(), value.to_string());
        match verb {
            _ if field.is_empty() => Err(bad()),
            "set" => Ok(Self::Set(field, value)),
            "default" => Ok(Self::Default(field, value)),
            "rename" if !value.is_empty() => Ok(Self::Rename(field, value)),
            "drop" => Ok(Self::Drop(field, value)),
            _ => Err(bad()),
        }
    }

    /// Changes a document; false if it is not to be sent.
    pub fn apply<'a>(&'a self, fields: &mut Fields<'a>) -> bool {
        match self {
            Self::Set(field, value) => {
                fields.insert(field.into(), text(value));
            }
            Self::Default(field, value) => {
                fields.entry(field.into()).or_insert_with(|| text(value));
            }
            Self::Remove(field) => {
                fields.remove(field.as_str());
            }
            Self::Rename(field, new) => {
                if let Some(value) = fields.remove(field.as_str()) {
                    fields.insert(new.into(), value);
                }
            }
            Self::Drop(field, value) => {
                let found = fields.get(field.as_str()).and_then(|raw| as_text(raw));
                return found.as_deref() != Some(value);
            }
        }
        true
    }
}

/// A text as JSON.
pub fn text(value: &str) -> Cow<'static, RawValue> {
    to_raw_value(value).map_or(Cow::Borrowed(RawValue::NULL), Cow::Owned)
}

/// A value as text: that of a string, else as it was written.
pub fn as_text(raw: &RawValue) -> Option<String> {
    match serde_json::from_str::<String>(raw.get()) {
        Ok(text) => Some(text),
        Err(_) => (!raw.get().starts_with('"')).then(|| raw.get().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(json: &str, transforms: &[&str]) -> Option<String> {
        let transforms: Vec<_> = transforms.iter().map(|t| Transform::parse(t).unwrap()).collect();
        let mut fields = fields(json).unwrap();
        if !transforms.iter().all(|transform| transform.apply(&mut fields)) {
            return None;
        }
        Some(serde_json::to_string(&fields).unwrap())
    }

    #[test]
    fn each_transform_changes_what_it_says_and_keeps_values_as_written() {
        let json = r#"{"a":1.0,"b":"x","big":123456789012345678901}"#;
        for (transforms, expected) in [
            (vec![], r#"{"a":1.0,"b":"x","big":123456789012345678901}"#),
            (vec!["set:b=y=z", "remove:big"], r#"{"a":1.0,"b":"y=z"}"#),
            (vec!["default:b=y", "default:c=n", "remove:big"], r#"{"a":1.0,"b":"x","c":"n"}"#),
            (vec!["rename:big=b", "rename:gone=a"], r#"{"a":1.0,"b":123456789012345678901}"#),
            (vec!["drop:b=y", "drop:c=x", "remove:big"], r#"{"a":1.0,"b":"x"}"#),
        ] {
            assert_eq!(changed(json, &transforms).as_deref(), Some(expected), "{transforms:?}");
        }
        assert_eq!(changed(json, &["drop:b=x"]), None);
        assert_eq!(changed(json, &["drop:a=1.0"]), None);
    }

    #[test]
    fn names_with_escapes_and_names_that_are_there_twice_are_read_as_json_says() {
        let json = r#"{"a\u0062":1,"x":"\"","x":{"y":[1, 2]}}"#;
        assert_eq!(changed(json, &[]).as_deref(), Some(r#"{"ab":1,"x":{"y":[1, 2]}}"#));
        assert_eq!(changed(json, &["remove:ab", "set:x=1"]).as_deref(), Some(r#"{"x":"1"}"#));
        for odd in ["[]", "1", "{} {}", "{\"a\":}", "{\"a\"", "{1:2}"] {
            assert!(fields(odd).is_none(), "{odd}");
        }
    }

    #[test]
    fn what_is_no_transform_is_refused_with_the_way_to_write_one() {
        for bad in ["", "set", "set:", "set:=x", "set:a", "remove:", "rename:a=", "mymodule.func"] {
            let problem = Transform::parse(bad).unwrap_err();
            assert_eq!(problem.kind, Kind::Usage);
            assert!(problem.help.unwrap().contains("set:FIELD=TEXT"), "{bad}");
        }
    }
}
