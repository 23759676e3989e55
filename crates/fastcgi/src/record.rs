//! The records of a request (FastCGI 1.0, 3.3 and 5).

/// The only version.
pub(crate) const VERSION: u8 = 1;
/// The number of the request on its connection.
pub(crate) const REQUEST: u16 = 1;
/// The length of the head of a record, bytes.
pub(crate) const HEAD: usize = 8;

const BEGIN_REQUEST: u8 = 1;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const RESPONDER: u8 = 1;

/// The most content of one record that this crate writes, bytes: a multiple of 8 below 65,536, so
/// that no record needs padding but the last one, where it is left out as well.
pub const CONTENT_MAX: usize = 65_528;

/// The record that ends the content of a request.
pub const END_OF_CONTENT: [u8; HEAD] = head(STDIN, 0);

/// Begins a request: its responder closes the connection after the answer.
pub fn begin_request(out: &mut Vec<u8>) {
    out.extend_from_slice(&head(BEGIN_REQUEST, 8));
    out.extend_from_slice(&[0, RESPONDER, 0, 0, 0, 0, 0, 0]);
}

/// Appends one parameter to a list of them. Its name and its value are below 2 GiB.
pub fn put_param(params: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    put_length(params, name.len());
    put_length(params, value.len());
    params.extend_from_slice(name);
    params.extend_from_slice(value);
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    match u8::try_from(length) {
        Ok(short @ ..=127) => out.push(short),
        _ => out.extend_from_slice(&(length as u32 | 1 << 31).to_be_bytes()),
    }
}

/// Writes the whole list of parameters, and its end.
pub fn put_params(out: &mut Vec<u8>, params: &[u8]) {
    put_records(out, PARAMS, params);
    out.extend_from_slice(&head(PARAMS, 0));
}

/// Writes some of the content of a request.
pub fn put_content(out: &mut Vec<u8>, content: &[u8]) {
    put_records(out, STDIN, content);
}

/// The head of a record with so many bytes of the content of a request, at most
/// [`CONTENT_MAX`]; with 0 it is [`END_OF_CONTENT`].
pub const fn content_head(length: usize) -> [u8; HEAD] {
    head(STDIN, length)
}

fn put_records(out: &mut Vec<u8>, kind: u8, content: &[u8]) {
    for part in content.chunks(CONTENT_MAX) {
        out.extend_from_slice(&head(kind, part.len()));
        out.extend_from_slice(part);
    }
}

const fn head(kind: u8, length: usize) -> [u8; HEAD] {
    let ([a, b], [c, d]) = (REQUEST.to_be_bytes(), (length as u16).to_be_bytes());
    [VERSION, kind, a, b, c, d, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_written_as_the_specification_says() {
        let (mut out, mut params) = (Vec::new(), Vec::new());
        begin_request(&mut out);
        put_param(&mut params, b"A", b"bc");
        put_params(&mut out, &params);
        put_content(&mut out, b"xyz");
        out.extend_from_slice(&END_OF_CONTENT);
        let wanted: &[&[u8]] = &[
            &[1, 1, 0, 1, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
            &[1, 4, 0, 1, 0, 5, 0, 0, 1, 2],
            b"Abc",
            &[1, 4, 0, 1, 0, 0, 0, 0],
            &[1, 5, 0, 1, 0, 3, 0, 0],
            b"xyz",
            &[1, 5, 0, 1, 0, 0, 0, 0],
        ];
        assert_eq!(out, wanted.concat());
    }

    #[test]
    fn long_values_and_long_contents_are_written_in_their_own_way() {
        let mut params = Vec::new();
        put_param(&mut params, &[b'n'; 127], &[b'v'; 128]);
        assert_eq!(params[..5], [127, 0x80, 0, 0, 128]);
        let mut out = Vec::new();
        put_content(&mut out, &vec![b'c'; CONTENT_MAX + 5]);
        assert_eq!(out.len(), CONTENT_MAX + 5 + 2 * HEAD);
        assert_eq!(out[4..6], (CONTENT_MAX as u16).to_be_bytes());
        assert_eq!(out[HEAD + CONTENT_MAX..][..HEAD], content_head(5));
        assert_eq!((content_head(5), content_head(0)), ([1, 5, 0, 1, 0, 5, 0, 0], END_OF_CONTENT));
        // An empty record would end the list.
        out.clear();
        put_content(&mut out, b"");
        assert!(out.is_empty());
    }
}
