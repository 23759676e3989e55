//! `nginx_error.log`: faults of workers, and answers with status 500 and above.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use mfserv_platform::sync::lock;

use super::log_file::LogWriter;

/// The most lines in each [`WINDOW`]; further ones are counted.
const LINES_MAX: u32 = 100;
const WINDOW: Duration = Duration::from_secs(1);
/// The longest line, bytes.
const LINE_MAX: usize = 1024;

/// The error log, with a limit on lines per second.
pub struct ErrorLog {
    log: LogWriter,
    window: Mutex<Window>,
}

struct Window {
    began: Instant,
    lines: u32,
    left_out: u64,
}

impl ErrorLog {
    /// An error log that writes to `log`.
    pub fn new(log: LogWriter) -> Self {
        let window = Window { began: Instant::now(), lines: 0, left_out: 0 };
        Self { log, window: Mutex::new(window) }
    }

    /// Adds a line, unless this window has had [`LINES_MAX`].
    pub fn report(&self, text: &str) {
        let mut window = lock(&self.window);
        if window.began.elapsed() >= WINDOW {
            if window.left_out > 0 {
                self.write(&format!("{} lines left out", window.left_out));
            }
            *window = Window { began: Instant::now(), lines: 0, left_out: 0 };
        }
        window.lines += 1;
        if window.lines > LINES_MAX {
            window.left_out += 1;
            return;
        }
        drop(window);
        self.write(text);
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
