//! What is forwarded means the same to a parser of another making (picohttpparser).
#![no_main]

use libfuzzer_sys::fuzz_target;
use mfserv_h1::{BodyReader, Framing, HeadScan, Piece, RequestHead};
use mfserv_front::embedded::heads::{Forwarded, Trace, request_for_worker};
use mfserv_fuzz::{bytes, settings};
use picohttpparser_sys::{phr_chunked_decoder, phr_decode_chunked, phr_header, phr_parse_request};

/// A request as the other parser reads it.
struct Theirs {
    method: Vec<u8>,
    target: Vec<u8>,
    minor: i32,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    used: usize,
}

fn parse(input: &[u8]) -> Theirs {
    let (mut method, mut target) = (std::ptr::null(), std::ptr::null());
    let (mut method_length, mut target_length, mut minor) = (0, 0, -1);
    let mut fields: [phr_header; 128] = unsafe { std::mem::zeroed() };
    let mut count = fields.len();
    // SAFETY: all pointers are valid for the time of the call, the lengths are theirs.
    let used = unsafe {
        phr_parse_request(
            input.as_ptr().cast(),
            input.len(),
            &mut method,
            &mut method_length,
            &mut target,
            &mut target_length,
            &mut minor,
            fields.as_mut_ptr(),
            &mut count,
            0,
        )
    };
    assert!(used > 0, "not understood: {:?}", String::from_utf8_lossy(input));
    // SAFETY: as above.
    unsafe {
        let field = |f: &phr_header| (bytes(f.name, f.name_len), bytes(f.value, f.value_len));
        Theirs {
            method: bytes(method, method_length),
            target: bytes(target, target_length),
            minor,
            fields: fields[..count].iter().map(field).collect(),
            used: used as usize,
        }
    }
}

impl Theirs {
    fn values(&self, name: &str) -> Vec<&[u8]> {
        let is = |(n, _): &&(Vec<u8>, Vec<u8>)| n.eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().filter(is).map(|(_, value)| value.as_slice()).collect()
    }
}

fn content(framing: Framing, input: &[u8]) -> Option<Vec<u8>> {
    let mut reader = BodyReader::new(framing);
    let (mut content, mut at) = (Vec::new(), 0);
    loop {
        match reader.next(&input[at..]).ok()? {
            Piece::Content(range) => {
                content.extend_from_slice(&input[at + range.start..at + range.end]);
                at += range.end;
            }
            Piece::End(_) => return Some(content),
            Piece::More(_) => return None,
        }
    }
}

/// The other parser's reading of the client's own chunks: what we accept, it must accept.
fn their_content(input: &[u8]) -> Vec<u8> {
    let mut copy = input.to_vec();
    let mut length = copy.len();
    let mut decoder: phr_chunked_decoder = unsafe { std::mem::zeroed() };
    decoder.consume_trailer = 1;
    // SAFETY: the buffer is ours and as long as said.
    let left = unsafe { phr_decode_chunked(&mut decoder, copy.as_mut_ptr().cast(), &mut length) };
    assert!(left >= 0, "chunks not understood: {:?}", String::from_utf8_lossy(input));
    copy.truncate(length);
    copy
}

fuzz_target!(|input: &[u8]| {
    let Ok(Some(end)) = HeadScan::default().find_end(input) else { return };
    let (head_bytes, rest) = input.split_at(end);
    let mut head = RequestHead::default();
    if head.read(head_bytes, 100).is_err() {
        return;
    }
    let Some(body) = content(head.framing, rest) else { return };
    if head.framing == Framing::Chunked {
        assert_eq!(their_content(rest), body);
    }
    let chunked = head.framing == Framing::Chunked && rest.len() % 2 == 0;
    let length = (!chunked).then_some(body.len() as u64);
    let (address, id) = ("192.0.2.1", &b"0123456789abcdef"[..]);
    let with = Forwarded {
        address,
        port: Some(1),
        reached_port: Some(2),
        id,
        trace: Trace::None,
        trusted: true,
        length,
        keep_alive: true,
        secure: false,
        identity: None,
        stripped: None,
    };
    let forwarded = request_for_worker(&head, settings(), with);
    let theirs = parse(&forwarded);
    assert_eq!(theirs.used, forwarded.len(), "it ends where we say");
    assert_eq!((theirs.method.as_slice(), theirs.target.as_slice()), (head.method(), head.target()));
    assert_eq!(theirs.minor, 1);
    let host = if head.host().is_empty() { b"localhost" } else { head.host() };
    assert_eq!(theirs.values("host"), [host]);
    // Exactly one word about the body, and the right one.
    let (lengths, codings) = (theirs.values("content-length"), theirs.values("transfer-encoding"));
    if chunked {
        assert!(lengths.is_empty() && codings == [b"chunked"]);
    } else {
        assert!(codings.is_empty() && lengths.len() <= 1);
        let said = lengths.first().map_or(b"0".to_vec(), |text| text.to_vec());
        assert_eq!(said, body.len().to_string().into_bytes());
    }
    for gone in ["te", "trailer", "keep-alive", "proxy-connection", "proxy", "expect", "http2-settings"] {
        assert!(theirs.values(gone).is_empty(), "{gone}");
    }
    assert_eq!(theirs.values("x-request-id"), [id]);
    assert!(theirs.values("connection").iter().all(|value| *value == b"upgrade"));
    assert!(!theirs.fields.iter().any(|(name, _)| name.contains(&b'_')));
});
