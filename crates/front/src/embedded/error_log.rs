//! `nginx_error.log`: what went wrong with workers, and what was refused to clients.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::log::Log;

/// At most this many lines in each [`WINDOW`]; the others are counted.
const LINES_MAX: u32 = 100;
const WINDOW: Duration = Duration::from_secs(1);
/// The longest line, bytes.
const LINE_MAX: usize = 1024;

/// The error log, bounded in lines per second.
pub struct ErrorLog {
    log: Log,
    window: Cell<Instant>,
    lines: Cell<u32>,
    left_out: Cell<u64>,
}

impl ErrorLog {
    /// Writes to `log`.
    pub fn new(log: Log) -> Self {
        let window = Cell::new(Instant::now());
        Self { log, window, lines: Cell::new(0), left_out: Cell::new(0) }
    }

    /// Adds a line, unless there were too many just now.
    pub fn say(&self, text: &str) {
        if self.window.get().elapsed() >= WINDOW {
            self.window.set(Instant::now());
            self.lines.set(0);
            let left_out = self.left_out.take();
            if left_out > 0 {
                self.write(&format!("{left_out} lines left out"));
            }
        }
        self.lines.set(self.lines.get() + 1);
        if self.lines.get() > LINES_MAX {
            self.left_out.set(self.left_out.get() + 1);
        } else {
            self.write(text);
        }
    }

    fn write(&self, text: &str) {
        let time = jiff::Zoned::now();
        let text: String = text.chars().take(LINE_MAX).flat_map(char::escape_debug).collect();
        self.log.line(|lines| {
            let stamp = time.strftime("%Y/%m/%d %H:%M:%S");
            lines.extend_from_slice(format!("{stamp} [error] {text}\n").as_bytes());
        });
    }
}
