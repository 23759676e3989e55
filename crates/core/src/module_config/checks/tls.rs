//! What is wrong or doubtful in the keys of TLS together.

use super::{Checks, is_set};
use crate::diagnostic::Diagnostic;
use crate::keys::{
    FRONT_CLIENT_AUTHORITIES, FRONT_CLIENT_CERTIFICATES, FRONT_HSTS_MAX_AGE_S,
    FRONT_HSTS_SUBDOMAINS, FRONT_HTTPS_REDIRECT,
};
use crate::tls::{self, ClientCertificates};

/// Keys that are about the TLS listener alone.
const OF_TLS: [(&str, &str); 9] = [
    ("nginx", "ssl_certificate"),
    ("nginx", "ssl_certificate_key"),
    ("nginx", "ssl_ciphers"),
    ("nginx", "ssl_protocols"),
    ("front", "tls_certificates"),
    ("front", "tls_client_authorities"),
    ("front", "tls_client_certificates"),
    ("front", "https_redirect"),
    ("front", "hsts_max_age"),
];

pub(super) fn check(all: &Checks<'_>) -> Vec<Diagnostic> {
    if all.config.tls_addresses().is_empty() {
        return without_listener(all);
    }
    [missing(all), same_port(all), left_out(all), of_clients(all), of_redirects(all)].concat()
}

/// Keys that have no effect because nothing listens for TLS.
fn without_listener(all: &Checks<'_>) -> Vec<Diagnostic> {
    let set = OF_TLS.iter().filter_map(|(section, key)| all.value(section, key));
    let meant = set.filter(|value| is_set(value) && !matches!(&*value.value, "0" | "off"));
    let warn = |value: &crate::layers::Value| {
        Diagnostic::warning(format!("[{}] {} has no effect", value.section, value.key))
            .because("nothing listens for TLS: [nginx] https_port is not set")
            .at(value.origin.location())
            .help("set [nginx] https_port, or remove it")
    };
    meant.map(warn).collect()
}

/// A listener without a certificate: the node would be without TLS, or in clear.
fn missing(all: &Checks<'_>) -> Vec<Diagnostic> {
    let (certificate, key) = all.config.certificate();
    let mut found = Vec::new();
    for (name, is_there) in
        [("ssl_certificate", certificate.is_some()), ("ssl_certificate_key", key.is_some())]
    {
        if !is_there {
            let what = format!("[nginx] https_port is set, and {name} is not");
            let why = "without both files the TLS listener could serve nobody";
            let problem = all.error(("nginx", "https_port"), what, why);
            found.push(problem.help(format!("write {name}=/PATH/TO/FILE.pem, or https_port=null")));
        }
    }
    found
}

fn same_port(all: &Checks<'_>) -> Vec<Diagnostic> {
    let (plain, tls) = (all.config.listen_addresses(), all.config.tls_addresses());
    let is_same = !plain.is_empty() && plain == tls;
    let problem = is_same.then(|| {
        let what = "[nginx] https_port is the same as port".to_string();
        let why = "a listener speaks TLS or does not";
        all.error(("nginx", "https_port"), what, why).help("choose another port, or port=0")
    });
    problem.into_iter().collect()
}

/// Words of the lists that the front does not offer.
fn left_out(all: &Checks<'_>) -> Vec<Diagnostic> {
    let value = |key| all.value("nginx", key).filter(|value| is_set(value));
    let versions = value("ssl_protocols").and_then(|value| {
        Some((value, tls::versions(value.value.trim()).ok()?.left_out, "they are broken"))
    });
    let ciphers = value("ssl_ciphers").and_then(|value| {
        let why = "they are not known, or lack forward secrecy or authenticated encryption";
        Some((value, tls::ciphers(value.value.trim()).ok()?.left_out, why))
    });
    let found = versions.into_iter().chain(ciphers).filter(|(_, left_out, _)| !left_out.is_empty());
    let warn = |(value, left_out, why): (&crate::layers::Value, Vec<String>, &str)| {
        let what = format!("[nginx] {}: {} not offered", value.key, left_out.join(", "));
        Diagnostic::warning(what)
            .because(why)
            .at(value.origin.location())
            .help("remove them: the others of the list are offered")
    };
    found.map(warn).collect()
}

