//! What lines are searched for.

use memchr::memmem::Finder;
use regex_lite::Regex;

/// A text, or a regular expression.
pub struct Pattern(Kind);

enum Kind {
    /// Found with the instructions of the processor for it.
    Text(Box<Finder<'static>>),
    Regex(Regex),
}

impl Pattern {
    /// A regular expression; one without special characters is searched for as it is, which is
    /// many times faster. The error says what is wrong with it.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let is_plain =
            !pattern.is_empty() && !pattern.contains(|c: char| r"\.+*?()|[]{}^$".contains(c));
        Ok(Self(match is_plain {
            true => Kind::Text(Box::new(Finder::new(pattern).into_owned())),
            false => Kind::Regex(Regex::new(pattern).map_err(|e| e.to_string())?),
        }))
    }

    /// The text, as it is.
    pub fn text(text: &str) -> Self {
        Self(Kind::Text(Box::new(Finder::new(text).into_owned())))
    }

    /// True if it is in the line.
    pub fn is_in(&self, line: &[u8]) -> bool {
        match &self.0 {
            Kind::Text(text) => text.find(line).is_some(),
            Kind::Regex(regex) => regex.is_match(&String::from_utf8_lossy(line)),
        }
    }

    /// False if it is certainly in no line of these.
    pub(super) fn may_be_in(&self, lines: &[u8]) -> bool {
        match &self.0 {
            Kind::Text(text) => text.find(lines).is_some(),
            Kind::Regex(_) => true,
        }
    }
}
