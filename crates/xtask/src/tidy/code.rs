//! What several rules want to know of a Rust file: its paths, enums and functions.

use super::source::{Kind, Source, Token, closing};

/// A path as it is written (`std::fs::read`), with its line. Those of a `use` are taken apart:
/// `use a::{b, c::d}` gives `a::b` and `a::c::d`.
pub fn paths(source: &Source) -> Vec<(usize, String)> {
    let code = source.code();
    let mut found = Vec::new();
    let mut at = 0;
    while at < code.len() {
        at = path(&code, at, "", &mut found).max(at + 1);
    }
    found
}

/// Reads one path (with what is in its braces) at a place; returns the place behind it.
fn path(code: &[&Token], at: usize, before: &str, found: &mut Vec<(usize, String)>) -> usize {
    let is = |at: usize, text: &str| {
        code.get(at).is_some_and(|token| token.kind == Kind::Mark && token.text == text)
    };
    let mut at = at;
    let mut path = before.to_string();
    let Some(first) = code.get(at) else { return at };
    while code.get(at).is_some_and(|token| token.kind == Kind::Word) {
        path.push_str(&code[at].text);
        at += 1;
        if !(is(at, ":") && is(at + 1, ":")) {
            found.push((first.line, path));
            return at;
        }
        path.push_str("::");
        at += 2;
    }
    if path.is_empty() || !is(at, "{") {
        return at;
    }
    let end = closing(code, at).unwrap_or(code.len());
    at += 1;
    while at < end {
        at = self::path(code, at, &path, found).max(at + 1);
    }
    end + 1
}

/// The variants of an enum, with their lines.
pub fn variants(source: &Source, name: &str) -> Vec<(usize, String)> {
    let code = source.code();
    let is_enum = |at: &usize| {
        code[*at].text == "enum" && code.get(at + 1).is_some_and(|token| token.text == name)
    };
    let Some(begin) = (0..code.len()).find(is_enum) else { return Vec::new() };
    let Some(open) = (begin..code.len()).find(|&at| code[at].text == "{") else {
        return Vec::new();
    };
    let end = closing(&code, open).unwrap_or(code.len());
    let mut variants = Vec::new();
    let mut at = open + 1;
    while at < end {
        match code[at].text.as_str() {
            "#" => at = closing(&code, at + 1).unwrap_or(end) + 1,
            "," => at += 1,
            name => {
                variants.push((code[at].line, name.to_string()));
                at = after_variant(&code, at + 1, end);
            }
        }
    }
    variants
}

fn after_variant(code: &[&Token], at: usize, end: usize) -> usize {
    let mut at = at;
    while at < end && code[at].text != "," {
        at = closing(code, at).unwrap_or(at) + 1;
    }
    at
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of its `fn`.
    pub line: usize,
    /// From `fn` to the closing brace, both included.
    pub lines: usize,
}

/// The functions, inner ones too.
pub fn functions(source: &Source) -> Vec<Function> {
    let code = source.code();
    let mut functions = Vec::new();
    for at in 0..code.len() {
        if code[at].text != "fn" || code.get(at + 1).is_none_or(|t| t.kind != Kind::Word) {
            continue;
        }
        let Some(open) = body(&code, at + 2) else { continue };
        let Some(close) = closing(&code, open) else { continue };
        functions.push(Function {
            name: code[at + 1].text.clone(),
            line: code[at].line,
            lines: code[close].line + 1 - code[at].line,
        });
    }
    functions
}

/// The brace that opens the body of a function whose signature goes on here.
fn body(code: &[&Token], at: usize) -> Option<usize> {
    let mut at = at;
    loop {
        match code.get(at)?.text.as_str() {
            "{" => return Some(at),
            ";" => return None,
            "(" | "[" => at = closing(code, at)? + 1,
            _ => at += 1,
        }
    }
}

/// `NotRenewed` → `not_renewed`, or `not-renewed` with another mark.
pub fn snake(name: &str, between: char) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push(between);
        }
        out.extend(c.to_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new("crates/core/src/a.rs", text)
    }

    #[test]
    fn the_paths_of_a_group_are_taken_apart() {
        let text = "use std::{fs, io::{self, Read}};\nuse a::b as c;\nd::e(f);";
        let found: Vec<String> =
            paths(&source(text)).into_iter().map(|(line, path)| format!("{line} {path}")).collect();
        assert_eq!(
            found,
            [
                "1 use",
                "1 std::fs",
                "1 std::io::self",
                "1 std::io::Read",
                "2 use",
                "2 a::b",
                "2 as",
                "2 c",
                "3 d::e",
                "3 f"
            ]
        );
    }

    #[test]
    fn the_variants_of_an_enum_are_found_between_attributes_and_fields() {
        let text = "enum A { X }\n#[derive(B)]\npub enum Fact {\n/// Doc.\n#[serde(rename = \"a,b\")]\nOne,\nTwo { a: Vec<u8>, b: u8 },\nThree(u8, u8),\nFour = 4,\n}";
        let names: Vec<_> = variants(&source(text), "Fact").into_iter().map(|(_, n)| n).collect();
        assert_eq!(names, ["One", "Two", "Three", "Four"]);
        assert!(variants(&source(text), "Other").is_empty());
    }

    #[test]
    fn a_function_is_counted_from_its_fn_to_its_last_brace() {
        let text = "trait T { fn no(&self); }\nfn a(b: [u8; 2]) -> fn() {\n  fn inner() {}\n  b\n}";
        let found: Vec<_> =
            functions(&source(text)).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
        assert_eq!(found, [("a".into(), 2, 4), ("inner".into(), 3, 1)]);
    }

    #[test]
    fn a_variant_is_written_as_serde_and_clap_write_it() {
        assert_eq!(snake("NotRenewed", '_'), "not_renewed");
        assert_eq!(snake("GoBack", '-'), "go-back");
    }
}
