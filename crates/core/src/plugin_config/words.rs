//! Values that are one word.

use super::coerce::{Coerced, Refusal, as_text};

/// One of these words.
pub(super) fn word(text: &str, words: &[&str]) -> Result<Coerced, Refusal> {
    match words.contains(&text) {
        true => Ok(as_text(text)),
        false => Err((
            format!("{text:?} is not possible here"),
            format!("write {}, or leave the key out", words.join(" or ")),
        )),
    }
}

/// The name of a program, without a directory.
pub(super) fn interpreter(text: &str) -> Result<Coerced, Refusal> {
    match crate::keys::is_program_name(text) {
        true => Ok(as_text(text)),
        false => Err((
            format!("{text:?} is not the name of an interpreter"),
            "write a name without a directory, for example python3.12".into(),
        )),
    }
}
