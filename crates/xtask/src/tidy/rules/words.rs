//! The words of the glossary (`docs/glossary.md`): its second table lists words that are not
//! used, and what is used instead.
//!
//! A row is `| not | but | where |`. Where: `type` (the name of a type), `name` (a part of the
//! name of a type, function, module or file), `prose` (a word of a comment, document or message).

use crate::tidy::markdown::rows;
use crate::tidy::source::{Kind, Source, Token};
use crate::tidy::{Finding, Tree};

const GLOSSARY: &str = "docs/glossary.md";
/// More words of our own than this nobody learns.
const MOST: usize = 40;

#[derive(Debug, PartialEq, Eq)]
enum Place {
    Type,
    Name,
    Prose,
}

#[derive(Debug)]
struct Forbidden {
    word: String,
    instead: String,
    places: Vec<Place>,
}

pub fn check(tree: &Tree) -> Vec<Finding> {
    let Some(glossary) = tree.text(GLOSSARY) else {
        return vec![Finding::new(GLOSSARY, 1, "there is no glossary")];
    };
    let (words, forbidden) = tables(glossary);
    let mut findings = Vec::new();
    if words > MOST {
        let message = format!("{words} words: a glossary has at most {MOST}");
        findings.push(Finding::new(GLOSSARY, 1, message));
    }
    for source in &tree.sources {
        findings.extend(of_source(source, &forbidden));
    }
    for (path, text) in tree.documents().filter(|(path, _)| path != GLOSSARY) {
        for (index, line) in text.lines().enumerate() {
            findings.extend(of_prose(path, index + 1, line, &forbidden));
        }
    }
    findings
}

/// How many words the first table explains, and the rows of the second.
fn tables(glossary: &str) -> (usize, Vec<Forbidden>) {
    let (first, second) =
        glossary.split_once("## Words that are not used").unwrap_or((glossary, ""));
    let mut forbidden = Vec::new();
    for (_, cells) in rows(second) {
        if let [words, instead, places] = cells.as_slice() {
            let places = || places.split(", ").filter_map(place).collect();
            let entry = |word: &str| Forbidden {
                word: word.trim_matches('`').to_string(),
                instead: instead.clone(),
                places: places(),
            };
            forbidden.extend(words.split(", ").map(entry));
        }
    }
    (rows(first).len(), forbidden)
}

fn place(text: &str) -> Option<Place> {
    match text {
        "type" => Some(Place::Type),
        "name" => Some(Place::Name),
        "prose" => Some(Place::Prose),
        _ => None,
    }
}

fn of_source(source: &Source, forbidden: &[Forbidden]) -> Vec<Finding> {
    let mut findings = of_name(&source.path, 1, file_name(&source.path), forbidden);
    let code = source.code();
    for pair in code.windows(2) {
        findings.extend(of_declaration(source, pair[0], pair[1], forbidden));
    }
    for token in &source.tokens {
        // A text without a space is a key or a name of somebody else.
        if token.kind == Kind::Comment || (token.kind == Kind::Text && token.text.contains(' ')) {
            for (index, line) in token.text.lines().enumerate() {
                findings.extend(of_prose(&source.path, token.line + index, line, forbidden));
            }
        }
    }
    findings
}

fn file_name(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split('.').next().unwrap_or(name)
}

/// The name behind `struct`, `enum`, `trait`, `type`, `mod` or `fn`.
fn of_declaration(
    source: &Source,
    keyword: &Token,
    name: &Token,
    forbidden: &[Forbidden],
) -> Vec<Finding> {
    if name.kind != Kind::Word {
        return Vec::new();
    }
    let is_type = matches!(keyword.text.as_str(), "struct" | "enum" | "trait" | "type");
    let mut findings = Vec::new();
    if is_type || matches!(keyword.text.as_str(), "mod" | "fn") {
        // The names of tests are sentences.
        if name.text.matches('_').count() < 3 {
            findings = of_name(&source.path, name.line, &name.text, forbidden);
        }
    }
    if is_type {
        let exact =
            |entry: &&Forbidden| entry.places.contains(&Place::Type) && entry.word == name.text;
        let found = forbidden.iter().filter(exact);
        findings.extend(found.map(|entry| finding(&source.path, name.line, entry)));
    }
    findings
}

