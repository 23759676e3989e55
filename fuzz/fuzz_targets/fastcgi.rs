//! The answer of a FastCGI responder, whatever its bytes are, never panics, means the same at once
//! and in pieces, and becomes bounded output; a request is read by another reader as it was
//! written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mfserv_fastcgi::{
    Answer, CONTENT_MAX, END_OF_CONTENT, begin_request, content_head, put_content, put_param,
    put_params,
};
use mfserv_h1::{HeadScan, ResponseHead};

/// What came of the bytes of a responder.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    out: Vec<u8>,
    said: Vec<u8>,
    is_over: bool,
    fault: Option<String>,
}

fn read(input: &[u8], step: usize) -> Read {
    let (mut answer, mut out) = (Answer::default(), Vec::new());
    let mut fault = None;
    for bytes in input.chunks(step) {
        if let Err(why) = answer.read(bytes, &mut out) {
            fault = Some(why.to_string());
            break;
        }
    }
    let said = answer.take_said().unwrap_or_default();
    assert!(said.len() <= 4096 && answer.take_said().is_none());
    Read { out, said, is_over: answer.is_over(), fault }
}

fn check_answer(input: &[u8], step: usize) {
    let whole = read(input, input.len().max(1));
    assert_eq!(whole, read(input, step));
    // A head has a status line and no more than was sent; CR is put before LF.
    assert!(whole.out.len() <= 2 * input.len() + 32);
    if whole.out.is_empty() {
        return;
    }
    assert!(whole.out.starts_with(b"HTTP/1.1 "));
    // What the codec takes for a head is a final answer without a word about the connection.
    if let Ok(Some(end)) = HeadScan::default().find_end(&whole.out) {
        let mut head = ResponseHead::default();
        if head.read(&whole.out[..end], false, 1000).is_ok() {
            assert!(head.status >= 200);
            for (_, name, _) in head.fields.iter() {
                for gone in ["connection", "keep-alive", "transfer-encoding", "upgrade"] {
                    assert!(!name.eq_ignore_ascii_case(gone.as_bytes()), "{gone}");
                }
            }
        }
    }
    // What follows the end is dropped.
    if whole.is_over && whole.fault.is_none() {
        let more = [input, b"\x01\x06\x00\x01\x00\x05\x00\x00extra"].concat();
        assert_eq!(read(&more, step), whole);
    }
}

/// The records of a request, one after the other: kind and content.
fn records(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    while let [1, kind, 0, 1, high, low, padding, 0, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        all.push((*kind, rest[..length].to_vec()));
        bytes = &rest[length + usize::from(*padding)..];
    }
    assert!(bytes.is_empty(), "not a record: {bytes:?}");
    all
}

fn length(bytes: &mut &[u8]) -> usize {
    let (first, rest) = bytes.split_first().unwrap();
    if *first < 128 {
        *bytes = rest;
        return usize::from(*first);
    }
    let (four, rest) = bytes.split_first_chunk::<4>().unwrap();
    *bytes = rest;
    (u32::from_be_bytes(*four) & !(1 << 31)) as usize
}

fn check_request(input: &[u8], repeat: usize) {
    let (mut wanted, mut params) = (Vec::new(), Vec::new());
    for pair in input.split(|byte| *byte == b'\n') {
        let (name, value) = pair.split_at(pair.len() / 3);
        let value = value.repeat(repeat);
        put_param(&mut params, name, &value);
        wanted.push((name.to_vec(), value));
    }
    let content = input.repeat(repeat);
    let mut out = Vec::new();
    begin_request(&mut out);
    put_params(&mut out, &params);
    put_content(&mut out, &content);
    let last = content.len() % CONTENT_MAX;
    out.extend_from_slice(&content_head(last));
    if last > 0 {
        out.extend_from_slice(&content[..last]);
        out.extend_from_slice(&END_OF_CONTENT);
    }
    let all = records(&out);
    assert_eq!(all.first(), Some(&(1, vec![0, 1, 0, 0, 0, 0, 0, 0])));
    assert_eq!(all.last(), Some(&(5, Vec::new())));
    let of = |kind: u8| -> Vec<Vec<u8>> {
        all.iter().filter(|(found, _)| *found == kind).map(|(_, text)| text.clone()).collect()
    };
    // An empty record ends a stream: there is one, at its end.
    for stream in [of(4), of(5)] {
        assert_eq!(stream.iter().position(Vec::is_empty), Some(stream.len() - 1));
    }
    assert_eq!(of(5).concat(), [&content[..], &content[..last]].concat());
    let list = of(4).concat();
    let (mut rest, mut found) = (&list[..], Vec::new());
    while !rest.is_empty() {
        let (name, value) = (length(&mut rest), length(&mut rest));
        found.push((rest[..name].to_vec(), rest[name..name + value].to_vec()));
        rest = &rest[name + value..];
    }
    assert_eq!(found, wanted);
}

fuzz_target!(|input: &[u8]| {
    let Some((&first, input)) = input.split_first() else { return };
    check_answer(input, usize::from(first % 32) + 1);
    check_request(input, if first >= 250 { 100 } else { 1 });
});
