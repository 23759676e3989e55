//! Frames: a byte of flags, a length of one or eight bytes, the body.

use crate::Violation;

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Another frame of the same message follows.
    pub more: bool,
    /// It is a command of the protocol.
    pub command: bool,
    /// How long the head is, bytes.
    pub head: usize,
    /// How long the body is, bytes.
    pub body: usize,
}

/// The head of the frame that begins here; `None` if more bytes are needed. A body that is
/// longer than `most` is refused before any of it is waited for.
pub fn head(bytes: &[u8], most: usize) -> Result<Option<Head>, Violation> {
    let Some((flags, rest)) = bytes.split_first() else { return Ok(None) };
    let (more, command) = (flags & MORE != 0, flags & COMMAND != 0);
    if flags & !(MORE | LONG | COMMAND) != 0 || (more && command) {
        return Err(Violation("a frame has flags that do not exist"));
    }
    let (head, body) = if flags & LONG == 0 {
        let Some(length) = rest.first() else { return Ok(None) };
        (2, usize::from(*length))
    } else {
        let Some(length) = rest.first_chunk::<8>() else { return Ok(None) };
        (9, usize::try_from(u64::from_be_bytes(*length)).unwrap_or(usize::MAX))
    };
    match body <= most {
        true => Ok(Some(Head { more, command, head, body })),
        false => Err(Violation("a message is too long")),
    }
}

fn push(out: &mut Vec<u8>, flags: u8, body: &[u8]) {
    match u8::try_from(body.len()) {
        Ok(length) => out.extend([flags, length]),
        Err(_) => {
            out.push(flags | LONG);
            out.extend((body.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(body);
}

/// A message of these frames.
pub fn message(frames: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(frames.iter().map(|frame| frame.len() + 9).sum());
    for (index, frame) in frames.iter().enumerate() {
        push(&mut out, if index + 1 < frames.len() { MORE } else { 0 }, frame);
    }
    out
}

/// A command: its name and what it says.
pub fn command(name: &str, data: &[u8]) -> Vec<u8> {
    // Every name of a command is shorter than 256 bytes.
    let mut body = vec![name.len() as u8];
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(data);
    let mut out = Vec::with_capacity(body.len() + 9);
    push(&mut out, COMMAND, &body);
    out
}

/// The name of a command and what it says.
pub fn parse_command(body: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    let cut = || Violation("a command is cut off");
    let (length, rest) = body.split_first().ok_or_else(cut)?;
    rest.split_at_checked(usize::from(*length)).ok_or_else(cut)
}

/// Properties of a handshake: a name of up to 255 bytes, a value.
pub fn properties(metadata: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in metadata {
        out.push(name.len() as u8);
        out.extend_from_slice(name.as_bytes());
        out.extend((value.len() as u32).to_be_bytes());
        out.extend_from_slice(value);
    }
    out
}

/// The value of a property; names are compared without their case.
pub fn property<'a>(mut data: &'a [u8], wanted: &str) -> Result<Option<&'a [u8]>, Violation> {
    let cut = || Violation("the properties of a handshake are cut off");
    let mut found = None;
    while let Some((length, rest)) = data.split_first() {
        let (name, rest) = rest.split_at_checked(usize::from(*length)).ok_or_else(cut)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| cut())?;
        let (value, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
        if name.eq_ignore_ascii_case(wanted.as_bytes()) {
            found = Some(value);
        }
        data = rest;
    }
    Ok(found)
}
