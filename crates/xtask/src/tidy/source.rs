//! A Rust file as tokens with their lines, comments included.

use std::ops::Range;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A name or a keyword.
    Word,
    /// One character of punctuation.
    Mark,
    /// A string, of any kind, without its quotes.
    Text,
    /// A number, a character, a lifetime.
    Other,
    /// `// …` or `/* … */`, with its slashes; one token a line for line comments.
    Comment,
}

/// A piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Its text.
    pub text: String,
    /// The line on which it begins, counted from 1.
    pub line: usize,
}

/// A Rust file.
#[derive(Debug)]
pub struct Source {
    /// Its path below the repository.
    pub path: String,
    /// How many lines it has.
    pub lines: usize,
    /// Everything but white space.
    pub tokens: Vec<Token>,
    /// The lines of its `#[cfg(test)]` modules.
    tests: Vec<Range<usize>>,
}

impl Source {
    /// Takes a file apart.
    pub fn new(path: impl Into<String>, text: &str) -> Self {
        let tokens = tokens(text);
        let mut source =
            Self { path: path.into(), lines: text.lines().count(), tokens, tests: Vec::new() };
        source.tests = source.test_modules();
        source
    }

    /// The crate it is of: `core` for `crates/core/src/plan.rs`.
    pub fn krate(&self) -> &str {
        self.path.strip_prefix("crates/").and_then(|p| p.split('/').next()).unwrap_or("")
    }

    /// It is shipped: no test, no bench, no fuzz target.
    pub fn is_shipped(&self) -> bool {
        let shipped = !matches!(self.krate(), "" | "testkit" | "xtask");
        let is_test = self.path.contains("/tests/") || self.path.ends_with("/tests.rs");
        shipped && self.path.contains("/src/") && !is_test
    }

    /// A line of shipped code, no unit test.
    pub fn ships(&self, line: usize) -> bool {
        self.is_shipped() && !self.tests.iter().any(|range| range.contains(&line))
    }

    /// A line of a test, of whatever kind.
    pub fn is_test(&self, line: usize) -> bool {
        self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
            || self.krate() == "testkit"
            || self.tests.iter().any(|range| range.contains(&line))
    }

    /// The tokens without comments.
    pub fn code(&self) -> Vec<&Token> {
        self.tokens.iter().filter(|token| token.kind != Kind::Comment).collect()
    }

    /// The comments.
    pub fn comments(&self) -> impl Iterator<Item = &Token> {
        self.tokens.iter().filter(|token| token.kind == Kind::Comment)
    }

    /// A comment stands on this line, or alone on the line above.
    pub fn is_explained(&self, line: usize) -> bool {
        let above = line.saturating_sub(1);
        let code_above =
            || self.tokens.iter().any(|token| token.line == above && token.kind != Kind::Comment);
        self.comments().any(|comment| {
            let end = comment.line + comment.text.matches('\n').count();
            comment.line == line || (end == above && !code_above())
        })
    }

    fn test_modules(&self) -> Vec<Range<usize>> {
        let code = self.code();
        let is = |at: usize, texts: &[&str]| {
            texts
                .iter()
                .enumerate()
                .all(|(i, text)| code.get(at + i).is_some_and(|t| t.text == *text))
        };
        let begins = |at: &usize| is(*at, &["#", "[", "cfg", "(", "test", ")", "]"]);
        let block = |at: usize| {
            let open = (at..code.len()).find(|&i| matches!(code[i].text.as_str(), "{" | ";"))?;
            let close = if code[open].text == "{" { closing(&code, open)? } else { open };
            Some(code[at].line..code[close].line + 1)
        };
        (0..code.len()).filter(begins).filter_map(block).collect()
    }
}

/// Where the bracket that is opened at a place is closed.
pub fn closing(code: &[&Token], open: usize) -> Option<usize> {
    let (opens, closes) = match code[open].text.as_str() {
        "{" => ("{", "}"),
        "(" => ("(", ")"),
        "[" => ("[", "]"),
        _ => return None,
    };
    let mut depth = 0;
    for (at, token) in code.iter().enumerate().skip(open) {
        if token.kind != Kind::Mark {
            continue;
        }
        if token.text == opens {
            depth += 1;
        } else if token.text == closes {
            depth -= 1;
            if depth == 0 {
                return Some(at);
            }
        }
    }
    None
}

fn tokens(text: &str) -> Vec<Token> {
    let mut rest = text;
    let mut line = 1;
    let mut tokens = Vec::new();
    while let Some(first) = rest.chars().next() {
        let (kind, length) = token(rest, first);
        let (piece, after) = rest.split_at(length);
        if let Some(kind) = kind {
            let text = if kind == Kind::Text { unquoted(piece) } else { piece };
            tokens.push(Token { kind, text: text.to_string(), line });
        }
        line += piece.matches('\n').count();
        rest = after;
    }
    tokens
}

