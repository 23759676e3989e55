//! Requests that come in clear where TLS is wanted.

use mfserv_core::tls::TlsSettings;
use mfserv_h1::RequestHead;

use crate::embedded::clients::answer;
use crate::embedded::clients::exchange::Exchange;
use crate::embedded::clients::fault::{Cause, Fault};

/// True if the client has to come again over TLS. One behind a proxy that says it speaks TLS has
/// done so; one over a unix socket is on this machine.
pub fn has_to_come_again(exchange: &Exchange<'_>) -> bool {
    let redirects = exchange.settings().tls.as_ref().is_some_and(|tls| tls.redirect);
    redirects
        && !exchange.is_secure()
        && exchange.reached_port().is_some()
        && !exchange.is_by_proxy_over_tls()
}

/// Redirects to the TLS listener: the same URL with its scheme and port. A request that changes
/// something is sent again as it is (308).
///
/// # Errors
/// [`Cause::BadRequest`] if the client has named no host that can be written into a URL.
pub fn redirect(exchange: &mut Exchange<'_>) -> Result<(), Fault> {
    let head = exchange.request();
    let tls = exchange.settings().tls.as_ref();
    let location = tls.and_then(|tls| location(head, tls)).ok_or(Cause::BadRequest(400))?;
    let is_read = matches!(head.method(), b"GET" | b"HEAD");
    let status = if is_read { 301 } else { 308 };
    answer::put_page(exchange, (status, "https"), &[("Location", &location)]);
    Ok(())
}

fn location(head: &RequestHead, tls: &TlsSettings) -> Option<String> {
    let host = std::str::from_utf8(head.host_name()).ok().filter(|host| !host.is_empty())?;
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    if !host.bytes().all(is_plain) {
        return None;
    }
    let mut location = format!("https://{host}");
    if tls.port != 443 {
        location.push_str(&format!(":{}", tls.port));
    }
    for &byte in head.target() {
        match byte {
            b'!'..=b'~' if !b"\"<>\\^`{}".contains(&byte) => location.push(char::from(byte)),
            _ => location.push_str(&format!("%{byte:02X}")),
        }
    }
    Some(location)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_leads_to_the_same_url_over_tls() {
        let tls = |port| TlsSettings {
            port,
            certificate: "/c".into(),
            key: "/k".into(),
            directory: None,
            versions: Vec::new(),
            ciphers: Vec::new(),
            client_certificates: Default::default(),
            client_authorities: None,
            redirect: true,
            strict_transport: None,
            ticket_keys: None,
        };
        for (target, host, port, expected) in [
            ("/a?b=c", "h", 443, Some("https://h/a?b=c")),
            ("/a%20b", "h:18868", 8443, Some("https://h:8443/a%20b")),
            ("//evil/\"", "[::1]:80", 443, Some("https://[::1]//evil/%22")),
            ("/", "a/b", 443, None),
        ] {
            let mut head = RequestHead::default();
            let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let found =
                head.read(text.as_bytes(), 100).ok().and_then(|()| location(&head, &tls(port)));
            assert_eq!(found.as_deref(), expected, "{target} {host}");
        }
    }
}
