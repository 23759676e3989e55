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

/// The prefix that a proxy says it has stripped, decoded as [`normalise`] does it. `None` if it is no
/// path, or one that is taken for an address with another host: browsers read `\` as `/`.
pub fn said_prefix(raw: &[u8]) -> Option<Vec<u8>> {
    let decoded = percent_decode(raw).ok()?;
    let is_path = decoded.starts_with(b"/") && !decoded.starts_with(b"//");
    let is_bad = |byte: &u8| byte.is_ascii_control() || *byte == b'\\';
    if !is_path || decoded.iter().any(is_bad) {
        return None;
    }
    resolve_segments(&decoded).ok()
}

/// Where, in a raw path that a route with this prefix takes, the rest begins after the `/` that ends
/// the prefix; the length of the path if nothing follows it. Every byte from there on is the client's:
/// only what made the prefix (`..` through other directories, encoded letters) is left behind.
pub fn after_prefix(raw: &[u8], prefix: &str) -> usize {
    let kept = prefix.split('/').filter(|segment| !segment.is_empty()).count();
    let mut depth = 0_usize;
    let mut at = usize::from(raw.starts_with(b"/"));
    let mut rest = if kept == 0 { at } else { raw.len() };
    while at < raw.len() {
        let (end, next) = segment_at(raw, at);
        let segment = percent_decode(&raw[at..end]).unwrap_or_default();
        match segment.as_slice() {
            b"" | b"." => {}
            b".." => depth = depth.saturating_sub(1),
            _ => {
                depth += 1;
                // The last one that completes the prefix ends it.
                if depth == kept {
                    rest = next;
                }
            }
        }
        at = next;
    }
    rest
}

/// The end of the segment that begins here, and where the next one begins. An encoded `/` ends one,
/// as it does for routes.
fn segment_at(raw: &[u8], start: usize) -> (usize, usize) {
    for (at, window) in raw.iter().enumerate().skip(start) {
        if *window == b'/' {
            return (at, at + 1);
        }
        if raw[at..].len() >= 3 && raw[at..at + 3].eq_ignore_ascii_case(b"%2f") {
            return (at, at + 3);
        }
    }
    (raw.len(), raw.len())
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

/// A path with what `%` and two digits stand for. A NUL byte is refused, written so or as it is.
pub fn percent_decode(raw: &[u8]) -> Result<Vec<u8>, BadPath> {
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

/// True if a path names a script of PHP, or something below one: an app by FastCGI runs such files.
pub fn names_script(path: &str) -> bool {
    let is_script = |name: &str| name.len() > ".php".len() && name.ends_with(".php");
    path.split('/').any(is_script)
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
    fn the_rest_after_a_prefix_keeps_every_byte_that_the_client_has_written() {
        for (raw, prefix, rest) in [
            ("/shop", "/shop", ""),
            ("/shop/", "/shop", ""),
            ("/shop/a/b", "/shop", "a/b"),
            ("/shop/a%2Fb%20c", "/shop", "a%2Fb%20c"),
            ("/shop//a//b", "/shop", "/a//b"),
            ("/shop/./a/../b", "/shop", "./a/../b"),
            ("/shop/a/../..%2Fshop/b", "/shop", "b"),
            ("/shop/a/..", "/shop", "a/.."),
            ("/other/../shop/x", "/shop", "x"),
            ("//shop/x", "/shop", "x"),
            ("/%73hop%2fx%2fy", "/shop", "x%2fy"),
            ("/shop%2F", "/shop", ""),
            ("/shop/main/x", "/shop/main", "x"),
            ("/shop//main/x", "/shop/main", "x"),
            ("/a/b", "/", "a/b"),
        ] {
            assert!(normalise(raw.as_bytes()).unwrap().starts_with(prefix), "{raw}");
            assert_eq!(&raw[after_prefix(raw.as_bytes(), prefix)..], rest, "{raw}");
        }
    }

    #[test]
    fn what_is_left_of_a_path_means_what_the_route_has_seen() {
        let parts = ["/", "shop", "x", "..", ".", "%2F", "%2e%2E", "//", "%73hop", "y"];
        let mut state = 7_usize;
        for _ in 0..50_000 {
            let mut raw = String::from("/");
            for _ in 0..state % 9 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                raw += parts[(state >> 33) % parts.len()];
            }
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let Ok(path) = normalise(raw.as_bytes()) else { continue };
            let Some(rest) =
                path.strip_prefix("/shop").filter(|r| r.is_empty() || r.starts_with('/'))
            else {
                continue;
            };
            let written = format!("/{}", &raw[after_prefix(raw.as_bytes(), "/shop")..]);
            let meant = normalise(written.as_bytes()).unwrap();
            assert_eq!(meant, if rest.is_empty() { "/" } else { rest }, "{raw}");
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
