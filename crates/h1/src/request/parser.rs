//! What the parser of a head gets, and what its errors mean.

use super::super::Refusal;

/// The head with ASCII in place of a target that is not UTF-8, if it is not: apps get any
/// byte from 0x80 on as it was written, but the parser takes text only.
pub fn in_utf8(head: &[u8]) -> Option<Vec<u8>> {
    let line = head.split(|&b| b == b'\r').next().unwrap_or(head);
    if std::str::from_utf8(line).is_ok() {
        return None;
    }
    let target = line.iter().position(|&b| b == b' ')?..line.iter().rposition(|&b| b == b' ')?;
    let mut head = head.to_vec();
    head[target].iter_mut().filter(|byte| !byte.is_ascii()).for_each(|byte| *byte = b'~');
    Some(head)
}

/// Why a head is refused that the parser does not take.
pub fn refusal(why: httparse::Error, head: &[u8]) -> Refusal {
    let blanks = head.split(|&b| b == b'\r').next().unwrap_or(head).iter().filter(|&&b| b == b' ');
    match why {
        // What follows the blank is no version.
        httparse::Error::Version if blanks.count() > 2 => Refusal::bad("a blank in the target"),
        httparse::Error::TooManyHeaders => Refusal::with(431, "too many fields"),
        httparse::Error::Version => Refusal::with(505, "a version other than HTTP/1.0 and 1.1"),
        httparse::Error::HeaderName => Refusal::bad("a bad field name"),
        httparse::Error::HeaderValue => Refusal::bad("a bad field value"),
        _ => Refusal::bad("a bad request line"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::RequestHead;

    #[test]
    fn a_target_is_any_bytes_from_0x80_on_as_they_were_written() {
        for target in [&b"/caf\xe9?x=\xff"[..], b"/\xc3\xa9", b"/\xc3", b"/\xed\xa0\x80/~"] {
            let text = [b"GET ", target, b" HTTP/1.1\r\nHost: h\r\nX: \xe9\r\n\r\n"].concat();
            let mut head = RequestHead::default();
            head.read(&text, 100).unwrap();
            assert_eq!((head.target(), head.written_target()), (target, target));
            assert_eq!(head.fields.iter().nth(1).unwrap().2, b"\xe9");
        }
        let mut head = RequestHead::default();
        for bad in [
            &b"G\xe9T / HTTP/1.1\r\nHost: h\r\n\r\n"[..],
            b"GET /\xe9 x HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET http://h\xe9/ HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET /\xe9 HTTP/1.1\r\nHost: h\xe9\r\n\r\n",
        ] {
            assert_eq!(head.read(bad, 100).unwrap_err().status, 400, "{}", bad.escape_ascii());
        }
    }
}
