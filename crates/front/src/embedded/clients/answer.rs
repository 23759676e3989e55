//! Answers that the front gives by itself.

use std::borrow::Cow;

use super::exchange::{Exchange, Size, Start};
use super::fault::Cause;

/// The reason phrase of a status.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// The Content-Type of pages.
pub const PAGE: &str = "text/html; charset=utf-8";

/// The head of an answer of the front.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The status.
    pub status: u16,
    /// The Content-Type; empty: none.
    pub content_type: &'a str,
    /// The length of the content, also where none follows (HEAD); `None`: no field says it
    /// (304).
    pub length: Option<u64>,
    /// Further fields.
    pub fields: &'a [(&'a str, &'a str)],
}

impl Head<'_> {
    /// Puts it.
    pub fn put(&self, exchange: &mut Exchange<'_>) {
        let server: &[u8] = match exchange.settings().server_tokens {
            true => concat!("mfserv/", env!("CARGO_PKG_VERSION")).as_bytes(),
            false => b"mfserv",
        };
        let (status, reason) = (self.status, reason(self.status).as_bytes());
        let start = Start { status, reason, size: Size::Known, names_connection: true };
        exchange.put_head(start, |head| {
            head.field(b"Server", server);
            head.date();
            if !self.content_type.is_empty() {
                head.field(b"Content-Type", self.content_type.as_bytes());
            }
            if let Some(length) = self.length {
                head.number(b"Content-Length", length);
            }
            for (name, value) in self.fields {
                head.field(name.as_bytes(), value.as_bytes());
            }
        });
    }
}

/// A small answer that is in memory.
#[derive(Debug, Clone)]
pub struct Text {
    /// The status.
    pub status: u16,
    /// The Content-Type; empty: none.
    pub content_type: &'static str,
    /// The content.
    pub content: String,
}

/// Puts a small answer with these fields.
pub fn put_text(exchange: &mut Exchange<'_>, text: &Text, fields: &[(&str, &str)]) {
    put(exchange, (text.status, text.content_type, &text.content), fields);
}

fn put(
    exchange: &mut Exchange<'_>,
    (status, content_type, content): (u16, &str, &str),
    fields: &[(&str, &str)],
) {
    let length = Some(content.len() as u64);
    Head { status, content_type, length, fields }.put(exchange);
    if exchange.wants_content() {
        exchange.put_data(content.as_bytes());
    }
}

/// Puts the page of a fault.
pub fn put_fault(exchange: &mut Exchange<'_>, cause: Cause, fields: &[(&str, &str)]) {
    exchange.set_cause(cause);
    let page = fault_page(exchange, cause);
    let own = fields_of(cause);
    let own = own.iter().map(|(name, value)| (*name, &**value));
    let fields: Vec<_> = fields.iter().copied().chain(own).collect();
    put(exchange, (cause.status(), PAGE, &page), &fields);
}

/// The fields that say of an answer why it is none of the app, and when to come again.
pub fn fields_of(cause: Cause) -> Vec<(&'static str, Cow<'static, str>)> {
    let fixed = cause.fields().iter().map(|(name, value)| (*name, Cow::Borrowed(*value)));
    let retry = cause.retry_after_s().map(|seconds| ("Retry-After", seconds.to_string().into()));
    fixed.chain(retry).chain([("X-Mfserv-Cause", cause.as_str().into())]).collect()
}

/// The text of the page of a fault, for an answer with a head of its own.
pub fn fault_page(exchange: &Exchange<'_>, cause: Cause) -> String {
    page(exchange, (cause.status(), cause.as_str()), cause.explanation())
}

/// Puts a page that says what the status is called.
pub fn put_page(exchange: &mut Exchange<'_>, what: (u16, &str), fields: &[(&str, &str)]) {
    let page = page(exchange, what, None);
    put(exchange, (what.0, PAGE, &page), fields);
}

/// The text of a page.
fn page(
    exchange: &Exchange<'_>,
    (status, cause): (u16, &str),
    explanation: Option<String>,
) -> String {
    let explained = explanation.map(|text| format!("<p>{text}</p>\n")).unwrap_or_default();
    let id = String::from_utf8_lossy(exchange.id()).replace(['<', '>', '&', '"'], "_");
    let what = reason(status);
    let server = match exchange.settings().server_tokens {
        true => concat!("mfserv ", env!("CARGO_PKG_VERSION")),
        false => "mfserv",
    };
    format!(
        "<!DOCTYPE html>\n<html><head><title>{status} {what}</title></head>\n\
         <body><h1>{status} {what}</h1>\n<p>cause: {cause}<br>request: {id}</p>\n{explained}\
         <hr><p>{server}</p></body></html>\n"
    )
}
