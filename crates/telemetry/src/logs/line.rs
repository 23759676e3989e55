//! What a line says of itself: its time, its level, its request.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};

/// How far into a line its time and its level are looked for, bytes.
const LOOK: usize = 160;

/// How severe a message is; the levels of mflog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// DEBUG.
    Debug,
    /// INFO.
    Info,
    /// WARNING.
    Warning,
    /// ERROR.
    Error,
    /// CRITICAL.
    Critical,
}

impl Level {
    /// All levels, the least severe first.
    pub const ALL: [Level; 5] =
        [Level::Debug, Level::Info, Level::Warning, Level::Error, Level::Critical];

    /// The name of mflog, in capitals.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Debug => "DEBUG",
            Level::Info => "INFO",
            Level::Warning => "WARNING",
            Level::Error => "ERROR",
            Level::Critical => "CRITICAL",
        }
    }

    /// The severity of syslog, RFC 5424 section 6.2.1.
    pub fn severity(self) -> u8 {
        match self {
            Level::Debug => 7,
            Level::Info => 6,
            Level::Warning => 4,
            Level::Error => 3,
            Level::Critical => 2,
        }
    }

    /// The level with this name, or one that other loggers use for it.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name.to_ascii_uppercase().as_str() {
            "DEBUG" | "TRACE" => Level::Debug,
            "INFO" | "NOTICE" => Level::Info,
            "WARNING" | "WARN" => Level::Warning,
            "ERROR" | "EXCEPTION" => Level::Error,
            "CRITICAL" | "FATAL" | "CRIT" | "ALERT" | "EMERG" => Level::Critical,
            _ => return None,
        })
    }
}

/// The time that a line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Milliseconds since 1970. A local time that comes twice, in the hour at the end of summer
    /// time, is read as the first one.
    pub at_ms: u64,
    /// Such a time, read as the second one.
    pub or_ms: Option<u64>,
    /// It says milliseconds, other than none.
    pub is_exact: bool,
    /// The byte of the line behind it, and behind the bracket that it is in; 0 in a JSON object.
    pub end: usize,
}

impl Stamp {
    /// The reading of it that is nearer to another time.
    pub fn near(&self, other_ms: Option<u64>) -> u64 {
        match self.or_ms.zip(other_ms) {
            Some((or_ms, other)) if or_ms.abs_diff(other) < self.at_ms.abs_diff(other) => or_ms,
            _ => self.at_ms,
        }
    }

    /// The latest reading of it.
    pub(super) fn latest(&self) -> u64 {
        self.or_ms.unwrap_or(self.at_ms)
    }
}

/// What a line says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// When.
    pub stamp: Option<Stamp>,
    /// How severe.
    pub level: Option<Level>,
    /// The request that it belongs to.
    pub request_id: Option<String>,
}

impl Facts {
    /// When, milliseconds since 1970.
    pub fn at_ms(&self) -> Option<u64> {
        self.stamp.map(|stamp| stamp.at_ms)
    }
}

/// Reads a line: one JSON object (mflog, the access log, events), or a text that begins with a
/// time and has a level near its begin (mflog, Python's logging, the logs of mfserv).
pub fn facts(line: &[u8]) -> Facts {
    match json(line) {
        Some(object) => {
            let text = |key: &str| object.get(key).and_then(|value| value.as_str());
            let time = text("timestamp").or_else(|| text("@timestamp"));
            let stamp = time.and_then(|time| stamp_of(time.as_bytes()));
            let at_ms = || object.get("at_ms").and_then(|at| at.as_u64());
            let stamp = stamp.or_else(|| at_ms().map(Stamp::from));
            Facts {
                stamp: stamp.map(|stamp| Stamp { end: 0, ..stamp }),
                level: text("level").and_then(Level::of),
                request_id: text("request_id").map(str::to_owned),
            }
        }
        None => Facts { stamp: stamp_of(line), level: level_of(line), request_id: None },
    }
}

