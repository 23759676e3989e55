//! The search for the end of a head.

use super::{HEAD_MAX, Refusal};

/// Looks for the empty line that ends a head, remembering how far it has looked, so
/// that a head which arrives byte by byte is read once. Line ends other than CR LF and
/// control characters are refused as soon as they are seen.
#[derive(Debug, Clone, Copy)]
pub struct HeadScan {
    seen: usize,
    max: usize,
}

impl Default for HeadScan {
    fn default() -> Self {
        Self::new(HEAD_MAX)
    }
}

/// Bytes that never need a second look: visible ones, space, tab, and obs-text.
const PLAIN: [bool; 256] = {
    let mut plain = [true; 256];
    let mut byte = 0;
    while byte < 0x20 {
        plain[byte] = byte == b'\t' as usize;
        byte += 1;
    }
    plain[0x7f] = false;
    plain
};

impl HeadScan {
    /// A scan for a head that is smaller than `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { seen: 0, max }
    }

    /// The length of the head with its empty line, once it is there. `input` must begin
    /// with the same bytes at every call.
    pub fn find_end(&mut self, input: &[u8]) -> Result<Option<usize>, Refusal> {
        let mut at = self.seen;
        while at < input.len() {
            let byte = input[at];
            if PLAIN[byte as usize] {
                at += 1;
                continue;
            }
            match (byte, input.get(at + 1)) {
                (b'\r', Some(b'\n')) => {
                    if at >= 2 && input[at - 2..at] == *b"\r\n" {
                        return self.bounded(at + 2).map(Some);
                    }
                    at += 2;
                }
                (b'\r', None) => break,
                (b'\r', _) => return Err(Refusal::bad("a CR without LF")),
                (b'\n', _) => return Err(Refusal::bad("an LF without CR")),
                _ => return Err(Refusal::bad("a control character in the head")),
            }
        }
        self.seen = at;
        self.bounded(input.len()).map(|_| None)
    }

    fn bounded(&self, length: usize) -> Result<usize, Refusal> {
        if length >= self.max {
            return Err(Refusal::with(431, "the head is too large"));
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_wherever_the_bytes_are_cut() {
        let input = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        for cut in 0..input.len() {
            let mut scan = HeadScan::default();
            let first = scan.find_end(&input[..cut]).unwrap();
            let found = first.or_else(|| scan.find_end(input).unwrap());
            assert_eq!(found, Some(27), "cut at {cut}");
        }
    }

    #[test]
    fn other_line_ends_and_control_characters_are_refused() {
        for bad in ["a\nb", "a\r\n\n", "a\rb", "a\0", "a\x0b", "a\x7f", "a\r\r\n"] {
            assert!(HeadScan::default().find_end(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_head_without_end_is_refused_at_the_limit() {
        let mut scan = HeadScan::default();
        assert_eq!(scan.find_end(&vec![b'a'; HEAD_MAX - 1]), Ok(None));
        assert_eq!(scan.find_end(&vec![b'a'; HEAD_MAX]).unwrap_err().status, 431);
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(HeadScan::new(head.len() + 1).find_end(head), Ok(Some(head.len())));
        assert_eq!(HeadScan::new(head.len()).find_end(head).unwrap_err().status, 431);
    }
}
