//! The part of the configuration that is about TLS.

use std::collections::BTreeSet;
use std::path::Path;

use mfserv_core::tls::{ClientCertificates, TlsSettings, Version};

use super::Writer;
use crate::nginx::text::{Text, literally, quoted, quoted_path};

/// Words that have a meaning of their own in `map`.
const WORDS_OF_MAP: [&str; 4] = ["default", "hostnames", "include", "volatile"];

impl Writer<'_> {
    /// The settings, if nginx listens for TLS.
    pub(super) fn tls(&self) -> Option<&TlsSettings> {
        self.server.tls.as_ref().filter(|_| !self.site.listen_tls.is_empty())
    }

    /// True if clients are asked for certificates.
    fn asks(&self) -> bool {
        self.tls().is_some_and(|tls| tls.client_certificates != ClientCertificates::Off)
    }

    /// What follows the ends of a connection in the field for the front behind nginx.
    pub(super) fn edge_words(&self) -> &'static str {
        match (self.tls().is_some(), self.asks()) {
            (false, _) => "",
            (true, false) => " $scheme",
            (true, true) => " $scheme $mfserv_certificate_of_client",
        }
    }

    /// What is made of the client's hello.
    pub(super) fn tls_variables(&self, text: &mut Text) {
        if self.chooses() {
            // nginx takes these two lines only before the first map.
            let names = self.site.copied.by_name.len();
            text.line(format!("map_hash_max_size {};", names.max(1024) * 2));
            // A name has up to 253 characters.
            text.line("map_hash_bucket_size 512;");
        }
        if self.asks() {
            text.block("map $ssl_client_verify $mfserv_certificate_of_client", |text| {
                text.line("default -;");
                text.line("SUCCESS $ssl_client_escaped_cert;");
            });
        }
        let copied = &self.site.copied;
        let Some(first) = copied.first.as_deref().filter(|_| self.chooses()) else { return };
        for kind in 0..self.kinds_of_key() {
            text.block(&format!("map $ssl_server_name $mfserv_certificate_{kind}"), |text| {
                text.line(format!("default {};", quoted_path(first)));
                for (name, copies) in &copied.by_name {
                    let Some(copy) = copies.get(kind).or(copies.first()) else { continue };
                    text.line(format!("{} {};", pattern(name), quoted_path(copy)));
                }
            });
        }
    }

    /// The scheme that a client speaks, to a proxy that is believed or to nginx, and what follows from it
    /// for answers that nginx gives itself: they are those of the front behind it.
    pub(super) fn schemes(&self, text: &mut Text) {
        let Some(tls) = self.tls() else { return };
        match &self.server.real_ip {
            // The proxies are known, and nobody else is believed.
            Some(real_ip) => {
                // realip puts another address in the place of that of a proxy.
                let peer = if self.site.has_real_ip { "realip_remote_addr" } else { "remote_addr" };
                text.block(&format!("geo ${peer} $mfserv_is_proxy"), |text| {
                    text.line("default 0;");
                    for network in real_ip.proxies.iter().collect::<BTreeSet<_>>() {
                        text.line(format!("{network} 1;"));
                    }
                });
                text.block(
                    "map \"$mfserv_is_proxy|$http_x_forwarded_proto\" $mfserv_scheme",
                    |text| {
                        text.line("default $scheme;");
                        text.line("\"~*^1\\|https$\" https;");
                    },
                );
            }
            None => text.block("map $http_x_forwarded_proto $mfserv_scheme", |text| {
                text.line("default $scheme;");
                text.line("\"~*^https$\" https;");
            }),
        }
        if let Some(value) = &tls.strict_transport {
            text.block("map \"$mfserv_answers$mfserv_scheme\" $mfserv_strict_transport", |text| {
                text.line("default \"\";");
                text.line(format!("1https {};", quoted(value)));
            });
        }
        if tls.redirect {
            // A client on a unix socket is on this machine.
            text.block(
                "map \"$server_addr $mfserv_scheme$request_method\" $mfserv_moves",
                |text| {
                    text.line("default \"\";");
                    text.line("\"~^unix:\" \"\";");
                    text.line("\"~ http(GET|HEAD)$\" 301;");
                    text.line("\"~ http[A-Z]+$\" 308;");
                },
            );
        }
    }

    /// Sends requests in clear to the listener for TLS, where that is wanted.
    pub(super) fn moves(&self, text: &mut Text) {
        let Some(tls) = self.tls().filter(|tls| tls.redirect) else { return };
        let port = if tls.port == 443 { String::new() } else { format!(":{}", tls.port) };
        for status in [301, 308] {
            text.line(format!(
                "if ($mfserv_moves = {status}) {{ return {status} https://$host{port}$request_uri; }}"
            ));
        }
    }

    /// How many certificates with keys of other kinds a name has at most.
    fn kinds_of_key(&self) -> usize {
        self.site.copied.by_name.iter().map(|(_, copies)| copies.len()).max().unwrap_or(1)
    }

    /// True if the certificate depends on the name that a client asks for.
    fn chooses(&self) -> bool {
        let copied = &self.site.copied;
        self.tls().is_some()
            && copied
                .by_name
                .iter()
                .flat_map(|(_, copies)| copies)
                .any(|copy| Some(copy) != copied.first.as_ref())
    }

    /// The directives of a server.
    pub(super) fn tls_server(&self, text: &mut Text) {
        let copied = &self.site.copied;
        // Nobody is let in unasked where clients are to be asked.
        let is_whole = !self.asks() || copied.authorities.is_some();
        let (Some(tls), Some(first), true) = (self.tls(), copied.first.as_deref(), is_whole) else {
            if !self.site.listen_tls.is_empty() {
                text.line("ssl_reject_handshake on;");
            }
            return;
        };
        self.certificate(text, first);
        offers(text, tls);
        text.line("ssl_session_cache shared:mfserv_tls:4m;");
        text.line("ssl_session_timeout 12h;");
        for key in &copied.ticket_keys {
            text.line(format!("ssl_session_ticket_key {};", quoted_path(key)));
        }
        let verify = match tls.client_certificates {
            ClientCertificates::Off => return,
            ClientCertificates::Optional => "optional",
            ClientCertificates::Required => "on",
        };
        if let Some(authorities) = &copied.authorities {
            text.line(format!("ssl_client_certificate {};", quoted_path(authorities)));
            text.line(format!("ssl_verify_client {verify};"));
            text.line("ssl_verify_depth 8;");
        }
    }

    fn certificate(&self, text: &mut Text, first: &Path) {
        let stems: Vec<String> = match self.chooses() {
            true => (0..self.kinds_of_key())
                .map(|kind| format!("${{mfserv_certificate_{kind}}}"))
                .collect(),
            false => vec![first.display().to_string()],
        };
        for stem in stems {
            text.line(format!("ssl_certificate {};", quoted(&format!("{stem}.pem"))));
            text.line(format!("ssl_certificate_key {};", quoted(&format!("{stem}.key"))));
        }
    }
}

