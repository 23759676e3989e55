//! The body of a message: it tells content from framing.

use std::ops::Range;

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// It has this many bytes, at least 1.
    Length(u64),
    /// It comes in chunks.
    Chunked,
    /// It ends when the connection does (answers only).
    UntilClose,
}

impl Framing {
    /// A body of this many bytes.
    pub fn of_length(length: u64) -> Self {
        if length == 0 { Framing::None } else { Framing::Length(length) }
    }
}

/// The longest line of a chunk (size and extensions), bytes.
const CHUNK_LINE_MAX: u32 = 256;
/// All chunk extensions of a body together, bytes.
const EXTENSIONS_MAX: u32 = 16 * 1024;
/// All trailer lines together, bytes.
const TRAILERS_MAX: u32 = 8 * 1024;

/// What the next bytes of a body are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Content is at this range; everything up to its end is used up.
    Content(Range<usize>),
    /// This many bytes are used up; more must arrive.
    More(usize),
    /// This many bytes are used up, and the body is complete.
    End(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Done,
    Length(u64),
    UntilClose,
    Size { value: u64, digits: u8 },
    Extension,
    SizeLf { value: u64 },
    Chunk(u64),
    ChunkCr,
    ChunkLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
}

/// Reads a body. Trailers are checked and dropped.
#[derive(Debug, Clone)]
pub struct BodyReader {
    state: State,
    /// The size of the chunk whose extensions are read.
    size: u64,
    line: u32,
    extensions: u32,
    trailers: u32,
}

