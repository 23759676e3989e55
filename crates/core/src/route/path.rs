//! Which path is meant: every spelling of it becomes the same text.

use std::borrow::Cow;
use std::fmt;

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPath {
    /// It does not begin with `/`.
    NotAbsolute,
    /// A `%` is not followed by two hexadecimal digits.
    Encoding,
    /// It contains a NUL byte.
    Nul,
    /// Its `..` lead above the root.
    AboveRoot,
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadPath::NotAbsolute => "the path does not begin with /",
            BadPath::Encoding => "a % in the path is not followed by two hexadecimal digits",
            BadPath::Nul => "the path contains a NUL byte",
            BadPath::AboveRoot => "the path leads above the root",
        })
    }
}

impl std::error::Error for BadPath {}

/// The path that routes are compared with: percent-decoded once, `//` merged, `.` and
/// `..` resolved (decoded ones too). Bytes that are not UTF-8 become U+FFFD, so that
/// an overlong spelling of `.` or `/` never is one. A plain path is not copied.
pub fn normalise(raw: &[u8]) -> Result<Cow<'_, str>, BadPath> {
    if !raw.starts_with(b"/") {
        return Err(BadPath::NotAbsolute);
    }
    if is_plain(raw) {
        return Ok(String::from_utf8_lossy(raw));
    }
    let decoded = percent_decode(raw)?;
    let resolved = resolve_segments(&decoded)?;
    Ok(Cow::Owned(match String::from_utf8(resolved) {
        Ok(path) => path,
        Err(bytes) => String::from_utf8_lossy(bytes.as_bytes()).into_owned(),
    }))
}

fn is_plain(path: &[u8]) -> bool {
    let mut before = 0;
    for &byte in path {
        if byte == b'%' || byte == 0 || (before == b'/' && (byte == b'/' || byte == b'.')) {
            return false;
        }
        before = byte;
    }
    true
}

fn percent_decode(raw: &[u8]) -> Result<Vec<u8>, BadPath> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&byte, after)) = rest.split_first() {
        let byte = if byte == b'%' {
            let digit = |at: usize| after.get(at).and_then(|&b| (b as char).to_digit(16));
            let (Some(high), Some(low)) = (digit(0), digit(1)) else {
                return Err(BadPath::Encoding);
            };
            rest = &after[2..];
            (high * 16 + low) as u8
        } else {
            rest = after;
            byte
        };
        if byte == 0 {
            return Err(BadPath::Nul);
        }
        decoded.push(byte);
    }
    Ok(decoded)
}

fn resolve_segments(path: &[u8]) -> Result<Vec<u8>, BadPath> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut segments = path[1..].split(|&b| b == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"" | b"." if !last => {}
            b"" | b"." => out.push(b'/'),
            b".." => {
                let parent = out.iter().rposition(|&b| b == b'/').ok_or(BadPath::AboveRoot)?;
                out.truncate(parent);
                if last {
                    out.push(b'/');
                }
            }
            segment => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_once_merged_and_resolved() {
        for (raw, path) in [
            ("/", "/"),
            ("//", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("/a//b", "/a/b"),
            ("/a/./b/.", "/a/b/"),
            ("/a/b/..", "/a/"),
            ("/a/b/../", "/a/"),
            ("/a/../b", "/b"),
            ("/a/..", "/"),
            ("/%61%2f%2Fb", "/a/b"),
            ("/%2e%2e%2fa/../..", "ERR"),
            ("/a%20b+c", "/a b+c"),
            ("/%252e%252e/x", "/%2e%2e/x"),
            ("/...", "/..."),
            ("/.hidden", "/.hidden"),
            ("/..a/b", "/..a/b"),
            ("/%C3%A9", "/é"),
            ("/%c0%ae%c0%ae/x", "/\u{fffd}\u{fffd}\u{fffd}\u{fffd}/x"),
            ("/a\\..\\b", "/a\\..\\b"),
        ] {
            let got = normalise(raw.as_bytes());
            let got = got.as_deref().unwrap_or("ERR");
            assert_eq!(got, path, "{raw}");
        }
    }

    #[test]
    fn paths_that_could_mean_two_things_are_refused() {
        for (raw, why) in [
            ("", BadPath::NotAbsolute),
            ("a", BadPath::NotAbsolute),
            ("/%", BadPath::Encoding),
            ("/%4", BadPath::Encoding),
            ("/%zz", BadPath::Encoding),
            ("/%+1", BadPath::Encoding),
            ("/a%00b", BadPath::Nul),
            ("/..", BadPath::AboveRoot),
            ("/../etc", BadPath::AboveRoot),
            ("/a/../../etc", BadPath::AboveRoot),
            ("/%2e%2e/etc", BadPath::AboveRoot),
            ("/a/%2E%2E%2F..", BadPath::AboveRoot),
        ] {
            assert_eq!(normalise(raw.as_bytes()), Err(why), "{raw}");
        }
    }
}
