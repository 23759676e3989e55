//! One line of a `_redirects`: `FROM TO [STATUS]`.

use super::super::percent_decode;
use super::target::{Kind, Target};
use super::{LINE_MAX, Rule, Segment};

/// Why a line is not obeyed, and what to do.
pub(super) type Wrong = (String, &'static str);

const FORM: &str = "write FROM TO [STATUS], as /old/* /new/:splat 301";

/// Reads a line without blanks around it. `None`: there is no rule in it.
pub(super) fn read(line: &[u8]) -> Result<Option<Rule>, Wrong> {
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    if line.len() > LINE_MAX {
        return Err((format!("the line is longer than {LINE_MAX} bytes"), "shorten it"));
    }
    let Ok(line) = std::str::from_utf8(line) else {
        return Err(("the line is not UTF-8".into(), "save the file as UTF-8"));
    };
    let mut words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
    let from = words.next().unwrap_or_default();
    let words: Vec<&str> = words.collect();
    let is_target = |word: &&&str| word.starts_with('/') || word.contains("://");
    let before = words.iter().take_while(|word| !is_target(word));
    if let Some(word) = before.clone().find(|word| word.contains('=')) {
        let reason = format!("rules for query parameters ({word}) are not supported");
        return Err((reason, "make it a rule for the path alone, or let an app answer"));
    }
    let to = words.first().ok_or_else(|| (format!("{from} leads nowhere"), FORM))?;
    let (status, is_forced) = status(&words[1..])?;
    let (from, has_splat) = path(from)?;
    let kind = match (status, to.starts_with('/')) {
        (200 | 404, _) => Kind::File,
        (_, true) => Kind::Path,
        (_, false) => Kind::Url,
    };
    let is_known = |name: &str| match name {
        "splat" => has_splat,
        _ => from.iter().any(|one| matches!(one, Segment::Named(known) if known == name)),
    };
    let to = Target::parse(to, kind, &is_known)?;
    Ok(Some(Rule { from, has_splat, to, status, is_forced }))
}

/// The status, and whether the rule is obeyed where there is a file.
fn status(words: &[&str]) -> Result<(u16, bool), Wrong> {
    let (word, rest) = match words {
        [] => return Ok((301, false)),
        [word, rest @ ..] => (*word, rest),
    };
    if let Some(condition) = words.iter().find(|word| word.contains('=')) {
        let reason = format!("conditions ({condition}) are not supported");
        return Err((reason, "remove the condition, or let an app answer"));
    }
    if let Some(more) = rest.first() {
        return Err((format!("{more:?} after the status means nothing"), FORM));
    }
    let (number, is_forced) = word.strip_suffix('!').map_or((word, false), |number| (number, true));
    match number.parse() {
        Ok(status @ (200 | 301 | 302 | 303 | 307 | 308 | 404)) => Ok((status, is_forced)),
        _ => Err((
            format!("{word:?} is no status of a rule"),
            "write 301, 302, 303, 307 or 308 for a redirect, 200 for a file in its place, 404",
        )),
    }
}

/// The path of a rule, and whether it ends with `/*`.
fn path(from: &str) -> Result<(Vec<Segment>, bool), Wrong> {
    let wrong = |why: &str, help| Err((format!("{from} {why}"), help));
    if from.contains("://") {
        let help = "write a path as /old; `_hosts` of an app decides for which hosts it answers";
        return wrong("is a rule for a host, which is not supported", help);
    }
    if !from.starts_with('/') {
        return wrong("does not begin with /", FORM);
    }
    if from.contains('?') {
        return wrong("has a query, which is not supported", "write a path as /old");
    }
    let (head, has_splat) = match from.strip_suffix("/*") {
        Some(head) => (head, true),
        None => (from, false),
    };
    if head.contains('*') {
        return wrong("has a * that is not all of its last part", "end it with /*");
    }
    let mut segments = Vec::new();
    for part in head.split('/').filter(|part| !part.is_empty()) {
        segments.push(match part.strip_prefix(':') {
            Some(name) if is_name(name) => Segment::Named(name.into()),
            Some(_) => return wrong("has a : without a name", "name it as /blog/:slug"),
            None => match percent_decode(part.as_bytes()).map(String::from_utf8) {
                Ok(Ok(text)) if !matches!(&*text, "." | "..") && !text.contains('/') => {
                    Segment::Text(text)
                }
                _ => return wrong("is no path that a client can ask for", FORM),
            },
        });
    }
    Ok((segments, has_splat))
}

/// True for the name of a placeholder.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
