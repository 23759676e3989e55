//! The first 64 bytes of each side: signature, version, mechanism.

use crate::Violation;

/// How long a greeting is, bytes.
pub const LENGTH: usize = 64;
/// Where the name of the mechanism begins, and how long it is, zeros included.
const MECHANISM: std::ops::Range<usize> = 12..32;
/// Where the major version is.
const MAJOR: usize = 10;

/// What a server says first: ZMTP 3.0, NULL.
pub fn own() -> [u8; LENGTH] {
    let mut greeting = [0; LENGTH];
    greeting[0] = 0xff;
    greeting[9] = 0x7f;
    greeting[MAJOR] = 3;
    greeting[MECHANISM.start..MECHANISM.start + 4].copy_from_slice(b"NULL");
    greeting
}

/// Looks at what has come of a greeting: false if more is needed. A peer that speaks something
/// else is refused at its first byte.
pub fn check(begun: &[u8]) -> Result<bool, Violation> {
    let at = |index: usize| begun.get(index).copied();
    if at(0).is_some_and(|first| first != 0xff) || at(9).is_some_and(|last| last & 1 == 0) {
        return Err(Violation("it does not begin as ZMTP does"));
    }
    if at(MAJOR).is_some_and(|major| major < 3) {
        return Err(Violation("its ZMTP is older than version 3.0"));
    }
    if begun.len() < LENGTH {
        return Ok(false);
    }
    let mechanism = &begun[MECHANISM];
    if mechanism[..4] != *b"NULL" || mechanism[4..].iter().any(|byte| *byte != 0) {
        return Err(Violation("its mechanism is not NULL"));
    }
    Ok(true)
}