impl BodyReader {
    /// A body framed like this.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::UntilClose => State::UntilClose,
            Framing::Chunked => State::Size { value: 0, digits: 0 },
        };
        Self { state, size: 0, line: 0, extensions: 0, trailers: 0 }
    }

    /// True if the body is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// How many bytes of a body of known length are still to come.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Length(left) => Some(left),
            _ => None,
        }
    }

    /// How many of the next bytes are content for certain and may be taken as they are;
    /// `None` if they have to be looked at.
    pub fn plain(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::UntilClose => Some(u64::MAX),
            _ => None,
        }
    }

    /// Says that `count` bytes were taken that [`BodyReader::plain`] allows.
    pub fn took(&mut self, count: u64) {
        if let State::Length(left) = self.state {
            let left = left.saturating_sub(count);
            self.state = if left == 0 { State::Done } else { State::Length(left) };
        }
    }

    /// True if the body may end here because the connection does.
    pub fn may_end_here(&self) -> bool {
        matches!(self.state, State::Done | State::UntilClose)
    }

    /// Says what the next bytes are; the error says why they are refused.
    pub fn next(&mut self, input: &[u8]) -> Result<Piece, &'static str> {
        let mut at = 0;
        loop {
            if self.state == State::Done {
                return Ok(Piece::End(at));
            }
            let rest = &input[at..];
            if rest.is_empty() {
                return Ok(Piece::More(at));
            }
            if let Some(length) = self.content(rest.len()) {
                return Ok(Piece::Content(at..at + length));
            }
            self.framing_byte(rest[0])?;
            at += 1;
        }
    }

    /// Takes content, if content comes next.
    fn content(&mut self, available: usize) -> Option<usize> {
        let take = |left: u64| left.min(available as u64);
        match self.state {
            State::UntilClose => Some(available),
            State::Length(left) => {
                let taken = take(left);
                self.took(taken);
                Some(taken as usize)
            }
            State::Chunk(left) => {
                let taken = take(left);
                self.state =
                    if taken == left { State::ChunkCr } else { State::Chunk(left - taken) };
                Some(taken as usize)
            }
            _ => None,
        }
    }

    fn framing_byte(&mut self, byte: u8) -> Result<(), &'static str> {
        self.state = match self.state {
            State::Size { value, digits } => self.size_byte(byte, value, digits)?,
            State::Extension => self.extension_byte(byte)?,
            State::SizeLf { value } => match (byte, value) {
                (b'\n', 0) => State::TrailerStart,
                (b'\n', size) => State::Chunk(size),
                _ => return Err("a chunk size line that does not end in CR LF"),
            },
            State::ChunkCr if byte == b'\r' => State::ChunkLf,
            State::ChunkLf if byte == b'\n' => {
                self.line = 0;
                State::Size { value: 0, digits: 0 }
            }
            State::ChunkCr | State::ChunkLf => return Err("a chunk that is longer than its size"),
            State::EndLf if byte == b'\n' => State::Done,
            State::EndLf => return Err("a CR without LF after the last chunk"),
            _ => self.trailer_byte(byte)?,
        };
        Ok(())
    }

    fn size_byte(&mut self, byte: u8, value: u64, digits: u8) -> Result<State, &'static str> {
        self.line += 1;
        if let Some(digit) = (byte as char).to_digit(16) {
            if digits == 16 {
                return Err("a chunk size that is too long");
            }
            let value = (value << 4) | u64::from(digit);
            return Ok(State::Size { value, digits: digits + 1 });
        }
        if digits == 0 || value > i64::MAX as u64 {
            return Err("a bad chunk size");
        }
        self.size = value;
        match byte {
            b'\r' => Ok(State::SizeLf { value }),
            b';' => Ok(State::Extension),
            _ => Err("a bad chunk size"),
        }
    }

    fn extension_byte(&mut self, byte: u8) -> Result<State, &'static str> {
        self.line += 1;
        self.extensions += 1;
        if self.line > CHUNK_LINE_MAX || self.extensions > EXTENSIONS_MAX {
            return Err("chunk extensions that are too long");
        }
        match byte {
            b'\r' => Ok(State::SizeLf { value: self.size }),
            b'\t' | b' '..=b'~' | 0x80.. => Ok(State::Extension),
            _ => Err("a control character in a chunk extension"),
        }
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<State, &'static str> {
        self.trailers += 1;
        if self.trailers > TRAILERS_MAX {
            return Err("trailers that are too long");
        }
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerStart | State::TrailerName, byte) if is_token(byte) => {
                Ok(State::TrailerName)
            }
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::TrailerValue),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            _ => Err("a bad trailer"),
        }
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `parts` one after the other, as a connection would; gives the content
    /// and what was left over after the end.
    fn read(framing: Framing, parts: &[&[u8]]) -> Result<(Vec<u8>, Option<Vec<u8>>), &'static str> {
        let mut reader = BodyReader::new(framing);
        let (mut pending, mut content) = (Vec::new(), Vec::new());
        for part in parts {
            pending.extend_from_slice(part);
            loop {
                match reader.next(&pending)? {
                    Piece::Content(range) => {
                        content.extend_from_slice(&pending[range.clone()]);
                        pending.drain(..range.end);
                    }
                    Piece::More(used) => {
                        pending.drain(..used);
                        break;
                    }
                    Piece::End(used) => {
                        pending.drain(..used);
                        break;
                    }
                }
            }
        }
        Ok((content, reader.is_done().then_some(pending)))
    }

    #[test]
    fn bodies_are_the_same_wherever_they_are_cut() {
        let chunked: &[u8] = b"5;a=\"b\"\r\nhello\r\n00A\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\nNEXT";
        let plain: &[u8] = b"hello0123456789NEXT";
        for (framing, input) in [(Framing::Chunked, chunked), (Framing::Length(15), plain)] {
            for cut in 0..=input.len() {
                for second in cut..=input.len() {
                    let parts = [&input[..cut], &input[cut..second], &input[second..]];
                    let (content, rest) = read(framing, &parts).unwrap();
                    assert_eq!(content, b"hello0123456789", "cut at {cut} and {second}");
                    assert_eq!(rest.as_deref(), Some(&b"NEXT"[..]));
                }
            }
        }
    }

    #[test]
    fn a_body_byte_by_byte_is_the_same_body() {
        let input = b"1\r\na\r\n2;x\r\nbc\r\n0\r\n\r\n";
        let parts: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(read(Framing::Chunked, &parts).unwrap(), (b"abc".to_vec(), Some(vec![])));
    }

    #[test]
    fn a_body_until_the_end_takes_everything() {
        let (content, rest) = read(Framing::UntilClose, &[b"a", b"bc"]).unwrap();
        assert_eq!((content.as_slice(), rest), (&b"abc"[..], None));
        assert!(BodyReader::new(Framing::UntilClose).may_end_here());
        assert!(!BodyReader::new(Framing::Length(1)).may_end_here());
        assert!(!BodyReader::new(Framing::Chunked).may_end_here());
    }

    #[test]
    fn bad_chunks_are_refused() {
        for bad in [
            "\r\n",
            " 5\r\nhello\r\n",
            "5 \r\nhello\r\n",
            "+5\r\nhello\r\n",
            "-5\r\nhello\r\n",
            "0x5\r\nhello\r\n",
            "5\nhello\r\n",
            "5\r\rhello",
            "5\r\nhelloX\r\n",
            "5\r\nhello\n",
            "5\r\nhello\r\r",
            "g\r\n",
            ";a\r\n",
            "5;a\nhello\r\n",
            "5;a\0\r\nhello\r\n",
            "10000000000000000\r\n",
            "ffffffffffffffff\r\n",
            "00000000000000005\r\nhello\r\n",
            "0\r\n X: folded\r\n\r\n",
            "0\r\nX : a\r\n\r\n",
            "0\r\nX\r\n\r\n",
            "0\r\nX: a\n\r\n",
            "0\r\nX: \0\r\n\r\n",
            "0\r\n\n",
            "0\r\n\rX",
            "5,5\r\nhello\r\n",
            "5.0\r\nhello\r\n",
        ] {
            assert!(read(Framing::Chunked, &[bad.as_bytes()]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let line = format!("1;{}\r\na\r\n", "x".repeat(300));
        assert!(read(Framing::Chunked, &[line.as_bytes()]).is_err());
        let many = format!("1;{}\r\na\r\n", "x".repeat(200)).repeat(100);
        assert!(read(Framing::Chunked, &[many.as_bytes()]).is_err());
        let trailers = format!("0\r\n{}\r\n", "X: y\r\n".repeat(2000));
        assert!(read(Framing::Chunked, &[trailers.as_bytes()]).is_err());
    }
}
