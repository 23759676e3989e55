//! What a user meets has its line in the documentation: configuration keys, commands, events,
//! reasons of an end, error causes and exit codes. The lists are read from the sources.

use crate::tidy::code::{snake, variants};
use crate::tidy::source::{Kind, Source};
use crate::tidy::{Finding, Tree, markdown};

/// The variants of an enum, each of which has a row under a heading of a page, or at least stands
/// there between backticks.
struct Words {
    source: &'static str,
    name: &'static str,
    page: &'static str,
    heading: &'static str,
    /// Variants that are no words.
    but: &'static [&'static str],
}

const EVENT: &str = "crates/core/src/event.rs";

const WORDS: &[Words] = &[
    Words { source: EVENT, name: "Fact", page: "docs/events.md", heading: "# Events", but: &[] },
    Words {
        source: "crates/core/src/event/end_reason.rs",
        name: "EndReason",
        page: "docs/events.md",
        heading: "## Why a worker ended",
        but: &[],
    },
    Words {
        source: "crates/front/src/embedded/clients/fault.rs",
        name: "Cause",
        page: "docs/operating.md",
        heading: "## Error causes",
        but: &["Worker"],
    },
    Words {
        source: "crates/core/src/wire/front.rs",
        name: "TroubleCause",
        page: "docs/operating.md",
        heading: "## Error causes",
        but: &["Other"],
    },
];

/// Words of those tables that no enum has: answers of extensions of the front, and of nginx.
const OTHERS: &[&str] = &["broken_edit", "front"];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for words in WORDS {
        findings.extend(of_enum(tree, words));
        findings.extend(gone(tree, words));
    }
    findings.extend(keys(tree));
    findings.extend(exit_codes(tree));
    findings.extend(commands(tree));
    findings.extend(old_commands(tree));
    findings
}

/// A page and the source of what it documents; a finding where one of them is not there.
fn both<'a>(tree: &'a Tree, source: &str, page: &str) -> Result<(&'a Source, &'a str), Finding> {
    let code =
        tree.source(source).ok_or_else(|| Finding::new(source, 1, "there is no such file"))?;
    let text = tree.text(page).ok_or_else(|| Finding::new(page, 1, "there is no such page"))?;
    Ok((code, text))
}

/// Names that do not stand between backticks on a page.
fn missing(page: &str, text: &str, source: &str, names: Vec<(usize, String)>) -> Vec<Finding> {
    if names.is_empty() {
        return vec![Finding::new(
            source,
            1,
            format!("what {page} has to document is not found here"),
        )];
    }
    let codes: Vec<String> = markdown::codes(text).into_iter().map(|(_, code)| code).collect();
    names
        .into_iter()
        .filter(|(_, name)| !codes.contains(name))
        .map(|(line, name)| {
            Finding::new(source, line, format!("`{name}` is not documented in {page}"))
        })
        .collect()
}

fn of_enum(tree: &Tree, words: &Words) -> Vec<Finding> {
    match both(tree, words.source, words.page) {
        Ok((source, text)) => missing(words.page, text, words.source, words_of(source, words)),
        Err(finding) => vec![finding],
    }
}

fn words_of(source: &Source, words: &Words) -> Vec<(usize, String)> {
    let names = variants(source, words.name).into_iter();
    let names = names.filter(|(_, name)| !words.but.contains(&name.as_str()));
    names.map(|(line, name)| (line, snake(&name, '_'))).collect()
}

/// Rows of a word that no enum of their table has any more.
fn gone(tree: &Tree, words: &Words) -> Vec<Finding> {
    let Some(text) = tree.text(words.page) else { return Vec::new() };
    let of_table = WORDS.iter().filter(|other| other.heading == words.heading);
    let known: Vec<String> = of_table
        .filter_map(|other| Some(words_of(tree.source(other.source)?, other)))
        .flatten()
        .map(|(_, name)| name)
        .collect();
    let is_known = |name: &str| OTHERS.contains(&name) || known.iter().any(|known| known == name);
    markdown::rows_under(text, words.heading)
        .into_iter()
        .map(|(line, cells)| (line, cells[0].trim_matches('`').to_string()))
        .filter(|(_, name)| !is_known(name))
        .map(|(line, name)| {
            Finding::new(words.page, line, format!("`{name}` is no longer in the sources"))
        })
        .collect()
}

