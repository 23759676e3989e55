//! The head of a request.

mod parser;

use std::mem::MaybeUninit;

use super::field::is;
use super::{FIELDS_MAX, Fields, Framing, Name, Refusal, Span};

/// A request's head; the same one is filled again for each request of a connection.
#[derive(Debug, Default)]
pub struct RequestHead {
    /// Its fields.
    pub fields: Fields,
    method: Span,
    /// The target as the client wrote it.
    written: Span,
    /// The target in origin form: path and query.
    target: Span,
    host: Option<Span>,
    /// HTTP/1.1 (else 1.0).
    pub is_1_1: bool,
    /// How its body is framed; never until-close.
    pub framing: Framing,
    /// The client lets the connection be used again.
    pub keep_alive: bool,
    /// It waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// It asks for another protocol on this connection.
    pub upgrade: bool,
}

impl RequestHead {
    /// Reads a whole head, as long as [`super::HeadScan`] says it is, with at most
    /// `fields_max` fields. An empty line before it is skipped (RFC 9112, 2.2).
    pub fn read(&mut self, head: &[u8], fields_max: usize) -> Result<(), Refusal> {
        // What is refused must not show anything of the request before it.
        *self = Self { fields: self.fields.emptied(), ..Self::default() };
        let head = head.strip_prefix(b"\r\n").unwrap_or(head);
        // The parser refuses a target that is not UTF-8: only then it is looked at.
        self.parse(head, head, fields_max).or_else(|why| match parser::in_utf8(head) {
            Some(shown) => self.parse(head, &shown, fields_max),
            None => Err(why),
        })
    }

    /// Reads `head`, which has the same parts as `written` at the same places.
    fn parse(&mut self, written: &[u8], head: &[u8], fields_max: usize) -> Result<(), Refusal> {
        let mut space = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let space = &mut space[..fields_max.min(FIELDS_MAX)];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(head, space) {
            Ok(httparse::Status::Complete(length)) if length == head.len() => {}
            Ok(_) => return Err(Refusal::bad("a head that ends early")),
            Err(why) => return Err(parser::refusal(why, head)),
        }
        self.fields.load(written, head, parsed.headers);
        self.method = Span::within(head, parsed.method.unwrap_or_default().as_bytes());
        self.written = Span::within(head, parsed.path.unwrap_or_default().as_bytes());
        self.target = self.written;
        self.is_1_1 = parsed.version == Some(1);
        self.read_host()?;
        self.read_target()?;
        self.framing = self.read_framing()?;
        self.read_connection()
    }

    /// The method.
    pub fn method(&self) -> &[u8] {
        self.fields.text(self.method)
    }

    /// The target as the client wrote it.
    pub fn written_target(&self) -> &[u8] {
        self.fields.text(self.written)
    }

    /// Path and query, as the worker gets them: `*` for `OPTIONS *`.
    pub fn target(&self) -> &[u8] {
        self.fields.text(self.target)
    }

    /// The path, still encoded.
    pub fn path(&self) -> &[u8] {
        let target = self.target();
        target.split(|&b| b == b'?').next().unwrap_or(target)
    }

    /// The value of Host, empty if there is none (HTTP/1.0).
    pub fn host(&self) -> &[u8] {
        self.host.map_or(b"", |span| self.fields.text(span))
    }

    /// The host without its port.
    pub fn host_name(&self) -> &[u8] {
        let host = self.host();
        let end = match host.first() {
            Some(b'[') => host.iter().position(|&b| b == b']').map(|at| at + 1),
            _ => host.iter().position(|&b| b == b':'),
        };
        &host[..end.unwrap_or(host.len())]
    }

    /// The port that Host names.
    pub fn host_port(&self) -> Option<u16> {
        let port = self.host().get(self.host_name().len() + 1..)?;
        std::str::from_utf8(port).ok()?.parse().ok()
    }

