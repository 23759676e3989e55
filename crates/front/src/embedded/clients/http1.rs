//! HTTP/1.1 towards a client: heads and bodies as bytes.

use mfserv_h1::RequestHead;

use crate::embedded::io::buffer::Buffer;
use crate::embedded::io::chunked::{LAST_CHUNK, put_chunk};
use crate::embedded::io::clock;

/// The field that has browsers come over TLS alone (RFC 6797).
pub const STRICT_TRANSPORT: &[u8] = b"Strict-Transport-Security";

/// What is known of the length of a body when its head is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// The fields of the head say it, or the answer has no body.
    Known,
    /// Nobody knows it yet.
    Unknown,
}

/// How the end of an answer's body is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delimiter {
    /// The head says it.
    Head,
    /// The body is chunked.
    Chunks,
    /// The connection ends with the body.
    Close,
}

impl Delimiter {
    /// The one for an answer to this request.
    pub fn of(size: Size, request: &RequestHead) -> Self {
        match size {
            Size::Known => Delimiter::Head,
            Size::Unknown if request.is_1_1 => Delimiter::Chunks,
            Size::Unknown => Delimiter::Close,
        }
    }

    /// Appends content. Content of no bytes is left out.
    pub fn put(self, out: &mut Buffer, content: &[u8]) {
        match self {
            Delimiter::Chunks if content.is_empty() => {}
            Delimiter::Chunks => put_chunk(out, content),
            Delimiter::Head | Delimiter::Close => out.push(content),
        }
    }

    /// Appends what ends the body.
    pub fn put_end(self, out: &mut Buffer) {
        if self == Delimiter::Chunks {
            out.push(LAST_CHUNK);
        }
    }
}

/// The status and what else begins an answer.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// The status.
    pub status: u16,
    /// What the status is called; HTTP/1 says it, later versions do not.
    pub reason: &'a [u8],
    /// What is known of the length of the content.
    pub size: Size,
    /// The field Connection is written even where it says what is the rule anyway.
    pub names_connection: bool,
}

/// What every answer to a request has in common.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The head of the request.
    pub request: &'a RequestHead,
    /// The connection may be used again, as far as the request and the front go.
    pub keep_alive: bool,
    /// The value of X-Request-Id, if it is written.
    pub id: Option<&'a [u8]>,
    /// The value of Server-Timing, if it is written: one more field where an app has its own.
    pub timing: Option<&'a str>,
    /// The value of Strict-Transport-Security, if it is written.
    pub strict_transport: Option<&'a str>,
    /// A further field.
    pub extra_field: Option<(&'static str, &'static str)>,
    /// The value of a Set-Cookie of the front.
    pub cookie: Option<&'a str>,
}

/// Writes the head of an answer; `fields` writes its own fields. Returns how its content
/// is delimited, and whether the connection can be used again after it.
pub fn put_head(
    out: &mut Buffer,
    start: Start<'_>,
    frame: Frame<'_>,
    fields: impl FnOnce(&mut HeadWriter<'_>),
) -> (Delimiter, bool) {
    let delimiter = Delimiter::of(start.size, frame.request);
    let is_upgrade = start.status == 101;
    let keep_alive = frame.keep_alive && delimiter != Delimiter::Close && !is_upgrade;
    let mut head = HeadWriter::begin(out, start.status, start.reason);
    fields(&mut head);
    if delimiter == Delimiter::Chunks {
        head.field(b"Transfer-Encoding", b"chunked");
    }
    if let Some(id) = frame.id {
        head.field(b"X-Request-Id", id);
    }
    if let Some(timing) = frame.timing {
        head.field(b"Server-Timing", timing.as_bytes());
    }
    if let Some(value) = frame.strict_transport {
        head.field(STRICT_TRANSPORT, value.as_bytes());
    }
    if let Some((name, value)) = frame.extra_field {
        head.field(name.as_bytes(), value.as_bytes());
    }
    if let Some(cookie) = frame.cookie {
        head.field(b"Set-Cookie", cookie.as_bytes());
    }
    match keep_alive {
        _ if is_upgrade => head.field(b"Connection", b"upgrade"),
        false => head.field(b"Connection", b"close"),
        // For HTTP/1.0 the rule is `close`.
        true if start.names_connection || !frame.request.is_1_1 => {
            head.field(b"Connection", b"keep-alive");
        }
        true => {}
    }
    head.end();
    (delimiter, keep_alive)
}

/// The head of an answer while it is written.
pub struct HeadWriter<'a>(&'a mut Buffer);

