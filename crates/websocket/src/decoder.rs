//! What a client sends: frames, and the messages that they make.

use crate::frame::{Head, Kind, may_be_sent};
use crate::{Failure, code};

#[cfg(test)]
mod tests;

/// What a client has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message that is text: valid UTF-8.
    Text(Vec<u8>),
    /// A message of bytes.
    Binary(Vec<u8>),
    /// To be answered with a pong of the same payload.
    Ping(Vec<u8>),
    /// The answer to a ping, or a sign of life.
    Pong(Vec<u8>),
    /// The end, with its code ([`code::NONE`] if there is none) and its reason.
    Close(u16, String),
}

/// A frame whose payload has not wholly arrived.
#[derive(Debug)]
struct Frame {
    head: Head,
    /// How much of the payload was taken.
    taken: u64,
}

/// Makes messages of bytes.
#[derive(Debug)]
pub struct Decoder {
    /// The most bytes of a message.
    most: usize,
    frame: Option<Frame>,
    /// The message that is under way.
    kind: Option<Kind>,
    message: Vec<u8>,
    /// So much of a text is known to be UTF-8.
    checked: usize,
    /// The payload of a control frame, which may come between those of a message.
    control: Vec<u8>,
}

impl Decoder {
    /// Nothing has arrived. `most`: the most bytes of a message.
    pub fn new(most: usize) -> Self {
        Self { most, frame: None, kind: None, message: Vec::new(), checked: 0, control: Vec::new() }
    }

    /// Takes bytes to the end of the next event. Returns how many, all of them or those of a part of
    /// a head excepted, if there is none yet. Nothing may be asked after a failure.
    pub fn next(&mut self, input: &[u8]) -> Result<(usize, Option<Event>), Failure> {
        let mut used = 0;
        loop {
            let frame = match self.frame.take() {
                Some(frame) => frame,
                None => match Head::read(&input[used..])? {
                    Some(head) => {
                        used += head.size;
                        self.begin(&head)?;
                        Frame { head, taken: 0 }
                    }
                    None => return Ok((used, None)),
                },
            };
            let frame = self.take(frame, input, &mut used)?;
            if frame.taken < frame.head.length {
                self.frame = Some(frame);
                return Ok((used, None));
            }
            if let Some(event) = self.end(&frame.head)? {
                return Ok((used, Some(event)));
            }
        }
    }

    /// A frame begins.
    fn begin(&mut self, head: &Head) -> Result<(), Failure> {
        match head.kind {
            Some(kind) if kind.is_control() => {
                self.control.clear();
                return Ok(());
            }
            None if self.kind.is_none() => {
                return Err(Failure::protocol("a frame that goes on with no message"));
            }
            Some(_) if self.kind.is_some() => {
                return Err(Failure::protocol("a message inside another one"));
            }
            None => {}
            kind => self.kind = kind,
        }
        let left = (self.most - self.message.len()) as u64;
        match head.length > left {
            true => Err(Failure { code: code::TOO_BIG, reason: "the message is too big" }),
            false => Ok(()),
        }
    }

    /// Takes what is there of the payload.
    fn take(&mut self, mut frame: Frame, input: &[u8], used: &mut usize) -> Result<Frame, Failure> {
        let there = &input[*used..];
        let left = frame.head.length - frame.taken;
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(there.len());
        let is_control = frame.head.kind.is_some_and(Kind::is_control);
        let target = if is_control { &mut self.control } else { &mut self.message };
        let start = target.len();
        target.extend_from_slice(&there[..count]);
        unmask(&mut target[start..], frame.head.mask, frame.taken);
        frame.taken += count as u64;
        *used += count;
        if !is_control && self.kind == Some(Kind::Text) {
            self.check_text()?;
        }
        Ok(frame)
    }

    /// A text is refused as soon as it can not become UTF-8 any more.
    fn check_text(&mut self) -> Result<(), Failure> {
        match std::str::from_utf8(&self.message[self.checked..]) {
            Ok(text) => self.checked += text.len(),
            Err(error) if error.error_len().is_some() => return Err(not_utf_8()),
            Err(error) => self.checked += error.valid_up_to(),
        }
        Ok(())
    }

    /// A frame is over.
    fn end(&mut self, head: &Head) -> Result<Option<Event>, Failure> {
        match head.kind {
            Some(Kind::Ping) => Ok(Some(Event::Ping(std::mem::take(&mut self.control)))),
            Some(Kind::Pong) => Ok(Some(Event::Pong(std::mem::take(&mut self.control)))),
            Some(Kind::Close) => close(&self.control).map(Some),
            _ if !head.is_last => Ok(None),
            _ => {
                let message = std::mem::take(&mut self.message);
                let is_utf_8 = std::mem::take(&mut self.checked) == message.len();
                match self.kind.take() {
                    Some(Kind::Text) if !is_utf_8 => Err(not_utf_8()),
                    Some(Kind::Text) => Ok(Some(Event::Text(message))),
                    _ => Ok(Some(Event::Binary(message))),
                }
            }
        }
    }
}

/// `at`: how much of the payload comes before these bytes.
fn unmask(bytes: &mut [u8], mut mask: [u8; 4], at: u64) {
    mask.rotate_left((at % 4) as usize);
    let mut blocks = bytes.chunks_exact_mut(4);
    for block in &mut blocks {
        for (byte, key) in block.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
    for (byte, key) in blocks.into_remainder().iter_mut().zip(mask) {
        *byte ^= key;
    }
}

fn close(payload: &[u8]) -> Result<Event, Failure> {
    let (code, reason) = match payload {
        [] => return Ok(Event::Close(code::NONE, String::new())),
        [_] => return Err(Failure::protocol("half a code in a close")),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !may_be_sent(code) {
        return Err(Failure::protocol("a code in a close that may not be sent"));
    }
    match std::str::from_utf8(reason) {
        Ok(reason) => Ok(Event::Close(code, reason.to_string())),
        Err(_) => Err(not_utf_8()),
    }
}

fn not_utf_8() -> Failure {
    Failure { code: code::NOT_UTF_8, reason: "a text that is not UTF-8" }
}
