//! A value that is a list of directories whose files the front sends for an app.

use super::coerce::{Coerced, Read, Refusal, exact};
use crate::route::SendfileRoot;

/// Directories with commas between them, each in the form of [`SendfileRoot::parse`].
pub(super) fn roots(text: &str) -> Result<Coerced, Refusal> {
    let written = || text.split(',').map(str::trim).filter(|root| !root.is_empty());
    let help = "write DIRECTORY for X-Sendfile, or /PATH=DIRECTORY for X-Accel-Redirect too, \
                separated by commas; a relative directory is below the plugin";
    if let Some(Err(reason)) = written().map(SendfileRoot::parse).find(Result::is_err) {
        return Err((reason, help.into()));
    }
    Ok(exact(Read::List(written().map(str::to_owned).collect()), text))
}
