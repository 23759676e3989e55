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
///
/// A record ends where a parameter ends, because php-fpm reads the parameters of each record by
/// themselves. Only a parameter that is longer than [`CONTENT_MAX`] is in several records, which the
/// specification allows and php-fpm does not take ([`longest_param`]).
pub fn put_params(out: &mut Vec<u8>, params: &[u8]) {
    let (mut from, mut end) = (0, 0);
    while end < params.len() {
        let next = (end + pair_length(&params[end..])).min(params.len());
        if next - from > CONTENT_MAX && end > from {
            put_records(out, PARAMS, &params[from..end]);
            from = end;
        }
        end = next;
    }
    put_records(out, PARAMS, &params[from..]);
    out.extend_from_slice(&head(PARAMS, 0));
}

/// How long the longest parameter of a list is, with its lengths, bytes.
pub fn longest_param(params: &[u8]) -> usize {
    let (mut longest, mut at) = (0, 0);
    while at < params.len() {
        let length = pair_length(&params[at..]);
        longest = longest.max(length);
        at += length;
    }
    longest
}

/// How long the first parameter of a list is, with its lengths.
fn pair_length(params: &[u8]) -> usize {
    let (name, name_size) = length_of(params);
    let (value, value_size) = length_of(&params[name_size..]);
    name_size + value_size + name + value
}

/// A length, and how many bytes it is written in.
fn length_of(bytes: &[u8]) -> (usize, usize) {
    match *bytes {
        [short @ ..=127, ..] => (usize::from(short), 1),
        [a, b, c, d, ..] => (u32::from_be_bytes([a & 0x7f, b, c, d]) as usize, 4),
        _ => (0, bytes.len()),
    }
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

    #[test]
    fn a_record_of_parameters_ends_where_a_parameter_ends() {
        let (mut first, mut second, mut out) = (Vec::new(), Vec::new(), Vec::new());
        put_param(&mut first, b"SHORT", b"1");
        put_param(&mut first, b"REQUEST_URI", &[b'u'; 40_000]);
        put_param(&mut second, b"QUERY_STRING", &[b'q'; 40_000]);
        let params = [first.as_slice(), &second].concat();
        assert_eq!(longest_param(&params), second.len());
        put_params(&mut out, &params);
        let wanted = [
            &head(PARAMS, first.len())[..],
            &first,
            &head(PARAMS, second.len()),
            &second,
            &head(PARAMS, 0),
        ];
        assert!(out == wanted.concat(), "{} bytes", out.len());
    }
}
