//! What a line says of itself: its time, its level, its request.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

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

/// What a line says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// When, milliseconds since 1970.
    pub at_ms: Option<u64>,
    /// How severe.
    pub level: Option<Level>,
    /// The request that it belongs to.
    pub request_id: Option<String>,
}

/// Reads a line: one JSON object (mflog, the access log, events), or a text that begins with a
/// time and has a level near its begin (mflog, Python's logging, the logs of mfserv).
pub fn facts(line: &[u8]) -> Facts {
    match json(line) {
        Some(object) => {
            let text = |key: &str| object.get(key).and_then(|value| value.as_str());
            let time = text("timestamp").or_else(|| text("@timestamp"));
            let at_ms = time.and_then(|time| time_of(time.as_bytes()));
            Facts {
                at_ms: at_ms.or_else(|| object.get("at_ms").and_then(|at| at.as_u64())),
                level: text("level").and_then(Level::of),
                request_id: text("request_id").map(str::to_owned),
            }
        }
        None => Facts { at_ms: time_of(line), level: level_of(line), request_id: None },
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
    if line.first() != Some(&b'{') {
        return time_of(line);
    }
    let head = &line[..line.len().min(LOOK)];
    let behind = |key: &[u8]| {
        let at = memchr::memmem::find(head, key)? + key.len();
        let rest = &line[at..];
        let colon = rest.iter().position(|byte| !matches!(byte, b' ' | b':' | b'"'))?;
        Some(&rest[colon..])
    };
    if let Some(time) = behind(b"timestamp\"").and_then(time_of) {
        return Some(time);
    }
    match behind(b"\"at_ms\"") {
        Some(digits) => {
            let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
            std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
        }
        None => facts(line).at_ms,
    }
}

/// The level of a line, without reading all of it.
pub(super) fn quick_level(line: &[u8]) -> Option<Level> {
    if line.first() == Some(&b'{') { facts(line).level } else { level_of(line) }
}

/// A time at the begin: `2026-01-31T12:00:00.123Z`, `2026/01/31 12:00:00,123`, with an offset
/// or local.
pub(crate) fn time_of(line: &[u8]) -> Option<u64> {
    let line = line.strip_prefix(b"[").unwrap_or(line);
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = line.get(from..to)?;
        let value = |value: i64, byte: &u8| {
            byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0'))
        };
        digits.iter().try_fold(0, value)
    };
    let is = |at: usize, any: &[u8]| line.get(at).is_some_and(|byte| any.contains(byte));
    let is_time = is(4, b"-/") && is(7, b"-/") && is(10, b"T ") && is(13, b":") && is(16, b":");
    if !is_time {
        return None;
    }
    let mut millis = 0;
    let mut end = 19;
    if is(19, b".,") {
        let digits = line[20..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let three = number(20, 20 + digits.min(3))?;
        millis = three * 10_i64.pow(3 - digits.min(3) as u32);
        end = 20 + digits;
    }
    let part = |from, to| number(from, to).and_then(|value| i8::try_from(value).ok());
    let day = (i16::try_from(number(0, 4)?).ok()?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?.min(59));
    let civil = DateTime::new(day.0, day.1, day.2, hour, minute, second, 0).ok()?;
    let seconds = match line.get(end) {
        Some(b'Z') => civil.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second(),
        Some(sign @ (b'+' | b'-')) if number(end + 1, end + 3).is_some() => {
            let minutes = number(end + 4, end + 6).or_else(|| number(end + 3, end + 5));
            let offset = number(end + 1, end + 3)? * 3600 + minutes.unwrap_or(0) * 60;
            let utc = civil.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second();
            if *sign == b'+' { utc - offset } else { utc + offset }
        }
        _ => civil.to_zoned(TimeZone::system()).ok()?.timestamp().as_second(),
    };
    u64::try_from(seconds * 1000 + millis).ok()
}

/// A level in capitals near the begin: `[WARNING]`, `ERROR:`, ` INFO `; a traceback is an error.
fn level_of(line: &[u8]) -> Option<Level> {
    if line.starts_with(b"Traceback (most recent call last)") {
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
