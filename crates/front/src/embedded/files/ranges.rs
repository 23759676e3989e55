//! The field Range: which parts of a content are asked for.

use std::ops::Range;

/// A request for more ranges than this is answered with the whole.
const RANGES_MAX: usize = 32;

/// What a Range field asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// Everything: there is no range, or none that is understood, or so many or so large ones
    /// that the whole is cheaper.
    All,
    /// These parts, in this order; at least one, none empty.
    Parts(Vec<Range<u64>>),
    /// Only parts that are not there.
    Impossible,
}

/// Reads `bytes=…` for a content of `whole` bytes.
pub fn parse(text: &[u8], whole: u64) -> Asked {
    let Some(set) =
        text.split_at_checked(6).filter(|(unit, _)| unit.eq_ignore_ascii_case(b"bytes="))
    else {
        return Asked::All;
    };
    let (mut parts, mut total, mut count) = (Vec::new(), 0u64, 0);
    for spec in set.1.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
        if spec.is_empty() {
            continue;
        }
        count += 1;
        let Some(range) = one(spec, whole).filter(|_| count <= RANGES_MAX) else {
            return Asked::All;
        };
        if range.start < range.end {
            total = total.saturating_add(range.end - range.start);
            parts.push(range);
        }
    }
    match (count, parts.is_empty()) {
        (0, _) => Asked::All,
        (_, true) => Asked::Impossible,
        // They overlap: a small request would cause a large answer (nginx does the same).
        _ if total > whole => Asked::All,
        _ => Asked::Parts(parts),
    }
}

/// Reads one range: empty if it lies outside, `None` if it is malformed.
fn one(spec: &[u8], whole: u64) -> Option<Range<u64>> {
    let dash = spec.iter().position(|&b| b == b'-')?;
    let (first, last) = (spec[..dash].trim_ascii(), spec[dash + 1..].trim_ascii());
    match (first.is_empty(), last.is_empty()) {
        (true, true) => None,
        (true, false) => Some(whole.saturating_sub(number(last)?)..whole),
        (false, true) => Some(number(first)?..whole),
        (false, false) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then(|| first..last.saturating_add(1).min(whole))
        }
    }
}

/// Reads digits. A number that is too large is larger than any content, and becomes the
/// largest one.
fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        Some(sum.saturating_mul(10).saturating_add(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_understood() {
        for (text, expected) in [
            ("bytes=0-0", &[(0, 1)][..]),
            ("bytes=5-", &[(5, 10)][..]),
            ("bytes=-3", &[(7, 10)][..]),
            ("bytes=-30", &[(0, 10)][..]),
            ("bytes=5-100", &[(5, 10)][..]),
            ("Bytes= 1-2 , 4-5,", &[(1, 3), (4, 6)][..]),
            ("bytes=8-9,0-1,-1", &[(8, 10), (0, 2), (9, 10)][..]),
            ("bytes=1-2,20-30", &[(1, 3)][..]),
            ("bytes=0-99999999999999999999999", &[(0, 10)][..]),
        ] {
            let expected = expected.iter().map(|&(start, end)| start..end).collect();
            assert_eq!(parse(text.as_bytes(), 10), Asked::Parts(expected), "{text}");
        }
        for text in ["bytes=10-", "bytes=-0", "bytes=99999999999999999999-", "bytes=10-11,12-"] {
            assert_eq!(parse(text.as_bytes(), 10), Asked::Impossible, "{text}");
        }
        assert_eq!(parse(b"bytes=0-", 0), Asked::Impossible);
        let many = format!("bytes={}", "0-0,".repeat(33));
        for text in [
            "items=1-2",
            "bytes=2-1",
            "bytes=a-b",
            "bytes=-",
            "x",
            "bytes=",
            "bytes=,",
            "bytes=1-2,x",
            "bytes=0-5,3-9",
            "bytes=0x1-2",
            "bytes=+1-2",
            "bytes=--1",
            &many,
        ] {
            assert_eq!(parse(text.as_bytes(), 10), Asked::All, "{text}");
        }
    }

    #[test]
    fn whatever_is_asked_for_parts_lie_inside_and_are_not_more_than_the_whole() {
        let mut dice = 7u64;
        let mut below = |n: usize| {
            dice = dice.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (dice >> 33) as usize % n
        };
        let mut split = 0;
        for _ in 0..100_000 {
            let length = below(20);
            let tail: Vec<u8> = (0..length).map(|_| b"0123456789-,, -"[below(15)]).collect();
            let whole = below(100) as u64;
            if let Asked::Parts(parts) = parse(&[b"bytes=", &tail[..]].concat(), whole) {
                split += usize::from(parts.len() > 1);
                assert!(parts.iter().all(|part| part.start < part.end && part.end <= whole));
                assert!(parts.iter().map(|part| part.end - part.start).sum::<u64>() <= whole);
            }
        }
        assert!(split > 100, "{split}");
    }
}