    /// GET, HEAD, OPTIONS and TRACE change nothing (RFC 9110, 9.2.1).
    pub fn is_safe(&self) -> bool {
        matches!(self.method(), b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE")
    }

    fn read_host(&mut self) -> Result<(), Refusal> {
        self.host = self.fields.single(Name::Host, "two Host fields")?;
        match self.host {
            Some(host) if is_authority(self.fields.text(host)) => Ok(()),
            Some(_) => Err(Refusal::bad("a bad Host")),
            None if self.is_1_1 => Err(Refusal::bad("no Host")),
            None => Ok(()),
        }
    }

    fn read_target(&mut self) -> Result<(), Refusal> {
        let written = self.written_target();
        if written.contains(&b'#') {
            return Err(Refusal::bad("a fragment in the request target"));
        }
        // In any form: a worker might take it for a tunnel.
        if self.method() == b"CONNECT" {
            return Err(Refusal::with(405, "CONNECT is not offered"));
        }
        let is_asterisk = self.method() == b"OPTIONS" && written == b"*";
        match is_asterisk || written.starts_with(b"/") {
            true => Ok(()),
            false => self.read_absolute_form(),
        }
    }

    /// `http://HOST/PATH`: the worker gets the path, and this host whatever the Host field says
    /// (RFC 9112, 3.2.2).
    fn read_absolute_form(&mut self) -> Result<(), Refusal> {
        let bad = Refusal::bad("a bad request target");
        let written = self.written_target();
        let scheme = written.iter().position(|&b| b == b':').ok_or(bad)?;
        let after = written[scheme + 1..].strip_prefix(b"//").ok_or(bad)?;
        if !is(&written[..scheme], "http") && !is(&written[..scheme], "https") {
            return Err(bad);
        }
        let length = after.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(after.len());
        let (authority, rest) = after.split_at(length);
        if !is_authority(authority) {
            return Err(bad);
        }
        let end = self.written.end;
        let rest = Span { start: end - rest.len() as u32, end };
        self.host = Some(Span { start: rest.start - length as u32, end: rest.start });
        self.target = self.with_slash(rest);
        Ok(())
    }

    /// An absolute form without a path means `/`.
    fn with_slash(&mut self, rest: Span) -> Span {
        if self.fields.text(rest).starts_with(b"/") {
            return rest;
        }
        let query = self.fields.text(rest).to_vec();
        let start = self.fields.bytes.len() as u32;
        self.fields.bytes.push(b'/');
        self.fields.bytes.extend_from_slice(&query);
        Span { start, end: self.fields.bytes.len() as u32 }
    }

    fn read_framing(&self) -> Result<Framing, Refusal> {
        let length = self.fields.content_length()?;
        let coding = self.fields.single(Name::TransferEncoding, "two Transfer-Encoding")?;
        let Some(coding) = coding.map(|span| self.fields.text(span)) else {
            return Ok(length.map_or(Framing::None, Framing::of_length));
        };
        if length.is_some() {
            return Err(Refusal::bad("both Content-Length and Transfer-Encoding"));
        }
        if !self.is_1_1 {
            return Err(Refusal::bad("Transfer-Encoding in HTTP/1.0"));
        }
        if !is(coding, "chunked") {
            return Err(Refusal::with(501, "a Transfer-Encoding other than chunked"));
        }
        Ok(Framing::Chunked)
    }

    fn read_connection(&mut self) -> Result<(), Refusal> {
        let fields = &self.fields;
        let close = fields.has_token(Name::Connection, "close");
        let keep = self.is_1_1 || fields.has_token(Name::Connection, "keep-alive");
        self.keep_alive = keep && !close;
        self.upgrade = self.is_1_1
            && fields.has_token(Name::Connection, "upgrade")
            && fields.first(Name::Upgrade).is_some()
            // h2c would put requests past the front that it cannot see.
            && !fields.tokens(Name::Upgrade).any(|protocol| is(protocol, "h2c"));
        let expect = fields.single(Name::Expect, "two Expect")?;
        self.expects_continue = match expect.map(|span| fields.text(span)) {
            None => false,
            Some(value) if is(value, "100-continue") => self.is_1_1,
            Some(_) => return Err(Refusal::with(417, "an unknown expectation")),
        };
        Ok(())
    }
}

/// `HOST`, `HOST:PORT`, `[IPv6]`, `[IPv6]:PORT`; no user, nothing empty.
fn is_authority(text: &[u8]) -> bool {
    let (host_is_good, port) = match text.strip_prefix(b"[") {
        Some(inner) => {
            let Some(end) = inner.iter().position(|&b| b == b']') else { return false };
            let literal = std::str::from_utf8(&inner[..end]).unwrap_or_default();
            (literal.parse::<std::net::Ipv6Addr>().is_ok(), &inner[end + 1..])
        }
        None => {
            let end = text.iter().position(|&b| b == b':').unwrap_or(text.len());
            let good = |b: &u8| b.is_ascii_alphanumeric() || b"-._~".contains(b);
            (end > 0 && text[..end].iter().all(good), &text[end..])
        }
    };
    let port_is_good = match port.split_first() {
        None => true,
        Some((b':', digits)) => {
            digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) && {
                let number = digits.iter().fold(0u32, |sum, d| sum * 10 + u32::from(d - b'0'));
                number <= 65535
            }
        }
        Some(_) => false,
    };
    host_is_good && port_is_good
}

