//! The head of a worker's answer.

use std::mem::MaybeUninit;

use super::field::is;
use super::{FIELDS_MAX, Fields, Framing, Name, Refusal, Span};

/// An answer's head; the same one is filled again for each answer.
#[derive(Debug, Default)]
pub struct ResponseHead {
    /// Its fields.
    pub fields: Fields,
    /// The status code, 100 to 599.
    pub status: u16,
    reason: Span,
    /// How its body is framed.
    pub framing: Framing,
    /// The length that it announces, also where it has no body (HEAD, 304).
    pub length: Option<u64>,
    /// The worker lets the connection be used again.
    pub keep_alive: bool,
    /// How long the worker says that it keeps an idle connection, seconds.
    pub keep_alive_s: Option<u64>,
}

impl ResponseHead {
    /// Reads a whole head, as long as [`super::HeadScan`] says it is. `to_head`: it
    /// answers a HEAD request, and so has no body. It may have `fields_max` fields.
    pub fn read(&mut self, head: &[u8], to_head: bool, fields_max: usize) -> Result<(), Refusal> {
        *self = Self { fields: self.fields.emptied(), ..Self::default() };
        let mut space = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let space = &mut space[..fields_max.min(FIELDS_MAX)];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut parsed, head, space) {
            Ok(httparse::Status::Complete(length)) if length == head.len() => {}
            Err(httparse::Error::TooManyHeaders) => {
                return Err(Refusal::with(431, "too many fields"));
            }
            _ => return Err(Refusal::bad("a bad answer head")),
        }
        self.status = parsed.code.unwrap_or_default();
        if !(100..=599).contains(&self.status) {
            return Err(Refusal::bad("a bad status code"));
        }
        self.fields.load(head, head, parsed.headers);
        let reason = parsed.reason.unwrap_or_default().as_bytes();
        self.reason = if reason.is_empty() { Span::default() } else { Span::within(head, reason) };
        let is_1_1 = parsed.version == Some(1);
        self.length = self.fields.content_length()?;
        self.framing = self.read_framing(is_1_1, to_head)?;
        self.read_connection(is_1_1);
        Ok(())
    }

    /// The reason phrase, possibly empty.
    pub fn reason(&self) -> &[u8] {
        self.fields.text(self.reason)
    }

    /// 1xx other than 101: another head follows.
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    fn read_framing(&self, is_1_1: bool, to_head: bool) -> Result<Framing, Refusal> {
        let coding = self.fields.single(Name::TransferEncoding, "two Transfer-Encoding")?;
        let coding = coding.map(|span| self.fields.text(span));
        if coding.is_some() && (self.length.is_some() || !is_1_1) {
            return Err(Refusal::bad("a doubtful Transfer-Encoding"));
        }
        if coding.is_some_and(|coding| !is(coding, "chunked")) {
            return Err(Refusal::bad("a Transfer-Encoding other than chunked"));
        }
        if to_head || self.status < 200 || matches!(self.status, 204 | 304) {
            return Ok(Framing::None);
        }
        Ok(match (coding, self.length) {
            (Some(_), _) => Framing::Chunked,
            (None, Some(length)) => Framing::of_length(length),
            (None, None) => Framing::UntilClose,
        })
    }

    fn read_connection(&mut self, is_1_1: bool) {
        let fields = &self.fields;
        let close = fields.has_token(Name::Connection, "close");
        let keep = is_1_1 || fields.has_token(Name::Connection, "keep-alive");
        self.keep_alive = keep && !close && self.framing != Framing::UntilClose;
        self.keep_alive_s = fields.tokens(Name::KeepAlive).find_map(|parameter| {
            let text = std::str::from_utf8(parameter).ok()?;
            text.to_ascii_lowercase().strip_prefix("timeout=")?.trim().parse().ok()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::HeadScan;
    use super::*;

    fn read_to(text: &str, to_head: bool) -> Result<ResponseHead, Refusal> {
        let end = HeadScan::default().find_end(text.as_bytes())?;
        let end = end.unwrap_or_else(|| panic!("no end in {text:?}"));
        let mut head = ResponseHead::default();
        head.read(&text.as_bytes()[..end], to_head, 1000).map(|()| head)
    }

    fn read(text: &str) -> Result<ResponseHead, Refusal> {
        read_to(text, false)
    }

    #[test]
    fn the_framing_follows_status_method_and_fields() {
        let ok = "HTTP/1.1 200 OK\r\n";
        for (head, to_head, framing) in [
            (format!("{ok}Content-Length: 5\r\n\r\n"), false, Framing::Length(5)),
            (format!("{ok}Content-Length: 0\r\n\r\n"), false, Framing::None),
            (format!("{ok}Content-Length: 5\r\n\r\n"), true, Framing::None),
            (format!("{ok}Transfer-Encoding: chunked\r\n\r\n"), false, Framing::Chunked),
            (format!("{ok}Transfer-Encoding: chunked\r\n\r\n"), true, Framing::None),
            (format!("{ok}\r\n"), false, Framing::UntilClose),
            ("HTTP/1.1 204 No\r\n\r\n".into(), false, Framing::None),
            ("HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n".into(), false, Framing::None),
            ("HTTP/1.1 103 Early\r\n\r\n".into(), false, Framing::None),
            ("HTTP/1.0 200 OK\r\n\r\n".into(), false, Framing::UntilClose),
        ] {
            assert_eq!(read_to(&head, to_head).unwrap().framing, framing, "{head:?}");
        }
    }

    #[test]
    fn broken_answers_are_refused() {
        for head in [
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 99 OK\r\n\r\n",
            "HTTP/1.1 600 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 abc OK\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "hello\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
            "HTTP/1.1 200 OK\nX: a\n\n\r\n\r\n",
        ] {
            assert!(read(head).is_err(), "{head:?}");
        }
    }

    #[test]
    fn the_worker_says_how_long_the_connection_lasts() {
        let head = read("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        assert!(head.keep_alive && head.keep_alive_s.is_none());
        let text = "HTTP/1.1 200 \r\nContent-Length: 0\r\nKeep-Alive: max=9, Timeout=5\r\n\r\n";
        assert_eq!(read(text).unwrap().keep_alive_s, Some(5));
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
        ] {
            assert!(!read(text).unwrap().keep_alive, "{text:?}");
        }
    }
}
