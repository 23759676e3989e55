//! INI files: text in, sections and keys with their lines out.
//!
//! MFSERV reads two dialects with Python's `configparser`, and so do
//! we: the same lines are comments, continuations or errors. Every key keeps
//! the line where it stands, so that a wrong value can be said with its place.

use std::collections::HashMap;

use crate::diagnostic::{Diagnostic, Location};
use crate::exit_code::Kind;

/// The largest file that is read, bytes. A real configuration has some kilobytes.
pub const MAX_BYTES: usize = 1024 * 1024;

/// Which rules a file is read by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The module's `config.ini`: `=` or `:`, comments with `#` or `;`, names
    /// of sections and keys in lower case.
    Module,
    /// A plugin's `config.ini` and its overrides: only `=`, only `#`, case kept.
    Plugin,
}

impl Dialect {
    fn is_delimiter(self, c: char) -> bool {
        c == '=' || (c == ':' && self == Dialect::Module)
    }

    fn is_comment(self, trimmed: &str) -> bool {
        trimmed.starts_with('#') || (trimmed.starts_with(';') && self == Dialect::Module)
    }

    fn name(self, name: &str) -> String {
        match self {
            Dialect::Module => name.to_lowercase(),
            Dialect::Plugin => name.to_string(),
        }
    }
}

/// A parsed file, in file order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The file, as a person would open it.
    pub file: String,
    /// Its sections.
    pub sections: Vec<Section>,
}

/// One `[section]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The name between the brackets.
    pub name: String,
    /// The line of its header, from 1.
    pub line: u32,
    /// Its keys.
    pub entries: Vec<Entry>,
}

/// One `key = value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key as written, with its variant: `port[prod]`.
    pub key: String,
    /// The value, trimmed; lines of a continued value are joined with a newline.
    pub value: String,
    /// The line of the key, from 1.
    pub line: u32,
}

impl Document {
    /// A file without any section: what a missing file counts as.
    pub fn empty(file: impl Into<String>) -> Self {
        Self { file: file.into(), sections: Vec::new() }
    }

    /// A section by name.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// The place of a line of this file.
    pub fn at(&self, line: u32) -> Location {
        Location::new(self.file.clone(), line)
    }
}

/// Reads the bytes of a file: as [`parse`], after the check that it is UTF-8 text.
pub fn parse_bytes(
    bytes: &[u8],
    file_name: &str,
    dialect: Dialect,
) -> Result<Document, Diagnostic> {
    if bytes.len() > MAX_BYTES {
        return Err(too_large(file_name));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        wrong(file_name, to_line(line), "this line is not UTF-8 text")
            .help("save the file with the encoding UTF-8")
    })?;
    parse(text, file_name, dialect)
}

