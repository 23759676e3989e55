//! `.env` files: text in, variables out. The grammar is that of python-dotenv, which the shell's
//! `export` lines and most files of other tools fit in.
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
    /// Its value, which is a secret.
    pub value: String,
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

/// The line and what is wrong with it.
type Refusal = (u32, &'static str);

fn is_blank(c: char) -> bool {
    c.is_whitespace() && c != '\n'
}

fn is_of_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
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

    fn assignment(&mut self) -> Result<(String, String), Refusal> {
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
            return refused("a line is NAME=VALUE, and a name is letters, digits and _");
        }
        if name.starts_with(|c: char| c.is_ascii_digit()) {
            return refused("a name does not begin with a digit");
        }
        self.skip(is_blank);
        if self.take_one() != Some('=') {
            return refused("a line is NAME=VALUE, and a name is letters, digits and _");
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
            false => Ok((name.to_owned(), value)),
        }
    }

    /// To the end of the line, or to a comment after a blank.
    fn unquoted(&mut self) -> String {
        let whole = self.take(|c| c != '\n');
        let mut ends = whole.char_indices().zip(whole.chars().skip(1));
        let comment = ends.find(|((_, c), next)| is_blank(*c) && *next == '#');
        let value = comment.map_or(whole, |((at, _), _)| &whole[..at]).trim_end();
        let mut inner = Reader { rest: value, line: self.line, env: self.env, found: Vec::new() };
        let mut text = String::new();
        while let Some(c) = inner.take_one() {
            match c {
                '$' => text += &self.expanded(&mut inner),
                c => text.push(c),
            }
        }
        text
    }

    /// Between quotes, also over several lines. In single quotes all but `\'` and `\\` is as it is
    /// written.
    fn quoted(&mut self, quote: char) -> Result<String, Refusal> {
        let line = self.line;
        self.take_one();
        let mut text = String::new();
        loop {
            match self.take_one() {
                None => return Err((line, "its quote is not closed")),
                Some(c) if c == quote => break,
                Some('\\') => match self.take_one() {
                    None => return Err((line, "its quote is not closed")),
                    Some(c) => escape(&mut text, quote, c),
                },
                Some('$') if quote == '"' => {
                    let mut inner =
                        Reader { rest: self.rest, line: 0, env: self.env, found: Vec::new() };
                    text += &self.expanded(&mut inner);
                    self.line += inner.line;
                    self.rest = inner.rest;
                }
                Some(c) => text.push(c),
            }
        }
        self.skip(is_blank);
        match self.rest.chars().next() {
            Some('#') => self.skip(|c| c != '\n'),
            None | Some('\n') => {}
            Some(_) => return Err((self.line, "there is text after the closing quote")),
        }
        Ok(text)
    }

    /// What stands for `$` and what follows it: the value of `${NAME}` or of `${NAME:-DEFAULT}`, or
    /// the `$` itself.
    fn expanded(&self, inner: &mut Reader<'_>) -> String {
        let name_and_default = inner.rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let Some((within, rest)) = name_and_default else { return "$".into() };
        let (name, default) = within.split_once(":-").unwrap_or((within, ""));
        if name.is_empty() || !name.chars().all(is_of_a_name) {
            return "$".into();
        }
        inner.line += u32::try_from(within.matches('\n').count()).unwrap_or(0);
        inner.rest = rest;
        let own = self.found.iter().rev().find(|one| one.name == name).map(|one| &one.value);
        let value = own.or_else(|| self.env.get(name)).map(String::as_str).unwrap_or_default();
        if value.is_empty() { default.into() } else { value.into() }
    }
}

/// What `\` and this character are between such quotes.
fn escape(text: &mut String, quote: char, c: char) {
    let meant = match (quote, c) {
        (_, '\\') => '\\',
        (quote, c) if quote == c => c,
        ('"', 'n') => '\n',
        ('"', 'r') => '\r',
        ('"', 't') => '\t',
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
        let env = BTreeMap::from([("HOME".to_string(), "/home/me".to_string())]);
        let found = parse(text, &env).unwrap_or_else(|bad| panic!("{text:?}: {bad:?}"));
        found.into_iter().map(|one| (one.name, one.value)).collect()
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
    fn a_bad_line_is_known_by_its_number_and_what_is_written_in_it_is_not_repeated() {
        for (text, line) in [
            ("A=1\nnot a line\n", 2),
            ("\n\n1A=1", 3),
            ("A-B=1", 1),
            ("=1", 1),
            ("A='x\ny'\nB=\"open\nand more", 3),
            ("A=\"x\" y", 1),
            ("A=\"x\ny\" z", 2),
            ("export A", 1),
            ("A=x\0y", 1),
        ] {
            let bad = parse(text, &BTreeMap::new()).unwrap_err();
            assert_eq!(bad.line, line, "{text:?}: {bad:?}");
        }
        let found = parse("KEY=hush", &BTreeMap::new()).unwrap();
        assert_eq!(format!("{found:?}"), "[1: KEY=…]");
    }
}
