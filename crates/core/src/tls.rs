//! TLS of the front: what the keys `ssl_protocols` and `ssl_ciphers` mean, and the settings that a
//! front gets.
//!
//! Both keys are written as OpenSSL and nginx write them. The front offers TLS 1.2 and 1.3 with
//! forward secrecy and authenticated encryption only, so a list chooses among these; what is
//! known and unsafe is left out with a warning, and a list of which nothing is left is refused.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A version of TLS that the front can offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Version {
    /// TLS 1.2 (RFC 5246).
    #[serde(rename = "TLSv1.2")]
    V1_2,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "TLSv1.3")]
    V1_3,
}

/// The value of `ssl_protocols` that MFSERV had by default. It names versions that were unsafe
/// already, and means what the front offers: nobody who has left the default chose them.
pub const DEFAULT_VERSIONS: &str = "TLSv1 TLSv1.1 TLSv1.2";
/// The value of `ssl_ciphers` that MFSERV had by default. It means all that the front offers.
pub const DEFAULT_CIPHERS: &str = "HIGH:!aNULL:!MD5";

/// Versions that OpenSSL knows and the front never offers.
const UNSAFE_VERSIONS: [&str; 4] = ["SSLv2", "SSLv3", "TLSv1", "TLSv1.1"];

/// The cipher suites of the front, those that it prefers first: the names of OpenSSL.
pub const SUITES: [&str; 9] = [
    "TLS_AES_256_GCM_SHA384",
    "TLS_AES_128_GCM_SHA256",
    "TLS_CHACHA20_POLY1305_SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-CHACHA20-POLY1305",
];

/// Words of cipher lists that select nothing among [`SUITES`], and are usual as exclusions.
const NOTHING_OF_OURS: [&str; 24] = [
    "ANULL", "ENULL", "NULL", "MD5", "RC4", "DES", "3DES", "EXPORT", "EXP", "LOW", "MEDIUM", "PSK",
    "SRP", "DSS", "ADH", "AECDH", "CAMELLIA", "SEED", "IDEA", "ARIA", "SHA1", "SHA256", "SHA384",
    "KRSA",
];

/// A choice out of a list, and what of the list was left out because it is unsafe or unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen<T> {
    /// What is offered.
    pub offered: Vec<T>,
    /// The words that were left out.
    pub left_out: Vec<String>,
}

/// Reads `ssl_protocols`: names separated by blanks.
///
/// # Errors
/// Says why nothing can be offered, for a word that is no version, and for a list without a
/// version that is safe.
pub fn versions(text: &str) -> Result<Chosen<Version>, String> {
    if text == DEFAULT_VERSIONS {
        return Ok(Chosen { offered: vec![Version::V1_2, Version::V1_3], left_out: Vec::new() });
    }
    let mut chosen = Chosen { offered: Vec::new(), left_out: Vec::new() };
    for word in text.split_whitespace() {
        match word {
            "TLSv1.2" => chosen.offered.push(Version::V1_2),
            "TLSv1.3" => chosen.offered.push(Version::V1_3),
            _ if UNSAFE_VERSIONS.contains(&word) => chosen.left_out.push(word.into()),
            _ => return Err(format!("{word:?} is no version of TLS")),
        }
    }
    chosen.offered.sort_unstable();
    chosen.offered.dedup();
    match chosen.offered.is_empty() {
        true => Err("none of these versions is safe".into()),
        false => Ok(chosen),
    }
}

