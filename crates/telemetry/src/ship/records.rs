//! Bytes of a file, cut into records: a line, or a message with the traceback that follows it.
//!
//! Where a record ends follows from the bytes alone, so that a second reading finds the same
//! records. The one exception is the last record of a file, which ends when nothing has followed
//! for a while: that end is stored before it is used (see `state.rs`).

/// The longest record, bytes. A longer line is divided.
pub const LONGEST: usize = 512 * 1024;
/// The most records at a time, so that short ones do not take much more memory than their bytes.
pub const MOST: usize = 4096;

/// How lines become records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    /// Each line is a record.
    Single,
    /// A line that is no JSON object takes the indented lines and the traceback that follow it.
    Grouped,
}

/// One record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it begins, counted from the beginning of the bytes.
    pub start: usize,
    /// Its bytes, with the end of its last line.
    pub bytes: &'a [u8],
}

/// What is known of the end of the bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct End {
    /// Nothing more follows for now: the last record is complete if its line is.
    pub is_quiet: bool,
    /// A record ends here, whatever follows.
    pub cut: Option<usize>,
}

/// The complete records at the beginning of the bytes, [`MOST`] at most. What remains is to be read again when
/// more has come.
pub fn records(bytes: &[u8], lines: Lines, end: End) -> Vec<Record<'_>> {
    let mut found = Vec::new();
    let mut start = 0;
    while found.len() < MOST {
        let Some(length) = first_record(bytes, start, lines, end) else { break };
        found.push(Record { start, bytes: &bytes[start..start + length] });
        start += length;
    }
    found
}

fn first_record(bytes: &[u8], start: usize, lines: Lines, end: End) -> Option<usize> {
    let cut = end.cut.filter(|cut| *cut > start && *cut <= bytes.len());
    let rest = &bytes[start..cut.unwrap_or(bytes.len())];
    let first = line_length(rest)?;
    let line = &rest[..first];
    if lines == Lines::Single || first == LONGEST || is_object(line) {
        return Some(first);
    }
    let mut message = Message::begin(line);
    let mut length = first;
    loop {
        let rest = &rest[length..];
        let next = match line_length(rest) {
            Some(next) if length + next <= LONGEST && message.continues(&rest[..next]) => next,
            Some(_) => return Some(length),
            // The next line is not there, or has no end: it may belong to this record.
            None if cut.is_some() || end.is_quiet => return Some(length),
            None => return None,
        };
        length += next;
    }
}

/// The length of the first line with its end; of a piece of it if it is too long; `None` if it
/// has no end yet.
fn line_length(bytes: &[u8]) -> Option<usize> {
    let most = &bytes[..bytes.len().min(LONGEST)];
    match memchr::memchr(b'\n', most) {
        Some(end) => Some(end + 1),
        None => (most.len() == LONGEST).then_some(LONGEST),
    }
}

fn is_object(line: &[u8]) -> bool {
    line.trim_ascii_start().starts_with(b"{") && line.trim_ascii_end().ends_with(b"}")
}

/// A message that may go on.
#[derive(Debug, Clone, Copy)]
pub struct Message {
    /// A traceback of Python has begun, and not ended: its last line is not indented.
    in_traceback: bool,
}

/// Beginnings of lines that belong to the line before.
const FOLLOWERS: &[&[u8]] = &[
    b"Caused by:",
    b"During handling of the above exception",
    b"The above exception was the direct cause",
    b"... ",
];
const TRACEBACK: &[u8] = b"Traceback (most recent call last)";

impl Message {
    /// A message whose first line this is.
    pub fn begin(line: &[u8]) -> Self {
        Self { in_traceback: line.starts_with(TRACEBACK) }
    }

    /// Whether the next line belongs to it.
    pub fn continues(&mut self, line: &[u8]) -> bool {
        if line.trim_ascii().is_empty() {
            return true;
        }
        if line.starts_with(TRACEBACK) {
            self.in_traceback = true;
            return true;
        }
        if line[0].is_ascii_whitespace() || FOLLOWERS.iter().any(|text| line.starts_with(text)) {
            return true;
        }
        if self.in_traceback && !is_object(line) {
            self.in_traceback = false;
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(bytes: &[u8], lines: Lines, end: End) -> Vec<String> {
        let text = |record: Record| String::from_utf8_lossy(record.bytes).into_owned();
        records(bytes, lines, end).into_iter().map(text).collect()
    }

    const QUIET: End = End { is_quiet: true, cut: None };

    #[test]
    fn a_line_without_its_end_is_not_complete() {
        assert_eq!(texts(b"a\nb", Lines::Single, QUIET), ["a\n"]);
        assert!(texts(b"a", Lines::Grouped, QUIET).is_empty());
    }

    #[test]
    fn a_traceback_is_one_record_with_its_message() {
        let text = "2026 ERROR failed\nTraceback (most recent call last):\n  File \"x\"\n    f()\n\
                    ValueError: no\n\nDuring handling of the above exception, another exception \
                    occurred:\n\nTraceback (most recent call last):\n  File \"y\"\nKeyError: 'k'\n";
        let java = "java.lang.E: x\n\tat a.b(c)\nCaused by: y\n\t... 3 more\n";
        let json = "{\"a\":1}\n";
        let all = format!("{text}next\n{java}{json}  odd\nlast\n");
        let found = texts(all.as_bytes(), Lines::Grouped, QUIET);
        assert_eq!(found, [text, "next\n", java, json, "  odd\n", "last\n"]);
    }

    #[test]
    fn the_last_message_waits_for_what_may_follow_unless_it_is_quiet_or_was_cut() {
        let more = b"one\ntwo\n  more\n";
        assert_eq!(texts(more, Lines::Grouped, End::default()), ["one\n"]);
        assert_eq!(texts(more, Lines::Grouped, QUIET), ["one\n", "two\n  more\n"]);
        let cut = End { is_quiet: true, cut: Some(8) };
        assert_eq!(texts(more, Lines::Grouped, cut), ["one\n", "two\n", "  more\n"]);
        assert_eq!(texts(b"one\ntwo\n  mo", Lines::Grouped, QUIET), ["one\n", "two\n"]);
    }

    #[test]
    fn what_is_too_long_is_divided_at_the_same_places_by_every_reading() {
        let mut bytes = vec![b'x'; LONGEST + 10];
        assert_eq!(records(&bytes, Lines::Grouped, QUIET)[0].bytes.len(), LONGEST);
        bytes.push(b'\n');
        let found = records(&bytes, Lines::Grouped, QUIET);
        assert_eq!(found.iter().map(|r| r.bytes.len()).collect::<Vec<_>>(), [LONGEST, 11]);
        let indented = b"  y\n".repeat(LONGEST / 2);
        let found = records(&indented, Lines::Grouped, QUIET);
        assert_eq!(found.iter().map(|r| r.bytes.len()).collect::<Vec<_>>(), [LONGEST, LONGEST]);
    }
}
