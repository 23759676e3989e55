//! Frames: a 4-byte big-endian length, then that many bytes of JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest frame that is accepted, bytes.
pub const MAX_FRAME: usize = 16 * 1024 * 1024;

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameError {
    /// The announced length is over [`MAX_FRAME`].
    TooLong(usize),
    /// The content is not the JSON that was expected.
    BadJson(String),
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FrameError::TooLong(n) => {
                write!(f, "a frame of {n} bytes is over the limit of {MAX_FRAME}")
            }
            FrameError::BadJson(why) => write!(f, "a frame is not what was expected: {why}"),
        }
    }
}

impl std::error::Error for FrameError {}

/// A message as a frame.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message).map_err(|e| FrameError::BadJson(e.to_string()))?;
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    frame[..4].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(frame)
}

/// Takes the first whole message out of `buffer`, if there is one.
pub fn decode<T: DeserializeOwned>(buffer: &mut Vec<u8>) -> Result<Option<T>, FrameError> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head) as usize;
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    let message = serde_json::from_slice(&buffer[4..4 + length])
        .map_err(|e| FrameError::BadJson(e.to_string()))?;
    buffer.drain(..4 + length);
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_being_cut_anywhere() {
        let bytes = [encode(&"one").unwrap(), encode(&"two").unwrap()].concat();
        for cut in 0..=bytes.len() {
            let mut got: Vec<String> = Vec::new();
            let mut buffer = bytes[..cut].to_vec();
            while let Some(text) = decode::<String>(&mut buffer).unwrap() {
                got.push(text);
            }
            buffer.extend_from_slice(&bytes[cut..]);
            while let Some(text) = decode::<String>(&mut buffer).unwrap() {
                got.push(text);
            }
            assert_eq!(got, ["one", "two"], "cut at {cut}");
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_it_is_read() {
        let mut buffer = u32::MAX.to_be_bytes().to_vec();
        assert!(matches!(decode::<String>(&mut buffer), Err(FrameError::TooLong(_))));
    }
}
