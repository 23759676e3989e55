//! One value of a plugin's configuration: MFSERV's coercions, and what
//! is doubtful about them.

use std::path::{Component, Path};

use super::schema::{LONGEST_S, Type};
use super::{affinity, error_pages, hosts, sendfile, size, version, words};

/// A value as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Read {
    Nothing,
    Flag(bool),
    Number(u64),
    Text(String),
    List(Vec<String>),
}

impl Read {
    pub fn flag(&self) -> Option<bool> {
        match self {
            Read::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    pub fn number(&self) -> Option<u64> {
        match self {
            Read::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The text; empty if there is none.
    pub fn text(&self) -> String {
        match self {
            Read::Text(text) => text.clone(),
            _ => String::new(),
        }
    }
}

/// A value as read, as exported, and what is doubtful about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Coerced {
    pub read: Read,
    pub exported: String,
    /// What it was taken for, when that is not what is written.
    pub doubt: Option<Doubt>,
}

/// (what the value was taken for, what to write).
pub(super) type Doubt = (String, String);
/// (why the value is refused, what to write).
pub(super) type Refusal = (String, String);

/// Reads a value. `module_timeout` is exported for an app without a timeout of its own; `is_file`
/// says whether a relative path is a regular file of the plugin.
pub(super) fn coerce(
    kind: Type,
    text: &str,
    module_timeout: &str,
    is_file: &dyn Fn(&str) -> bool,
) -> Result<Coerced, Refusal> {
    let plain = if text == "null" { "" } else { text };
    let unset = plain.is_empty() || text.eq_ignore_ascii_case("null");
    match kind {
        Type::Text => Ok(as_text(plain)),
        Type::NonEmpty if plain.trim().is_empty() => {
            Err(("it must not be empty".into(), "write one line".into()))
        }
        Type::NonEmpty => Ok(as_text(plain)),
        Type::Version => version::version(plain),
        Type::Release => version::release(plain),
        Type::AutoFlag if unset || text.eq_ignore_ascii_case("AUTO") => {
            Ok(exact(Read::Nothing, "AUTO"))
        }
        Type::Flag | Type::AutoFlag => Ok(flag(text)),
        Type::Count(max) => Ok(count(text, max)),
        Type::Signal => Ok(signal(text)),
        Type::Timeout => Ok(timeout(text, unset, module_timeout)),
        Type::File if unset => Ok(exact(Read::Nothing, "")),
        Type::File => file(plain, is_file),
        Type::StaticPrefix => static_prefix(plain),
        Type::StaticDirectory => static_directory(plain),
        Type::Routes => routes(plain),
        Type::Paths => paths(plain),
        Type::Hosts => hosts::hosts(plain),
        Type::SendfileRoots => sendfile::roots(plain),
        Type::ErrorPages => error_pages::pages(plain),
        _ if unset || text.eq_ignore_ascii_case("AUTO") => Ok(exact(Read::Nothing, "")),
        Type::StrictFlag => strict_flag(text),
        Type::StrictCount(min, max) => strict_count(text, min, max),
        Type::Word(words) => words::word(text, words),
        Type::Interpreter => words::interpreter(text),
        Type::Size | Type::BodySize => size::of_kind(kind, text),
        Type::Affinity => affinity::affinity(text),
    }
}

pub(super) fn exact(read: Read, exported: &str) -> Coerced {
    Coerced { read, exported: exported.to_string(), doubt: None }
}

pub(super) fn as_text(text: &str) -> Coerced {
    exact(Read::Text(text.to_string()), text)
}

fn doubted(mut coerced: Coerced, taken: impl Into<String>, help: impl Into<String>) -> Coerced {
    coerced.doubt = Some((taken.into(), help.into()));
    coerced
}

/// MFSERV's booleans. An empty or `null` value is no without a doubt.
fn flag(text: &str) -> Coerced {
    match text.trim().to_lowercase().as_str() {
        "1" | "true" | "yes" | "y" | "t" => exact(Read::Flag(true), "1"),
        "0" | "false" | "no" | "n" | "f" | "" | "null" => exact(Read::Flag(false), "0"),
        _ => doubted(exact(Read::Flag(false), "0"), "0", "write 1 for yes and 0 for no"),
    }
}

fn count(text: &str, max: i64) -> Coerced {
    let number =
        |number: i64| exact(Read::Number(u64::try_from(number).unwrap_or(0)), &number.to_string());
    let help = format!("write a whole number from 0 to {max}");
    match text.trim().parse::<i64>() {
        Ok(value) if value < 0 => doubted(number(0), "0", help),
        Ok(value) if value > max => doubted(number(max), max.to_string(), help),
        Ok(value) => number(value),
        Err(_) => doubted(number(0), "0", help),
    }
}

/// The C library keeps 32 to 34 for itself (signal(7)): nobody can send these to an app.
fn signal(text: &str) -> Coerced {
    match text.trim().parse::<u64>() {
        Ok(signal @ (1..=31 | 35..=64)) => exact(Read::Number(signal), &signal.to_string()),
        _ => doubted(
            exact(Read::Number(15), "15"),
            "15",
            "write the number of a signal, for example 15 (SIGTERM) or 2 (SIGINT); 1 to 31 and 35 \
             to 64 can be sent",
        ),
    }
}

/// Zero, negative and `null` mean "as the module", without a doubt.
fn timeout(text: &str, unset: bool, module_timeout: &str) -> Coerced {
    let by_module = exact(Read::Nothing, module_timeout);
    match text.trim().parse::<i64>() {
        Ok(seconds) if seconds > 0 => count(text, LONGEST_S),
        Ok(_) => by_module,
        Err(_) if unset => by_module,
        Err(_) => doubted(
            by_module,
            "0 (the timeout of the module)",
            "write a whole number of seconds, or 0 for the timeout of the module",
        ),
    }
}

fn file(text: &str, is_file: &dyn Fn(&str) -> bool) -> Result<Coerced, Refusal> {
    match is_inside(text) && is_file(text) {
        true => Ok(as_text(text)),
        false => Err((
            format!("must exist as a relative path under plugin home ({text} is not a file)"),
            "create the file, or write null for none".into(),
        )),
    }
}

/// True for a relative path that does not leave the directory it is below.
fn is_inside(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    !path.is_empty() && parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

fn static_prefix(text: &str) -> Result<Coerced, Refusal> {
    let wrong = |reason: &str| {
        Err((reason.to_string(), "write a path as /static, or nothing for the whole app".into()))
    };
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return wrong("a URL has no blank");
    }
    if !text.is_empty() && !text.starts_with('/') {
        return wrong("it must start by /");
    }
    let trimmed = text.trim_end_matches('/');
    let coerced = as_text(trimmed);
    Ok(match trimmed.len() == text.len() {
        true => coerced,
        false => doubted(coerced, format!("{trimmed:?}"), "write it without / at its end"),
    })
}

fn static_directory(text: &str) -> Result<Coerced, Refusal> {
    let relative = text.trim_matches('/');
    if !relative.is_empty() && !is_inside(relative) {
        return Err((
            "it leaves the directory of the app".into(),
            "write a directory below that of the app, without ..".into(),
        ));
    }
    let wanted = if relative.is_empty() { String::new() } else { format!("/{relative}") };
    let coerced = as_text(&wanted);
    Ok(match wanted == text {
        true => coerced,
        false => doubted(coerced, format!("{wanted:?}"), "begin it with /, and end it without"),
    })
}

fn routes(text: &str) -> Result<Coerced, Refusal> {
    let help = "write routes as /one;/two/three, or null for none";
    let refused = |reason: String| Err((reason, help.to_string()));
    let mut list = Vec::new();
    for route in text.split(';').map(str::trim).filter(|route| !route.is_empty()) {
        if !route.starts_with('/') {
            return refused("all routes must start by /".into());
        }
        if route != "/" && route.ends_with('/') {
            return refused("all routes must not end by / (but '/' is allowed)".into());
        }
        if route.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return refused(format!("the route {route:?} has a blank in it"));
        }
        let is_pattern = route.contains(['\\', '^', '$', '*', '+', '?', '(', ')', '[', ']', '|']);
        if is_pattern && regex_lite::Regex::new(route).is_err() {
            return refused(format!("the route {route} is not a valid regular expression"));
        }
        list.push(route.to_string());
    }
    Ok(exact(Read::List(list), text))
}

fn paths(text: &str) -> Result<Coerced, Refusal> {
    let mut list = Vec::new();
    for path in text.split(';').map(str::trim).filter(|path| !path.is_empty()) {
        let path = path.trim_end_matches('/');
        let names = Path::new(path).components().any(|part| matches!(part, Component::Normal(_)));
        if !is_inside(path) || !names {
            return Err((
                format!("{path:?} is not a path below the plugin"),
                "write paths as db.sqlite3;media, relative to the plugin and without ..".into(),
            ));
        }
        list.push(path.to_string());
    }
    Ok(exact(Read::List(list), text))
}

fn strict_flag(text: &str) -> Result<Coerced, Refusal> {
    let coerced = flag(text);
    match coerced.doubt {
        None => Ok(coerced),
        Some((_, help)) => Err((format!("{text:?} is neither yes nor no"), help)),
    }
}

fn strict_count(text: &str, min: i64, max: i64) -> Result<Coerced, Refusal> {
    match text.trim().parse::<i64>() {
        Ok(number) if (min..=max).contains(&number) => Ok(count(text, max)),
        _ => Err((
            format!("{text:?} is not a number in its limits"),
            format!("write a whole number from {min} to {max}, or leave the key out"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Type, text: &str) -> Result<Coerced, Refusal> {
        coerce(kind, text, "60", &|path| path == "nginx/a.conf")
    }

    #[track_caller]
    fn taken(kind: Type, text: &str, expected: Read, exported: &str, doubtful: bool) {
        let coerced = read(kind, text).unwrap_or_else(|(reason, _)| panic!("{text}: {reason}"));
        assert_eq!(coerced.read, expected, "{text}");
        assert_eq!(coerced.exported, exported, "{text}");
        assert_eq!(coerced.doubt.is_some(), doubtful, "{text}");
    }

    #[track_caller]
    fn refused(kind: Type, text: &str, part: &str) {
        let (reason, help) = read(kind, text).expect_err(text);
        assert!(reason.contains(part), "{text}: {reason}");
        assert!(!help.is_empty());
    }

    #[test]
    fn flags_are_those_of_mfserv_and_other_words_are_a_doubtful_no() {
        for yes in ["1", "true", "YES", "y", "T"] {
            taken(Type::Flag, yes, Read::Flag(true), "1", false);
        }
        for no in ["0", "False", "no", "n", "f", "null", ""] {
            taken(Type::Flag, no, Read::Flag(false), "0", false);
        }
        for doubtful in ["on", "2", "1 # yes"] {
            taken(Type::Flag, doubtful, Read::Flag(false), "0", true);
        }
        taken(Type::AutoFlag, "auto", Read::Nothing, "AUTO", false);
        taken(Type::AutoFlag, "true", Read::Flag(true), "1", false);
        taken(Type::AutoFlag, "maybe", Read::Flag(false), "0", true);
    }

    #[test]
    fn numbers_that_are_none_are_a_doubtful_zero() {
        taken(Type::Count(9), " 4 ", Read::Number(4), "4", false);
        for text in ["abc", "", "null", "1.5", "-3", "99999999999999999999"] {
            taken(Type::Count(9), text, Read::Number(0), "0", true);
        }
        taken(Type::Count(9), "10", Read::Number(9), "9", true);
        taken(Type::Signal, "2", Read::Number(2), "2", false);
        for text in ["0", "65", "SIGINT"] {
            taken(Type::Signal, text, Read::Number(15), "15", true);
        }
    }

    #[test]
    fn a_timeout_not_above_zero_is_the_modules_and_only_garbage_is_doubtful() {
        taken(Type::Timeout, "7", Read::Number(7), "7", false);
        for text in ["0", "-1", "null", "NULL", ""] {
            taken(Type::Timeout, text, Read::Nothing, "60", false);
        }
        taken(Type::Timeout, "soon", Read::Nothing, "60", true);
    }

    #[test]
    fn texts_take_null_for_empty_and_required_ones_refuse_it() {
        taken(Type::Text, "null", Read::Text(String::new()), "", false);
        taken(Type::Text, "NULL", Read::Text("NULL".into()), "NULL", false);
        refused(Type::NonEmpty, "null", "must not be empty");
        taken(Type::Version, "1.0.2-a_b", Read::Text("1.0.2-a_b".into()), "1.0.2-a_b", false);
        refused(Type::Version, "1.0 RC", "is not a version");
        refused(Type::Version, "", "must not be empty");
        for text in ["..", ".", "-1", "a/b", "../1", "1\n2", &"1".repeat(300)] {
            refused(Type::Version, text, "is not a version");
        }
        taken(Type::Release, "1.el8 (RC)", Read::Text("1.el8 (RC)".into()), "1.el8 (RC)", false);
        taken(Type::Release, "null", Read::Text(String::new()), "", false);
        for text in ["..", ".hidden", "a/b", "../../x", "/etc/x", "1\n2", &"1".repeat(300)] {
            refused(Type::Release, text, "is not a release");
        }
    }

    #[test]
    fn files_must_exist_below_the_plugin() {
        taken(Type::File, "nginx/a.conf", Read::Text("nginx/a.conf".into()), "nginx/a.conf", false);
        taken(Type::File, "null", Read::Nothing, "", false);
        for text in ["nope.conf", "../nginx/a.conf", "/etc/passwd"] {
            refused(Type::File, text, "must exist as a relative path under plugin home");
        }
    }

    #[test]
    fn routes_begin_with_a_slash_and_end_without() {
        let list = |items: &[&str]| Read::List(items.iter().map(|i| (*i).to_string()).collect());
        taken(Type::Routes, "/a; /b/c;/", list(&["/a", "/b/c", "/"]), "/a; /b/c;/", false);
        taken(Type::Routes, "null", list(&[]), "", false);
        taken(Type::Routes, "/v[0-9]+", list(&["/v[0-9]+"]), "/v[0-9]+", false);
        refused(Type::Routes, "/a;b", "all routes must start by /");
        refused(Type::Routes, "/a/", "all routes must not end by / (but '/' is allowed)");
        refused(Type::Routes, "/a b", "has a blank");
        refused(Type::Routes, "/a(", "not a valid regular expression");
    }

    #[test]
    fn static_parts_are_brought_into_form_and_never_leave_the_app() {
        taken(Type::StaticPrefix, "/s", Read::Text("/s".into()), "/s", false);
        taken(Type::StaticPrefix, "", Read::Text(String::new()), "", false);
        taken(Type::StaticPrefix, "/", Read::Text(String::new()), "", true);
        refused(Type::StaticPrefix, "s", "must start by /");
        taken(Type::StaticDirectory, "static", Read::Text("/static".into()), "/static", true);
        taken(Type::StaticDirectory, "/a/b", Read::Text("/a/b".into()), "/a/b", false);
        refused(Type::StaticDirectory, "/../../etc", "leaves the directory");
    }

    #[test]
    fn keys_of_ours_must_be_right_or_unset() {
        for kind in [Type::StrictFlag, Type::StrictCount(1, 9), Type::Interpreter] {
            for unset in ["", "null", "AUTO"] {
                taken(kind, unset, Read::Nothing, "", false);
            }
        }
        taken(Type::StrictFlag, "1", Read::Flag(true), "1", false);
        refused(Type::StrictFlag, "maybe", "neither yes nor no");
        taken(Type::StrictCount(0, 9), "0", Read::Number(0), "0", false);
        refused(Type::StrictCount(1, 9), "0", "not a number in its limits");
        refused(Type::Word(&["http"]), "https", "is not possible here");
        refused(Type::Interpreter, "/usr/bin/python3", "not the name");
        taken(Type::Paths, "a; b/c/", Read::List(vec!["a".into(), "b/c".into()]), "a; b/c/", false);
        for bad in ["../x", "/x", "."] {
            refused(Type::Paths, bad, "not a path below the plugin");
        }
    }
}
