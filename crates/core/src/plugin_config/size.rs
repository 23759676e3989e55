//! Amounts of memory in a plugin's configuration.

use super::coerce::{Coerced, Read, Refusal, exact};
use crate::memory::{SMALLEST_LIMIT, parse_size, size_text};

/// A limit; 0 is none. One in which nothing starts is refused.
pub(super) fn size(text: &str) -> Result<Coerced, Refusal> {
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
}
