//! A client of WebSocket (RFC 6455) for tests, byte by byte.

use std::io::Read;

/// The first byte of a frame with a whole message of text.
pub const TEXT: u8 = 0x81;
/// That of one with a whole message of bytes.
pub const BINARY: u8 = 0x82;
/// That of one that ends the connection.
pub const CLOSE: u8 = 0x88;
/// That of a ping.
pub const PING: u8 = 0x89;
/// That of a pong.
pub const PONG: u8 = 0x8a;

/// The request for a WebSocket (RFC 6455, 1.3); `fields`: others of it, each with the end of its line.
pub fn request(host: &str, target: &str, fields: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n\
         Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n{fields}\r\n"
    )
}

/// The head of an answer, up to its empty line.
pub fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

/// A frame with a payload of a client.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([1, 2, 3, 4]);
    frame.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// The next frame of the server that is no ping of its own.
pub fn next(stream: &mut impl Read) -> (u8, Vec<u8>) {
    loop {
        let mut head = [0; 2];
        stream.read_exact(&mut head).unwrap();
        let mut number = vec![0; [0, 2, 8][usize::from(head[1].max(125) - 125)]];
        stream.read_exact(&mut number).unwrap();
        let length = match number.is_empty() {
            true => usize::from(head[1]),
            false => number.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)),
        };
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).unwrap();
        if head[0] != PING {
            return (head[0], payload);
        }
    }
}

/// What [`next`] gives for the end with this code and reason.
pub fn closed(code: u16, reason: &str) -> (u8, Vec<u8>) {
    (CLOSE, [&code.to_be_bytes(), reason.as_bytes()].concat())
}
