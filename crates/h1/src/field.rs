//! The fields of a head: their positions in its bytes, and the names that mean something.

use super::Refusal;

/// The memory that an idle connection keeps for its next head, bytes.
const KEPT_BYTES: usize = 2048;

/// A part of a head's bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last.
    pub end: u32,
}

impl Span {
    /// The bytes.
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }

    /// Where `part`, a slice of `whole`, lies in it.
    pub fn within(whole: &[u8], part: &[u8]) -> Self {
        if part.is_empty() {
            return Self::default();
        }
        let start = part.as_ptr() as usize - whole.as_ptr() as usize;
        Self { start: start as u32, end: (start + part.len()) as u32 }
    }
}

/// The field names that mean something to the front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// Any other.
    Other,
    /// A name with `_`: for many gateways (CGI, WSGI) it is the same as the name with `-`.
    Underscored,
    /// Host.
    Host,
    /// Content-Length.
    ContentLength,
    /// Transfer-Encoding.
    TransferEncoding,
    /// Connection.
    Connection,
    /// Keep-Alive.
    KeepAlive,
    /// Upgrade.
    Upgrade,
    /// Expect.
    Expect,
    /// TE, Trailer, HTTP2-Settings and Proxy…: fields of one connection, and fields that
    /// deceive a worker (`Proxy` becomes HTTP_PROXY in its environment).
    Dropped,
    /// X-Real-IP.
    RealIp,
    /// X-Real-Port.
    RealPort,
    /// X-Forwarded-For.
    ForwardedFor,
    /// X-Forwarded-Proto.
    ForwardedProto,
    /// X-Forwarded-Host.
    ForwardedHost,
    /// X-Forwarded-Port.
    ForwardedPort,
    /// X-Forwarded-Path.
    ForwardedPath,
    /// X-Forwarded-Prefix.
    ForwardedPrefix,
    /// X-Request-Id.
    RequestId,
    /// X-Mfserv-Edge: what nginx, as the edge of a node, says of its client.
    Edge,
    /// Traceparent.
    TraceParent,
    /// Tracestate.
    TraceState,
    /// X-Accel-Redirect and X-Sendfile: an app asks the front to send a file.
    SendFile,
    /// Date.
    Date,
    /// If-None-Match.
    IfNoneMatch,
    /// If-Modified-Since.
    IfModifiedSince,
    /// If-Range.
    IfRange,
    /// Range.
    Range,
}

impl Name {
    /// What a name means, in any case.
    pub fn of(name: &[u8]) -> Self {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let found = match name.len() {
            2 if is("te") => Name::Dropped,
            4 if is("host") => Name::Host,
            4 if is("date") => Name::Date,
            5 if is("range") => Name::Range,
            5 if is("proxy") => Name::Dropped,
            6 if is("expect") => Name::Expect,
            7 if is("upgrade") => Name::Upgrade,
            7 if is("trailer") => Name::Dropped,
            8 if is("if-range") => Name::IfRange,
            9 if is("x-real-ip") => Name::RealIp,
            10 if is("connection") => Name::Connection,
            10 if is("keep-alive") => Name::KeepAlive,
            10 if is("x-sendfile") => Name::SendFile,
            10 if is("tracestate") => Name::TraceState,
            11 if is("x-real-port") => Name::RealPort,
            11 if is("traceparent") => Name::TraceParent,
            12 if is("x-request-id") => Name::RequestId,
            13 if is("if-none-match") => Name::IfNoneMatch,
            13 if is("x-mfserv-edge") => Name::Edge,
            14 if is("content-length") => Name::ContentLength,
            14 if is("http2-settings") => Name::Dropped,
            15 if is("x-forwarded-for") => Name::ForwardedFor,
            16 if is("x-forwarded-host") => Name::ForwardedHost,
            16 if is("x-forwarded-port") => Name::ForwardedPort,
            16 if is("x-forwarded-path") => Name::ForwardedPath,
            16 if is("x-accel-redirect") => Name::SendFile,
            17 if is("x-forwarded-proto") => Name::ForwardedProto,
            17 if is("transfer-encoding") => Name::TransferEncoding,
            17 if is("if-modified-since") => Name::IfModifiedSince,
            18 if is("x-forwarded-prefix") => Name::ForwardedPrefix,
            _ => Name::Other,
        };
        if found != Name::Other {
            found
        } else if name.len() > 6 && name[..6].eq_ignore_ascii_case(b"proxy-") {
            Name::Dropped
        } else if name.contains(&b'_') {
            Name::Underscored
        } else {
            Name::Other
        }
    }
}