impl<'a> HeadWriter<'a> {
    /// Writes the status line.
    pub fn begin(out: &'a mut Buffer, status: u16, reason: &[u8]) -> Self {
        out.push(b"HTTP/1.1 ");
        out.push_number(u64::from(status));
        out.push_all(&[b" ", reason, b"\r\n"]);
        Self(out)
    }

    /// Writes a field.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        self.0.push_all(&[name, b": ", value, b"\r\n"]);
    }

    /// Writes a field whose value is a number.
    pub fn number(&mut self, name: &[u8], value: u64) {
        self.0.push_all(&[name, b": "]);
        self.0.push_number(value);
        self.0.push(b"\r\n");
    }

    /// Writes the field Date.
    pub fn date(&mut self) {
        use std::cell::RefCell;
        thread_local! {
            /// The second that was last written, and its text.
            static LAST: RefCell<(i64, String)> = const { RefCell::new((0, String::new())) };
        }
        let seconds = clock::unix_seconds();
        LAST.with_borrow_mut(|(second, text)| {
            if *second != seconds {
                *second = seconds;
                *text = clock::http_date(seconds);
            }
            self.field(b"Date", text.as_bytes());
        });
    }

    /// Ends the head.
    pub fn end(self) {
        self.0.push(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::io::buffer::Pooled;

    /// How an answer to this request is framed: the end of its head, and what was decided.
    fn framed(request: &str, status: u16, size: Size) -> (String, (Delimiter, bool)) {
        let mut head = RequestHead::default();
        head.read(format!("GET / {request}\r\nHost: h\r\n\r\n").as_bytes(), 100).unwrap();
        let mut out = Pooled::default();
        let start = Start { status, reason: b"R", size, names_connection: false };
        let (id, timing, extra_field, cookie) = (None, None, None, None);
        let (request, keep_alive, strict_transport) = (&head, head.keep_alive, None);
        let frame =
            Frame { request, keep_alive, id, timing, strict_transport, extra_field, cookie };
        let decided = put_head(&mut out, start, frame, |_| {});
        let text = String::from_utf8(out.filled().to_vec()).unwrap();
        let fields = text.strip_prefix(&format!("HTTP/1.1 {status} R\r\n")).unwrap();
        (fields.strip_suffix("\r\n").unwrap().to_string(), decided)
    }

    #[test]
    fn the_end_of_a_body_is_told_in_the_way_that_the_version_knows() {
        let keep = "HTTP/1.0\r\nConnection: keep-alive";
        let close = "HTTP/1.1\r\nConnection: close";
        for (request, status, size, field, decided) in [
            ("HTTP/1.1", 200, Size::Known, "", (Delimiter::Head, true)),
            (
                "HTTP/1.1",
                200,
                Size::Unknown,
                "Transfer-Encoding: chunked",
                (Delimiter::Chunks, true),
            ),
            ("HTTP/1.1", 101, Size::Known, "Connection: upgrade", (Delimiter::Head, false)),
            (close, 200, Size::Known, "Connection: close", (Delimiter::Head, false)),
            (keep, 200, Size::Known, "Connection: keep-alive", (Delimiter::Head, true)),
            (keep, 200, Size::Unknown, "Connection: close", (Delimiter::Close, false)),
            ("HTTP/1.0", 200, Size::Unknown, "Connection: close", (Delimiter::Close, false)),
        ] {
            let (fields, found) = framed(request, status, size);
            assert_eq!((fields.trim_end(), found), (field, decided), "{request:?} {status}");
        }
    }

    #[test]
    fn content_is_framed_and_no_chunk_of_nothing_ends_it_early() {
        let mut out = Pooled::default();
        Delimiter::Chunks.put(&mut out, b"");
        Delimiter::Chunks.put(&mut out, b"ab");
        Delimiter::Chunks.put_end(&mut out);
        Delimiter::Head.put(&mut out, b"cd");
        Delimiter::Head.put_end(&mut out);
        assert_eq!(out.filled(), b"2\r\nab\r\n0\r\n\r\ncd");
    }
}
