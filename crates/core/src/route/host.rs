//! Host names: what a configuration may write, and which one a request names.

use std::io::Write as _;
use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

/// The longest host name, bytes (RFC 1035, 2.3.4, without the dot at its end).
const LONGEST: usize = 253;
/// The longest label of one.
const LONGEST_LABEL: usize = 63;

/// Why a host name cannot be used, and what to write.
pub type BadHost = (String, String);

/// A host name as a configuration writes it, in the form that [`requested`] gives: small letters,
/// no dot at its end, IPv6 addresses in brackets. `*.example.org` stands for all names that end
/// with `.example.org`.
pub fn configured(text: &str) -> Result<String, BadHost> {
    let refused = |why: String, help: &str| Err((why, help.to_string()));
    let text = text.trim();
    if !text.is_ascii() {
        return refused(
            format!("the host name {text} has letters that are not ASCII"),
            "write it as browsers send it, in punycode: xn--…",
        );
    }
    let inner = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
    if let Ok(address) = inner.unwrap_or(text).parse::<Ipv6Addr>() {
        return Ok(format!("[{address}]"));
    }
    if text.contains(':') || text.contains('/') {
        return refused(
            format!("{text} is more than a host name"),
            "write the name alone, without http://, port and path",
        );
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let rest = name.strip_prefix("*.").unwrap_or(&name);
    if rest.contains(['*', '~']) || rest.starts_with('.') {
        return refused(
            format!("{text} is neither a host name nor a wildcard that is known here"),
            "a * may only be the first label, as in *.example.org; write two names where both are \
             meant: example.org,*.example.org",
        );
    }
    let is_label = |label: &str| {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=LONGEST_LABEL).contains(&label.len()) && label.bytes().all(good)
    };
    match name.len() <= LONGEST && rest.split('.').all(is_label) {
        true => Ok(name),
        false => refused(
            format!("{text:?} is not a host name"),
            "write names as app.example.org, *.example.org or [::1], with commas between them",
        ),
    }
}

/// What a request gets whose host is that of no app: `[front] unknown_host`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownHost {
    /// What the routes without a host answer.
    #[default]
    Default,
    /// 404.
    NotFound,
    /// 421 (RFC 9110, 15.5.20).
    Misdirected,
    /// The end of its connection, and no answer.
    Close,
}

impl UnknownHost {
    /// The status of such a request; 444, as in the logs of nginx, where it is not answered.
    /// `None`: it is a request like any other.
    pub fn status(self) -> Option<u16> {
        match self {
            UnknownHost::Default => None,
            UnknownHost::NotFound => Some(404),
            UnknownHost::Misdirected => Some(421),
            UnknownHost::Close => Some(444),
        }
    }
}

/// Room for the host name of a request.
#[derive(Debug)]
pub struct HostSpace([u8; LONGEST + 1]);

impl Default for HostSpace {
    fn default() -> Self {
        Self([0; LONGEST + 1])
    }
}

/// The host that a request names with the value of its field Host, in the form of [`configured`]:
/// without its port. `None` if it names none, or none that anybody can have.
pub fn requested<'a>(authority: &[u8], space: &'a mut HostSpace) -> Option<&'a str> {
    if let Some(inner) = authority.strip_prefix(b"[") {
        let end = inner.iter().position(|&byte| byte == b']')?;
        let address: Ipv6Addr = std::str::from_utf8(&inner[..end]).ok()?.parse().ok()?;
        let mut left = &mut space.0[..];
        write!(left, "[{address}]").ok()?;
        let length = LONGEST + 1 - left.len();
        return std::str::from_utf8(&space.0[..length]).ok();
    }
    let end = authority.iter().position(|&byte| byte == b':').unwrap_or(authority.len());
    let name = &authority[..end];
    let name = name.strip_suffix(b".").unwrap_or(name);
    if name.is_empty() || name.len() > LONGEST {
        return None;
    }
    let space = &mut space.0[..name.len()];
    space.copy_from_slice(name);
    space.make_ascii_lowercase();
    std::str::from_utf8(space).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_brought_into_the_form_that_requests_are_brought_into() {
        for (written, name) in [
            ("Example.ORG", "example.org"),
            (" example.org. ", "example.org"),
            ("*.Example.org", "*.example.org"),
            ("main.my_plugin.localhost", "main.my_plugin.localhost"),
            ("xn--caf-dma.fr", "xn--caf-dma.fr"),
            ("127.0.0.1", "127.0.0.1"),
            ("[0:0::1]", "[::1]"),
            ("2001:DB8::1", "[2001:db8::1]"),
        ] {
            assert_eq!(configured(written).as_deref(), Ok(name), "{written}");
            if !name.starts_with('*') {
                let mut space = HostSpace::default();
                assert_eq!(requested(name.as_bytes(), &mut space), Some(name));
            }
        }
    }

    #[test]
    fn what_no_request_can_name_is_refused_with_what_to_write() {
        let long = format!("{}.org", "a".repeat(64));
        for (written, part) in [
            ("café.fr", "punycode"),
            ("example.org:80", "without http://, port"),
            ("http://example.org", "without http://, port"),
            ("example.org/x", "and path"),
            ("www.*.org", "first label"),
            ("*", "first label"),
            ("*.*.org", "first label"),
            (".example.org", "write two names"),
            ("~^www", "first label"),
            ("a..b", "with commas"),
            ("a b", "with commas"),
            ("", "with commas"),
            ("*.", "first label"),
            (&long, "with commas"),
        ] {
            let (why, help) = configured(written).expect_err(written);
            assert!(!why.is_empty() && help.contains(part), "{written}: {why}; {help}");
        }
    }

    #[test]
    fn a_request_names_a_host_in_many_ways() {
        for (authority, name) in [
            ("Example.org", Some("example.org")),
            ("example.org:8080", Some("example.org")),
            ("example.org.:8080", Some("example.org")),
            ("[::1]", Some("[::1]")),
            ("[0:0:0::1]:80", Some("[::1]")),
            ("", None),
            (":80", None),
            (".", None),
            ("[", None),
            ("[::1", None),
            ("[x]", None),
        ] {
            let mut space = HostSpace::default();
            assert_eq!(requested(authority.as_bytes(), &mut space), name, "{authority}");
        }
        let mut space = HostSpace::default();
        assert_eq!(requested("a".repeat(254).as_bytes(), &mut space), None);
        assert_eq!(requested(b"\xff.org", &mut space), None);
        let longest = "[1111:1111:1111:1111:1111:1111:1111:1111]";
        assert_eq!(requested(longest.as_bytes(), &mut space), Some(longest));
    }
}