/// Texts that follow one of these words and a bracket: `key("nginx", "flag"` gives `flag` when
/// the second argument is asked for.
fn arguments(source: &Source, of: &[&str], which: usize) -> Vec<(usize, String)> {
    let code = source.code();
    let mut found = Vec::new();
    for at in 0..code.len() {
        let called = code[at].kind == Kind::Word && of.contains(&code[at].text.as_str());
        let argument = code.get(at + 2 + 2 * which).filter(|token| token.kind == Kind::Text);
        if let (true, Some(argument)) = (called, argument) {
            found.push((argument.line, argument.text.clone()));
        }
    }
    found
}

/// Keys of plugins. (The module's keys have a test of their own in `core/src/keys.rs`, which
/// compares whole rows.)
fn keys(tree: &Tree) -> Vec<Finding> {
    let (path, page) = ("crates/core/src/plugin_config/schema.rs", "docs/configuration.md");
    match both(tree, path, page) {
        Ok((source, text)) => {
            let keys = arguments(source, &["required", "key", "later"], 0);
            missing(page, text, path, keys)
        }
        Err(finding) => vec![finding],
    }
}

/// Each code of `Kind::exit_code` has a row that begins with it.
fn exit_codes(tree: &Tree) -> Vec<Finding> {
    let (path, page) = ("crates/core/src/exit_code.rs", "docs/operating.md");
    let (source, text) = match both(tree, path, page) {
        Ok(both) => both,
        Err(finding) => return vec![finding],
    };
    let code = source.code();
    let documented: Vec<String> =
        markdown::rows(text).into_iter().map(|(_, cells)| cells[0].clone()).collect();
    let arms = code.windows(6).filter(|arm| arm[0].text == "Kind" && arm[4].text == "=");
    let codes = arms.filter(|arm| arm[5].text == ">");
    codes
        .filter_map(|arm| code.iter().skip_while(|token| !std::ptr::eq(**token, arm[5])).nth(1))
        .filter(|number| number.kind == Kind::Other && !documented.contains(&number.text))
        .map(|number| {
            let message = format!("exit code {} is not documented in {page}", number.text);
            Finding::new(path, number.line, message)
        })
        .collect()
}

/// Each command is shown as `mfserv NAME` in some document.
fn commands(tree: &Tree) -> Vec<Finding> {
    let path = "crates/mfserv/src/cli.rs";
    let Some(source) = tree.source(path) else {
        return vec![Finding::new(path, 1, "there is no such file")];
    };
    let is_shown = |name: &str| {
        let shown = format!("mfserv {name}");
        let pages = tree.documents().filter(|(page, _)| page.starts_with("docs/"));
        pages.into_iter().any(|(_, text)| text.contains(&shown))
    };
    variants(source, "Command")
        .into_iter()
        .map(|(line, name)| (line, snake(&name, '-')))
        .filter(|(_, name)| !is_shown(name))
        .map(|(line, name)| {
            Finding::new(path, line, format!("`mfserv {name}` is not documented in docs/"))
        })
        .collect()
}

