//! The messages that the lines of a log belong to: a traceback has the level, and the request,
//! of the message that it follows.

use std::path::Path;

use mfserv_logfile::Source;

use super::line::{Level, is_object, is_traceback, level_of_status, quick_level};
use crate::ship::Message;

/// The most writers of a log whose last messages are remembered.
const WRITERS_MAX: usize = 64;

/// The last message of each writer of a log.
#[derive(Debug)]
pub struct Messages {
    usual: Usual,
    /// That of the writer of the last line is the last one.
    last: Vec<Begun>,
}

/// The level of lines that name none.
#[derive(Debug, Clone, Copy)]
enum Usual {
    Level(Level),
    /// That of the status of an answer.
    Status,
}

/// A message that may go on.
#[derive(Debug)]
pub(super) struct Begun {
    source: Option<Source>,
    /// `None` after a JSON object, which is complete.
    message: Option<Message>,
    /// Its level.
    pub level: Level,
    /// Whether its last line belongs to the request that is searched for, once that was looked at.
    pub last: Option<Seen>,
    /// It is a traceback, and that is of the message before it.
    pub before: Option<Seen>,
}

/// A line that was looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// It belongs to the request that is searched for.
    pub is_of_request: bool,
    /// When it was read, milliseconds since 1970.
    pub at_ms: u64,
}

impl Messages {
    /// The messages of a log, of which nothing has been read yet.
    pub fn of(log: &Path) -> Self {
        let stem = log.file_stem().unwrap_or_default().to_string_lossy();
        let usual = match &*stem {
            "nginx_access" => Usual::Status,
            stem => Usual::Level(usual_level(stem)),
        };
        Self { usual, last: Vec::new() }
    }

    /// Forgets what has been read: the next line is not the one behind it.
    pub fn forget(&mut self) {
        self.last.clear();
    }

    /// The message that the next line begins or continues.
    pub(super) fn next(&mut self, line: &[u8], source: Option<&Source>) -> Option<&mut Begun> {
        let is_its = |begun: &Begun| begun.source.as_ref() == source;
        let found = self.last.iter().rposition(is_its);
        // A line that says its level, as a traceback does, begins a message.
        let own = quick_level(line);
        let mut message = found.and_then(|at| self.last[at].message);
        let goes_on = own.is_none() && message.as_mut().is_some_and(|it| it.continues(line));
        if let Some(at) = found.filter(|_| goes_on) {
            self.last[at].message = message;
            return self.last.get_mut(at);
        }
        let earlier = found.map(|at| self.last.remove(at));
        let before = earlier.as_ref().and_then(|it| it.last).filter(|_| is_traceback(line));
        if self.last.len() >= WRITERS_MAX {
            self.last.remove(0);
        }
        self.last.push(Begun {
            source: earlier.map_or_else(|| source.cloned(), |it| it.source),
            message: (!is_object(line)).then(|| Message::begin(line)),
            level: own.unwrap_or_else(|| self.usual.of(line)),
            last: None,
            before,
        });
        self.last.last_mut()
    }
}

impl Usual {
    fn of(self, line: &[u8]) -> Level {
        match self {
            Usual::Level(level) => level,
            Usual::Status => level_of_status(line),
        }
    }
}

/// The level of lines that name none, by the name of their log. Roles of mfserv other than the
/// daemon write to their logs only when something is wrong.
pub(crate) fn usual_level(log: &str) -> Level {
    match log == "daemon" || is_of_plugin(log) {
        true => Level::Info,
        false => Level::Warning,
    }
}

/// True for the log of an app or an extra daemon.
pub(crate) fn is_of_plugin(log: &str) -> bool {
    log.starts_with("app_") || log.starts_with("extra_")
}
