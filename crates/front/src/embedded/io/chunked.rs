//! The chunked transfer coding (RFC 9112, 7.1), written. `mfserv_h1::BodyReader` reads it.

use super::buffer::Buffer;

/// The end of a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends `content` as one chunk. The content must not be empty: a chunk of no bytes
/// would end the body.
pub fn put_chunk(out: &mut Buffer, content: &[u8]) {
    put_chunk_size(out, content.len());
    out.push_all(&[content, b"\r\n"]);
}

/// Appends the line that stands before a chunk of `size` bytes.
pub fn put_chunk_size(out: &mut Buffer, size: usize) {
    let mut digits = [0; 16];
    let (mut at, mut left) = (digits.len(), size);
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[left % 16];
        left /= 16;
        if left == 0 {
            break;
        }
    }
    out.push_all(&[&digits[at..], b"\r\n"]);
}

#[cfg(test)]
mod tests {
    use super::super::buffer::Pooled;
    use super::*;

    #[test]
    fn a_chunk_is_its_length_in_hexadecimal_and_its_content() {
        let mut out = Pooled::default();
        put_chunk(&mut out, b"hello");
        put_chunk(&mut out, &[b'x'; 0x1a]);
        let expected = [b"5\r\nhello\r\n1a\r\n".as_slice(), &[b'x'; 0x1a], b"\r\n"].concat();
        assert_eq!(out.filled(), expected);
    }
}
