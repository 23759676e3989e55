//! The text of a configuration of nginx while it is written: lines, and which of them are
//! whose fragment.

use std::ops::RangeInclusive;
use std::path::Path;

use super::pieces::{Piece, PieceId};

/// A configuration.
#[derive(Debug, Default)]
pub struct Text {
    out: String,
    lines: usize,
    depth: usize,
    spans: Vec<(RangeInclusive<usize>, PieceId)>,
}

impl Text {
    /// Adds a line, indented.
    pub fn line(&mut self, text: impl AsRef<str>) {
        self.out.push_str(&"    ".repeat(self.depth));
        self.out.push_str(text.as_ref());
        self.out.push('\n');
        self.lines += 1;
    }

    /// True if a part of it is a plugin's.
    pub fn has_fragments(&self) -> bool {
        !self.spans.is_empty()
    }

    /// Adds a block: `head {`, what `fill` adds, `}`.
    pub fn block(&mut self, head: &str, fill: impl FnOnce(&mut Self)) {
        self.line(format!("{head} {{"));
        self.depth += 1;
        fill(self);
        self.depth -= 1;
        self.line("}");
    }

    /// Adds a fragment as it is, and remembers its lines.
    pub fn fragment(&mut self, piece: &Piece<'_>) {
        self.line(format!("# {}: {}", piece.id.plugin, piece.fragment.file.replace('\n', " ")));
        self.verbatim(&piece.id, &piece.fragment.text);
    }

    /// Adds lines of a fragment as they are.
    pub fn verbatim(&mut self, id: &PieceId, text: &str) {
        let first = self.lines + 1;
        for line in text.lines() {
            self.out.push_str(line);
            self.out.push('\n');
            self.lines += 1;
        }
        self.spans.push((first..=self.lines, id.clone()));
    }

    /// The fragment that a line of the text belongs to, and its line in that.
    pub fn owner(&self, line: usize) -> Option<(&PieceId, usize)> {
        let (span, id) = self.spans.iter().find(|(span, _)| span.contains(&line))?;
        Some((id, line - span.start() + 1))
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.out
    }
}

/// A word of the configuration, in quotation marks.
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// A path as a word of the configuration.
pub fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// A regular expression (PCRE) that matches this text only.
pub fn literally(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if !(c.is_alphanumeric() || matches!(c, '/' | '_' | '-')) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use mfserv_core::route::Fragment;

    use super::super::pieces::Place;
    use super::*;

    #[test]
    fn words_and_expressions_keep_their_characters() {
        assert_eq!(quoted(r#"/a "b"\d"#), r#""/a \"b\"\\d""#);
        assert_eq!(literally("/a.b+c/é"), r"/a\.b\+c/é");
    }

    #[test]
    fn a_line_is_found_in_its_fragment() {
        let fragment = Fragment { file: "a.conf".into(), text: "one;\n\nthree;".into() };
        let id = PieceId { plugin: "p".into(), place: Place::Http };
        let mut text = Text::default();
        text.block("http", |text| {
            text.line("before;");
            text.fragment(&Piece { id: id.clone(), fragment: &fragment });
            text.line("after;");
        });
        let lines: Vec<&str> = text.text().lines().collect();
        assert_eq!(lines[5], "three;");
        assert_eq!(text.owner(6), Some((&id, 3)));
        for outside in [1, 2, 3, 7, 8] {
            assert_eq!(text.owner(outside), None, "{outside}");
        }
    }
}