/// The kind (`None`: white space) and the length of the first token.
fn token(rest: &str, first: char) -> (Option<Kind>, usize) {
    let until = |end: fn(char) -> bool| rest.find(end).unwrap_or(rest.len());
    if first.is_whitespace() {
        return (None, until(|c| !c.is_whitespace()));
    }
    if rest.starts_with("//") {
        return (Some(Kind::Comment), until(|c| c == '\n'));
    }
    if rest.starts_with("/*") {
        return (Some(Kind::Comment), block_comment(rest));
    }
    if let Some(length) = string(rest) {
        return (Some(Kind::Text), length);
    }
    if first == '\'' {
        return (Some(Kind::Other), quote(rest));
    }
    let word = |c: char| !(c.is_alphanumeric() || c == '_');
    match first {
        '0'..='9' => (Some(Kind::Other), until(word)),
        c if c.is_alphabetic() || c == '_' => (Some(Kind::Word), until(word)),
        c => (Some(Kind::Mark), c.len_utf8()),
    }
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length of a string that begins here: `"`, `b"`, `c"`, `r"`, `r#"`, `br#"`…
fn string(rest: &str) -> Option<usize> {
    let prefix = rest.find(|c: char| !matches!(c, 'b' | 'c' | 'r'))?;
    let raw = rest[..prefix].contains('r');
    let hashes = rest[prefix..].find(|c| c != '#')?;
    let open = prefix + hashes;
    if prefix > 2 || !rest[open..].starts_with('"') || (hashes > 0 && !raw) {
        return None;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = &rest[open + 1..];
    if raw {
        return Some(body.find(&end).map_or(rest.len(), |at| open + 1 + at + end.len()));
    }
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(open + 1 + at + 1),
            _ => {}
        }
    }
    Some(rest.len())
}

fn unquoted(piece: &str) -> &str {
    let begin = piece.find('"').map_or(0, |at| at + 1);
    let end = piece.rfind('"').unwrap_or(piece.len());
    piece.get(begin..end).unwrap_or(piece)
}

/// The length of a character or a lifetime.
fn quote(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            let body = rest.get(3..).and_then(|body| body.find('\''));
            body.map_or(rest.len(), |at| 3 + at + 1)
        }
        Some((_, _)) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 1 + rest[1..].find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(0),
        },
        None => rest.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        tokens(text).into_iter().map(|t| format!("{:?} {} {}", t.kind, t.line, t.text)).collect()
    }

    #[test]
    fn a_file_is_words_marks_texts_and_comments_with_their_lines() {
        let text = "// why\nfn a<'b>() -> u8 {\n    x(\"y // \\\" z\", 'c', '\\'', r#\"\"\"#) /* e\nf */ }";
        assert_eq!(
            shown(text),
            [
                "Comment 1 // why",
                "Word 2 fn",
                "Word 2 a",
                "Mark 2 <",
                "Other 2 'b",
                "Mark 2 >",
                "Mark 2 (",
                "Mark 2 )",
                "Mark 2 -",
                "Mark 2 >",
                "Word 2 u8",
                "Mark 2 {",
                "Word 3 x",
                "Mark 3 (",
                "Text 3 y // \\\" z",
                "Mark 3 ,",
                "Other 3 'c'",
                "Mark 3 ,",
                "Other 3 '\\''",
                "Mark 3 ,",
                "Text 3 \"",
                "Mark 3 )",
                "Comment 3 /* e\nf */",
                "Mark 4 }",
            ]
        );
    }

    #[test]
    fn a_word_that_begins_like_a_string_is_none() {
        assert_eq!(shown("br c"), ["Word 1 br", "Word 1 c"]);
        assert_eq!(shown("b\"x\"y"), ["Text 1 x", "Word 1 y"]);
    }

    #[test]
    fn unit_tests_do_not_ship() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n";
        let source = Source::new("crates/core/src/a.rs", text);
        let ships: Vec<bool> = (1..=6).map(|line| source.ships(line)).collect();
        assert_eq!(ships, [true, false, false, false, false, true]);
        assert!(!Source::new("crates/core/tests/a.rs", text).ships(1));
        assert!(!Source::new("crates/core/src/tests/a.rs", text).ships(1));
        assert!(!Source::new("crates/xtask/src/a.rs", text).ships(1));
    }

    #[test]
    fn a_line_is_explained_on_itself_or_by_a_line_of_its_own_above() {
        let text = "// why\na();\nb(); // why\nc();\n/* long\nwhy */\nd();\n";
        let source = Source::new("a.rs", text);
        let explained: Vec<usize> = (1..=7).filter(|&l| source.is_explained(l)).collect();
        assert_eq!(explained, [1, 2, 3, 5, 7]);
    }
}