#[cfg(test)]
mod tests {
    use super::super::HeadScan;
    use super::*;

    fn read(text: &str) -> Result<RequestHead, Refusal> {
        let end = HeadScan::default().find_end(text.as_bytes())?;
        let end = end.unwrap_or_else(|| panic!("no end in {text:?}"));
        let mut head = RequestHead::default();
        head.read(&text.as_bytes()[..end], 100).map(|()| head)
    }

    fn get(fields: &str) -> Result<RequestHead, Refusal> {
        read(&format!("GET /a?b HTTP/1.1\r\nHost: h\r\n{fields}\r\n"))
    }

    #[test]
    fn a_request_is_read_into_its_parts() {
        let head = get("Content-Length: 12\r\nX-A:  b \t\r\n").unwrap();
        assert_eq!(head.method(), b"GET");
        assert_eq!(head.target(), b"/a?b");
        assert_eq!(head.path(), b"/a");
        assert_eq!(head.host(), b"h");
        assert_eq!(head.framing, Framing::Length(12));
        assert!(head.is_1_1 && head.keep_alive && !head.upgrade && head.is_safe());
        let other: Vec<_> = head.fields.values(Name::Other).collect();
        assert_eq!(other, [b"b"]);
    }

    #[test]
    fn an_empty_line_before_a_request_is_skipped_once() {
        assert!(read("\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n").is_ok());
        assert!(read("\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n").is_err());
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for fields in [
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x1\r\n",
            "Content-Length: 1 1\r\n",
            "Content-Length:\r\n",
            "Content-Length: 18446744073709551617\r\n",
            "Content-Length: 9999999999999999999\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding: chunked;a=b\r\n",
            "Transfer-Encoding:\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding\r\n : chunked\r\n",
            "X: a\r\n folded\r\n",
            " X: a\r\n",
            "X\r\n",
            ": a\r\n",
            "X@: a\r\n",
            "Host: other\r\n",
            "Expect: 200-maybe\r\n",
        ] {
            assert!(get(fields).is_err(), "{fields:?}");
        }
        assert_eq!(get("Transfer-Encoding: ChunKed\r\n").unwrap().framing, Framing::Chunked);
    }

    #[test]
    fn bad_request_lines_are_refused() {
        for line in [
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 ",
            " GET / HTTP/1.1",
            "GET /",
            "GET / HTTP/2.0",
            "GET / HTTP/1.2",
            "GET / http/1.1",
            "GET / HTTP/1.10",
            "GET\t/ HTTP/1.1",
            "G(T / HTTP/1.1",
            "GET a HTTP/1.1",
            "GET * HTTP/1.1",
            "GET /a#b HTTP/1.1",
            "GET /a b HTTP/1.1",
            "CONNECT h:80 HTTP/1.1",
            "GET http:/h/ HTTP/1.1",
            "GET http:///a HTTP/1.1",
            "GET http://u@h/ HTTP/1.1",
            "GET ftp://h/ HTTP/1.1",
            "GET http://h@other/ HTTP/1.1",
            "/ HTTP/1.1",
        ] {
            assert!(read(&format!("{line}\r\nHost: h\r\n\r\n")).is_err(), "{line:?}");
        }
    }

