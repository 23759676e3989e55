//! The name of the index that a time leads to.

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use mfserv_core::{Diagnostic, Kind};

/// A name with the directives of strftime(3), in UTC: `mflog-%Y.%m.%d`.
#[derive(Debug, Clone)]
pub struct IndexPattern {
    text: String,
    /// The last name, and the hour since the Unix epoch that it is of. Not kept for a pattern
    /// with minutes or seconds.
    last: Option<(i64, String)>,
    is_hourly: bool,
}

impl IndexPattern {
    /// A pattern.
    ///
    /// # Errors
    /// Kind `Usage` for a directive that is not known, and for a name that no index can have.
    pub fn new(text: &str) -> Result<Self, Diagnostic> {
        let bad = |why: String| {
            Diagnostic::error(format!("{text:?} is no name of an index"))
                .kind(Kind::Usage)
                .because(why)
                .help("write for example mflog-%Y.%m.%d")
        };
        let coarse = ["%Y", "%m", "%d", "%H", "%y", "%j", "%F"];
        let rest = coarse.iter().fold(text.to_string(), |text, part| text.replace(part, ""));
        let mut pattern = Self { text: text.into(), last: None, is_hourly: !rest.contains('%') };
        let name = pattern.render(Timestamp::UNIX_EPOCH).map_err(bad)?;
        check(&name).map_err(|why| bad(why.into()))?;
        pattern.last = None;
        Ok(pattern)
    }

    /// The name for a time.
    pub fn name(&mut self, time: Timestamp) -> String {
        // It was rendered once; what can fail has failed then.
        self.render(time).unwrap_or_default()
    }

    /// The name for a time given in milliseconds since the Unix epoch.
    pub fn name_at_ms(&mut self, ms: i64) -> String {
        self.name(Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH))
    }

    fn render(&mut self, time: Timestamp) -> Result<String, String> {
        let hour = time.as_second().div_euclid(3600);
        if let Some((_, name)) = self.last.as_ref().filter(|(known, _)| *known == hour) {
            return Ok(name.clone());
        }
        let zoned = time.to_zoned(TimeZone::UTC);
        let name = jiff::fmt::strtime::format(&self.text, &zoned).map_err(|e| e.to_string())?;
        if self.is_hourly {
            self.last = Some((hour, name.clone()));
        }
        Ok(name)
    }
}

/// The rules of Elasticsearch and OpenSearch for names of indices.
fn check(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > 255 {
        return Err("a name has between 1 and 255 bytes");
    }
    if name.starts_with(['-', '_', '+', '.']) {
        return Err("a name begins with none of - _ + .");
    }
    if name.chars().any(|c| c.is_uppercase() || c.is_whitespace() || r#"\/*?"<>|,#:"#.contains(c)) {
        return Err(r#"a name has no capital letters, no spaces and none of \/*?"<>|,#:"#);
    }
    Ok(())
}

/// A time as lines write it: RFC 3339, the same without an offset (then UTC), or seconds or
/// milliseconds since the Unix epoch.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    if let Some(number) = text.parse::<f64>().ok().filter(|number| number.is_finite()) {
        let is_ms = number.abs() >= 1e11;
        let ms = if is_ms { number } else { number * 1000.0 };
        return Timestamp::from_millisecond(ms as i64).ok();
    }
    let local: civil::DateTime = text.parse().ok()?;
    local.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_leads_to_the_index_of_its_day_in_utc() {
        let mut pattern = IndexPattern::new("mflog-%Y.%m.%d").unwrap();
        for (time, name) in [
            ("2026-01-31T23:59:59.999999Z", "mflog-2026.01.31"),
            ("2026-02-01T00:30:00+01:00", "mflog-2026.01.31"),
            ("2026-02-01T00:00:00", "mflog-2026.02.01"),
            ("2026-02-01 00:00:00", "mflog-2026.02.01"),
            ("1769904000", "mflog-2026.02.01"),
            ("1769904000123", "mflog-2026.02.01"),
            ("1769903999.9", "mflog-2026.01.31"),
        ] {
            assert_eq!(pattern.name(parse_time(time).unwrap()), name, "{time}");
        }
        for bad in ["", "yesterday", "12:00:00", "2026-13-01T00:00:00Z"] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
        let mut minutes = IndexPattern::new("x-%H%M").unwrap();
        assert_eq!(minutes.name(parse_time("2026-02-01T10:05:00Z").unwrap()), "x-1005");
        assert_eq!(minutes.name(parse_time("2026-02-01T10:06:00Z").unwrap()), "x-1006");
    }

    #[test]
    fn a_name_that_no_index_can_have_is_refused_at_once() {
        for bad in ["", "Mflog", "a b", "_x", "a/b", "x-%Q", "x:y"] {
            assert_eq!(IndexPattern::new(bad).unwrap_err().kind, Kind::Usage, "{bad}");
        }
        assert!(IndexPattern::new("logs").is_ok());
    }
}
