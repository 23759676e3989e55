//! Who a client is, as its certificate says: the fields that its requests get.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use webpki::EndEntityCert;

use super::names;
use crate::embedded::io::clock;

/// The fields of requests of a client with a verified certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Whole lines of a head.
    fields: Vec<u8>,
    /// When the certificate ends, seconds since the Unix epoch.
    not_after: Option<i64>,
}

/// The line of a client that has shown no certificate.
pub const NOBODY: &[u8] = b"X-SSL-Client-Verify: NONE\r\n";

/// True for the name of a field that says who the client is. Only the front may send one: an app
/// believes it. `-` and `_` count as the same, since WSGI makes one variable of both.
pub fn is_of_identity(name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"x-ssl-client-";
    const WHOLE: [&[u8]; 2] = [b"client-cert", b"client-cert-chain"];
    let as_written = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    let is = |wanted: &[u8]| name.iter().map(as_written).eq(wanted.iter().copied());
    let start = name.get(..PREFIX.len()).unwrap_or_default();
    start.iter().map(as_written).eq(PREFIX.iter().copied()) || WHOLE.iter().any(|name| is(name))
}

impl Identity {
    /// The identity of a verified certificate: the result, both names as RFC 2253 writes
    /// them, the serial number (nginx's `$ssl_client_…`), and the certificate (RFC 9440).
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut fields = b"X-SSL-Client-Verify: SUCCESS\r\n".to_vec();
        let mut put = |name: &str, value: &str| {
            fields.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        };
        // What a verifier has accepted can be read.
        if let Ok(read) = EndEntityCert::try_from(certificate) {
            put("X-SSL-Client-S-DN", &names::distinguished_name(read.subject()));
            put("X-SSL-Client-I-DN", &names::distinguished_name(read.issuer()));
            put("X-SSL-Client-Serial", &names::serial(read.serial()));
        }
        put("Client-Cert", &format!(":{}:", names::base64(certificate)));
        Self { fields, not_after: names::not_after(certificate) }
    }

    /// The same of a certificate as nginx writes it in `$ssl_client_escaped_cert`: PEM, in which
    /// bytes are written as in URLs. `None` for what is none.
    pub fn of_escaped_pem(escaped: &[u8]) -> Option<Self> {
        let mut pem = Vec::with_capacity(escaped.len());
        let mut rest = escaped;
        while let Some((&byte, after)) = rest.split_first() {
            let (digits, after) = match byte {
                b'%' => after.split_at_checked(2)?,
                _ => (&[][..], after),
            };
            pem.push(match byte {
                b'%' => u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?,
                byte => byte,
            });
            rest = after;
        }
        Some(Self::of(&CertificateDer::from_pem_slice(&pem).ok()?))
    }

    /// True if the certificate was good once and is no more. A session that is resumed, and a
    /// connection that is kept, have nobody verify it again.
    pub fn has_expired(&self) -> bool {
        self.not_after.is_some_and(|end| end < clock::unix_seconds())
    }

    /// The lines.
    pub fn fields(&self) -> &[u8] {
        &self.fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_say_who_a_client_is_are_known_however_they_are_written() {
        for name in ["X-SSL-Client-Verify", "x_ssl_client_s_dn", "CLIENT-CERT", "client_cert_chain"]
        {
            assert!(is_of_identity(name.as_bytes()), "{name}");
        }
        for name in ["X-SSL-Client", "Client-Certs", "X-Client-Cert", "Cookie", ""] {
            assert!(!is_of_identity(name.as_bytes()), "{name}");
        }
    }
}
