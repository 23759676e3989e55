//! Keys, from the bytes that a terminal sends.

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A printable character of ASCII: names have no others.
    Char(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
}

/// The longest sequence that is waited for.
const SEQUENCE_MAX: usize = 16;

/// Bytes that are not keys yet.
#[derive(Debug, Default)]
pub struct Keys(Vec<u8>);

impl Keys {
    /// The terminal has sent these.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// A sequence has begun, and its end has not come yet.
    pub fn is_waiting(&self) -> bool {
        !self.0.is_empty()
    }

    /// The next key. `is_late`: nothing more comes, so that an escape is the key itself.
    pub fn next(&mut self, is_late: bool) -> Option<Key> {
        while let Some(first) = self.0.first() {
            if *first != 0x1b {
                let byte = self.0.remove(0);
                if let Some(key) = plain(byte) {
                    return Some(key);
                }
                continue;
            }
            let (key, length) = match escape(&self.0) {
                Found::Key(key, length) => (key, length),
                Found::Incomplete if is_late || self.0.len() > SEQUENCE_MAX => {
                    (Some(Key::Escape), self.0.len())
                }
                Found::Incomplete => return None,
            };
            self.0.drain(..length);
            if key.is_some() {
                return key;
            }
        }
        None
    }
}

fn plain(byte: u8) -> Option<Key> {
    match byte {
        b'\r' | b'\n' => Some(Key::Enter),
        0x08 | 0x7f => Some(Key::Backspace),
        b' '..=b'~' => Some(Key::Char(char::from(byte))),
        _ => None,
    }
}

enum Found {
    /// A sequence of so many bytes; `None`: one that means nothing here.
    Key(Option<Key>, usize),
    Incomplete,
}

fn escape(bytes: &[u8]) -> Found {
    match bytes.get(1) {
        None => Found::Incomplete,
        Some(b'[' | b'O') => {
            let end = bytes[2..].iter().position(|byte| (0x40..=0x7e).contains(byte));
            let Some(end) = end.map(|end| end + 2) else { return Found::Incomplete };
            let key = match (&bytes[2..end], bytes[end]) {
                (_, b'A') => Some(Key::Up),
                (_, b'B') => Some(Key::Down),
                (_, b'H') | (b"1" | b"7", b'~') => Some(Key::Home),
                (_, b'F') | (b"4" | b"8", b'~') => Some(Key::End),
                (b"5", b'~') => Some(Key::PageUp),
                (b"6", b'~') => Some(Key::PageDown),
                _ => None,
            };
            Found::Key(key, end + 1)
        }
        // Escape, and then another key.
        Some(_) => Found::Key(Some(Key::Escape), 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut keys = Keys::default();
        keys.push(bytes);
        std::iter::from_fn(|| keys.next(true)).collect()
    }

    #[test]
    fn sequences_of_terminals_are_keys_and_unknown_ones_are_skipped() {
        use Key::*;
        assert_eq!(keys(b"a\x1b[A\x1bOB\x1b[5~\x1b[1;5A"), [Char('a'), Up, Down, PageUp, Up]);
        assert_eq!(keys(b"\x1b[15~\x1b[200~x\r\x7f\x01"), [Char('x'), Enter, Backspace]);
        assert_eq!(keys("é/".as_bytes()), [Char('/')]);
        assert_eq!(keys(b"\x1bq"), [Escape, Char('q')]);
    }

    #[test]
    fn a_sequence_that_comes_in_pieces_is_one_key_and_a_lone_escape_is_one_when_it_is_late() {
        let mut keys = Keys::default();
        for (bytes, key) in [(&b"\x1b"[..], None), (b"[", None), (b"B", Some(Key::Down))] {
            keys.push(bytes);
            assert_eq!(keys.next(false), key);
        }
        keys.push(b"\x1b");
        assert!(keys.next(false).is_none() && keys.is_waiting());
        assert_eq!(keys.next(true), Some(Key::Escape));
        keys.push(b"\x1b[");
        keys.push(&[b'1'; 20]);
        assert_eq!(keys.next(false), Some(Key::Escape), "it does not grow without end");
    }
}