/// Each command of MFSERV has its row. Names that begin with `_` are internal.
fn old_commands(tree: &Tree) -> Vec<Finding> {
    let (path, page) = ("crates/mfserv/src/compat.rs", "docs/compatibility.md");
    let (source, text) = match both(tree, path, page) {
        Ok(both) => both,
        Err(finding) => return vec![finding],
    };
    let code = source.code();
    let names = code
        .windows(3)
        .filter(|three| three[0].text == "(" && three[1].kind == Kind::Text && three[2].text == ",")
        .map(|three| (three[1].line, three[1].text.clone()))
        .filter(|(_, name)| !name.starts_with('_') && !name.contains(' '));
    let is_documented = |name: &str| {
        markdown::codes(text).iter().any(|(_, code)| code.split(' ').next() == Some(name))
    };
    let names: Vec<(usize, String)> = names.collect();
    if names.is_empty() {
        return vec![Finding::new(
            path,
            1,
            format!("what {page} has to document is not found here"),
        )];
    }
    names
        .into_iter()
        .filter(|(_, name)| !is_documented(name))
        .map(|(line, name)| {
            Finding::new(path, line, format!("`{name}` is not documented in {page}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: &[(&str, &str)] = &[
        ("crates/core/src/event.rs", "enum Fact { NodeState { a: u8 }, Scaled }"),
        ("crates/core/src/event/end_reason.rs", "enum EndReason { Stuck }"),
        (
            "crates/front/src/embedded/clients/fault.rs",
            "enum Cause { NoRoute, Worker(TroubleCause) }",
        ),
        ("crates/core/src/wire/front.rs", "enum TroubleCause { Reset, Other }"),
        (
            "crates/core/src/plugin_config/schema.rs",
            "const A: &[Key] = &[required(\"_version\", B), key(\"routes\", C)];",
        ),
        ("crates/core/src/exit_code.rs", "match a {\nKind::Failed => 1,\nKind::Usage => 2,\n}"),
        ("crates/mfserv/src/cli.rs", "enum Command { Start(A), GoBack(B) }"),
        (
            "crates/mfserv/src/compat.rs",
            "const C: &[(&str, Run)] = &[(\"_inner\", a), (\"plugins.list\", b)];",
        ),
        (
            "docs/events.md",
            "# Events\n| e | w |\n|---|---|\n| `node_state` | `scaled` |\n\n## Why a worker ended\n\
             | r | w |\n|---|---|\n| `stuck` | x |",
        ),
        ("docs/configuration.md", "`_version` and `routes`"),
        (
            "docs/operating.md",
            "| code | is |\n|---|---|\n| 1 | failed |\n| 2 | usage |\n\n`no_route`, `reset`; mfserv start, mfserv go-back",
        ),
        ("docs/compatibility.md", "`plugins.list [--all]`"),
    ];

    fn with(changed: &str, text: &str) -> Vec<String> {
        let mut tree = Tree::default();
        for (path, original) in FILES {
            let text = if *path == changed { text } else { original };
            match path.ends_with(".rs") {
                true => tree.sources.push(Source::new(*path, text)),
                false => tree.texts.push((path.to_string(), text.into())),
            }
        }
        check(&tree).into_iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn what_is_documented_is_no_finding() {
        assert!(with("", "").is_empty(), "{:?}", with("", ""));
    }

    #[test]
    fn what_is_not_documented_is_found() {
        for (page, text, found) in [
            ("docs/events.md", "`scaled` `stuck`", "event.rs:1: `node_state` is not documented"),
            (
                "docs/events.md",
                "`scaled` `node_state`",
                "end_reason.rs:1: `stuck` is not documented",
            ),
            (
                "docs/configuration.md",
                "`_version`, routes",
                "schema.rs:1: `routes` is not documented",
            ),
            (
                "docs/operating.md",
                "| c | i |\n|---|---|\n| 1 | f |\n\n`no_route` `reset` mfserv start, mfserv go-back",
                "exit_code.rs:3: exit code 2 is not",
            ),
            (
                "docs/operating.md",
                "| c | i |\n|---|---|\n| 1 | f |\n| 2 | u |\n\n`no_route` `reset` mfserv start",
                "cli.rs:1: `mfserv go-back` is not",
            ),
            ("docs/compatibility.md", "`plugins.lists`", "compat.rs:1: `plugins.list` is not"),
        ] {
            let findings = with(page, text);
            assert_eq!(findings.len(), 1, "{page}: {findings:?}");
            assert!(findings[0].contains(found), "{}", findings[0]);
        }
    }

    #[test]
    fn what_is_documented_and_gone_is_found() {
        let page = "# Events\n`node_state` `scaled`\n\n## Why a worker ended\n\
                    | r | w |\n|---|---|\n| `stuck` | x |\n| `too_old` | y |";
        assert_eq!(
            with("docs/events.md", page),
            ["docs/events.md:8: `too_old` is no longer in the sources"]
        );
    }

    #[test]
    fn a_table_that_is_not_found_is_a_finding() {
        // A list that is not found, and the row of the page that has nothing now.
        assert_eq!(with("crates/core/src/event.rs", "enum Facts {}").len(), 2);
        assert_eq!(with("crates/mfserv/src/compat.rs", "fn a() {}").len(), 1);
    }
}
