//! A value that says which pages an app has for errors.

use super::coerce::{Coerced, Read, Refusal, exact};
use super::schema::{ERROR_PAGES, GATEWAY_MODE, Kind, STATIC_FALLBACK};
use super::{Resolver, Section};
use crate::layers::Value;
use crate::route::{ErrorPage, names_script};

impl Resolver<'_> {
    /// The front sends files as they are: it runs no script, and must not show its text.
    pub(super) fn check_pages(&mut self, kind: Kind, values: &[&Value], section: &Section) {
        let Kind::App(_) = kind else { return };
        if section.get(GATEWAY_MODE) != "fastcgi" {
            return;
        }
        for key in [ERROR_PAGES.row.name, STATIC_FALLBACK.row.name] {
            let script = |value: &&&Value| {
                value.key == key && value.value.split_whitespace().any(names_script)
            };
            let Some(value) = values.iter().find(script) else { continue };
            let reason = format!(
                "[{}] {key}={} names a script, whose text clients would see: the page is sent as it is",
                value.section, value.value
            );
            let help = "name a file of HTML, as /404.html";
            self.refuse(&reason, value.origin.location(), help);
        }
    }
}

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