fn json(line: &[u8]) -> Option<serde_json::Map<String, serde_json::Value>> {
    if line.first() != Some(&b'{') {
        return None;
    }
    serde_json::from_slice(line).ok()
}

/// The time of a line, without reading all of it.
pub(super) fn quick_time(line: &[u8]) -> Option<u64> {
    quick_stamp(line).map(|stamp| stamp.at_ms)
}

/// The same with both readings of a time that comes twice.
pub(super) fn quick_stamp(line: &[u8]) -> Option<Stamp> {
    if line.first() != Some(&b'{') {
        return stamp_of(line);
    }
    let head = &line[..line.len().min(LOOK)];
    let behind = |key: &[u8]| {
        let at = memchr::memmem::find(head, key)? + key.len();
        let rest = &line[at..];
        let colon = rest.iter().position(|byte| !matches!(byte, b' ' | b':' | b'"'))?;
        Some(&rest[colon..])
    };
    if let Some(stamp) = behind(b"timestamp\"").and_then(stamp_of) {
        return Some(stamp);
    }
    match behind(b"\"at_ms\"") {
        Some(digits) => {
            let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
            std::str::from_utf8(&digits[..end]).ok()?.parse::<u64>().ok().map(Stamp::from)
        }
        None => facts(line).stamp,
    }
}

/// The level of a line, without reading all of it.
pub(super) fn quick_level(line: &[u8]) -> Option<Level> {
    if line.first() == Some(&b'{') { facts(line).level } else { level_of(line) }
}

/// True for the first line of a traceback of Python.
pub(super) fn is_traceback(line: &[u8]) -> bool {
    line.starts_with(b"Traceback (most recent call last)")
}

/// True for a line that is one JSON object.
pub(super) fn is_object(line: &[u8]) -> bool {
    line.first() == Some(&b'{') && line.trim_ascii_end().last() == Some(&b'}')
}

/// How severe an answer is, by its status in a line of the access log.
pub(super) fn level_of_status(line: &[u8]) -> Level {
    let status = json(line).and_then(|object| object.get("status")?.as_u64());
    match status.unwrap_or(0) {
        500.. => Level::Error,
        400..500 => Level::Warning,
        _ => Level::Info,
    }
}

/// The request that a line names: `request_id` of a JSON object, `request_id=ID` of the text of
/// mflog.
pub(super) fn request_id_of(line: &[u8]) -> Option<String> {
    if line.first() == Some(&b'{') {
        return facts(line).request_id;
    }
    const KEY: &[u8] = b"request_id=";
    let value = &line[memchr::memmem::find(line, KEY)? + KEY.len()..];
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || b"\"',;)}]".contains(byte);
    let value = value.trim_ascii_start();
    let value = value.strip_prefix(b"'").or(value.strip_prefix(b"\"")).unwrap_or(value);
    let length = value.iter().position(is_end).unwrap_or(value.len());
    (length > 0).then(|| String::from_utf8_lossy(&value[..length]).into_owned())
}

/// A time at the begin: `2026-01-31T12:00:00.123Z`, `[2026/01/31 12:00:00,123 +0100]`, with an
/// offset or local.
pub(crate) fn stamp_of(line: &[u8]) -> Option<Stamp> {
    stamp_in(line, TimeZone::system)
}

