//! Several documents become one set of values: the last one wins, variants are
//! chosen, placeholders replaced, and every value remembers where it came from.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, Location};
use crate::exit_code::Kind;
use crate::ini::Document;

mod substitute;

pub use substitute::{substitute, used};

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", content = "at", rename_all = "snake_case")]
pub enum Origin {
    /// Compiled in.
    Default,
    /// A line of a file.
    File(Location),
    /// `--set SECTION.KEY=VALUE` on the command line.
    Set,
}

impl Origin {
    /// The place for a diagnostic.
    pub fn location(&self) -> Location {
        match self {
            Origin::File(at) => at.clone(),
            other => Location::new(other.to_string(), 0),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("built-in default"),
            Origin::File(at) => at.fmt(f),
            Origin::Set => f.write_str("--set"),
        }
    }
}

/// One `key = value` of one layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The section.
    pub section: String,
    /// The key as written, with its variant.
    pub key: String,
    /// The value as written, before substitutions.
    pub raw: String,
    /// Where it stands.
    pub origin: Origin,
}

/// The value of a key after all layers, with its history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// The section.
    pub section: String,
    /// The key, without variant.
    pub key: String,
    /// The value, after substitutions.
    pub value: String,
    /// The value as written.
    pub raw: String,
    /// The key as written, with its variant.
    pub written: String,
    /// Where it comes from.
    pub origin: Origin,
    /// Its placeholders could not be replaced: `value` is still the text as written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub broken: bool,
    /// What it won against, the strongest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Assignment>,
}

impl Value {
    /// The value and its whole history, for people:
    ///
    /// ```text
    /// [nginx] port = 80
    ///   used: port=80 (--set)
    ///   over: port=8080 (/home/mfserv/config/config.ini:12)
    ///   over: port=18868 (built-in default)
    /// ```
    pub fn explain(&self) -> String {
        let mut text = format!("[{}] {} = {}", self.section, self.key, self.value);
        text.push_str(&format!("\n  used: {}={} ({})", self.written, self.raw, self.origin));
        for over in &self.overrides {
            text.push_str(&format!("\n  over: {}={} ({})", over.key, over.raw, over.origin));
        }
        text
    }
}

/// Every key of a document as an [`Assignment`].
pub fn assignments(document: &Document) -> impl Iterator<Item = Assignment> + '_ {
    document.sections.iter().flat_map(move |section| {
        section.entries.iter().map(move |entry| Assignment {
            section: section.name.clone(),
            key: entry.key.clone(),
            raw: entry.value.clone(),
            origin: Origin::File(document.at(entry.line)),
        })
    })
}

/// Reads the argument of `--set`: `SECTION.KEY=VALUE`.
pub fn parse_set(text: &str) -> Result<(String, String, String), Diagnostic> {
    let parts = text.split_once('=').and_then(|(name, value)| {
        let (section, key) = name.split_once('.')?;
        let (section, key) = (section.trim(), key.trim());
        let named = !section.is_empty() && !key.is_empty();
        named.then(|| (section.to_lowercase(), key.to_lowercase(), value.trim().to_string()))
    });
    parts.ok_or_else(|| {
        Diagnostic::error(format!("--set {text} is not understood"))
            .kind(Kind::Usage)
            .help("write --set SECTION.KEY=VALUE, for example --set nginx.port=8080")
    })
}

