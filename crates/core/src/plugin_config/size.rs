//! Amounts of memory in a plugin's configuration.

use super::coerce::{Coerced, Read, Refusal, exact};
use super::schema::Type;
use crate::memory::{SMALLEST_LIMIT, parse_size, size_text};

/// No body is limited to less, bytes.
const SMALLEST_BODY: u64 = 1024;

/// An amount of one of the two kinds.
pub(super) fn of_kind(kind: Type, text: &str) -> Result<Coerced, Refusal> {
    if kind == Type::BodySize { body_size(text) } else { size(text) }
}

/// A limit; 0 is none. One in which nothing starts is refused.
fn size(text: &str) -> Result<Coerced, Refusal> {
    let help = "write bytes, or a number with K, M or G, for example 512M; 0 for no limit";
    match parse_size(text) {
        Some(bytes @ 1..SMALLEST_LIMIT) => Err((
            format!("{} is too small for a program to start", size_text(bytes)),
            format!("write {} or more, or 0 for no limit", size_text(SMALLEST_LIMIT)),
        )),
        Some(bytes) => Ok(exact(Read::Number(bytes), &bytes.to_string())),
        None => Err((format!("{text:?} is not an amount of memory"), help.into())),
    }
}

/// The largest body of a request; 0 is no limit. The node's key has megabytes: a number that is one
/// of those is refused.
fn body_size(text: &str) -> Result<Coerced, Refusal> {
    match parse_size(text) {
        Some(bytes @ 1..SMALLEST_BODY) => Err((
            format!("{text} is {bytes} bytes, which is too little for a body"),
            format!("write a unit, for example {bytes}m, or 0 for no limit"),
        )),
        Some(bytes) => Ok(exact(Read::Number(bytes), &bytes.to_string())),
        None => Err((
            format!("{text:?} is not the length of a body"),
            "write bytes, or a number with k, m or g, for example 10m; 0 for no limit".into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_bytes_or_has_a_unit_and_lets_a_program_start() {
        for (text, bytes) in [("512M", 536_870_912), ("0", 0), ("16777216", 16_777_216)] {
            let expected = exact(Read::Number(bytes), &bytes.to_string());
            assert_eq!(size(text), Ok(expected), "{text}");
        }
        for (text, part) in [
            ("1M", "1 MiB is too small"),
            ("15.9M", "too small"),
            ("512X", "is not an amount of memory"),
            ("-1", "is not an amount of memory"),
        ] {
            let (reason, help) = size(text).unwrap_err();
            assert!(reason.contains(part) && help.starts_with("write "), "{text}: {reason}");
        }
    }

    #[test]
    fn the_length_of_a_body_has_the_units_of_nginx_and_is_no_number_of_megabytes() {
        for (text, bytes) in [("10m", 10 << 20), ("1K", 1024), ("1g", 1 << 30), ("0", 0)] {
            let expected = exact(Read::Number(bytes), &bytes.to_string());
            assert_eq!(body_size(text), Ok(expected), "{text}");
        }
        for (text, part) in [("100", "100m"), ("10 megs", "10m"), ("-1", "10m"), ("", "10m")] {
            let (_, help) = body_size(text).unwrap_err();
            assert!(help.contains(part), "{text}: {help}");
        }
    }
}
