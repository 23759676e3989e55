//! A request whose worker gets the rest of the path after a prefix, and is told the prefix.

use mfserv_core::route::said_prefix;
use mfserv_h1::{Name, RequestHead};

use crate::embedded::io::buffer::Buffer;

/// The prefix that is kept from a worker.
#[derive(Debug, Clone, Copy)]
pub struct Stripped<'a> {
    /// The prefix of the route, decoded; `/` for one that takes everything.
    pub prefix: &'a str,
    /// Where the rest begins in the target of the request, after the `/` that ends the prefix.
    pub rest_at: usize,
    /// A proxy whose word is taken may have stripped a prefix before.
    pub is_by_proxy: bool,
}

impl Stripped<'_> {
    /// Writes the target that a worker gets.
    pub fn put_target(self, out: &mut Buffer, head: &RequestHead) {
        out.push_all(&[b"/", head.target().get(self.rest_at..).unwrap_or_default()]);
    }

    /// Writes `X-Forwarded-Prefix`: one path, of the prefixes of all proxies from the client on. It
    /// is encoded as in a URL, without a `/` at its end, and not there if nothing was stripped.
    pub fn put_field(self, out: &mut Buffer, head: &RequestHead) {
        let mut value = Vec::new();
        if self.is_by_proxy {
            let said = head.fields.values(Name::ForwardedPrefix);
            let said = said.flat_map(|list| list.split(|byte| *byte == b','));
            for path in said.filter_map(|one| said_prefix(one.trim_ascii())) {
                put_part(&mut value, &path);
            }
        }
        put_part(&mut value, self.prefix.as_bytes());
        if !value.is_empty() {
            out.push_all(&[b"X-Forwarded-Prefix: ", &value, b"\r\n"]);
        }
    }
}

/// Appends a decoded path, encoded, without the `/` at its end, with just one at its beginning: two would be taken
/// for a host in the address of a redirect.
fn put_part(value: &mut Vec<u8>, path: &[u8]) {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+;=:@".contains(&byte);
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let start = path[..end].iter().position(|byte| *byte != b'/').unwrap_or(end);
    if start == end {
        return;
    }
    value.push(b'/');
    for &byte in &path[start..end] {
        match is_plain(byte) {
            true => value.push(byte),
            false => value.extend(format!("%{byte:02X}").into_bytes()),
        }
    }
}