/// Reads `ssl_ciphers`: a list as ciphers(1) of OpenSSL describes it, with the operators `!`, `-`
/// and `+`. The suites of TLS 1.3 are offered whatever the list says, as OpenSSL does, unless
/// the list names some of them.
///
/// # Errors
/// Says so if nothing of the list can be offered.
pub fn ciphers(text: &str) -> Result<Chosen<&'static str>, String> {
    let mut chosen: Vec<&'static str> = Vec::new();
    let mut excluded: Vec<&'static str> = Vec::new();
    let mut left_out = Vec::new();
    let words = text.split([':', ',', ' ']).map(str::trim).filter(|word| !word.is_empty());
    for word in words {
        // The order by strength is that of the table already.
        if word.starts_with('@') {
            continue;
        }
        let operator = word.chars().next().filter(|first| "!-+".contains(*first));
        let name = operator.map_or(word, |_| &word[1..]);
        let found = matching(name);
        match operator {
            Some('!') => excluded.extend(&found),
            Some('-') => chosen.retain(|suite| !found.contains(suite)),
            // It only moves what is there to the end.
            Some(_) => {}
            _ if found.is_empty() => left_out.push(word.to_string()),
            _ => chosen.extend(found),
        }
    }
    let is_1_3 = |suite: &&str| suite.starts_with("TLS_");
    if !chosen.iter().any(is_1_3) {
        chosen.splice(0..0, SUITES.iter().filter(|suite| is_1_3(suite)).copied());
        if chosen.iter().all(is_1_3) {
            return Err("none of these ciphers has forward secrecy and authenticates".into());
        }
    }
    let mut offered = Vec::new();
    for suite in chosen {
        if !excluded.contains(&suite) && !offered.contains(&suite) {
            offered.push(suite);
        }
    }
    match offered.is_empty() {
        true => Err("the list excludes all that it names".into()),
        false => Ok(Chosen { offered, left_out }),
    }
}

/// The suites that a word of a list selects; `A+B` selects those that both do.
fn matching(word: &str) -> Vec<&'static str> {
    let parts: Vec<String> = word.split('+').map(str::to_ascii_uppercase).collect();
    let is_selected = |suite: &&&str| parts.iter().all(|part| selects(part, suite));
    SUITES.iter().filter(is_selected).copied().collect()
}

/// True if a word, in capitals, selects a suite.
fn selects(word: &str, suite: &str) -> bool {
    let is_1_3 = suite.starts_with("TLS_");
    let iana = format!("TLS_{}", suite.replace("-AES", "-WITH-AES_").replace('-', "_"));
    let iana = iana.replace("_CHACHA20_POLY1305", "_WITH_CHACHA20_POLY1305_SHA256");
    match word {
        _ if word == suite || (!is_1_3 && word == iana) => true,
        _ if NOTHING_OF_OURS.contains(&word) => false,
        // The suites of TLS 1.3 are chosen by name, not by class.
        _ if is_1_3 => false,
        "HIGH" | "ALL" | "DEFAULT" | "COMPLEMENTOFALL" | "ECDHE" | "EECDH" | "KECDHE"
        | "KEECDH" | "AEAD" | "TLSV1.2" => true,
        "ECDSA" | "AECDSA" => suite.contains("ECDSA"),
        "RSA" | "ARSA" => suite.contains("-RSA-"),
        "AES" | "AESGCM" => suite.contains("AES"),
        "AES128" | "AES256" => suite.contains(word),
        "CHACHA20" => suite.contains("CHACHA20"),
        _ => false,
    }
}

/// Who has to show a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificates {
    /// Nobody is asked.
    #[default]
    Off,
    /// Clients are asked; one without a certificate is served all the same.
    Optional,
    /// A client without a certificate of the authorities is refused.
    Required,
}

/// The TLS listener of a front.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsSettings {
    /// Its port.
    pub port: u16,
    /// The certificate for clients that name no host, or an unknown one: a PEM file, its chain
    /// behind it.
    pub certificate: PathBuf,
    /// The key of the certificate: a PEM file.
    pub key: PathBuf,
    /// A directory with further certificates.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// The versions that are offered.
    pub versions: Vec<Version>,
    /// The cipher suites that are offered, of [`SUITES`].
    pub ciphers: Vec<String>,
    /// Who has to show a certificate.
    #[serde(default)]
    pub client_certificates: ClientCertificates,
    /// The authorities that vouch for clients: a PEM file.
    #[serde(default)]
    pub client_authorities: Option<PathBuf>,
    /// Requests that come in clear are redirected.
    #[serde(default)]
    pub redirect: bool,
    /// The value of Strict-Transport-Security, if answers have it.
    #[serde(default)]
    pub strict_transport: Option<String>,
    /// The file of the keys of session tickets, which all fronts of a node share.
    #[serde(default)]
    pub ticket_keys: Option<PathBuf>,
}

