//! A value that says by what clients come back to their worker.

use super::coerce::{Coerced, Refusal, as_text};
use crate::route::Affinity;

/// A text in the form of [`Affinity::parse`].
pub(super) fn affinity(text: &str) -> Result<Coerced, Refusal> {
    match Affinity::parse(text) {
        Ok(_) => Ok(as_text(text)),
        Err(reason) => {
            Err((reason, "write cookie, cookie:NAME or ip, or leave the key out".into()))
        }
    }
}
