//! One request, as the access log will tell it.

use std::cell::RefCell;

use tokio::time::Instant;

use crate::embedded::clients::answer;
use crate::embedded::clients::connection::Client;
use crate::embedded::io::log_file::Log;
use mfserv_h1::{Name, RequestHead};

/// The longest host, method or URI that goes into the log, bytes.
const VALUE_MAX: usize = 8 * 1024;
/// The longest request id that is taken over from a client, bytes.
const ID_MAX: usize = 128;

/// A request between its head and its line in the log.
pub struct Visit {
    /// When its head had come.
    pub began: Instant,
    received_before: u64,
    sent_before: u64,
    /// Its request id.
    pub id: Vec<u8>,
    /// The plugin it went to, or `#unknown#`, `#monitoring#`.
    pub plugin: String,
    /// The status of the answer.
    pub status: u16,
    /// It appears in the log.
    pub logged: bool,
    /// The connection may be used again after it.
    pub keep: bool,
    /// It was understood: its head may be told.
    pub understood: bool,
    /// What the client says in X-Forwarded-* is passed on.
    pub trusted: bool,
    /// It is the developer's, and the newest code of the plugin does not start.
    pub broken: bool,
}

impl Visit {
    /// Of nobody yet: see [`Visit::begin`].
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            received_before: 0,
            sent_before: 0,
            id: Vec::with_capacity(32),
            plugin: String::new(),
            status: 0,
            logged: true,
            keep: false,
            understood: false,
            trusted: false,
            broken: false,
        }
    }

    /// Begins the next request of a connection.
    pub fn begin(&mut self, client: &Client) {
        self.began = Instant::now();
        self.received_before = client.received - client.inbox.len() as u64;
        self.sent_before = client.sent;
        self.id.clear();
        self.plugin.clear();
        self.plugin.push_str("#unknown#");
        self.status = 0;
        self.logged = true;
        self.keep = false;
        self.understood = false;
        self.trusted = false;
        self.broken = false;
    }

    /// Names the plugin.
    pub fn of_plugin(&mut self, plugin: &str) {
        self.plugin.clear();
        self.plugin.push_str(plugin);
    }

    /// Takes the client's request id, if it is one that can go into a head and a log.
    pub fn accept_id(&mut self, head: &RequestHead) -> bool {
        let Some(id) = head.fields.first(Name::RequestId) else { return false };
        let good = id.len() <= ID_MAX && id.iter().all(u8::is_ascii_graphic);
        if good {
            self.id.clear();
            self.id.extend_from_slice(id);
        }
        good
    }

    /// Writes its line; with `via`, the address that connected too.
    pub fn log(&self, log: &Log, client: &Client, head: &RequestHead, via: bool) {
        // Of a head that was refused nothing has been taken out of the inbox.
        let unread = if self.understood { client.inbox.len() } else { 0 };
        let received = client.received - unread as u64 - self.received_before;
        let sent = client.sent - self.sent_before;
        let began = client.head_since.unwrap_or(self.began);
        let (host, method, uri) = match self.understood {
            true => (head.host_name(), head.method(), head.written_target()),
            false => (&[][..], &[][..], &[][..]),
        };
        log.line(|line| {
            line.extend_from_slice(b"{ \"@timestamp\": \"");
            push_time(line);
            text(line, "\", \"from\": \"", client.address_text().as_bytes());
            if via {
                text(line, "\", \"via\": \"", client.peer_text().as_bytes());
            }
            text(line, "\", \"host\": \"", host);
            if let Some(host) = line.len().checked_sub(host.len()) {
                line[host..].make_ascii_lowercase();
            }
            text(line, "\", \"method\": \"", method);
            text(line, "\", \"uri\": \"", uri);
            line.extend_from_slice(b"\", \"duration\": ");
            push_seconds(line, began.elapsed().as_millis() as u64);
            number(line, ", \"status\": ", u64::from(self.status));
            number(line, ", \"request_length\": ", received);
            number(line, ", \"reply_length\": ", sent);
            text(line, ", \"plugin\": \"", self.plugin.as_bytes());
            text(line, "\", \"request_id\": \"", &self.id);
            line.extend_from_slice(b"\" }\n");
        });
    }
}

fn text(line: &mut Vec<u8>, key: &str, value: &[u8]) {
    line.extend_from_slice(key.as_bytes());
    escape(line, &value[..value.len().min(VALUE_MAX)]);
}

fn number(line: &mut Vec<u8>, key: &str, value: u64) {
    line.extend_from_slice(key.as_bytes());
    push_number(line, value);
}

fn push_number(line: &mut Vec<u8>, value: u64) {
    if value >= 10 {
        push_number(line, value / 10);
    }
    line.push(b'0' + (value % 10) as u8);
}

fn push_seconds(line: &mut Vec<u8>, ms: u64) {
    push_number(line, ms / 1000);
    line.push(b'.');
    for divisor in [100, 10, 1] {
        line.push(b'0' + (ms / divisor % 10) as u8);
    }
}

/// As the inside of a JSON string; bytes that are not UTF-8 become U+FFFD.
fn escape(line: &mut Vec<u8>, value: &[u8]) {
    let plain = |b: &u8| (0x20..0x7f).contains(b) && *b != b'"' && *b != b'\\';
    if value.iter().all(plain) {
        line.extend_from_slice(value);
        return;
    }
    for c in String::from_utf8_lossy(value).chars() {
        match c {
            '"' | '\\' => line.extend_from_slice(&[b'\\', c as u8]),
            c if (c as u32) < 0x20 || c == '\x7f' => {
                line.extend_from_slice(format!("\\u{:04x}", c as u32).as_bytes());
            }
            c => line.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

thread_local! {
    /// The second that was last written, and its text.
    static CLOCK: RefCell<(i64, String)> = const { RefCell::new((0, String::new())) };
}

/// Local time with offset, `2026-01-31T12:00:00+01:00`.
fn push_time(line: &mut Vec<u8>) {
    let seconds = answer::unix_seconds();
    CLOCK.with_borrow_mut(|(second, text)| {
        if *second != seconds || text.is_empty() {
            *second = seconds;
            *text = jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        }
        line.extend_from_slice(text.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_so_that_the_line_stays_json() {
        let mut line = b"\"".to_vec();
        escape(&mut line, b"a\"b\\c\n\x01\x7f\xff\xc3\xa9");
        line.push(b'"');
        let text: String = serde_json::from_slice(&line).unwrap();
        assert_eq!(text, "a\"b\\c\n\u{1}\u{7f}\u{fffd}é");
    }

    #[test]
    fn durations_have_three_decimals() {
        for (ms, text) in [(0, "0.000"), (7, "0.007"), (12_345, "12.345")] {
            let mut line = Vec::new();
            push_seconds(&mut line, ms);
            assert_eq!(line, text.as_bytes());
        }
    }
}