/// Merges assignments in the order of their layers, the weakest first. For one
/// raw key the last wins; then the best variant for `config_name` is chosen,
/// once, whichever layer it comes from. Only `--set` wins whatever the variants
/// are: who types it means it. Keys keep the order in which they first appear.
/// Values are not yet substituted.
pub fn merge(assignments: impl IntoIterator<Item = Assignment>, config_name: &str) -> Vec<Value> {
    let config_name = config_name.trim().to_lowercase();
    let mut order: Vec<(String, String)> = Vec::new();
    let mut sections: Vec<String> = Vec::new();
    let mut found: HashMap<(String, String), Vec<(usize, Assignment)>> = HashMap::new();
    for assignment in assignments {
        let (plain, variant) = split_variant(&assignment.key);
        let Some(mut rank) = rank(variant, &config_name) else { continue };
        if assignment.origin == Origin::Set {
            rank = usize::MAX;
        }
        let name = (assignment.section.clone(), plain.to_string());
        if !found.contains_key(&name) {
            order.push(name.clone());
        }
        if !sections.contains(&assignment.section) {
            sections.push(assignment.section.clone());
        }
        found.entry(name).or_default().push((rank, assignment));
    }
    let place: HashMap<&str, usize> =
        sections.iter().enumerate().map(|(index, name)| (name.as_str(), index)).collect();
    order.sort_by_key(|(section, _)| place[section.as_str()]);
    order.into_iter().filter_map(|name| chosen(found.remove(&name)?, name)).collect()
}

fn chosen(mut candidates: Vec<(usize, Assignment)>, name: (String, String)) -> Option<Value> {
    // Stable: among equals the later layer stays later, and the last one wins.
    candidates.sort_by_key(|(rank, _)| *rank);
    let (_, winner) = candidates.pop()?;
    let overrides = candidates.into_iter().rev().map(|(_, assignment)| assignment).collect();
    Some(Value {
        section: name.0,
        key: name.1,
        value: winner.raw.clone(),
        raw: winner.raw,
        written: winner.key,
        origin: winner.origin,
        broken: false,
        overrides,
    })
}

/// `port[prod]` is (`port`, `prod`); an empty variant counts as none.
pub fn split_variant(key: &str) -> (&str, &str) {
    match key.strip_suffix(']').and_then(|rest| rest.split_once('[')) {
        Some((plain, variant)) if !plain.trim().is_empty() => (plain.trim(), variant.trim()),
        _ => (key, ""),
    }
}

/// How well a variant fits: 0 for none, more for each further segment; `None`
/// when it is for another configuration.
fn rank(variant: &str, config_name: &str) -> Option<usize> {
    if variant.is_empty() {
        return Some(0);
    }
    let variant = variant.to_lowercase();
    let rest = config_name.strip_prefix(&variant)?;
    (rest.is_empty() || rest.starts_with('_')).then_some(variant.len())
}

