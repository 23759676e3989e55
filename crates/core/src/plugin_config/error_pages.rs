//! A value that says which pages an app has for errors.

use super::coerce::{Coerced, Read, Refusal, exact};
use crate::route::ErrorPage;

/// Pages with blanks between them, each in the form of [`ErrorPage::parse`].
pub(super) fn pages(text: &str) -> Result<Coerced, Refusal> {
    let help = "write statuses with a file below the static directory, separated by blanks: \
                404:/404.html 500-599:/oops.html";
    if let Some(Err(reason)) = text.split_whitespace().map(ErrorPage::parse).find(Result::is_err) {
        return Err((reason, help.into()));
    }
    let written = text.split_whitespace().map(str::to_owned).collect();
    Ok(exact(Read::List(written), text))
}
