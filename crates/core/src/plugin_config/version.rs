//! The version and the release of a plugin: both become a part of the name of its package.

use super::coerce::{Coerced, Refusal, as_text};
/// The longest version or release, bytes.
const LONGEST: usize = 128;

pub(super) fn version(text: &str) -> Result<Coerced, Refusal> {
    let allowed =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if text.is_empty() {
        return Err(("it must not be empty".into(), "write a version, for example 0.0.1".into()));
    }
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    match begins_well && text.len() <= LONGEST && text.chars().all(allowed) {
        true => Ok(as_text(text)),
        false => Err((
            format!("{} is not a version", quoted(text)),
            "a version is made of lower-case letters, digits, -, _ and ., begins with a letter or \
             a digit, and has at most 128 characters"
                .into(),
        )),
    }
}

/// MFSERV takes any text; here it may not lead out of the directory of the package.
pub(super) fn release(text: &str) -> Result<Coerced, Refusal> {
    let refused = |c: char| c == '/' || c.is_control();
    match text.len() > LONGEST || text.starts_with('.') || text.contains(refused) {
        false => Ok(as_text(text)),
        true => Err((
            format!("{} is not a release", quoted(text)),
            "a release has no / and no control characters, does not begin with ., and has at most \
             128 characters: write a number, for example 1"
                .into(),
        )),
    }
}

/// Shortened, for a message.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{more}")
}
