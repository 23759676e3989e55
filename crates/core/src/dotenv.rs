//! `.env` files: text in, variables out. The grammar is that of python-dotenv, which the shell's
//! `export` lines and most files of other tools fit in. It differs where a shell does, too: single
//! quotes keep `${NAME}`, `\$` in double quotes is `$`. And a name is letters, digits, `_`, `.` and
//! `-`, and a line that cannot be read is an error.
//!
//! ```text
//! # a comment
//! export NAME=value          # a comment after a blank
//! PLAIN=as ${NAME} and ${OTHER:-a default}
//! LITERAL='${NAME} as it is, over several lines if need be'
//! ESCAPED="a line\nand \"another\""
//! ```

use std::collections::BTreeMap;
use std::fmt;

/// One variable of the file.
#[derive(Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The line that it begins in, from 1.
    pub line: u32,
    /// Its name.
    pub name: String,
    /// Its value, which is a secret; `None` if nothing is assigned (`NAME`, `export NAME`).
    pub value: Option<String>,
}

/// Without its value.
impl fmt::Debug for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}=…", self.line, self.name)
    }
}

/// A line that cannot be read. What is written in it is not repeated: it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// The line, from 1.
    pub line: u32,
    /// Why.
    pub why: &'static str,
}

/// The variables of a file in its order. `${NAME}` is a variable of a line before, else of `env`.
pub fn parse(text: &str, env: &BTreeMap<String, String>) -> Result<Vec<Assignment>, BadLine> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { rest: text, line: 1, env, found: Vec::new() };
    loop {
        reader.skip(char::is_whitespace);
        if reader.rest.is_empty() {
            return Ok(reader.found);
        }
        let line = reader.line;
        match reader.rest.starts_with('#') {
            true => drop(reader.take(|c| c != '\n')),
            false => {
                let (name, value) =
                    reader.assignment().map_err(|(line, why)| BadLine { line, why })?;
                reader.found.push(Assignment { line, name, value });
            }
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
    line: u32,
    env: &'a BTreeMap<String, String>,
    found: Vec<Assignment>,
}

const SHAPE: &str = "a line is NAME=VALUE, and a name is letters, digits and _";

/// The line and what is wrong with it.
type Refusal = (u32, &'static str);

fn is_blank(c: char) -> bool {
    c.is_whitespace() && c != '\n'
}

fn is_of_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.-".contains(c)
}

impl<'a> Reader<'a> {
    /// What comes as long as the characters are such ones.
    fn take(&mut self, is: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !is(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.line += u32::try_from(taken.matches('\n').count()).unwrap_or(0);
        taken
    }

    fn skip(&mut self, is: impl Fn(char) -> bool) {
        self.take(is);
    }

    fn take_one(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        self.line += u32::from(c == '\n');
        Some(c)
    }

    fn assignment(&mut self) -> Result<(String, Option<String>), Refusal> {
        let line = self.line;
        let refused = |why| Err((line, why));
        if let Some(rest) = self.rest.strip_prefix("export").filter(|it| it.starts_with(is_blank)) {
            self.rest = rest;
            self.skip(is_blank);
        }
        let quote = ['\'', '"'].into_iter().find(|quote| self.rest.starts_with(*quote));
        if quote.is_some() {
            self.take_one();
        }
        let name = self.take(is_of_a_name);
        if quote.is_some() && self.take_one() != quote || name.is_empty() {
            return refused(SHAPE);
        }
        self.skip(is_blank);
        match self.rest.chars().next() {
            Some('=') => drop(self.take_one()),
            None | Some('\n' | '#') => {
                self.skip(|c| c != '\n');
                return Ok((name.to_owned(), None));
            }
            Some(_) => return refused(SHAPE),
        }
        let before = self.rest.len();
        self.skip(is_blank);
        let value = match self.rest.chars().next() {
            Some('\'') => self.quoted('\'')?,
            Some('"') => self.quoted('"')?,
            // `NAME= # a comment` has no value, `NAME=#x` has one.
            Some('#') if self.rest.len() < before => {
                self.skip(|c| c != '\n');
                String::new()
            }
            _ => self.unquoted(),
        };
        match value.contains('\0') {
            true => refused("a value has no NUL in it"),
            false => Ok((name.to_owned(), Some(value))),
        }
    }

    /// To the end of the line, or to a comment after a blank.
    fn unquoted(&mut self) -> String {
        let whole = self.take(|c| c != '\n');
        let mut ends = whole.char_indices().zip(whole.chars().skip(1));
        let comment = ends.find(|((_, c), next)| is_blank(*c) && *next == '#');
        let value = comment.map_or(whole, |((at, _), _)| &whole[..at]).trim_end();
        self.expanded(value, None)
    }

    /// Between quotes, also over several lines. In single quotes all but `\'` and `\\` is as it is
    /// written. The end comes first: what is not closed in it does not reach into other lines.
    fn quoted(&mut self, quote: char) -> Result<String, Refusal> {
        let line = self.line;
        self.take_one();
        let from = self.rest;
        loop {
            match self.take_one() {
                None => return Err((line, "its quote is not closed")),
                Some(c) if c == quote => break,
                Some('\\') => drop(self.take_one()),
                Some(_) => {}
            }
        }
        let within = &from[..from.len() - self.rest.len() - quote.len_utf8()];
        let text = match quote {
            '"' => self.expanded(within, Some('"')),
            _ => unescaped(within, quote),
        };
        self.skip(is_blank);
        match self.rest.chars().next() {
            Some('#') => self.skip(|c| c != '\n'),
            None | Some('\n') => {}
            Some(_) => return Err((self.line, "there is text after the closing quote")),
        }
        Ok(text)
    }

    /// With the values of `${NAME}` and `${NAME:-DEFAULT}`; where there are quotes, without their
    /// escapes.
    fn expanded(&self, mut rest: &str, quote: Option<char>) -> String {
        let plain = |text: &str| quote.map_or_else(|| text.into(), |it| unescaped(text, it));
        let mut text = String::new();
        let mut from = 0;
        while let Some(at) = rest[from..].find(['$', '\\']).map(|at| at + from) {
            if rest[at..].starts_with('\\') && quote.is_some() {
                // What it escapes is no beginning of anything.
                let escaped = rest[at + 1..].chars().next().map_or(0, char::len_utf8);
                from = at + 1 + escaped;
                continue;
            }
            let name_and_default =
                rest[at..].strip_prefix("${").and_then(|within| within.split_once('}'));
            let Some((within, after)) = name_and_default else {
                from = at + 1;
                continue;
            };
            let (name, default) = match within.split_once(":-") {
                Some((name, default)) => (name, plain(default)),
                None => (within, String::new()),
            };
            if name.is_empty() || !name.chars().all(is_of_a_name) {
                from = at + 1;
                continue;
            }
            text += &plain(&rest[..at]);
            text += &self.value(name).unwrap_or(default);
            (rest, from) = (after, 0);
        }
        text + &plain(rest)
    }

    fn value(&self, name: &str) -> Option<String> {
        let own = self.found.iter().rev().find(|one| one.name == name);
        let own = own.and_then(|one| one.value.as_ref());
        own.or_else(|| self.env.get(name)).cloned()
    }
}

fn unescaped(text: &str, quote: char) -> String {
    let mut plain = String::new();
    let mut all = text.chars();
    while let Some(c) = all.next() {
        match (c, all.clone().next()) {
            ('\\', Some(escaped)) => {
                all.next();
                escape(&mut plain, quote, escaped);
            }
            _ => plain.push(c),
        }
    }
    plain
}

/// What `\` and this character are between such quotes.
fn escape(text: &mut String, quote: char, c: char) {
    let meant = match (quote, c) {
        (_, '\\') => '\\',
        (quote, c) if quote == c => c,
        ('"', 'n') => '\n',
        ('"', 'r') => '\r',
        ('"', 't') => '\t',
        ('"', 'a') => '\x07',
        ('"', 'b') => '\x08',
        ('"', 'f') => '\x0c',
        ('"', 'v') => '\x0b',
        ('"', '\'' | '$') => c,
        _ => {
            text.push('\\');
            c
        }
    };
    text.push(meant);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<(String, String)> {
        let env = [("HOME", "/home/me"), ("EMPTY", "")];
        let env = env.map(|(name, value)| (name.to_string(), value.to_string())).into();
        let found = parse(text, &env).unwrap_or_else(|bad| panic!("{text:?}: {bad:?}"));
        found.into_iter().filter_map(|one| Some((one.name, one.value?))).collect()
    }

    #[test]
    fn a_value_is_what_python_dotenv_and_a_shell_take_it_for() {
        for (line, value) in [
            ("A=1", "1"),
            ("export A=1", "1"),
            ("  export\tA = 1  ", "1"),
            ("'A'=1", "1"),
            ("A=", ""),
            ("A= # nothing", ""),
            ("A=#ffffff", "#ffffff"),
            ("A=a b  # two words", "a b"),
            ("A=a#b", "a#b"),
            ("A=it's", "it's"),
            ("A='single # ${HOME} \\n \\' \\\\'", "single # ${HOME} \\n ' \\"),
            ("A=\"two\\nlines \\\"x\\\" \\$5 \\d\" # said", "two\nlines \"x\" $5 \\d"),
            ("A=\"over\nlines\"", "over\nlines"),
            ("A=${HOME}/x", "/home/me/x"),
            ("A=\"${HOME}/x\"", "/home/me/x"),
            ("A=${NONE:-else}", "else"),
            ("A=${NONE}", ""),
            ("A=${EMPTY:-else}", ""),
            ("A=\"${NONE:-a \\\"b\\\"}\"", "a \"b\""),
            ("A=\"\\${HOME}\"", "${HOME}"),
            ("A=\"\\a\\b\\f\\v\"", "\u{7}\u{8}\u{c}\u{b}"),
            ("B\nexport C # nothing\nA=1", "1"),
            ("A=$HOME and ${ and ${a b}", "$HOME and ${ and ${a b}"),
            ("A=postgres://u:p=w@h/d?x=1", "postgres://u:p=w@h/d?x=1"),
            ("A={\"json\": 1}", "{\"json\": 1}"),
            ("A=1\r\n", "1"),
            ("\u{feff}A=1", "1"),
        ] {
            assert_eq!(values(line), [("A".to_string(), value.to_string())], "{line:?}");
        }
        assert_eq!(values("# only\n\n  # comments\n"), []);
    }

    #[test]
    fn a_line_has_the_variables_of_those_before_it_and_the_last_of_two_is_found_last() {
        let found = values("A=1\nB=\"${A}2\"\nHOME=/x\nC=${B}${HOME}\nA=3\n");
        let pairs: Vec<(&str, &str)> =
            found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("A", "1"), ("B", "12"), ("HOME", "/x"), ("C", "12/x"), ("A", "3")]);
    }

    #[test]
    fn what_is_not_closed_stays_in_its_value_and_eats_no_other_line() {
        for (first, value) in [
            ("A=\"${HOME\"", "${HOME"),
            ("A=\"x ${NONE:-a\"", "x ${NONE:-a"),
            ("A=${HOME", "${HOME"),
            ("A=\"${HO\nME\"", "${HO\nME"),
        ] {
            let found = values(&(first.to_owned() + "\nB=\"}\"\nC=2}\n"));
            let wanted = [("A", value), ("B", "}"), ("C", "2}")];
            assert_eq!(found, wanted.map(|(name, value)| (name.into(), value.into())), "{first}");
        }
    }

    #[test]
    fn a_bad_line_is_known_by_its_number_and_what_is_written_in_it_is_not_repeated() {
        for (text, line) in [
            ("A=1\nnot a line\n", 2),
            ("\n\nA/B=1", 3),
            ("A/B", 1),
            ("=1", 1),
            ("A='x\ny'\nB=\"open\nand more", 3),
            ("A=\"x\" y", 1),
            ("A=\"x\ny\" z", 2),
            ("A=x\0y", 1),
        ] {
            let bad = parse(text, &BTreeMap::new()).unwrap_err();
            assert_eq!(bad.line, line, "{text:?}: {bad:?}");
        }
        let found = parse("KEY=hush", &BTreeMap::new()).unwrap();
        assert_eq!(format!("{found:?}"), "[1: KEY=…]");
    }
}