    #[test]
    fn the_absolute_form_means_its_path_and_its_host_whatever_the_field_says() {
        for (target, origin, host) in [
            ("http://h/a?b", "/a?b", "h"),
            ("HTTP://H", "/", "H"),
            ("https://h?x=/", "/?x=/", "h"),
            ("http://other.org:81/http://x/", "/http://x/", "other.org:81"),
        ] {
            let head = read(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n")).unwrap();
            assert_eq!(head.target(), origin.as_bytes(), "{target}");
            assert_eq!(head.written_target(), target.as_bytes());
            assert_eq!(head.host(), host.as_bytes(), "{target}");
        }
        assert!(read("GET http://other/a HTTP/1.1\r\n\r\n").is_err(), "Host is missing");
    }

    #[test]
    fn hosts_are_names_or_addresses_with_or_without_a_port() {
        for (host, name, port) in [
            ("a.b-c_d", "a.b-c_d", None),
            ("a:80", "a", Some(80)),
            ("1.2.3.4:1", "1.2.3.4", Some(1)),
            ("[::1]", "[::1]", None),
            ("[::1]:8080", "[::1]", Some(8080)),
            ("a:", "a", None),
        ] {
            let head = read(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).unwrap();
            assert_eq!(head.host_name(), name.as_bytes(), "{host}");
            assert_eq!(head.host_port(), port, "{host}");
        }
        for host in [
            "", "u@a", "a b", "a,b", "a/b", "a:b", "a:80:80", "a:123456", "a:70000", "[::1", "[x]",
            "[::1]80", ":80", "a\\b", "\"a\"", "a?b", "a#b", "é",
        ] {
            assert!(read(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).is_err(), "{host:?}");
        }
        assert!(read("GET / HTTP/1.1\r\n\r\n").is_err());
        assert!(read("GET / HTTP/1.0\r\n\r\n").is_ok());
        assert!(read("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    }

    #[test]
    fn the_connection_lasts_as_the_version_and_the_client_say() {
        for (version, fields, keep) in [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "Connection: x, Close\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
        ] {
            let head = read(&format!("GET / HTTP/{version}\r\nHost: h\r\n{fields}\r\n")).unwrap();
            assert_eq!(head.keep_alive, keep, "{version} {fields:?}");
        }
    }

    #[test]
    fn an_upgrade_needs_both_fields_and_is_never_h2c() {
        assert!(get("Connection: Upgrade\r\nUpgrade: websocket\r\n").unwrap().upgrade);
        for fields in [
            "Upgrade: websocket\r\n",
            "Connection: upgrade\r\n",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n",
            "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
        ] {
            assert!(!get(fields).unwrap().upgrade, "{fields:?}");
        }
    }

    #[test]
    fn too_many_fields_are_refused() {
        assert!(get(&"a: b\r\n".repeat(99)).is_ok());
        assert_eq!(get(&"a: b\r\n".repeat(100)).unwrap_err().status, 431);
    }

    #[test]
    fn fields_that_connection_names_are_known_as_such() {
        let head = get("Connection: close, X-Secret\r\nX-Secret: 1\r\n").unwrap();
        assert!(head.fields.is_nominated(b"x-secret"));
        assert!(!head.fields.is_nominated(b"x-other"));
    }

    #[test]
    fn names_with_underscores_are_told_apart() {
        assert_eq!(Name::of(b"Content_Length"), Name::Underscored);
        assert_eq!(Name::of(b"Proxy"), Name::Dropped);
        assert_eq!(Name::of(b"Proxy-Authorization"), Name::Dropped);
        assert_eq!(Name::of(b"Proxies"), Name::Other);
    }
}