/// One field of a head.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// What its name means.
    pub name: Name,
    /// Its name as written.
    pub written: Span,
    /// Its value, without the white space around it.
    pub value: Span,
}

/// The bytes of a head and the fields in them; reused from message to message.
#[derive(Debug, Default)]
pub struct Fields {
    pub(super) bytes: Vec<u8>,
    pub(super) list: Vec<Field>,
    /// Connection names fields of its own, which are to be dropped.
    nominates: bool,
}

impl Fields {
    /// Takes over what was found in `head`; `written` has the same parts at the same places.
    pub(super) fn load(&mut self, written: &[u8], head: &[u8], parsed: &[httparse::Header<'_>]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(written);
        self.list.clear();
        self.list.extend(parsed.iter().map(|header| Field {
            name: Name::of(header.name.as_bytes()),
            written: Span::within(head, header.name.as_bytes()),
            value: Span::within(head, header.value),
        }));
        let known = |token: &[u8]| {
            is(token, "close") || matches!(Name::of(token), Name::KeepAlive | Name::Upgrade)
        };
        let all_known = self.tokens(Name::Connection).all(known);
        self.nominates = !all_known;
    }

    /// No fields, in the same memory.
    pub(super) fn emptied(&mut self) -> Self {
        let mut fields = std::mem::take(self);
        fields.bytes.clear();
        fields.list.clear();
        fields.nominates = false;
        fields
    }

    /// Frees the memory of an unusually large head.
    pub fn shrink(&mut self) {
        if self.bytes.capacity() > KEPT_BYTES {
            *self = Self::default();
        }
    }

    /// A part of the head.
    pub fn text(&self, span: Span) -> &[u8] {
        span.of(&self.bytes)
    }

    /// All fields, as they came.
    pub fn iter(&self) -> impl Iterator<Item = (Name, &[u8], &[u8])> {
        self.list.iter().map(|f| (f.name, self.text(f.written), self.text(f.value)))
    }

    /// The values of a field.
    pub fn values(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        self.list.iter().filter(move |f| f.name == name).map(|f| self.text(f.value))
    }

    /// The first value of a field that is not empty.
    pub fn first(&self, name: Name) -> Option<&[u8]> {
        self.values(name).find(|value| !value.is_empty())
    }

    /// The members of a field that is a list.
    pub fn tokens(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        self.values(name)
            .flat_map(|value| value.split(|&b| b == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|token| !token.is_empty())
    }

    /// True if a list field has this member.
    pub fn has_token(&self, name: Name, token: &str) -> bool {
        self.tokens(name).any(|found| is(found, token))
    }

    /// True if Connection says that this field is of this connection only.
    pub fn is_nominated(&self, written: &[u8]) -> bool {
        self.nominates
            && self.tokens(Name::Connection).any(|token| token.eq_ignore_ascii_case(written))
    }

    /// The only value of a field; a second one is refused.
    pub(super) fn single(&self, name: Name, twice: &'static str) -> Result<Option<Span>, Refusal> {
        let mut found = self.list.iter().filter(|f| f.name == name).map(|f| f.value);
        let first = found.next();
        if found.next().is_some() {
            return Err(Refusal::bad(twice));
        }
        Ok(first)
    }

    /// Content-Length, if there is one: digits only, once, below 2^63.
    pub(super) fn content_length(&self) -> Result<Option<u64>, Refusal> {
        let Some(span) = self.single(Name::ContentLength, "two Content-Length")? else {
            return Ok(None);
        };
        let digits = self.text(span);
        if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
            return Err(Refusal::bad("a bad Content-Length"));
        }
        Ok(Some(digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))))
    }
}

/// Compares a token with a word in lower case.
pub(super) fn is(token: &[u8], word: &str) -> bool {
    token.eq_ignore_ascii_case(word.as_bytes())
}
