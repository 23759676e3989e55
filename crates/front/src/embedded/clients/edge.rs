//! What nginx says of its clients, where it is the edge of the node and this front answers it.
//!
//! Each request has one field, `X-Mfserv-Edge: KEY ADDRESS PORT ADDRESS-OF-THE-NODE PORT-OF-THE-NODE`. The key is known
//! to that nginx alone: a fragment of its configuration that passes a client's own field on gives
//! nobody the rights of a client on this machine. Where nginx speaks TLS, two words follow:
//! the scheme (`http` or `https`), and the verified certificate of the client, or `-`.

use std::net::{IpAddr, SocketAddr};

use mfserv_h1::{Name, Refusal, RequestHead};

use super::connection::Ends;
use crate::embedded::io::tls::Identity;

/// The location that has nginx end the connection of its client without an answer: this front says it
/// in `X-Accel-Redirect`, and no app may.
pub const EDGE_END: &str = "@mfserv_end";
/// Locations of nginx that begin so are the front's alone.
pub const OWN_LOCATIONS: &str = "@mfserv_";

/// Who has connected to nginx, for this request, and who that is as an authority says.
pub fn ends_of(head: &RequestHead, key: &str) -> Result<(Ends, Option<Identity>), Refusal> {
    let mut values = head.fields.values(Name::Edge);
    let said = values.next().filter(|_| values.next().is_none()).and_then(|value| {
        let mut words = std::str::from_utf8(value).ok()?.split(' ');
        let (said_key, address) = (words.next()?, words.next()?);
        if key.is_empty() || said_key != key {
            return None;
        }
        let address = address.parse::<IpAddr>().ok()?;
        let port = |word: Option<&str>| word?.parse::<u16>().ok();
        let client = SocketAddr::new(address, port(words.next())?);
        let reached = Some(words.next()?.parse::<IpAddr>().ok()?);
        let port = port(words.next());
        let is_tls = words.next() == Some("https");
        let identity = match words.next().filter(|word| *word != "-") {
            Some(certificate) => Some(Identity::of_escaped_pem(certificate.as_bytes())?),
            None => None,
        };
        Some((Ends { client: Some(client), reached, port, is_tls, is_edge: true }, identity))
    });
    let said =
        said.ok_or(Refusal { status: 400, reason: "nginx does not say for whom it asks" })?;
    // OpenSSL does not verify it again when a session is resumed or a connection is kept.
    match &said.1 {
        Some(identity) if identity.has_expired() => {
            Err(Refusal { status: 400, reason: "the certificate of the client has expired" })
        }
        _ => Ok(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(fields: &str) -> Option<(String, Option<u16>)> {
        let mut head = RequestHead::default();
        head.read(format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n").as_bytes(), 100).unwrap();
        let (ends, identity) = ends_of(&head, "k").ok()?;
        assert!(!ends.is_tls && identity.is_none());
        Some((ends.client?.to_string(), ends.port))
    }

    #[test]
    fn only_one_field_with_the_key_says_who_asks() {
        for (fields, expected) in [
            ("X-Mfserv-Edge: k 1.2.3.4 56 ::2 80\r\n", Some(("1.2.3.4:56", Some(80)))),
            ("X-Mfserv-Edge: k ::1 56 ::2 80\r\n", Some(("[::1]:56", Some(80)))),
            ("", None),
            ("X-Mfserv-Edge: other 1.2.3.4 56 ::2 80\r\n", None),
            ("X-Mfserv-Edge: 1.2.3.4 56 ::2 80\r\n", None),
            ("X-Mfserv-Edge: k nonsense 56 ::2 80\r\n", None),
            ("X-Mfserv-Edge: k 1.2.3.4\r\n", None),
            ("X-Mfserv-Edge: k 1.2.3.4 56 80\r\n", None),
            ("X-Mfserv-Edge: k 1.2.3.4 56 ::2 80 http -\r\n", Some(("1.2.3.4:56", Some(80)))),
            ("X-Mfserv-Edge: k 1.2.3.4 56 ::2 80 https nonsense\r\n", None),
            ("X-Mfserv-Edge: k 1.2.3.4 56 ::2 80 https %-1%x\r\n", None),
            ("X-Mfserv-Edge: k 1.2.3.4 1 ::2 2\r\nX-Mfserv-Edge: k 1.2.3.4 1 ::2 2\r\n", None),
        ] {
            let expected = expected.map(|(address, port)| (address.to_string(), port));
            assert_eq!(said(fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_front_without_a_key_believes_nobody() {
        let mut head = RequestHead::default();
        let text = "GET / HTTP/1.1\r\nHost: h\r\nX-Mfserv-Edge:  1.2.3.4 5 ::2 6\r\n\r\n";
        head.read(text.as_bytes(), 100).unwrap();
        assert!(ends_of(&head, "").is_err());
    }
}
