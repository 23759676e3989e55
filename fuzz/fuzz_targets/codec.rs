//! The codec never panics, never uses more than it was given, and reads the same whether
//! bytes come at once or in pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mfserv_h1::{BodyReader, Framing, HeadScan, Piece, RequestHead, ResponseHead};

/// The content of a body and what was used; none if it is refused.
fn body(framing: Framing, input: &[u8], step: usize) -> Option<(Vec<u8>, usize, bool)> {
    let mut reader = BodyReader::new(framing);
    let (mut content, mut at, mut seen) = (Vec::new(), 0, 0);
    loop {
        match reader.next(&input[at..seen]).ok()? {
            Piece::Content(range) => {
                assert!(!range.is_empty());
                content.extend_from_slice(&input[at + range.start..at + range.end]);
                at += range.end;
            }
            Piece::End(used) => return Some((content, at + used, true)),
            Piece::More(used) => {
                at += used;
                if seen == input.len() {
                    return Some((content, at, false));
                }
                seen = (seen + step).min(input.len());
            }
        }
        assert!(at <= seen);
    }
}

fn bodies_agree(framing: Framing, input: &[u8], step: usize) {
    let whole = body(framing, input, input.len().max(1));
    let pieces = body(framing, input, step);
    assert_eq!(whole, pieces, "{framing:?}");
    if let (Framing::Length(length), Some((content, _, true))) = (framing, whole) {
        assert_eq!(content.len() as u64, length);
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&first, input)) = input.split_first() else { return };
    let step = usize::from(first % 16) + 1;
    let end = HeadScan::default().find_end(input);
    // The same end is found when the bytes come one after the other.
    let mut scan = HeadScan::default();
    let mut slowly = Ok(None);
    for seen in (0..input.len()).step_by(step).chain([input.len()]) {
        slowly = scan.find_end(&input[..seen]);
        if slowly != Ok(None) {
            break;
        }
    }
    match (end, slowly) {
        (Ok(a), Ok(b)) => assert_eq!(a, b),
        // What is wrong behind the end of the head is not seen by who stops there.
        (Err(_), _) | (_, Err(_)) => {}
    }
    let Ok(Some(end)) = end else {
        return bodies_agree(Framing::Chunked, input, step);
    };
    let (head, rest) = input.split_at(end);
    // One that was used before, for a large head perhaps, is as good as new.
    let mut used = RequestHead::default();
    let _ = used.read(&[b"GET /before HTTP/1.1\r\nHost: h\r\nX: ", &[b'x'; 4000][..], b"\r\n\r\n"].concat(), 100);
    if first % 2 == 0 {
        used.fields.shrink();
    }
    let again = used.read(head, 100);
    let _ = (used.method(), used.target(), used.written_target(), used.host_name());
    let mut request = RequestHead::default();
    let read = request.read(head, 100);
    assert_eq!(again.is_ok(), read.is_ok());
    assert_eq!(used.written_target(), request.written_target());
    if read.is_ok() {
        assert!(request.target().starts_with(b"/") || request.target() == b"*");
        assert!(!request.method().is_empty());
        assert!(request.framing != Framing::UntilClose);
        assert!(request.is_1_1 || request.framing != Framing::Chunked);
        for (_, name, value) in request.fields.iter() {
            assert!(!name.is_empty() && !name.contains(&b' ') && !name.contains(&b':'));
            assert!(!value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
        }
        bodies_agree(request.framing, rest, step);
    }
    let mut response = ResponseHead::default();
    if response.read(head, first >= 128, 1000).is_ok() {
        assert!((100..=599).contains(&response.status));
        assert!(!response.reason().contains(&b'\r') && !response.reason().contains(&b'\n'));
        bodies_agree(response.framing, rest, step);
    }
});
