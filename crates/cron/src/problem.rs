//! What is wrong with a line of a crontab.

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The line is obeyed, but perhaps not as its author thinks.
    Warning,
    /// The line has no effect. The other lines have.
    Error,
}

/// One problem, said so that a person can act on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The line, counted from 1; 1 for a schedule that stands alone.
    pub line: u32,
    /// The character of the line, counted from 1, where one is known.
    pub column: Option<u32>,
    /// What is wrong, one sentence without a final full stop.
    pub what: String,
    /// Why it is wrong.
    pub why: String,
    /// What to do about it.
    pub help: String,
}

impl Problem {
    pub(crate) fn error(
        what: impl Into<String>,
        why: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Error,
            line: 1,
            column: None,
            what: what.into(),
            why: why.into(),
            help: help.into(),
        }
    }

    pub(crate) fn warning(
        what: impl Into<String>,
        why: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::error(what, why, help) }
    }

    /// At byte `offset` of `line`, the text of the whole line.
    pub(crate) fn at(mut self, line: &str, offset: usize) -> Self {
        let before = line.get(..offset).unwrap_or(line).chars().count();
        self.column = Some(u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1));
        self
    }

    pub(crate) fn on_line(mut self, number: u32) -> Self {
        self.line = number;
        self
    }
}
