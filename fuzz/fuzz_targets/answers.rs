//! An answer that is passed on ends, for a parser of another making, where it ends for us.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mfserv_front::embedded::heads::answer_for_client;
use mfserv_h1::{Framing, HeadScan, RequestHead, ResponseHead};
use mfserv_fuzz::{bytes, settings};
use picohttpparser_sys::{phr_header, phr_parse_response};

/// Status and fields as the other parser reads them.
fn parse(input: &[u8]) -> (i32, Vec<(Vec<u8>, Vec<u8>)>) {
    let (mut minor, mut status, mut reason, mut reason_length) = (-1, 0, std::ptr::null(), 0);
    let mut fields: [phr_header; 128] = unsafe { std::mem::zeroed() };
    let mut count = fields.len();
    // SAFETY: all pointers are valid for the time of the call, the lengths are theirs.
    let used = unsafe {
        phr_parse_response(
            input.as_ptr().cast(),
            input.len(),
            &mut minor,
            &mut status,
            &mut reason,
            &mut reason_length,
            fields.as_mut_ptr(),
            &mut count,
            0,
        )
    };
    assert_eq!(used, input.len() as i32, "not understood: {:?}", String::from_utf8_lossy(input));
    // SAFETY: the parser points into the buffer that it was given.
    let field = |f: &phr_header| unsafe { (bytes(f.name, f.name_len), bytes(f.value, f.value_len)) };
    (status, fields[..count].iter().map(field).collect())
}

fuzz_target!(|input: &[u8]| {
    let Some((&first, input)) = input.split_first() else { return };
    let Ok(Some(end)) = HeadScan::default().find_end(input) else { return };
    let method = if first & 1 == 0 { "GET" } else { "HEAD" };
    let version = if first & 2 == 0 { "1.1" } else { "1.0" };
    let mut request = RequestHead::default();
    let asked = format!("{method} /a HTTP/{version}\r\nHost: h\r\nConnection: keep-alive\r\n\r\n");
    assert!(request.read(asked.as_bytes(), 100).is_ok());
    let mut reply = ResponseHead::default();
    // Those below 200 are no last word.
    if reply.read(&input[..end], method == "HEAD", 1000).is_err() || reply.status < 200 {
        return;
    }
    let (status, fields) = parse(&answer_for_client(&reply, &request, settings()));
    assert_eq!(status, i32::from(reply.status));
    let values = |name: &str| {
        let is = |(n, _): &&(Vec<u8>, Vec<u8>)| n.eq_ignore_ascii_case(name.as_bytes());
        fields.iter().filter(is).map(|(_, value)| value.as_slice()).collect::<Vec<_>>()
    };
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    let closes = values("connection").iter().any(|value| value.eq_ignore_ascii_case(b"close"));
    let no_body = method == "HEAD" || matches!(status, 204 | 304);
    match reply.framing {
        _ if no_body => assert!(codings.is_empty() && lengths.len() <= 1),
        Framing::None | Framing::Length(_) => {
            let length = reply.length.unwrap_or(0).to_string().into_bytes();
            let said: Option<u64> =
                lengths.first().and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
            assert_eq!(said.map(|n| n.to_string().into_bytes()), Some(length));
            assert!(lengths.len() == 1 && codings.is_empty());
        }
        Framing::Chunked | Framing::UntilClose if version == "1.1" => {
            assert!(lengths.is_empty() && codings == [b"chunked"]);
        }
        Framing::Chunked | Framing::UntilClose => {
            assert!(lengths.is_empty() && codings.is_empty() && closes);
        }
    }
    assert!(values("keep-alive").is_empty() && values("trailer").is_empty());
});
