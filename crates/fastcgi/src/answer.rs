//! The answer of a responder, taken out of its records.

use std::fmt;

use crate::record::{HEAD, REQUEST, VERSION};

const END_REQUEST: u8 = 3;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;
/// The length of the content of the last record, bytes.
const END: usize = 8;
/// The longest head of a CGI document, bytes. The front has a limit of its own, which is lower.
const HEAD_MAX: usize = 1024 * 1024;
/// How much of what a responder says of its errors is kept until somebody takes it, bytes.
const SAID_MAX: usize = 4 * 1024;

/// Why an answer is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault(&'static str);

const OVERLOADED: Fault = Fault("it is overloaded");

impl Fault {
    /// The words.
    pub fn reason(self) -> &'static str {
        self.0
    }

    /// True if the responder has refused the request because it has too much to do: it has not begun
    /// with it.
    pub fn is_overload(self) -> bool {
        self == OVERLOADED
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Fault {}

/// The answer to one request, of which any number of bytes come at a time.
#[derive(Debug, Default)]
pub struct Answer {
    /// The head of the record that begins, and how much of it is there.
    head: [u8; HEAD],
    head_length: usize,
    kind: u8,
    /// How much of the record is still to come: content, and then padding.
    content: usize,
    padding: usize,
    /// The content of the last record.
    end: Vec<u8>,
    /// The head of the document, as long as it is not whole.
    document: Vec<u8>,
    has_head: bool,
    is_over: bool,
    said: Vec<u8>,
}

impl Answer {
    /// True once the responder has ended the request. What it sends after that is dropped.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// What it has said of errors since the last call: at most 4 KiB of it.
    pub fn take_said(&mut self) -> Option<Vec<u8>> {
        (!self.said.is_empty()).then(|| std::mem::take(&mut self.said))
    }

    /// These bytes have come. Appends what they mean to `out`: an HTTP/1.1 head without fields about
    /// the connection, and content that ends with the answer, unless the head has a length.
    pub fn read(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        while !bytes.is_empty() && !self.is_over {
            let used = if self.content > 0 {
                let used = self.content.min(bytes.len());
                self.content -= used;
                self.read_content(&bytes[..used], out)?;
                used
            } else if self.padding > 0 {
                let used = self.padding.min(bytes.len());
                self.padding -= used;
                used
            } else {
                self.read_head(bytes)?
            };
            bytes = &bytes[used..];
        }
        Ok(())
    }

    fn read_head(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let used = bytes.len().min(HEAD - self.head_length);
        self.head[self.head_length..][..used].copy_from_slice(&bytes[..used]);
        self.head_length += used;
        if self.head_length == HEAD {
            let [version, kind, a, b, c, d, padding, _] = self.head;
            if version != VERSION {
                return Err(Fault("its answer is no FastCGI"));
            }
            if u16::from_be_bytes([a, b]) != REQUEST {
                return Err(Fault("a FastCGI record of another request"));
            }
            let content = usize::from(u16::from_be_bytes([c, d]));
            if kind == END_REQUEST && content != END {
                return Err(Fault("a FastCGI record that ends a request has 8 bytes"));
            }
            (self.kind, self.content, self.padding) = (kind, content, padding.into());
            self.head_length = 0;
        }
        Ok(used)
    }

    fn read_content(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        match self.kind {
            STDOUT if self.has_head => out.extend_from_slice(content),
            STDOUT => self.read_document(content, out)?,
            STDERR => {
                let room = SAID_MAX - self.said.len().min(SAID_MAX);
                self.said.extend_from_slice(&content[..content.len().min(room)]);
            }
            END_REQUEST => {
                self.end.extend_from_slice(content);
                if self.end.len() == END {
                    self.end_request()?;
                }
            }
            // A responder may have more to say than this version knows.
            _ => {}
        }
        Ok(())
    }

    fn end_request(&mut self) -> Result<(), Fault> {
        self.is_over = true;
        match self.end[4] {
            0 if self.has_head => Ok(()),
            0 => Err(Fault("the request ended before the head of its answer")),
            1 => Err(Fault("it takes one request at a time on a connection")),
            2 => Err(OVERLOADED),
            3 => Err(Fault("it is no FastCGI responder")),
            _ => Err(Fault("it ended the request in a way that FastCGI does not know")),
        }
    }

    /// Some of the document has come, whose head is not whole.
    fn read_document(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let looked = self.document.len().saturating_sub(2);
        self.document.extend_from_slice(content);
        let Some(end) = end_of_head(&self.document, looked) else {
            return match self.document.len() > HEAD_MAX {
                true => Err(Fault("the head of its answer has no end")),
                false => Ok(()),
            };
        };
        let document = std::mem::take(&mut self.document);
        self.has_head = true;
        put_head(out, &document[..end])?;
        out.extend_from_slice(&document[end..]);
        Ok(())
    }
}

/// Where the head of a document ends: after the first empty line. Lines end with LF or CRLF.
/// Nothing before `from` ends it.
fn end_of_head(document: &[u8], from: usize) -> Option<usize> {
    let is_end =
        |at: usize| matches!(document[..at], [] | [b'\r'] | [.., b'\n'] | [.., b'\n', b'\r']);
    let ends = document[from..].iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    ends.map(|(at, _)| from + at).find(|&at| is_end(at)).map(|at| at + 1)
}

/// Writes the head of a document as that of an HTTP answer (RFC 3875, 6.3).
fn put_head(out: &mut Vec<u8>, head: &[u8]) -> Result<(), Fault> {
    let lines = head.split(|byte| *byte == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut status: Option<&[u8]> = None;
    let (mut fields, mut leads_elsewhere) = (Vec::new(), false);
    for (number, line) in lines.filter(|line| !line.is_empty()).enumerate() {
        if number == 0 && line.starts_with(b"HTTP/") {
            let after = line.iter().position(|byte| *byte == b' ').map_or(line.len(), |at| at + 1);
            status = Some(&line[after..]);
            continue;
        }
        let end = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let name = &line[..end];
        let value = line.get(end + 1..).unwrap_or_default().trim_ascii();
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        if is(b"status") {
            status = Some(value);
        } else if !OF_CONNECTION.iter().any(|known| is(known)) {
            leads_elsewhere |= is(b"location");
            fields.extend_from_slice(line);
            fields.extend_from_slice(b"\r\n");
        }
    }
    let status = match status {
        Some(status) => checked(status)?,
        None if leads_elsewhere => b"302 Found",
        None => b"200 OK",
    };
    for part in [b"HTTP/1.1 ", status, b"\r\n", &fields, b"\r\n"] {
        out.extend_from_slice(part);
    }
    Ok(())
}

/// Fields about the connection between the web server and the client, of which a document knows
/// nothing.
const OF_CONNECTION: [&[u8]; 5] =
    [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"];

/// A status with its words: `404 Not Found`. No interim one: the document is the final answer.
fn checked(status: &[u8]) -> Result<&[u8], Fault> {
    let is_final = matches!(
        status,
        [b'2'..=b'9', b'0'..=b'9', b'0'..=b'9'] | [b'2'..=b'9', b'0'..=b'9', b'0'..=b'9', b' ', ..]
    );
    match is_final {
        true => Ok(status),
        false => Err(Fault("the status of its answer is none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, content: &[u8], padding: u8) -> Vec<u8> {
        let mut bytes = vec![1, kind, 0, 1];
        bytes.extend_from_slice(&(content.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&[padding, 0]);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len() + usize::from(padding), 7);
        bytes
    }

    fn answered(records: &[Vec<u8>], step: usize) -> Result<(String, Answer), Fault> {
        let (mut answer, mut out) = (Answer::default(), Vec::new());
        for bytes in records.concat().chunks(step) {
            answer.read(bytes, &mut out)?;
        }
        Ok((String::from_utf8(out).unwrap(), answer))
    }

    fn of(document: &str) -> Result<String, Fault> {
        let records = [record(STDOUT, document.as_bytes(), 0), record(END_REQUEST, &[0; 8], 0)];
        Ok(answered(&records, 1000)?.0)
    }

    #[test]
    fn a_document_becomes_an_http_answer_however_its_bytes_come() {
        let records = [
            record(STDOUT, b"Status: 404 Not Found\r\nX-A: b\r", 3),
            record(STDERR, b"a warning", 0),
            record(STDOUT, b"\n\r\nbody", 0),
            record(11, b"unknown", 1),
            record(STDOUT, b" goes on", 255),
            record(STDOUT, b"", 0),
            record(END_REQUEST, &[0; 8], 0),
            b"nobody reads this".to_vec(),
        ];
        for step in 1..60 {
            let (text, mut answer) = answered(&records, step).unwrap();
            assert_eq!(text, "HTTP/1.1 404 Not Found\r\nX-A: b\r\n\r\nbody goes on", "{step}");
            assert_eq!(answer.take_said().unwrap(), b"a warning");
            assert!(answer.is_over() && answer.take_said().is_none());
        }
    }

    #[test]
    fn the_status_is_that_of_cgi() {
        for (document, head) in [
            ("A: b\n\nx", "HTTP/1.1 200 OK\r\nA: b\r\n\r\nx"),
            ("\n\nx", "HTTP/1.1 200 OK\r\n\r\n\nx"),
            ("\r\nx", "HTTP/1.1 200 OK\r\n\r\nx"),
            ("Location: /a\n\n", "HTTP/1.1 302 Found\r\nLocation: /a\r\n\r\n"),
            ("location: /a\nSTATUS: 301\n\n", "HTTP/1.1 301\r\nlocation: /a\r\n\r\n"),
            ("HTTP/1.0 403 No\nA: b\n\n", "HTTP/1.1 403 No\r\nA: b\r\n\r\n"),
            (
                "Connection: close\nTransfer-Encoding: chunked\nA: b\n\n",
                "HTTP/1.1 200 OK\r\nA: b\r\n\r\n",
            ),
        ] {
            assert_eq!(of(document).unwrap(), head, "{document:?}");
        }
        for status in ["101 Switching", "20", "2000 x", "abc", ""] {
            assert!(of(&format!("Status: {status}\n\n")).is_err(), "{status:?}");
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let refused = |records: &[Vec<u8>]| answered(records, 7).unwrap_err().to_string();
        assert!(refused(&[b"HTTP/1.1 200 OK\r\n\r\n".to_vec()]).contains("no FastCGI"));
        assert!(refused(&[vec![1, 6, 0, 2, 0, 0, 0, 0]]).contains("another request"));
        assert!(refused(&[record(END_REQUEST, &[0; 8], 0)]).contains("before the head"));
        assert!(refused(&[record(END_REQUEST, &[0; 4], 0)]).contains("8 bytes"));
        for (status, words) in [(1, "one request"), (2, "overloaded"), (3, "responder"), (9, "way")]
        {
            let end = record(END_REQUEST, &[0, 0, 0, 0, status, 0, 0, 0], 0);
            assert!(refused(&[end]).contains(words));
        }
        let endless = vec![record(STDOUT, &[b'x'; 65_000], 0); 17];
        assert!(refused(&endless).contains("no end"));
        // What is said of errors is bounded, too.
        let (_, mut answer) = answered(&vec![record(STDERR, &[b'e'; 65_000], 0); 9], 999).unwrap();
        assert_eq!(answer.take_said().unwrap().len(), SAID_MAX);
    }
}
