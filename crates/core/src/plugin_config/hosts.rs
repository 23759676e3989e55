//! A value that is a list of host names.

use super::coerce::{Coerced, Read, Refusal, exact};
use crate::route::host;

/// Host names with commas between them, each in the form of [`host::configured`].
pub(super) fn hosts(text: &str) -> Result<Coerced, Refusal> {
    let written = text.split(',').map(str::trim).filter(|host| !host.is_empty());
    let list = written.map(host::configured).collect::<Result<_, _>>()?;
    Ok(exact(Read::List(list), text))
}
