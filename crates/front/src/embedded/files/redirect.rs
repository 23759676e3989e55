//! The redirect from the URL of a directory to the same URL with a slash at its end.

use mfserv_core::route::ServerSettings;

use mfserv_h1::{Name, RequestHead};

/// The Location of the redirect: an absolute URL if the client named a host. `by_proxy`: a
/// trusted proxy asks for the client and says by which scheme. `secure`: it came over TLS.
pub fn location(
    path: &str,
    head: &RequestHead,
    settings: &ServerSettings,
    (by_proxy, secure): (bool, bool),
) -> String {
    let proto = head.fields.first(Name::ForwardedProto).filter(|_| by_proxy);
    let is_https = proto.map_or(secure, |proto| proto.eq_ignore_ascii_case(b"https"));
    let (scheme, usual_port) = if is_https { ("https://", 443) } else { ("http://", 80) };
    let target = head.target();
    let query = target.iter().position(|&b| b == b'?').map(|at| &target[at..]);
    let mut location = String::new();
    let host = head.host_name();
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~:[]".contains(b);
    if !host.is_empty() && host.iter().all(is_plain) {
        location.push_str(scheme);
        escape(&mut location, host, b"-._~:[]");
        if let Some(port) =
            head.host_port().filter(|p| settings.port_in_redirect && *p != usual_port)
        {
            location.push_str(&format!(":{port}"));
        }
    }
    escape(&mut location, path.as_bytes(), b"/-._~!$&'()*+,;=:@");
    location.push('/');
    // `%` is allowed: what is encoded in a query stays as it is.
    escape(&mut location, query.unwrap_or_default(), b"?/-._~!$&'()*+,;=:@%[]|");
    location
}

/// Appends text; bytes that are neither letters, digits nor `allowed` are percent-encoded.
fn escape(location: &mut String, text: &[u8], allowed: &[u8]) {
    for &byte in text {
        if byte.is_ascii_alphanumeric() || allowed.contains(&byte) {
            location.push(byte as char);
        } else {
            location.push_str(&format!("%{byte:02X}"));
        }
    }
}
