//! A problem, said so that a person can act on it: what, because, at, help.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// How bad a [`Diagnostic`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something is doubtful or not obeyed; the rest goes on.
    Warning,
    /// The thing that the diagnostic is about is refused.
    Error,
}

/// What kind of failure an error is. The command line turns it into an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It was tried and did not work (exit code 1).
    Failed,
    /// The command line itself is wrong (exit code 2).
    Usage,
    /// The node, or what was asked for, is not running (exit code 3).
    NotRunning,
    /// A configuration is wrong (exit code 4).
    BadConfiguration,
    /// Refused because of a conflict or a lock (exit code 5).
    Refused,
    /// It took longer than it was allowed to (exit code 6).
    Timeout,
}

impl Kind {
    /// The process exit code that stands for this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::NotRunning => 3,
            Kind::BadConfiguration => 4,
            Kind::Refused => 5,
            Kind::Timeout => 6,
        }
    }
}

/// A place in a text file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Location {
    /// The file, as a person would open it.
    pub file: String,
    /// The line, counted from 1; 0 when only the file is known.
    pub line: u32,
}

impl Location {
    /// A line of a file.
    pub fn new(file: impl Into<String>, line: u32) -> Self {
        Self { file: file.into(), line }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// One problem: what is wrong, why, where, and what to do. Used both for
/// warnings about a configuration and as the error type of every hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Warning or error.
    pub severity: Severity,
    /// The kind of failure (decides the exit code when it reaches the command line).
    pub kind: Kind,
    /// What is wrong, one sentence without a final full stop.
    pub what: String,
    /// Why: the cause chain, outermost first, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<String>,
    /// Where, if a file is concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Location>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error of kind [`Kind::Failed`].
    pub fn error(what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            kind: Kind::Failed,
            what: what.into(),
            because: Vec::new(),
            at: None,
            help: None,
        }
    }

    /// A warning.
    pub fn warning(what: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, kind: Kind::BadConfiguration, ..Self::error(what) }
    }

    /// The same problem, as another kind of failure.
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Adds a cause: any error or text. Its own sources are added after it.
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.because.push(cause.to_string());
        self
    }

    /// Says where.
    pub fn at(mut self, at: Location) -> Self {
        self.at = Some(at);
        self
    }

    /// Says what to do.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// It speaks of this plugin: its name is one of the words, or a part of a path or of the
    /// name of an app.
    pub fn is_about(&self, plugin: &str) -> bool {
        let of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        self.to_string().split(|c| !of_name(c)).any(|word| word == plugin)
    }

    /// True for an error, false for a warning.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// A text as a terminal may show it: what it would obey is written out (`\u{1b}`). Texts come
/// from packages, files and programs that are not ours.
pub fn shown(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match obeyed(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// The form shown to people, on several lines:
///
/// ```text
/// error: plugin foo is refused
///   because: unknown key "numproceses" in [app_main]
///   at: config.ini:12
///   help: did you mean "numprocesses"?
/// ```
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{word}: {}", shown(&self.what))?;
        for cause in &self.because {
            write!(f, "\n  because: {}", shown(cause).replace('\n', "\n           "))?;
        }
        if let Some(at) = &self.at {
            write!(f, "\n  at: {}", shown(&at.to_string()))?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {}", shown(help))?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_about_the_plugins_that_it_names_and_no_others() {
        let problem = Diagnostic::error("app.hello.main does not start")
            .at(Location::new("/home/me/var/plugins/other_one/config.ini", 3));
        for (plugin, about) in
            [("hello", true), ("other_one", true), ("hell", false), ("other", false), ("a", false)]
        {
            assert_eq!(problem.is_about(plugin), about, "{plugin}");
        }
    }

    #[test]
    fn what_a_terminal_would_obey_is_written_out() {
        let problem = Diagnostic::error("\u{1b}[31mred").because("one\ntwo\u{9b}3m\u{7}");
        assert_eq!(
            problem.to_string(),
            "error: \\u{1b}[31mred\n  because: one\n           two\\u{9b}3m\\u{7}"
        );
    }

    #[test]
    fn an_error_says_what_because_at_and_help_in_this_order() {
        let text = Diagnostic::error("plugin foo is refused")
            .because("unknown key")
            .at(Location::new("config.ini", 12))
            .help("remove it")
            .to_string();
        assert_eq!(
            text,
            "error: plugin foo is refused\n  because: unknown key\n  at: config.ini:12\n  help: remove it"
        );
    }

    #[test]
    fn every_kind_has_its_own_exit_code() {
        let kinds = [
            Kind::Failed,
            Kind::Usage,
            Kind::NotRunning,
            Kind::BadConfiguration,
            Kind::Refused,
            Kind::Timeout,
        ];
        let codes: Vec<u8> = kinds.iter().map(|kind| kind.exit_code()).collect();
        assert_eq!(codes, [1, 2, 3, 4, 5, 6]);
    }
}