/// The same, with the zone of local times.
pub(super) fn stamp_in(line: &[u8], zone: impl FnOnce() -> TimeZone) -> Option<Stamp> {
    let bracket = usize::from(line.first() == Some(&b'['));
    let line = &line[bracket..];
    let is = |at: usize, any: &[u8]| line.get(at).is_some_and(|byte| any.contains(byte));
    let is_time = is(4, b"-/") && is(7, b"-/") && is(10, b"T ") && is(13, b":") && is(16, b":");
    if !is_time {
        return None;
    }
    let mut millis = 0;
    let mut is_exact = false;
    let mut end = 19;
    if is(19, b".,") && line.get(20).is_some_and(u8::is_ascii_digit) {
        let digits = line[20..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let three = number(line, 20, 20 + digits.min(3))?;
        millis = three * 10_i64.pow(3 - digits.min(3) as u32);
        // Some programs write zeros after whole seconds.
        is_exact = digits >= 3 && millis > 0;
        end = 20 + digits;
    }
    let part = |from, to| number(line, from, to).and_then(|value| i8::try_from(value).ok());
    let day = (i16::try_from(number(line, 0, 4)?).ok()?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?.min(59));
    let civil = DateTime::new(day.0, day.1, day.2, hour, minute, second, 0).ok()?;
    let (at, or) = match offset(line, end) {
        Some((seconds, behind)) => {
            end = behind;
            (civil.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second() - seconds, None)
        }
        None => {
            let local = zone().to_ambiguous_timestamp(civil);
            let or = match local.offset() {
                AmbiguousOffset::Fold { .. } => Some(local.later().ok()?.as_second()),
                _ => None,
            };
            (local.compatible().ok()?.as_second(), or)
        }
    };
    if bracket == 1 && is(end, b"]") {
        end += 1;
    }
    let ms = |seconds: i64| u64::try_from(seconds * 1000 + millis).ok();
    Some(Stamp { at_ms: ms(at)?, or_ms: or.and_then(ms), is_exact, end: end + bracket })
}

impl From<u64> for Stamp {
    /// A time that is known, milliseconds since 1970.
    fn from(at_ms: u64) -> Self {
        Self { at_ms, or_ms: None, is_exact: true, end: 0 }
    }
}

/// The digits of a line between two places.
fn number(line: &[u8], from: usize, to: usize) -> Option<i64> {
    let value =
        |value: i64, byte: &u8| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0'));
    line.get(from..to)?.iter().try_fold(0, value)
}

/// The offset from UTC behind a clock time, seconds, and where it ends: `Z`, `+01:00`, `-0530`,
/// `+01`; behind a blank only `+0100` and `+01:00`, since other numbers are of the message.
fn offset(line: &[u8], at: usize) -> Option<(i64, usize)> {
    let (is_apart, at) = match line.get(at)? {
        b'Z' => return Some((0, at + 1)),
        b' ' => (true, at + 1),
        _ => (false, at),
    };
    let sign = match line.get(at)? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let hours = number(line, at + 1, at + 3).filter(|hours| *hours <= 14)?;
    let colon = usize::from(line.get(at + 3) == Some(&b':'));
    let minutes = number(line, at + 3 + colon, at + 5 + colon).filter(|minutes| *minutes < 60);
    let end = if minutes.is_some() { at + 5 + colon } else { at + 3 };
    let is_word = line.get(end).is_some_and(u8::is_ascii_alphanumeric);
    if is_apart && (minutes.is_none() || is_word) {
        return None;
    }
    Some((sign * (hours * 3600 + minutes.unwrap_or(0) * 60), end))
}

/// A level in capitals near the begin: `[WARNING]`, `ERROR:`, ` INFO `; a traceback is an error.
fn level_of(line: &[u8]) -> Option<Level> {
    if is_traceback(line) {
        return Some(Level::Error);
    }
    let head = &line[..line.len().min(LOOK)];
    // nginx writes its levels in small letters, in brackets.
    if memchr::memmem::find(head, b" [error] ").is_some_and(|at| at < 24) {
        return Some(Level::Error);
    }
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let words = head.split(|byte| !is_word(byte)).filter(|word| !word.is_empty());
    // A word of a message is not its level.
    let mut words = words.take(12).filter(|word| (4..=9).contains(&word.len()));
    words.find_map(|word| {
        let is_level = word.iter().all(u8::is_ascii_uppercase);
        std::str::from_utf8(word).ok().filter(|_| is_level).and_then(Level::of)
    })
}