fn of_clients(all: &Checks<'_>) -> Vec<Diagnostic> {
    let asks = all.config.get(FRONT_CLIENT_CERTIFICATES) != ClientCertificates::Off;
    let has_authorities = all.config.get(FRONT_CLIENT_AUTHORITIES).is_some();
    let problem = match (asks, has_authorities) {
        (true, false) => {
            let what = "[front] tls_client_certificates is set, and tls_client_authorities is not";
            let why = "nobody would vouch for any client";
            let key = ("front", "tls_client_certificates");
            let problem = all.error(key, what.into(), why);
            Some(problem.help("write tls_client_authorities=/PATH/TO/CA.pem"))
        }
        (false, true) => {
            let what = "[front] tls_client_authorities has no effect";
            let problem = Diagnostic::warning(what).because("no client is asked for a certificate");
            let problem = problem.help("write tls_client_certificates=required, or optional");
            Some(all.at(problem, "front", "tls_client_authorities"))
        }
        _ => None,
    };
    problem.into_iter().collect()
}

fn of_redirects(all: &Checks<'_>) -> Vec<Diagnostic> {
    let config = all.config;
    let mut found = Vec::new();
    if config.get(FRONT_HTTPS_REDIRECT) && config.listen_addresses().is_empty() {
        let problem = Diagnostic::warning("[front] https_redirect has no effect")
            .because("nothing listens in clear: [nginx] port is 0")
            .help("remove it, or set [nginx] port");
        found.push(all.at(problem, "front", "https_redirect"));
    }
    if config.get(FRONT_HSTS_SUBDOMAINS) && config.get(FRONT_HSTS_MAX_AGE_S) == 0 {
        let problem = Diagnostic::warning("[front] hsts_subdomains has no effect")
            .because("hsts_max_age is 0: no answer has Strict-Transport-Security")
            .help("set hsts_max_age, or remove it");
        found.push(all.at(problem, "front", "hsts_subdomains"));
    }
    found
}

#[cfg(test)]
mod tests {
    use crate::module_config::checks::tests::said;

    const GOOD: &str = "[nginx]\nhttps_port=443\nssl_certificate=/c\nssl_certificate_key=/k\n";

    #[test]
    fn a_listener_with_a_certificate_needs_no_word() {
        assert_eq!(said(GOOD), [""; 0]);
        let all = "ssl_protocols=TLSv1.2 TLSv1.3\nssl_ciphers=HIGH:!aNULL\n[front]\n\
            tls_certificates=/d\ntls_client_certificates=required\ntls_client_authorities=/a\n\
            https_redirect=1\nhsts_max_age=60\nhsts_subdomains=1";
        assert_eq!(said(&format!("{GOOD}{all}")), [""; 0]);
        assert_eq!(said("[nginx]\nhttps_port=null\n[front]\nhttps_redirect=0"), [""; 0]);
    }

    #[test]
    fn a_listener_that_could_serve_nobody_is_refused() {
        let missing = said("[nginx]\nhttps_port=443");
        assert_eq!(
            missing,
            [
                "![nginx] https_port is set, and ssl_certificate is not",
                "![nginx] https_port is set, and ssl_certificate_key is not"
            ]
        );
        assert_eq!(said("[nginx]\nhttps_port=443\nssl_certificate=/dev/null").len(), 2);
        let same = said(&format!("{GOOD}port=443"));
        assert_eq!(same, ["![nginx] https_port is the same as port"]);
        let nobody = said(&format!("{GOOD}[front]\ntls_client_certificates=required"));
        assert_eq!(
            nobody,
            ["![front] tls_client_certificates is set, and tls_client_authorities is not"]
        );
    }

    #[test]
    fn what_is_not_offered_and_what_has_no_effect_is_said() {
        for (text, expected) in [
            ("ssl_protocols=TLSv1.1 TLSv1.2", "[nginx] ssl_protocols: TLSv1.1 not offered"),
            (
                "ssl_ciphers=ECDHE-RSA-AES128-GCM-SHA256:AES128-SHA",
                "[nginx] ssl_ciphers: AES128-SHA not offered",
            ),
            ("ssl_protocols=SSLv3", "![nginx] ssl_protocols has a wrong value"),
            ("ssl_ciphers=AES128-SHA", "![nginx] ssl_ciphers has a wrong value"),
            ("[front]\ntls_client_authorities=/a", "[front] tls_client_authorities has no"),
            ("[front]\nhsts_subdomains=1", "[front] hsts_subdomains has no effect"),
            ("port=0\n[front]\nhttps_redirect=1", "[front] https_redirect has no effect"),
        ] {
            let found = said(&format!("{GOOD}{text}"));
            assert!(found.len() == 1 && found[0].starts_with(expected), "{text}: {found:?}");
        }
        for (section, key) in super::OF_TLS {
            let value = match key {
                "ssl_ciphers" => "CHACHA20",
                "ssl_protocols" => "TLSv1.3",
                "tls_client_certificates" => "optional",
                "https_redirect" | "hsts_max_age" => "1",
                _ => "/x",
            };
            let found = said(&format!("[{section}]\n{key}={value}"));
            assert_eq!(found, [format!("[{section}] {key} has no effect")]);
        }
    }
}
