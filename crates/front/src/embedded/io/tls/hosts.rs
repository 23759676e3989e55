//! Which certificate a client gets: by the name of the host that it asks for (SNI).

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::files::Certificate;

/// The certificates, by the names that they are for.
#[derive(Debug, Default)]
pub struct Hosts {
    /// For clients that name no host, or an unknown one.
    default: Option<Arc<Certificate>>,
    exact: HashMap<String, Vec<Arc<Certificate>>, foldhash::fast::RandomState>,
    /// By what is behind `*.`.
    wildcards: HashMap<String, Vec<Arc<Certificate>>, foldhash::fast::RandomState>,
}

impl Hosts {
    /// Of several certificates for one name the first wins whose key the client can verify: so a
    /// host may have one for ECDSA and one for RSA.
    pub fn new(
        default: Option<Arc<Certificate>>,
        certificates: impl IntoIterator<Item = Arc<Certificate>>,
    ) -> Self {
        let mut hosts = Self { default, ..Self::default() };
        for certificate in certificates {
            for name in &certificate.names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut hosts.wildcards, parent),
                    None => (&mut hosts.exact, name.as_str()),
                };
                map.entry(name.to_string()).or_default().push(certificate.clone());
            }
        }
        hosts
    }

    /// The certificates for a name: those with the name itself, or else those with a wildcard in
    /// place of its first label (RFC 6125, 6.4.3).
    pub fn of(&self, name: &str) -> &[Arc<Certificate>] {
        let parent = || self.wildcards.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(parent).map_or(&[], Vec::as_slice)
    }

    fn find(
        &self,
        name: Option<&str>,
        fits: impl Fn(&Certificate) -> bool,
    ) -> Option<&Certificate> {
        let named = name.map_or(&[][..], |name| self.of(name));
        let fitting = named.iter().find(|certificate| fits(certificate));
        Some(fitting.or(named.first()).or(self.default.as_ref())?)
    }
}

impl ResolvesServerCert for Hosts {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let fits =
            |certificate: &Certificate| certificate.certified.key.choose_scheme(schemes).is_some();
        Some(self.find(name.as_deref(), fits)?.certified.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate for these names; its key does not matter.
    fn certificate(names: &[&str]) -> Arc<Certificate> {
        let der = rustls::pki_types::PrivateKeyDer::Pkcs8(
            aws_lc_rs::signature::EcdsaKeyPair::generate(
                &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING,
            )
            .unwrap()
            .to_pkcs8v1()
            .unwrap()
            .as_ref()
            .to_vec()
            .into(),
        );
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).unwrap();
        Arc::new(Certificate {
            certified: Arc::new(CertifiedKey::new(Vec::new(), key)),
            names: names.iter().map(ToString::to_string).collect(),
            not_after: None,
            copy: None,
        })
    }

    #[test]
    fn a_name_finds_its_certificate_before_a_wildcard_and_an_unknown_one_the_default() {
        let all = [
            &["default.example.org"][..],
            &["*.example.org", "example.org"],
            &["a.example.org", "xn--bcher-kva.example"],
            &["*.a.example.org"],
        ]
        .map(certificate);
        let hosts = Hosts::new(Some(all[0].clone()), all);
        for (name, first) in [
            (None, "default.example.org"),
            (Some("elsewhere.example"), "default.example.org"),
            (Some("example.org"), "*.example.org"),
            (Some("b.example.org"), "*.example.org"),
            (Some("a.example.org"), "a.example.org"),
            (Some("x.a.example.org"), "*.a.example.org"),
            (Some("x.y.a.example.org"), "default.example.org"),
            (Some("xn--bcher-kva.example"), "a.example.org"),
            (Some("org"), "default.example.org"),
            (Some(""), "default.example.org"),
            (Some("."), "default.example.org"),
        ] {
            let found = hosts.find(name, |_| true).unwrap();
            assert_eq!(found.names[0], first, "{name:?}");
        }
        assert!(Hosts::default().find(Some("a"), |_| true).is_none());
    }

    #[test]
    fn of_several_certificates_for_a_name_the_client_gets_one_that_it_can_verify() {
        let all = [certificate(&["a", "1"]), certificate(&["a", "2"])];
        let hosts = Hosts::new(None, all);
        let found = |wanted: &str| {
            let is = |one: &Certificate| one.names[1] == wanted;
            hosts.find(Some("a"), is).unwrap().names[1].clone()
        };
        assert_eq!((found("1"), found("2"), found("none")), ("1".into(), "2".into(), "1".into()));
    }
}