/// Replaces the placeholders of every value. A value that cannot be rendered
/// becomes an error and is marked as broken.
pub fn substitute_all(
    values: &mut [Value],
    env: &BTreeMap<String, String>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    for value in values {
        match substitute(&value.raw, env) {
            Ok(text) => value.value = text,
            Err(reason) => {
                value.broken = true;
                let what = format!("can't render [{}] {}", value.section, value.written);
                diagnostics.push(
                    Diagnostic::error(what)
                        .kind(Kind::BadConfiguration)
                        .because(reason)
                        .at(value.origin.location())
                        .help("{{NAME}} is an environment variable; {{ '{%' }} is the text {%"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ini::{Dialect, parse};

    fn merged(files: &[&str], sets: &[(&str, &str, &str)], config_name: &str) -> Vec<Value> {
        let documents: Vec<Document> = files
            .iter()
            .enumerate()
            .map(|(index, text)| parse(text, &format!("f{index}"), Dialect::Module).unwrap())
            .collect();
        let sets = sets.iter().map(|(section, key, raw)| Assignment {
            section: section.to_string(),
            key: key.to_string(),
            raw: raw.to_string(),
            origin: Origin::Set,
        });
        merge(documents.iter().flat_map(assignments).chain(sets), config_name)
    }

    fn shown(values: &[Value]) -> Vec<String> {
        values
            .iter()
            .map(|v| format!("{}.{}={} ({})", v.section, v.key, v.value, v.origin))
            .collect()
    }

    #[test]
    fn the_last_file_wins_and_the_history_is_kept_strongest_first() {
        let files = ["[a]\nx=1\n", "[a]\ny=0\nx=2\n", "[a]\nx=3\n"];
        let values = merged(&files, &[], "GENERIC");
        assert_eq!(shown(&values), ["a.x=3 (f2:2)", "a.y=0 (f1:2)"]);
        let history: Vec<String> =
            values[0].overrides.iter().map(|o| format!("{} {}", o.raw, o.origin)).collect();
        assert_eq!(history, ["2 f1:3", "1 f0:2"]);
    }

    #[test]
    fn the_most_precise_variant_wins_even_against_a_later_file() {
        let file = "[a]\nx=plain\nx[dev]=dev\nx[DEV_foo]=foo\nx[dev_f]=no\nx[prod]=prod\n";
        let later = "[a]\nx=later\n";
        for (config_name, expected) in [
            ("dev_foo_bar", "foo"),
            ("Dev_Foo", "foo"),
            ("dev_x", "dev"),
            ("dev_f", "no"),
            ("prod", "prod"),
            ("GENERIC", "later"),
            ("develop", "later"),
        ] {
            assert_eq!(merged(&[file, later], &[], config_name)[0].value, expected);
        }
    }

    #[test]
    fn a_key_with_only_foreign_variants_does_not_exist() {
        assert_eq!(merged(&["[a]\nx[prod]=1\n"], &[], "dev"), []);
        assert_eq!(merged(&["[a]\nx[]=1\n"], &[], "dev")[0].key, "x");
    }

    #[test]
    fn a_variant_hides_the_plain_key_and_says_so() {
        let values = merged(&["[a]\nx=1\nx[dev]=2\n", "[a]\nx=3\n"], &[], "dev");
        assert_eq!(values[0].written, "x[dev]");
        let hidden: Vec<&str> = values[0].overrides.iter().map(|o| o.raw.as_str()).collect();
        assert_eq!(hidden, ["3", "1"]);
    }

    #[test]
    fn set_wins_over_every_file_and_every_variant() {
        let values = merged(&["[a]\nx[dev]=2\n"], &[("a", "x", "4"), ("a", "x", "5")], "dev");
        assert_eq!(shown(&values), ["a.x=5 (--set)"]);
        assert_eq!(
            values[0].explain(),
            "[a] x = 5\n  used: x=5 (--set)\n  over: x=4 (--set)\n  over: x[dev]=2 (f0:2)"
        );
    }

    #[test]
    fn sections_and_keys_keep_the_order_of_their_first_appearance() {
        let values = merged(&["[b]\nx=1\n[a]\nx=1\n", "[c]\nx=1\n[b]\ny=1\n"], &[], "");
        let names: Vec<String> =
            values.iter().map(|v| format!("{}.{}", v.section, v.key)).collect();
        assert_eq!(names, ["b.x", "b.y", "a.x", "c.x"]);
    }

    #[test]
    fn a_set_argument_is_section_key_and_value() {
        let (section, key, value) = parse_set("Nginx.Port= 80=1").unwrap();
        assert_eq!((&*section, &*key, &*value), ("nginx", "port", "80=1"));
        for bad in ["", "nginx", "nginx.port", "port=1", ".port=1", "nginx.=1"] {
            assert_eq!(parse_set(bad).unwrap_err().kind, Kind::Usage, "{bad}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_rendered_is_an_error_at_its_line() {
        let mut values = merged(&["[a]\nx={{ nope\ny={{B}}\n"], &[], "");
        let env = BTreeMap::from([("B".to_string(), "2".to_string())]);
        let mut diagnostics = Vec::new();
        substitute_all(&mut values, &env, &mut diagnostics);
        assert_eq!(values[1].value, "2");
        assert_eq!(diagnostics.len(), 1);
        assert_eq!(diagnostics[0].at, Some(Location::new("f0", 2)));
        assert!(diagnostics[0].is_error());
    }
}
