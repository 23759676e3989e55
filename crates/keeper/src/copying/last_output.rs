//! The last lines that a process wrote: part of its exit record.

/// How much is kept for each process, bytes.
const KEPT: usize = 4096;

/// The last bytes of all streams of one process, at most [`KEPT`].
#[derive(Debug, Default)]
pub(super) struct LastOutput(Vec<u8>);

impl LastOutput {
    /// Adds lines, and drops the oldest bytes.
    pub fn add(&mut self, lines: &[u8]) {
        let recent = &lines[lines.len().saturating_sub(KEPT)..];
        let too_many = (self.0.len() + recent.len()).saturating_sub(KEPT);
        self.0.drain(..too_many.min(self.0.len()));
        self.0.extend_from_slice(recent);
    }

    /// The text. When bytes were dropped, the first line has lost its beginning: it is left
    /// out, unless it is the only one.
    pub fn text(&self) -> String {
        let Self(tail) = self;
        let whole = match tail.iter().position(|&b| b == b'\n') {
            Some(end) if tail.len() >= KEPT && end + 1 < tail.len() => &tail[end + 1..],
            _ => tail,
        };
        let mut text = String::from_utf8_lossy(whole).into_owned();
        // A replaced byte is three bytes long: the bound holds for the text too.
        while text.len() > KEPT {
            let keep_from = text.char_indices().map(|(i, _)| i).find(|i| text.len() - i <= KEPT);
            text.drain(..keep_from.unwrap_or(text.len()));
        }
        text
    }
}

impl From<&str> for LastOutput {
    /// The text that an earlier image of the keeper has read.
    fn from(text: &str) -> Self {
        let mut last = Self::default();
        last.add(text.as_bytes());
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_are_kept_and_a_line_without_its_beginning_is_left_out() {
        let mut last = LastOutput::default();
        (0..1000).for_each(|n| last.add(format!("line {n}\n").as_bytes()));
        let text = last.text();
        assert!(text.len() <= KEPT && text.len() > KEPT - "line 999\n".len());
        assert!(text.starts_with("line ") && text.ends_with("line 999\n"), "{text}");
        assert_eq!(LastOutput::from("one\ntwo").text(), "one\ntwo");
    }

    #[test]
    fn a_single_line_keeps_its_end_and_bytes_that_are_no_text_stay_within_the_bound() {
        let mut last = LastOutput::default();
        last.add(&[b'x'; 2 * KEPT]);
        assert_eq!(last.text().len(), KEPT);
        last.add(&[0xff; KEPT]);
        assert!(last.text().len() <= KEPT && last.text().ends_with('\u{fffd}'));
    }
}
