//! The values of a line of the access log, as JSON.

use std::cell::RefCell;

use crate::embedded::io::clock;

/// The longest host, method or URI in the log, bytes; a longer one is cut.
const VALUE_MAX: usize = 8 * 1024;

/// Appends a key, and the inside of a JSON string that is its value.
pub fn text(line: &mut Vec<u8>, key: &str, value: &[u8]) {
    line.extend_from_slice(key.as_bytes());
    escape(line, &value[..value.len().min(VALUE_MAX)]);
}

/// Appends a key and its number.
pub fn number(line: &mut Vec<u8>, key: &str, value: u64) {
    line.extend_from_slice(key.as_bytes());
    push_number(line, value);
}

fn push_number(line: &mut Vec<u8>, value: u64) {
    if value >= 10 {
        push_number(line, value / 10);
    }
    line.push(b'0' + (value % 10) as u8);
}

/// Appends a time in seconds with three decimals.
pub fn push_seconds(line: &mut Vec<u8>, ms: u64) {
    push_number(line, ms / 1000);
    line.push(b'.');
    for divisor in [100, 10, 1] {
        line.push(b'0' + (ms / divisor % 10) as u8);
    }
}

/// Appends the inside of a JSON string; bytes that are not UTF-8 become U+FFFD.
fn escape(line: &mut Vec<u8>, value: &[u8]) {
    let special = |b: u8| !(0x20..0x7f).contains(&b) || b == b'"' || b == b'\\';
    // Looks at every byte, and so at many with one instruction.
    if !value.iter().fold(false, |found, b| found | special(*b)) {
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

/// Appends the local time with its offset, `2026-01-31T12:00:00+01:00`.
pub fn push_time(line: &mut Vec<u8>) {
    let seconds = clock::unix_seconds();
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