fn of_name(path: &str, line: usize, name: &str, forbidden: &[Forbidden]) -> Vec<Finding> {
    let parts = parts(name);
    let is_there =
        |entry: &&Forbidden| entry.places.contains(&Place::Name) && parts.contains(&entry.word);
    forbidden.iter().filter(is_there).map(|entry| finding(path, line, entry)).collect()
}

/// `OpenFile`, `open_file` → `open`, `file`.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && parts.last().is_some_and(|part| !part.is_empty())) {
            parts.push(String::new());
        }
        if let Some(last) = parts.last_mut().filter(|_| c != '_') {
            last.extend(c.to_lowercase());
        }
    }
    parts
}

fn of_prose(path: &str, line: usize, text: &str, forbidden: &[Forbidden]) -> Vec<Finding> {
    let lower = text.to_lowercase();
    let is_there =
        |entry: &&Forbidden| entry.places.contains(&Place::Prose) && has_word(&lower, &entry.word);
    forbidden.iter().filter(is_there).map(|entry| finding(path, line, entry)).collect()
}

/// A word or a phrase, no part of a longer word.
fn has_word(text: &str, word: &str) -> bool {
    let of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(of_word) && !text[at + word.len()..].starts_with(of_word)
    })
}

fn finding(path: &str, line: usize, entry: &Forbidden) -> Finding {
    Finding::new(path, line, format!("`{}` is not a word of ours: {}", entry.word, entry.instead))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Glossary\n\n| word | is |\n|---|---|\n| slot | x |\n\n## Words that are not used\n\n\
        | not | but | where |\n|---|---|---|\n| `Gadget` | `Register` | type |\n\
        | `gizmo`, `widget` | cache | name, prose |\n| `the great dog` | MFSERV | prose |\n";

    fn findings(path: &str, text: &str) -> Vec<(usize, String)> {
        let mut tree = Tree::default();
        tree.texts.push((GLOSSARY.into(), PAGE.into()));
        match path.ends_with(".rs") {
            true => tree.sources.push(Source::new(path, text)),
            false => tree.texts.push((path.into(), text.into())),
        }
        let of = |finding: Finding| {
            (finding.line, finding.message.split('`').nth(1).unwrap_or("").to_string())
        };
        check(&tree).into_iter().map(of).collect()
    }

    #[test]
    fn the_type_is_found_by_its_whole_name() {
        let text = "struct Gadget;\nstruct Gadgeteer;\nfn gadget() {}\n// A gadget.";
        assert_eq!(findings("a.rs", text), [(1, "Gadget".into())]);
    }

    #[test]
    fn a_name_is_found_by_its_parts_and_a_file_by_its_name() {
        let text = "struct OpenGizmo;\nfn from_widget() {}\nfn widgetry() {}\nlet gizmo = 1;";
        assert_eq!(findings("a.rs", text), [(1, "gizmo".into()), (2, "widget".into())]);
        assert_eq!(findings("crates/a/src/widget.rs", ""), [(1, "widget".into())]);
    }

    #[test]
    fn prose_is_comments_messages_and_documents() {
        let text = "// On the Gizmo\n/* first\n a widget */\nlet a = \"no gizmo here\";\nlet b = \"gizmo\";";
        let found = [(1, "gizmo".into()), (3, "widget".into()), (4, "gizmo".into())];
        assert_eq!(findings("a.rs", text), found);
        assert_eq!(findings("README.md", "a\nThe great dog did."), [(2, "the great dog".into())]);
    }

    #[test]
    fn a_glossary_is_short_and_there() {
        let long = format!("| a | b |\n|---|---|\n{}", "| x | y |\n".repeat(41));
        let mut tree = Tree::default();
        assert_eq!(check(&tree).len(), 1);
        tree.texts.push((GLOSSARY.into(), long));
        assert_eq!(check(&tree).len(), 1);
    }
}
