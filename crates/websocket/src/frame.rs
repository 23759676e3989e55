//! The head of a frame, and the payload of a close.

use crate::{Failure, code};

/// The most bytes of the payload of a ping, a pong or a close.
pub const CONTROL_MAX: usize = 125;

/// What a frame is. The frames that follow the first one of a message have no kind of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A message that is text, or the beginning of one.
    Text,
    /// A message of bytes, or the beginning of one.
    Binary,
    /// The end.
    Close,
    /// To be answered with a pong of the same payload.
    Ping,
    /// The answer to a ping.
    Pong,
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    /// True for frames that come between those of a message.
    pub(crate) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The head of a frame of a client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    /// `None`: it goes on with the message before it.
    pub kind: Option<Kind>,
    pub is_last: bool,
    pub length: u64,
    pub mask: [u8; 4],
    /// The bytes of the head itself.
    pub size: usize,
}

impl Head {
    /// The head at the beginning of `input`; `None` until it is whole.
    pub fn read(input: &[u8]) -> Result<Option<Self>, Failure> {
        let &[first, second, ..] = input else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Failure::protocol("a frame of an extension that was not agreed on"));
        }
        if second & 0x80 == 0 {
            return Err(Failure::protocol("a frame without a mask"));
        }
        let kind = match first & 0xf {
            0 => None,
            1 => Some(Kind::Text),
            2 => Some(Kind::Binary),
            8 => Some(Kind::Close),
            9 => Some(Kind::Ping),
            10 => Some(Kind::Pong),
            _ => return Err(Failure::protocol("a frame of an unknown kind")),
        };
        let is_last = first & 0x80 != 0;
        let is_control = kind.is_some_and(Kind::is_control);
        if is_control && !is_last {
            return Err(Failure::protocol("a control frame in parts"));
        }
        if is_control && usize::from(second & 0x7f) > CONTROL_MAX {
            return Err(Failure::protocol("a control frame that is too long"));
        }
        let digits = match second & 0x7f {
            127 => 8,
            126 => 2,
            _ => 0,
        };
        let size = 2 + digits + 4;
        let Some(rest) = input.get(2..size) else { return Ok(None) };
        let (number, mask) = rest.split_at(digits);
        let length = match digits {
            0 => u64::from(second & 0x7f),
            _ => number.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
        };
        if length >> 63 != 0 {
            return Err(Failure::protocol("a frame whose length is no length"));
        }
        let mask = [mask[0], mask[1], mask[2], mask[3]];
        Ok(Some(Self { kind, is_last, length, mask, size }))
    }
}

/// Adds the head of a frame that is a whole message, as a server sends it: its payload, of `length`
/// bytes, follows.
pub fn frame_head(kind: Kind, length: usize, out: &mut Vec<u8>) {
    out.push(0x80 | kind.number());
    match length {
        0..=125 => out.push(length as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// The payload of a close. [`code::NONE`] has none. A reason that is too long is cut.
pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    if code == code::NONE {
        return Vec::new();
    }
    let mut payload = code.to_be_bytes().to_vec();
    let fits = |&(at, letter): &(usize, char)| at + letter.len_utf8() <= CONTROL_MAX - 2;
    let end = reason.char_indices().take_while(fits).last();
    let end = end.map_or(0, |(at, letter)| at + letter.len_utf8());
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    payload
}

/// True for a code that may be in a close (RFC 6455, 7.4; the registry of IANA).
pub(crate) fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
