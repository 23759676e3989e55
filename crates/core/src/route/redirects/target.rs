//! Where a rule of a `_redirects` leads. What clients have sent never decides to which host.

use super::super::percent_decode;
use super::line::Wrong;
use super::{Asked, Values};

/// Bytes of a path that are not escaped, besides letters and digits.
const PLAIN: &[u8] = b"/-._~!$'()*,;:@";
/// Those that the author of a rule, or of a query, has a reason to write.
const WRITTEN: &[u8] = b"/-._~!$'()*,;:@&+=?#%[]|";

/// What a rule leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file of the site.
    File,
    /// A path below the site.
    Path,
    /// A URL.
    Url,
}

/// A target with its placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub kind: Kind,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    /// `:name` or `:splat`.
    Value(String),
}

impl Target {
    /// Reads a target. `is_known`: the path of the rule has a placeholder of this name.
    pub fn parse(text: &str, kind: Kind, is_known: &dyn Fn(&str) -> bool) -> Result<Self, Wrong> {
        let wrong = |why: &str, help| Err((format!("{text} {why}"), help));
        if text.contains(|c: char| c == '\\' || c.is_control()) {
            return wrong("has a backslash or a control character", "write / and percent-encode");
        }
        if text.starts_with("//") {
            return wrong("is taken by browsers for another host", "write https:// or one /");
        }
        if kind == Kind::File {
            if text.contains("://") {
                let help = "write a path of the site; a redirect (301, 302) leads to other hosts";
                return wrong("is another host, which is not asked for its answer", help);
            }
            if text.contains(['?', '#']) {
                return wrong("names a file with a query", "write the path of a file alone");
            }
        }
        let scheme = ["https://", "http://"].into_iter().find(|scheme| text.starts_with(scheme));
        let rest = match (scheme, text.starts_with('/')) {
            (Some(scheme), _) => &text[scheme.len()..],
            (None, true) => text,
            (None, false) => {
                return wrong("is neither a path nor a URL", "begin it with / or https://");
            }
        };
        let host_end = scheme.map_or(0, |_| rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let host = &rest[..host_end];
        let is_odd = |c: char| !(c.is_ascii_alphanumeric() || "-._:[]".contains(c));
        if scheme.is_some() && (host.is_empty() || host.contains(is_odd) || names(host)) {
            return wrong("has no plain host", "write the host out, without placeholders");
        }
        let at = text.len() - rest.len() + host_end;
        let (head, path) = text.split_at(at);
        let parts = std::iter::once(Part::Text(head.into())).filter(|_| at > 0);
        let parts: Vec<Part> = parts.chain(parts_of(path)).collect();
        let unknown = parts.iter().find_map(|part| match part {
            Part::Value(name) if !is_known(name) => Some(name),
            _ => None,
        });
        if let Some(name) = unknown {
            let help = "name it in the path of the rule too (:splat is what * stands for), or \
                        write %3A for a colon";
            return wrong(&format!("has :{name}, which the path of the rule has not"), help);
        }
        let target = Self { kind, parts };
        let is_path = |text: &str| percent_decode(text.as_bytes()).map(String::from_utf8);
        if kind == Kind::File && !matches!(is_path(text), Ok(Ok(_))) {
            return wrong("is no path of a file", "percent-encode it as UTF-8, or not at all");
        }
        Ok(target)
    }

    /// The file that it names, below the root: text as it is on the disk.
    pub fn file(&self, values: &Values<'_>) -> String {
        let mut file = String::new();
        for part in &self.parts {
            match part {
                // Each part is whole: `%` and its digits do not go beyond one.
                Part::Text(text) => {
                    let decoded = percent_decode(text.as_bytes()).unwrap_or_default();
                    file.push_str(&String::from_utf8_lossy(&decoded));
                }
                Part::Value(name) => file.push_str(values.of(name)),
            }
        }
        file.trim_start_matches('/').to_owned()
    }

    /// The Location. A path is below the prefix of the site. The query of the client goes along, unless
    /// the rule has one of its own.
    pub fn location(&self, values: &Values<'_>, asked: &Asked<'_>) -> Option<String> {
        let mut location = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => escape(&mut location, text.as_bytes(), WRITTEN),
                Part::Value(name) => escape(&mut location, values.of(name).as_bytes(), PLAIN),
            }
        }
        if self.kind == Kind::Path {
            let mut whole = String::new();
            escape(&mut whole, asked.prefix.as_bytes(), PLAIN);
            let end = location.find(['?', '#']).unwrap_or(location.len());
            for part in location[..end].split('/').filter(|part| !part.is_empty()) {
                whole.push('/');
                whole.push_str(part);
            }
            if location[..end].ends_with('/') || whole.is_empty() {
                whole.push('/');
            }
            // Two slashes at the beginning are another host.
            if whole.starts_with("//") || !whole.starts_with('/') {
                return None;
            }
            location.replace_range(..end, &whole);
        }
        if let Some(query) = asked.query.filter(|_| !location.contains('?')) {
            let mut with = String::from("?");
            escape(&mut with, query, WRITTEN);
            let end = location.find('#').unwrap_or(location.len());
            location.insert_str(end, &with.replace('#', "%23"));
        }
        Some(location)
    }
}

impl Values<'_> {
    fn of(&self, name: &str) -> &str {
        if name == "splat" {
            return &self.splat;
        }
        self.named.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
}

/// True if a Location of a rule is the path that was asked for: a client would come again for ever.
pub(super) fn is_same_path(location: &str, asked: &Asked<'_>) -> bool {
    let end = location.find(['?', '#']).unwrap_or(location.len());
    let to = percent_decode(&location.as_bytes()[..end]).unwrap_or_default();
    let segments = |path: &[u8]| -> Vec<Vec<u8>> {
        let all = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty());
        all.map(<[u8]>::to_vec).collect()
    };
    let whole = format!("{}/{}", asked.prefix, asked.rest);
    segments(&to) == segments(whole.as_bytes())
}

/// True if a text has a placeholder.
fn names(text: &str) -> bool {
    parts_of(text).iter().any(|part| matches!(part, Part::Value(_)))
}

/// Text and placeholders, in their order.
fn parts_of(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let (mut plain, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once(':') {
        plain.push_str(before);
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = after.find(|c| !is_part(c)).unwrap_or(after.len());
        if after.starts_with(|c: char| c.is_ascii_alphabetic()) {
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Value(after[..end].into()));
            rest = &after[end..];
        } else {
            plain.push(':');
            rest = after;
        }
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    parts
}

/// Appends text; bytes that are neither letters, digits nor `allowed` are percent-encoded.
fn escape(to: &mut String, text: &[u8], allowed: &[u8]) {
    for &byte in text {
        match byte.is_ascii_alphanumeric() || allowed.contains(&byte) {
            true => to.push(byte as char),
            false => to.push_str(&format!("%{byte:02X}")),
        }
    }
}
