//! The answer for a fault: the page of the app, if it has one and the client takes pages, or ours.

use std::path::Path;

use mfserv_core::route::ErrorPages;
use mfserv_h1::RequestHead;

use super::browsers;
use super::extensions::Attendant;
use super::lane::Lane;
use crate::embedded::clients::answer::{self, Text};
use crate::embedded::clients::exchange::Exchange;
use crate::embedded::clients::fault::{Cause, Fault};
use crate::embedded::files;

/// The field of an answer that has another form for clients that take no pages.
const VARIES: (&str, &str) = ("Vary", "Accept");

/// A page: a file below a directory.
type Place<'p> = (&'p Path, &'p str);

/// What is known of a request besides who answers it.
#[derive(Default)]
pub struct Beside<'t> {
    /// The extension that has something to do with it.
    pub attendant: Option<Box<dyn Attendant>>,
    /// The pages that its app has for errors.
    pub pages: Option<&'t ErrorPages>,
    /// The page that a rule of its site has for it: a file below a directory.
    pub page_of_rule: Option<(&'t Path, String)>,
}

impl Beside<'_> {
    /// Where the pages for a status are, those that are to be tried first come first.
    fn places(&self, status: u16) -> Vec<Place<'_>> {
        let of_rule = self.page_of_rule.iter().map(|(root, file)| (*root, file.as_str()));
        of_rule.chain(self.pages.into_iter().flat_map(|pages| places(pages, status))).collect()
    }
}

fn places(pages: &ErrorPages, status: u16) -> impl Iterator<Item = Place<'_>> {
    pages.files(status).map(|file| (pages.root.as_path(), file))
}

/// Reports a fault and puts its page: that of an extension, of the app, or ours.
pub async fn answer(
    lane: &Lane,
    exchange: &mut Exchange<'_>,
    beside: Beside<'_>,
    cause: Cause,
) -> Result<(), Fault> {
    exchange.set_cause(cause);
    if cause == Cause::UnknownHost(444) {
        exchange.refuse_silently();
        return Ok(());
    }
    report(lane, exchange, cause);
    let head = exchange.request();
    let own = beside.attendant.as_ref().and_then(|one| one.instead_of_fault(head, cause));
    let Some(page) = own else {
        return with_page(cause, &beside.places(cause.status()), exchange).await;
    };
    answer::put_text(exchange, &page.text, &page.fields);
    Ok(())
}

/// The pages among these that a client takes, and the fields of an answer that says so.
fn offered<'p, 'f>(
    places: &'p [Place<'p>],
    exchange: &Exchange<'_>,
) -> (&'p [Place<'p>], &'f [(&'f str, &'f str)]) {
    let varies: &[_] = if places.is_empty() { &[] } else { &[VARIES] };
    (if takes_pages(exchange.request()) { places } else { &[] }, varies)
}

/// Answers as this cause says, with the first page of the app that is there, or ours.
async fn with_page(
    cause: Cause,
    places: &[Place<'_>],
    exchange: &mut Exchange<'_>,
) -> Result<(), Fault> {
    let (taken, varies) = offered(places, exchange);
    for place in taken {
        match files::page_below(cause, varies, *place, exchange).await {
            // Nothing was sent: the file is not there, or may not be read.
            Err(Fault::Answer(_)) => {}
            done => return done,
        }
    }
    answer::put_fault(exchange, cause, varies);
    Ok(())
}

/// Answers a request with the page for the status of a fixed text, or with the text.
pub async fn put_fixed(
    (status, text): (u16, &str),
    pages: Option<&ErrorPages>,
    exchange: &mut Exchange<'_>,
) -> Result<(), Fault> {
    let places: Vec<_> = pages.into_iter().flat_map(|pages| places(pages, status)).collect();
    let (taken, varies) = offered(&places, exchange);
    for place in taken {
        if files::put_page(status, varies, *place, exchange).await? {
            return Ok(());
        }
    }
    let content_type = "text/plain; charset=utf-8";
    answer::put_text(exchange, &Text { status, content_type, content: text.into() }, varies);
    Ok(())
}

/// Writes a fault that is not the client's into the error log.
fn report(lane: &Lane, exchange: &Exchange<'_>, cause: Cause) {
    let status = cause.status();
    // What an operator has switched on is no fault.
    if status >= 500 && cause != Cause::Maintenance {
        let id = String::from_utf8_lossy(exchange.id());
        let path = String::from_utf8_lossy(exchange.written_target());
        let cause = cause.as_str();
        lane.front.errors.report(&format!("answered {status} {cause}: {path} (request {id})"));
    }
}

/// True if a client wants HTML, or does not say what it wants. Clients of an API name JSON, often with
/// `*/*` beside it.
fn takes_pages(head: &RequestHead) -> bool {
    let accept: Vec<&[u8]> = browsers::values(head, b"accept").collect();
    let members = || accept.iter().flat_map(|text| text.split(|&b| b == b','));
    let has = |wanted: fn(&[u8]) -> bool| members().any(|one| is_accepted(one, wanted));
    accept.is_empty()
        || has(|kind| kind == b"text/html" || kind == b"application/xhtml+xml")
        || has(|kind| kind == b"text/*" || kind == b"*/*") && !has(is_json)
}

fn is_json(kind: &[u8]) -> bool {
    kind == b"application/json" || kind.ends_with(b"+json")
}

/// True if a member of Accept names a wanted type, and not in order to refuse it (`q=0`).
fn is_accepted(member: &[u8], is_wanted: fn(&[u8]) -> bool) -> bool {
    let mut parts = member.split(|&b| b == b';').map(<[u8]>::trim_ascii);
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let is_zero = |weight: &[u8]| weight.starts_with(b"0") && !weight.iter().any(|b| *b > b'0');
    let is_refused = parts
        .any(|part| part.strip_prefix(b"q=").or(part.strip_prefix(b"Q=")).is_some_and(is_zero));
    !is_refused && is_wanted(&kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_json_and_not_html_gets_no_page() {
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        for (accept, takes) in [
            (None, true),
            (Some(browser), true),
            (Some("*/*"), true),
            (Some("text/*"), true),
            (Some("TEXT/HTML; charset=utf-8"), true),
            (Some("application/json, text/html;q=0.1"), true),
            (Some("application/json"), false),
            (Some("application/json, text/plain, */*"), false),
            (Some("application/vnd.api+json, */*;q=0.5"), false),
            (Some("image/avif,image/webp"), false),
            (Some("text/html;q=0"), false),
            (Some("text/html;q=0.000, application/json"), false),
            (Some("application/json;q=0, */*"), true),
            (Some(""), false),
        ] {
            let mut head = RequestHead::default();
            let field = accept.map(|accept| format!("Accept: {accept}\r\n")).unwrap_or_default();
            let text = format!("GET /a HTTP/1.1\r\nHost: h\r\n{field}\r\n");
            head.read(text.as_bytes(), 100).unwrap();
            assert_eq!(takes_pages(&head), takes, "{accept:?}");
        }
    }
}