/// Reads a file. The first mistake is returned with its line.
pub fn parse(text: &str, file_name: &str, dialect: Dialect) -> Result<Document, Diagnostic> {
    if text.len() > MAX_BYTES {
        return Err(too_large(file_name));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader::new(file_name, dialect);
    for (index, line) in text.split('\n').enumerate() {
        reader.line = to_line(index + 1);
        reader.take(line.strip_suffix('\r').unwrap_or(line))?;
    }
    Ok(reader.finish())
}

fn too_large(file_name: &str) -> Diagnostic {
    wrong(file_name, 0, &format!("this file is larger than {MAX_BYTES} bytes"))
}

fn to_line(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn wrong(file: &str, line: u32, what: &str) -> Diagnostic {
    Diagnostic::error(format!("can't read {file}"))
        .kind(Kind::BadConfiguration)
        .because(what)
        .at(Location::new(file, line))
}

/// What has been read so far.
struct Reader<'a> {
    dialect: Dialect,
    line: u32,
    document: Document,
    file: &'a str,
    /// Indent of the key that a deeper line would continue.
    key_indent: Option<usize>,
    /// Line of each section and of each key of the current section.
    section_lines: HashMap<String, u32>,
    key_lines: HashMap<String, u32>,
}

impl<'a> Reader<'a> {
    fn new(file: &'a str, dialect: Dialect) -> Self {
        Self {
            dialect,
            line: 0,
            document: Document::empty(file),
            file,
            key_indent: None,
            section_lines: HashMap::new(),
            key_lines: HashMap::new(),
        }
    }

    fn take(&mut self, line: &str) -> Result<(), Diagnostic> {
        if line.contains('\0') {
            return Err(self
                .wrong("this line contains a NUL character")
                .help("this is not a text file, or it was damaged: write it again"));
        }
        let trimmed = line.trim();
        if self.dialect.is_comment(trimmed) {
            return Ok(());
        }
        if let Some(control) = trimmed.chars().find(|c| c.is_control() && *c != '\t') {
            return Err(self
                .wrong(format!(
                    "this line contains the control character {}",
                    control.escape_default()
                ))
                .help("remove it: a terminal would obey it wherever the value is shown"));
        }
        let indent = line.chars().take_while(|c| c.is_whitespace()).count();
        match self.key_indent {
            // A blank line belongs to the value when indented lines follow; if
            // none does, `finish_value` takes it away again.
            Some(_) if trimmed.is_empty() => self.continue_value(""),
            Some(key_indent) if indent > key_indent => self.continue_value(trimmed),
            _ if trimmed.is_empty() => {}
            _ if trimmed.starts_with('[') => self.open_section(trimmed)?,
            _ => self.add_key(trimmed, indent)?,
        }
        Ok(())
    }

    fn open_section(&mut self, trimmed: &str) -> Result<(), Diagnostic> {
        self.finish_value();
        let inside = trimmed[1..].strip_suffix(']').filter(|name| !name.trim().is_empty());
        let Some(inside) = inside else {
            return Err(self
                .wrong(format!("{trimmed} is not a section header"))
                .help("a section header is [name] alone on its line"));
        };
        let name = self.dialect.name(inside);
        if let Some(first) = self.section_lines.insert(name.clone(), self.line) {
            return Err(self
                .wrong(format!(
                    "section [{name}] is written twice: on line {first} and on line {}",
                    self.line
                ))
                .help("put the keys of both under one header"));
        }
        self.key_lines.clear();
        self.document.sections.push(Section { name, line: self.line, entries: Vec::new() });
        Ok(())
    }

    fn add_key(&mut self, trimmed: &str, indent: usize) -> Result<(), Diagnostic> {
        self.finish_value();
        let Some((key, value)) = trimmed.split_once(|c| self.dialect.is_delimiter(c)) else {
            return Err(self
                .wrong(format!("{:?} has no value", shortened(trimmed)))
                .help("write key=value; a line that continues a value is indented"));
        };
        let key = self.dialect.name(key.trim());
        if key.is_empty() {
            return Err(self.wrong("there is a value without a key").help("write key=value"));
        }
        if self.document.sections.is_empty() {
            return Err(self
                .wrong(format!("{key} stands before the first [section]"))
                .help("put it under the header of its section"));
        }
        if let Some(first) = self.key_lines.insert(key.clone(), self.line) {
            let section = self.document.sections.last().map_or("", |section| &section.name);
            return Err(self
                .wrong(format!(
                    "{key} of [{section}] is written twice: on line {first} and on line {}",
                    self.line
                ))
                .help("remove one of them"));
        }
        self.key_indent = Some(indent);
        let entry = Entry { key, value: value.trim().to_string(), line: self.line };
        if let Some(section) = self.document.sections.last_mut() {
            section.entries.push(entry);
        }
        Ok(())
    }

    fn last_entry(&mut self) -> Option<&mut Entry> {
        self.document.sections.last_mut().and_then(|section| section.entries.last_mut())
    }

    fn continue_value(&mut self, trimmed: &str) {
        if let Some(entry) = self.last_entry() {
            entry.value.push('\n');
            entry.value.push_str(trimmed);
        }
    }

    fn finish_value(&mut self) {
        if self.key_indent.take().is_some() {
            if let Some(entry) = self.last_entry() {
                entry.value.truncate(entry.value.trim_end().len());
            }
        }
    }

    fn finish(mut self) -> Document {
        self.finish_value();
        self.document
    }

    fn wrong(&self, what: impl AsRef<str>) -> Diagnostic {
        wrong(self.file, self.line, what.as_ref())
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// What stands before `=` in the continuation lines of a value. Who removes the `#`
/// of a commented key but not the blank behind it has written such a line,
/// without knowing: whoever knows the keys can say so.
pub fn keys_in_continuation(value: &str) -> impl Iterator<Item = &str> {
    value.lines().skip(1).filter_map(|line| Some(line.split_once('=')?.0.trim()))
}

/// True when a file sets something: it has a line that is neither a comment nor a
/// section header and contains a letter. A generated file without such a line
/// may be replaced or removed; one with it belongs to its author.
pub fn has_active_line(text: &str) -> bool {
    text.lines()
        .map(str::trim)
        .any(|line| !line.starts_with(['#', ';', '[']) && line.chars().any(char::is_alphabetic))
}

/// A text with `key = value` in a section: the line of the key is replaced, else one
/// is added to the section, else the section is added. All else is left as it is.
pub fn set(text: &str, section: &str, key: &str, value: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let header = |line: &str| -> Option<String> {
        Some(line.trim().strip_prefix('[')?.strip_suffix(']')?.trim().to_string())
    };
    let is_key = |line: &str| {
        let active = !line.starts_with([' ', '\t', '#', ';']);
        active && line.split(['=', ':']).next().is_some_and(|k| k.trim().eq_ignore_ascii_case(key))
    };
    let assignment = format!("{key}={value}");
    let begin =
        lines.iter().position(|line| header(line).is_some_and(|h| h.eq_ignore_ascii_case(section)));
    match begin {
        None => {
            if lines.last().is_some_and(|line| !line.trim().is_empty()) {
                lines.push(String::new());
            }
            lines.extend([format!("[{section}]"), assignment]);
        }
        Some(begin) => {
            let rest = lines[begin + 1..].iter().position(|line| header(line).is_some());
            let end = rest.map_or(lines.len(), |rest| begin + 1 + rest);
            match (begin + 1..end).find(|index| is_key(&lines[*index])) {
                Some(index) => {
                    // A value on several lines goes as a whole.
                    let more = lines[index + 1..end].iter();
                    let more = more.take_while(|l| l.starts_with([' ', '\t'])).count();
                    lines.splice(index..=index + more, [assignment]);
                }
                None => lines.insert(begin + 1, assignment),
            }
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(text: &str) -> Result<Document, Diagnostic> {
        parse(text, "config.ini", Dialect::Module)
    }

    fn plugin(text: &str) -> Result<Document, Diagnostic> {
        parse(text, "config.ini", Dialect::Plugin)
    }

    fn entries(document: &Document) -> Vec<(&str, &str, u32)> {
        let entries = document.sections.iter().flat_map(|section| &section.entries);
        entries.map(|entry| (&*entry.key, &*entry.value, entry.line)).collect()
    }

    #[track_caller]
    fn refused(result: Result<Document, Diagnostic>, line: u32, part: &str) {
        let error = result.expect_err("should be refused");
        assert_eq!(error.at, Some(Location::new("config.ini", line)), "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(error.kind, Kind::BadConfiguration);
    }

    #[test]
    fn the_module_dialect_lowers_names_and_takes_both_delimiters_and_comments() {
        let text = "[Nginx]\n# a\n; b\nPort : 80 # kept\n  Timeout[Prod] = \"6=0\"\nempty=\n";
        let document = module(text).unwrap();
        assert_eq!(document.sections[0].name, "nginx");
        // The indented line deeper than `Port` continues its value.
        assert_eq!(
            entries(&document),
            [("port", "80 # kept\nTimeout[Prod] = \"6=0\"", 4), ("empty", "", 6)]
        );
    }

    #[test]
    fn the_plugin_dialect_keeps_case_and_takes_only_equal_signs_and_hashes() {
        let document = plugin("[general]\n_Url=http://x:80/;a\nA:b=c\n").unwrap();
        assert_eq!(entries(&document), [("_Url", "http://x:80/;a", 2), ("A:b", "c", 3)]);
        refused(plugin("[general]\n; no comment here\n"), 2, "has no value");
    }

    #[test]
    fn indented_lines_continue_a_value_over_comments_and_blank_lines() {
        let text = "[a]\nx = 1\n  2\n# no\n\n\t3\n\n\ny=4\n  [not a section]\n[b]\n  z=5\n  w=6\n";
        let document = plugin(text).unwrap();
        assert_eq!(
            entries(&document),
            [("x", "1\n2\n\n3", 2), ("y", "4\n[not a section]", 9), ("z", "5", 12), ("w", "6", 13)]
        );
    }

    #[test]
    fn what_is_written_twice_is_an_error_with_both_lines() {
        refused(module("[a]\nx=1\nX=2\n"), 3, "x of [a] is written twice: on line 2 and on line 3");
        refused(module("[a]\n[b]\n[A]\n"), 3, "[a] is written twice: on line 1 and on line 3");
        assert!(plugin("[a]\nx=1\nX=2\n[A]\nx=1\n[b]\nx=1\n").is_ok());
        assert!(module("[a]\nx=1\nx[prod]=2\n").is_ok());
    }

    #[test]
    fn lines_that_mean_nothing_are_errors_with_their_line() {
        refused(module("[a]\n\nport\n"), 3, "\"port\" has no value");
        refused(module("port=1\n"), 1, "before the first [section]");
        refused(module("[a]\n=1\n"), 2, "without a key");
        refused(module("[a\n"), 1, "not a section header");
        refused(module("[]\n"), 1, "not a section header");
        refused(module("[a] x\n"), 1, "not a section header");
        refused(module("[a]\nx=\0\n"), 2, "NUL");
        refused(parse_bytes(b"[a]\nx=\xff\n", "config.ini", Dialect::Module), 2, "UTF-8");
        refused(module(&" ".repeat(MAX_BYTES + 1)), 0, "larger than");
    }

    #[test]
    fn the_legacy_first_line_a_bom_and_crlf_are_tolerated() {
        let document = module("\u{feff}[INCLUDE_config.ini]\r\n\r\n[nginx]\r\nport=1\r\n").unwrap();
        assert_eq!(document.sections.len(), 2);
        assert_eq!(entries(&document), [("port", "1", 4)]);
    }

    #[test]
    fn a_key_that_an_indent_has_made_part_of_a_value_can_be_found() {
        let document = module("[a]\nx=1=2\n# y=1\n z=1\n text\n").unwrap();
        let value = &document.sections[0].entries[0].value;
        assert_eq!(keys_in_continuation(value).collect::<Vec<_>>(), ["z"]);
    }

    #[test]
    fn an_active_line_is_neither_comment_nor_header() {
        assert!(!has_active_line("# a=1\n[nginx]\n\n ; b\n=12\n"));
        assert!(has_active_line("[nginx]\n  port=1\n"));
    }

    /// A small linear congruential generator: the same bytes in every run.
    fn random(seed: &mut u64) -> u8 {
        *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (*seed >> 33) as u8
    }

    #[test]
    fn no_bytes_make_it_panic_and_every_line_number_is_inside_the_file() {
        let alphabet = b"[]=:#; \t\n\r\0aB_1\xc3\xa9\xff{%";
        let mut seed = 1;
        for round in 0..4000 {
            let length = usize::from(random(&mut seed)) % 80;
            let bytes: Vec<u8> = (0..length)
                .map(|_| match round % 2 {
                    0 => random(&mut seed),
                    _ => alphabet[usize::from(random(&mut seed)) % alphabet.len()],
                })
                .collect();
            let lines = to_line(1 + bytes.iter().filter(|byte| **byte == b'\n').count());
            for dialect in [Dialect::Module, Dialect::Plugin] {
                match parse_bytes(&bytes, "f", dialect) {
                    Ok(document) => {
                        for (key, _, line) in entries(&document) {
                            assert!(!key.is_empty() && line >= 1 && line <= lines);
                        }
                    }
                    Err(error) => {
                        let line = error.at.expect("a place").line;
                        assert!(line >= 1 && line <= lines);
                    }
                }
            }
            let _ = has_active_line(&String::from_utf8_lossy(&bytes));
        }
    }
}
