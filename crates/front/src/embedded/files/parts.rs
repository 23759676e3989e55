//! Bodies of type multipart/byteranges (RFC 9110, 14.6): the text between the parts.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

/// The borders of a body of several ranges.
#[derive(Debug)]
pub struct Parts {
    boundary: String,
    borders: Vec<String>,
    /// The sum of the ranges, bytes.
    content: u64,
}

impl Parts {
    /// The borders for ranges of a file with this type and `whole` bytes.
    pub fn new(content_type: &str, ranges: &[Range<u64>], whole: u64) -> Self {
        // Random, so that no file can contain it on purpose.
        let boundary = format!("{:020}", RandomState::new().hash_one(whole));
        let border = |range: &Range<u64>| {
            format!(
                "\r\n--{boundary}\r\nContent-Type: {content_type}\r\n\
                 Content-Range: bytes {}-{}/{whole}\r\n\r\n",
                range.start,
                range.end.saturating_sub(1)
            )
        };
        let borders = ranges.iter().map(border).collect();
        let content = ranges.iter().map(|range| range.end - range.start).sum();
        Self { boundary, borders, content }
    }

    /// The Content-Type of the body.
    pub fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// The text before each range.
    pub fn borders(&self) -> impl Iterator<Item = &String> {
        self.borders.iter()
    }

    /// The text after the last range.
    pub fn end(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary)
    }

    /// The length of the whole body, bytes.
    pub fn length(&self) -> u64 {
        let borders: usize = self.borders.iter().map(String::len).sum();
        self.content + (borders + self.end().len()) as u64
    }
}
