//! Requests that a web page makes a browser send.
//!
//! A browser on this machine connects from this machine, whoever wrote the page that it
//! shows. What is for this machine only therefore looks at more than the address:
//!
//! - `Host` has to be a name of this machine or an address. A page can point a name of its
//!   own at this machine (DNS rebinding), and would then be a page of the same site.
//! - `Origin` and `Sec-Fetch-Site`, which pages cannot change, must not name another site.
//!   A link that somebody follows is no harm: only that person sees what it shows.
//!
//! Programs send neither `Origin` nor `Sec-Fetch-Site`, and an address or `localhost`.

use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use mfserv_h1::RequestHead;

/// True if the request was sent to this machine by its own name or by an address. (HTTP/1.0
/// without a Host: no browser sends that.)
pub fn names_this_machine(head: &RequestHead) -> bool {
    matches!(head.host_name(), b"" | b".") || names(head, |_| true, |_| true)
}

/// True if the request was sent to a name or an address that leads to this machine from itself,
/// or to the name of the machine.
pub fn names_this_node(head: &RequestHead) -> bool {
    names(head, |address| address.is_loopback(), |address| address == Ipv6Addr::LOCALHOST)
}

/// True if the request was sent to the name of this machine, to a name of the loopback interface, or
/// to such an address.
fn names(
    head: &RequestHead,
    is_one: impl Fn(Ipv4Addr) -> bool,
    is_one_of_6: impl Fn(Ipv6Addr) -> bool,
) -> bool {
    let Ok(name) = std::str::from_utf8(head.host_name()) else { return false };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    name == "localhost"
        // Never asked of the DNS (RFC 6761, 6.3).
        || name.ends_with(".localhost")
        || name.parse().is_ok_and(is_one)
        || inner.is_some_and(|inner| inner.parse().is_ok_and(is_one_of_6))
        || is_host_name(&name)
}

/// The name of this machine, whole or short, or the one that the node exports.
fn is_host_name(name: &str) -> bool {
    host_names().iter().any(|own| !own.is_empty() && own.eq_ignore_ascii_case(name))
}

/// The names of this machine; some may be empty.
pub fn host_names() -> [String; 3] {
    let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let short = node.split('.').next().unwrap_or_default().to_string();
    [node, short, std::env::var("MFHOSTNAME_FULL").unwrap_or_default()]
}

/// True if a page of another site has the browser send this request, other than by a link
/// that is followed.
pub fn is_by_foreign_page(head: &RequestHead) -> bool {
    let is_other = |origin: &[u8]| {
        let host = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
        !host.is_some_and(|host| host.eq_ignore_ascii_case(head.host()))
    };
    if values(head, b"origin").any(is_other) {
        return true;
    }
    let follows_link = matches!(head.method(), b"GET" | b"HEAD")
        && values(head, b"sec-fetch-mode").eq([&b"navigate"[..]])
        && values(head, b"sec-fetch-dest").eq([&b"document"[..]]);
    let is_own = |site: &[u8]| matches!(site, b"same-origin" | b"none");
    !follows_link && !values(head, b"sec-fetch-site").all(is_own)
}

/// The values of a field, as often as it was sent.
pub fn values<'a>(head: &'a RequestHead, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let fields = head.fields.iter();
    let named = fields.filter(move |(_, written, _)| written.eq_ignore_ascii_case(name));
    named.map(|(_, _, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, host: &str, fields: &str) -> RequestHead {
        let mut head = RequestHead::default();
        let text = format!("{method} /a HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
        head.read(text.as_bytes(), 100).unwrap();
        head
    }

    #[test]
    fn a_name_that_somebody_else_can_point_here_is_not_this_machines() {
        let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
        for (host, is_own) in [
            ("localhost", true),
            ("LocalHost:8080", true),
            ("localhost.:8080", true),
            ("shop.localhost", true),
            ("127.0.0.1:18868", true),
            ("192.168.1.7", true),
            ("[::1]:80", true),
            (own.as_str(), true),
            ("evil.example", false),
            ("localhost.evil.example:8080", false),
            ("notlocalhost", false),
            ("127.0.0.1.evil.example", false),
            ("127.0.0.1.nip.io", false),
        ] {
            assert_eq!(names_this_machine(&head("GET", host, "")), is_own, "{host}");
        }
        let mut old = RequestHead::default();
        old.read(b"GET / HTTP/1.0\r\n\r\n", 100).unwrap();
        assert!(names_this_machine(&old));
    }

    #[test]
    fn what_a_page_of_another_site_sends_is_known_by_what_it_cannot_change() {
        let link = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n\
                    Sec-Fetch-Dest: document\r\n";
        for (method, fields, is_foreign) in [
            ("GET", "", false),
            ("POST", "Origin: http://localhost:80\r\n", false),
            ("POST", "Origin: https://LOCALHOST:80\r\n", false),
            ("POST", "Origin: http://localhost:3000\r\n", true),
            ("POST", "Origin: http://evil.example\r\n", true),
            ("POST", "Origin: null\r\n", true),
            ("POST", "Origin: http://localhost:80\r\nOrigin: null\r\n", true),
            ("GET", "Sec-Fetch-Site: none\r\n", false),
            ("GET", "Sec-Fetch-Site: same-origin\r\n", false),
            ("GET", "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: no-cors\r\n", true),
            ("GET", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Dest: image\r\n", true),
            ("GET", link, false),
            ("POST", link, true),
            ("GET", &link.replace("document", "iframe"), true),
        ] {
            let head = head(method, "localhost:80", fields);
            assert_eq!(is_by_foreign_page(&head), is_foreign, "{method} {fields}");
        }
    }
}
