//! The time of day, and how HTTP writes it.

use rustix::time::{ClockId, clock_gettime};

/// The time now, seconds since the Unix epoch, read from the cheapest clock of the
/// system: it may be some milliseconds late.
pub fn unix_seconds() -> i64 {
    clock_gettime(ClockId::RealtimeCoarse).tv_sec
}

/// The same in milliseconds.
pub fn unix_ms() -> u64 {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    (now.tv_sec * 1000 + now.tv_nsec / 1_000_000) as u64
}

/// The time now, microseconds since the Unix epoch.
pub fn unix_us() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    (now.tv_sec * 1_000_000 + now.tv_nsec / 1000) as u64
}

/// A time in the form of HTTP: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn http_date(unix_seconds: i64) -> String {
    jiff::Timestamp::from_second(unix_seconds)
        .unwrap_or_default()
        .strftime("%a, %d %b %Y %H:%M:%S GMT")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_http_does() {
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
