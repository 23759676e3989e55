//! A problem, said so that a person can act on it: what, because, at, help.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::exit_code::Kind;

use crate::names::PluginName;

/// How bad a [`Diagnostic`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something is doubtful or not obeyed; the rest goes on.
    Warning,
    /// The thing that the diagnostic is about is refused.
    Error,
}

/// A place in a text file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Location {
    /// The file, as a person would open it.
    pub file: Box<str>,
    /// The line, counted from 1; 0 when only the file is known.
    pub line: u32,
}

impl Location {
    /// A line of a file.
    pub fn new(file: impl Into<Box<str>>, line: u32) -> Self {
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
    /// The plugins whose problem it is: none for a problem of the node, one for nearly every
    /// other problem, two when two plugins declare the same route.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub plugins: Box<[PluginName]>,
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
            plugins: Box::default(),
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

    /// Adds a plugin whose problem it is.
    pub fn about(mut self, plugin: &str) -> Self {
        if !self.is_about(plugin) {
            self.plugins = self.plugins.into_iter().chain([plugin.into()]).collect();
        }
        self
    }

    /// True for a problem of this plugin. The texts do not count: a plugin may be called
    /// `error`.
    pub fn is_about(&self, plugin: &str) -> bool {
        self.plugins.iter().any(|name| name.as_str() == plugin)
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
    fn a_problem_is_about_the_plugins_that_it_was_given_whatever_words_it_has() {
        let problem = Diagnostic::error("app.hello.main does not start")
            .because("because")
            .at(Location::new("/home/me/var/plugins/hello/config.ini", 3))
            .help("help");
        for plugin in ["error", "help", "because", "at", "hello", "home", "start"] {
            assert!(!problem.is_about(plugin), "{plugin}");
        }
        let problem = problem.about("hello").about("other").about("hello");
        assert_eq!(*problem.plugins, ["hello".into(), "other".into()]);
        assert!(problem.is_about("hello") && problem.is_about("other"));
        assert!(!problem.is_about("hell") && !problem.is_about("error"));
    }

    #[test]
    fn the_plugins_are_optional_in_json() {
        let old = r#"{"severity":"error","kind":"failed","what":"x"}"#;
        let problem: Diagnostic = serde_json::from_str(old).unwrap();
        assert_eq!(problem, Diagnostic::error("x"));
        assert_eq!(serde_json::to_string(&problem).unwrap(), old);
        let about = problem.about("hello");
        let new = serde_json::to_string(&about).unwrap();
        assert!(new.ends_with(r#""plugins":["hello"]}"#), "{new}");
        assert_eq!(serde_json::from_str::<Diagnostic>(&new).unwrap(), about);
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
}
