//! Answers that the front gives by itself.

use mfserv_core::route::ServerSettings;
use rustix::time::{ClockId, clock_gettime};

use crate::embedded::clients::access_log::Visit;
use crate::embedded::io::buffer::Buffer;

/// What a status code is called.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
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

/// An answer.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Its status code.
    pub status: u16,
    /// Its Content-Type; empty = none.
    pub content_type: &'a str,
    /// Its length, also where there is no body (HEAD); `None` says none (304).
    pub length: Option<u64>,
    /// Further fields.
    pub fields: &'a [(&'a str, &'a str)],
}

impl Answer<'_> {
    /// Writes its head. The visit learns its status.
    pub fn put_head(&self, out: &mut Buffer, settings: &ServerSettings, visit: &mut Visit) {
        visit.status = self.status;
        out.push(b"HTTP/1.1 ");
        out.push_number(u64::from(self.status));
        out.push_all(&[b" ", reason(self.status).as_bytes(), b"\r\nServer: mfserv"]);
        if settings.server_tokens {
            out.push(concat!("/", env!("CARGO_PKG_VERSION")).as_bytes());
        }
        out.push(b"\r\n");
        put_date(out);
        if !self.content_type.is_empty() {
            out.push_all(&[b"Content-Type: ", self.content_type.as_bytes(), b"\r\n"]);
        }
        if let Some(length) = self.length {
            out.push(b"Content-Length: ");
            out.push_number(length);
            out.push(b"\r\n");
        }
        for (name, value) in self.fields {
            out.push_all(&[name.as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
        if settings.add_request_id {
            out.push_all(&[b"X-Request-Id: ", &visit.id, b"\r\n"]);
        }
        put_connection(out, visit.keep);
        out.push(b"\r\n");
    }
}

/// Says whether the connection stays. (For HTTP/1.0 too, which needs to be told.)
pub fn put_connection(out: &mut Buffer, keep: bool) {
    out.push(if keep { b"Connection: keep-alive\r\n" } else { b"Connection: close\r\n" });
}

/// An answer with a small body.
pub fn put_text(
    out: &mut Buffer,
    settings: &ServerSettings,
    visit: &mut Visit,
    to_head: bool,
    (status, content_type, body): (u16, &str, &[u8]),
) {
    let length = Some(body.len() as u64);
    Answer { status, content_type, length, fields: &[] }.put_head(out, settings, visit);
    if !to_head {
        out.push(body);
    }
}

/// A page that says what is wrong; `cause` in one word.
pub fn put_error(
    out: &mut Buffer,
    settings: &ServerSettings,
    visit: &mut Visit,
    to_head: bool,
    (status, cause, fields): (u16, &str, &[(&str, &str)]),
) {
    let id = String::from_utf8_lossy(&visit.id).replace(['<', '>', '&', '"'], "_");
    let what = reason(status);
    let server = match settings.server_tokens {
        true => concat!("mfserv ", env!("CARGO_PKG_VERSION")),
        false => "mfserv",
    };
    let page = format!(
        "<!DOCTYPE html>\n<html><head><title>{status} {what}</title></head>\n\
         <body><h1>{status} {what}</h1>\n<p>cause: {cause}<br>request: {id}</p>\n\
         <hr><p>{server}</p></body></html>\n"
    );
    let mut all: Vec<(&str, &str)> = fields.to_vec();
    if !cause.is_empty() {
        all.push(("X-Mfserv-Cause", cause));
    }
    let answer = Answer {
        status,
        content_type: "text/html; charset=utf-8",
        length: Some(page.len() as u64),
        fields: &all,
    };
    answer.put_head(out, settings, visit);
    if !to_head {
        out.push(page.as_bytes());
    }
}

/// Writes the Date field.
pub fn put_date(out: &mut Buffer) {
    use std::cell::RefCell;
    thread_local! {
        static NOW: RefCell<(i64, String)> = const { RefCell::new((0, String::new())) };
    }
    let seconds = unix_seconds();
    NOW.with_borrow_mut(|(second, text)| {
        if *second != seconds {
            *second = seconds;
            *text = http_date(seconds);
        }
        out.push_all(&[b"Date: ", text.as_bytes(), b"\r\n"]);
    });
}

/// The time now, by the clock that costs least: at most some milliseconds behind.
pub fn unix_seconds() -> i64 {
    clock_gettime(ClockId::RealtimeCoarse).tv_sec
}

/// A time as HTTP writes it: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn http_date(unix_seconds: i64) -> String {
    jiff::Timestamp::from_second(unix_seconds)
        .unwrap_or_default()
        .strftime("%a, %d %b %Y %H:%M:%S GMT")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_http_does() {
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