/// The name of a certificate as `map` has it. A wildcard stands for one label (RFC 6125, 6.4.3);
/// that of nginx's own names stands for several.
fn pattern(name: &str) -> String {
    match name.strip_prefix("*.") {
        Some(parent) => quoted(&format!("~^[^.]+\\.{}$", literally(parent))),
        None if WORDS_OF_MAP.contains(&name) => format!("\\{name}"),
        None => quoted(name),
    }
}

/// Versions and ciphers. A version without a cipher of its own is not offered.
fn offers(text: &mut Text, tls: &TlsSettings) {
    let is_1_3 = |suite: &&String| suite.starts_with("TLS_");
    let of = |wanted: bool| {
        let those = tls.ciphers.iter().filter(|suite| is_1_3(suite) == wanted);
        those.map(String::as_str).collect::<Vec<_>>().join(":")
    };
    let (older, newer) = (of(false), of(true));
    let mut versions = Vec::new();
    for version in &tls.versions {
        match version {
            Version::V1_2 if !older.is_empty() => versions.push("TLSv1.2"),
            Version::V1_3 if !newer.is_empty() => versions.push("TLSv1.3"),
            _ => {}
        }
    }
    if !versions.is_empty() {
        text.line(format!("ssl_protocols {};", versions.join(" ")));
    }
    if !older.is_empty() {
        text.line(format!("ssl_ciphers {};", quoted(&older)));
    }
    if !newer.is_empty() {
        text.line(format!("ssl_conf_command Ciphersuites {};", quoted(&newer)));
    }
    text.line("ssl_prefer_server_ciphers on;");
}