/// The value of Strict-Transport-Security (RFC 6797); `None`: the field is not sent.
pub fn strict_transport(max_age_s: u64, subdomains: bool) -> Option<String> {
    let end = if subdomains { "; includeSubDomains" } else { "" };
    (max_age_s > 0).then(|| format!("max-age={max_age_s}{end}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_of_mfserv_means_the_versions_that_are_safe_without_a_word() {
        let both = vec![Version::V1_2, Version::V1_3];
        assert_eq!(versions(DEFAULT_VERSIONS), Ok(Chosen { offered: both, left_out: Vec::new() }));
    }

    #[test]
    fn versions_are_chosen_by_name_and_unsafe_ones_are_left_out_and_said() {
        for (text, offered, left_out) in [
            ("TLSv1.2", &[Version::V1_2][..], &[][..]),
            ("TLSv1.3  TLSv1.2 TLSv1.3", &[Version::V1_2, Version::V1_3], &[]),
            ("SSLv3 TLSv1 TLSv1.3", &[Version::V1_3], &["SSLv3", "TLSv1"]),
        ] {
            let chosen = versions(text).unwrap();
            assert_eq!(
                (&*chosen.offered, chosen.left_out),
                (offered, left_out.iter().map(ToString::to_string).collect()),
                "{text}"
            );
        }
        for (text, why) in [
            ("", "none of these"),
            ("TLSv1 TLSv1.1", "none of these"),
            ("TLSv1.2 TLS1.3", "\"TLS1.3\" is no version"),
        ] {
            assert!(versions(text).unwrap_err().contains(why), "{text}");
        }
    }

    #[test]
    fn the_default_list_and_its_like_mean_all_suites_of_the_front() {
        for text in [
            DEFAULT_CIPHERS,
            "ALL",
            "HIGH",
            "DEFAULT:@SECLEVEL=2",
            "EECDH+AESGCM:EECDH+CHACHA20:!aNULL:!MD5:!DSS:!3DES",
            "ECDHE:+AES128",
            // Of OpenSSL: suites with this HMAC, and AEAD suites have none.
            "ALL:!SHA256:!SHA384",
        ] {
            let chosen = ciphers(text).unwrap();
            assert_eq!(chosen.offered.len(), SUITES.len(), "{text}: {chosen:?}");
            assert!(chosen.left_out.is_empty(), "{text}: {chosen:?}");
        }
    }

    #[test]
    fn suites_are_chosen_by_name_and_class_in_the_order_of_the_list() {
        for (text, offered, left_out) in [
            (
                "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256:AES128-SHA",
                &["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"][..],
                &["AES128-SHA"][..],
            ),
            ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", &["ECDHE-RSA-AES256-GCM-SHA384"], &[]),
            (
                "CHACHA20+ECDSA:DHE-RSA-AES256-GCM-SHA384",
                &["ECDHE-ECDSA-CHACHA20-POLY1305"],
                &["DHE-RSA-AES256-GCM-SHA384"],
            ),
            ("HIGH:!AES:!ECDSA", &["ECDHE-RSA-CHACHA20-POLY1305"], &[]),
        ] {
            let chosen = ciphers(text).unwrap();
            assert_eq!(chosen.offered[..3], SUITES[..3], "{text}");
            assert_eq!(
                (&chosen.offered[3..], chosen.left_out),
                (offered, left_out.iter().map(ToString::to_string).collect()),
                "{text}"
            );
        }
        let only = ciphers("TLS_AES_128_GCM_SHA256").unwrap();
        assert_eq!(only.offered, ["TLS_AES_128_GCM_SHA256"]);
    }

    #[test]
    fn a_list_of_which_nothing_is_left_is_refused() {
        for text in [
            "",
            "AES128-SHA:DES-CBC3-SHA",
            "nonsense",
            "!HIGH",
            "RSA:!ARSA:!TLS_AES_256_GCM_SHA384:!TLS_AES_128_GCM_SHA256:!TLS_CHACHA20_POLY1305_SHA256",
        ] {
            assert!(ciphers(text).is_err(), "{text}");
        }
    }

    #[test]
    fn strict_transport_is_written_as_the_standard_says_or_not_at_all() {
        assert_eq!(strict_transport(0, true), None);
        assert_eq!(strict_transport(60, false).as_deref(), Some("max-age=60"));
        assert_eq!(strict_transport(60, true).as_deref(), Some("max-age=60; includeSubDomains"));
    }
}
