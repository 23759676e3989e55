//! HTTP/1.1 as bytes in, meaning out: no socket, no clock.
//!
//! Requests and answers are read by one strict reading of RFC 9112. A message that could
//! be understood in two ways is refused before anything of it is passed on. What is passed
//! on is written anew from what was understood.

#![forbid(unsafe_code)]

mod body;
mod field;
mod request;
mod response;
mod scan;

pub use body::{BodyReader, Framing, Piece};
pub use field::{Field, Fields, Name, Span};
pub use request::RequestHead;
pub use response::ResponseHead;
pub use scan::HeadScan;

/// The largest head (start line and fields) that a [`HeadScan`] accepts by default, bytes.
pub const HEAD_MAX: usize = 32 * 1024;
/// The most fields that a head may have, whatever its reader allows.
pub const FIELDS_MAX: usize = 1000;

/// Why bytes are not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The status code for a client that sent them.
    pub status: u16,
    /// What is wrong with them.
    pub reason: &'static str,
}

impl Refusal {
    const fn bad(reason: &'static str) -> Self {
        Self { status: 400, reason }
    }

    const fn with(status: u16, reason: &'static str) -> Self {
        Self { status, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fixed sequence that looks random.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, n: usize) -> usize {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.0 >> 33) as usize % n
        }
    }

    const SEEDS: &[&[u8]] = &[
        b"GET /a%20b?c HTTP/1.1\r\nHost: h:80\r\nX:\r\nConnection: a, close\r\n\r\n",
        b"POST http://h/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;a\r\nhello\r\n0\r\nT: x\r\n\r\n",
        b"PUT / HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=5\r\n\r\nok",
        b"HTTP/1.1 304 \r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: [::1]:8\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ];

    fn damaged(dice: &mut Dice) -> Vec<u8> {
        let mut bytes = SEEDS[dice.below(SEEDS.len())].to_vec();
        for _ in 0..=dice.below(4) {
            let at = dice.below(bytes.len());
            match dice.below(4) {
                0 => bytes[at] = dice.below(256) as u8,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"\r\n \t:;,0-%\0"[dice.below(11)]),
                _ => {
                    let other = SEEDS[dice.below(SEEDS.len())];
                    let tail = other[dice.below(other.len())..].to_vec();
                    bytes.splice(at.., tail);
                }
            }
            if bytes.is_empty() {
                bytes.push(b'G');
            }
        }
        bytes
    }

    fn drain(framing: Framing, input: &[u8]) {
        let mut reader = BodyReader::new(framing);
        let mut at = 0;
        loop {
            match reader.next(&input[at..]) {
                Ok(Piece::Content(range)) => {
                    assert!(!range.is_empty() && at + range.end <= input.len());
                    at += range.end;
                }
                Ok(Piece::More(used) | Piece::End(used)) => {
                    assert!(at + used <= input.len());
                    return;
                }
                Err(_) => return,
            }
        }
    }

    #[test]
    fn damaged_messages_are_refused_or_read_but_never_a_panic() {
        let mut dice = Dice(42);
        let (mut request, mut response) = (RequestHead::default(), ResponseHead::default());
        let mut read = 0;
        for _ in 0..200_000 {
            let bytes = damaged(&mut dice);
            let Ok(Some(end)) = HeadScan::default().find_end(&bytes) else { continue };
            if request.read(&bytes[..end], 100).is_ok() {
                read += 1;
                let _ = (request.method(), request.target(), request.path(), request.host_port());
                assert!(request.target().starts_with(b"/") || request.target() == b"*");
                drain(request.framing, &bytes[end..]);
            }
            if response.read(&bytes[..end], dice.below(2) == 0, FIELDS_MAX).is_ok() {
                read += 1;
                let _ = response.reason();
                drain(response.framing, &bytes[end..]);
            }
        }
        assert!(read > 10_000, "only {read} were read");
    }
}
