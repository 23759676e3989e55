//! Requests to one of several nodes.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::disk::failed;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, http};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a whole request may take: a node under load indexes a batch in seconds.
const REQUEST: Duration = Duration::from_secs(120);
/// The longest answer that is read, bytes.
const LONGEST_ANSWER: u64 = 64 * 1024 * 1024;
/// Where systems keep the certificates that they trust.
const SYSTEM_CERTIFICATES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Who asks.
#[derive(Clone)]
pub enum Credentials {
    /// Nobody in particular.
    None,
    /// A user and a password.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A key of Elasticsearch, as it encodes them.
    ApiKey(String),
    /// A token of InfluxDB 2.x.
    Token(String),
}

/// How the nodes are reached.
pub struct Target {
    /// `http://HOST:PORT` or `https://HOST:PORT`, with a path where a proxy wants one.
    pub nodes: Vec<String>,
    /// Who asks.
    pub credentials: Credentials,
    /// Certificates to trust instead of those of the system, a PEM file.
    pub authorities: Option<PathBuf>,
    /// Compress what is sent.
    pub gzip: bool,
}

/// An answer.
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

/// Some nodes that have the same data: the next one is asked when one fails.
pub struct Nodes {
    agent: Agent,
    nodes: Vec<String>,
    current: usize,
    authorization: Option<String>,
    gzip: bool,
}

impl Nodes {
    /// Nodes, none of them asked yet.
    ///
    /// # Errors
    /// Kind `Usage` for an address that is none, and for one with a password; what the system
    /// says about certificates that cannot be read.
    pub fn new(target: Target) -> Result<Self, Diagnostic> {
        let nodes: Vec<String> =
            target.nodes.iter().map(|url| check(url)).collect::<Result<_, _>>()?;
        let is_encrypted = nodes.iter().any(|url| url.starts_with("https:"));
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(REQUEST))
            .user_agent(concat!("mfserv/", env!("CARGO_PKG_VERSION")));
        if is_encrypted {
            config = config.tls_config(tls(target.authorities.as_deref())?);
        }
        Ok(Self {
            agent: config.build().into(),
            nodes,
            current: 0,
            authorization: authorization(&target.credentials),
            gzip: target.gzip,
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// The node that is asked next.
    pub fn current(&self) -> &str {
        &self.nodes[self.current]
    }

    /// From now on another node is asked.
    pub fn next(&mut self) {
        self.current = (self.current + 1) % self.nodes.len();
    }

    /// Sends a request with a body, and reads the answer.
    ///
    /// # Errors
    /// Why there was no whole answer. The node may have done what was asked all the same.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> Result<Answer, String> {
        let url = format!("{}{path}", self.current());
        let mut request = http::Request::builder().method(method).uri(url);
        if !body.is_empty() {
            request = request.header("Content-Type", kind);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let compressed = if self.gzip && !body.is_empty() { compress(body).ok() } else { None };
        if compressed.is_some() {
            request = request.header("Content-Encoding", "gzip");
        }
        let body = compressed.as_deref().unwrap_or(body);
        let failed = |e: ureq::Error| e.to_string();
        let request = request.body(body).map_err(|e| e.to_string())?;
        let mut response = self.agent.run(request).map_err(failed)?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(LONGEST_ANSWER);
        Ok(Answer { status, body: body.read_to_vec().map_err(failed)? })
    }
}

/// An address without its last slash.
fn check(url: &str) -> Result<String, Diagnostic> {
    let bad = |why: &str| {
        Diagnostic::error(format!("{url:?} is no address to send to"))
            .kind(Kind::Usage)
            .because(why)
            .help("write http://HOST:PORT or https://HOST:PORT")
    };
    let uri: http::Uri = url.parse().map_err(|_| bad("it cannot be understood"))?;
    let is_http = uri.scheme_str() == Some("http") || uri.scheme_str() == Some("https");
    if !is_http || uri.host().is_none_or(str::is_empty) {
        return Err(bad("it has no http:// or https:// and a host"));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(Diagnostic::error("an address must not have a password")
            .kind(Kind::Usage)
            .because("everybody on this machine can read the arguments of a process")
            .help("write --user NAME, and the password to MFSERV_SHIP_PASSWORD or a file"));
    }
    if uri.query().is_some() {
        return Err(bad("it has a query"));
    }
    Ok(url.trim_end_matches('/').to_string())
}

fn tls(authorities: Option<&Path>) -> Result<TlsConfig, Diagnostic> {
    let known = || SYSTEM_CERTIFICATES.iter().map(Path::new).find(|path| path.exists());
    let Some(file) = authorities.or_else(known) else {
        return Err(Diagnostic::error("this system has no list of certificates that it trusts")
            .help("install ca-certificates, or name a PEM file: --ca FILE, or ca of an alert"));
    };
    let pem = std::fs::read(file).map_err(|e| failed("read", file, e))?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(failed("use", file, "it has no certificate in PEM form"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(certificates)))
        .unversioned_rustls_crypto_provider(provider)
        .build())
}

fn authorization(credentials: &Credentials) -> Option<String> {
    match credentials {
        Credentials::None => None,
        Credentials::Basic { user, password } => {
            Some(format!("Basic {}", base64(format!("{user}:{password}").as_bytes())))
        }
        Credentials::ApiKey(key) => Some(format!("ApiKey {key}")),
        Credentials::Token(token) => Some(format!("Token {token}")),
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for digit in 0..4 {
            let is_there = digit <= three.len();
            let value = (bits >> (18 - 6 * digit)) & 63;
            text.push(if is_there { DIGITS[value as usize] as char } else { '=' });
        }
    }
    text
}

fn compress(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_and_a_password_are_encoded_as_rfc_7617_says() {
        for (plain, encoded) in [
            ("Aladdin:open sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ("a", "YQ=="),
            ("ab", "YWI="),
            ("abc", "YWJj"),
            ("", ""),
        ] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }

    #[test]
    fn an_address_that_is_none_or_has_a_password_is_refused() {
        assert_eq!(check("http://es:9200/").unwrap(), "http://es:9200");
        assert_eq!(check("https://[::1]:9200/es/").unwrap(), "https://[::1]:9200/es");
        for bad in ["", "es:9200", "ftp://es", "http://", "http://u:secret@es:9200", "http://e?x"] {
            let problem = check(bad).unwrap_err();
            assert_eq!(problem.kind, Kind::Usage, "{bad}");
            assert!(!problem.to_string().contains("secret"), "{problem}");
        }
    }
}
