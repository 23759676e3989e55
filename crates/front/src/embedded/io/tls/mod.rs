//! TLS for clients: their connections ([`TlsStream`]), and what sessions are made of.
//!
//! [`Tls`] holds the certificates and makes sessions. The files are looked at once a second by
//! the thread that speaks with the daemon. A certificate that is replaced is in force for the next
//! handshake; one that cannot be used is said, and the one before stays.

mod copies;
mod counts;
mod files;
mod hosts;
mod identity;
mod names;
mod socket;
mod store;
mod stream;
mod tickets;

use std::sync::{Arc, Mutex, OnceLock};
use std::thread::Thread;

use mfserv_core::tls::{ClientCertificates, TlsSettings, Version};
use mfserv_platform::sync::lock;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ServerConfig, ServerConnection};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, SupportedProtocolVersion};

pub use copies::{Copied, Copies};
pub use counts::{Counts, Failure};
pub use identity::{Identity, NOBODY, is_of_identity};
pub use stream::TlsStream;

use crate::embedded::io::signal::Signal;
use store::Store;
use tickets::TicketKeys;

/// A handshake that cannot be had is ended with this alert: fatal, internal_error.
pub const REFUSAL: [u8; 7] = [21, 3, 1, 0, 2, 2, 80];

/// The TLS side of a front.
#[derive(Debug, Default)]
pub struct Tls {
    /// What was counted.
    pub counts: Arc<Counts>,
    /// What new sessions are made of; `None` while there is no certificate.
    config: Mutex<Option<Arc<ServerConfig>>>,
    /// Whom clients are vouched for by, as tickets know it; raised when that changes.
    vouching: Mutex<(Vec<u8>, Arc<Signal>)>,
    /// The settings in force.
    adopted: Mutex<Option<TlsSettings>>,
    /// Held while files are read: by one thread at a time.
    kept: Mutex<Kept>,
    /// What is wrong now, and what will be.
    problems: Mutex<Problems>,
    /// Sleeps until there are files to look after.
    watcher: OnceLock<Thread>,
}

/// What a connection of a new client is made of.
#[derive(Debug)]
pub struct Session {
    connection: ServerConnection,
    /// Raised when clients are vouched for by others.
    outdated: Arc<Signal>,
}

/// Sentences with a file and a reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    /// What the front does not do, or not well.
    pub faults: Vec<String>,
    /// What will be a fault.
    pub notes: Vec<String>,
}

/// What is read from files.
#[derive(Debug, Default)]
struct Kept {
    settings: Option<TlsSettings>,
    store: Store,
    tickets: Option<Arc<TicketKeys>>,
    /// The suites of the settings.
    provider: Option<Arc<CryptoProvider>>,
    /// What is in force was made of all this.
    is_made: bool,
    said: Vec<String>,
}

impl Tls {
    /// A session for a new client. `None`: there is no certificate, and the client has to be
    /// refused.
    pub fn session(&self) -> Option<Session> {
        // In this order: who comes while both change is perhaps ended for nothing.
        let outdated = lock(&self.vouching).1.clone();
        let config = lock(&self.config).clone()?;
        Some(Session { connection: ServerConnection::new(config).ok()?, outdated })
    }

    /// What is wrong.
    pub fn problems(&self) -> Problems {
        lock(&self.problems).clone()
    }

    /// Takes over other settings. Where they cannot be used, those before stay in force and
    /// the error says why. A front that begins (`is_first`) takes them over all the same: it serves
    /// the rest, refuses TLS clients until the files can be used, and says so in
    /// [`Tls::problems`].
    ///
    /// # Errors
    /// Says which file or setting cannot be used, and why.
    pub fn adopt(&self, settings: Option<&TlsSettings>, is_first: bool) -> Result<(), String> {
        // Whoever reads files may be held up by a disk: a table with the same settings is not.
        if lock(&self.adopted).as_ref() == settings {
            return Ok(());
        }
        let mut kept = lock(&self.kept);
        let Some(settings) = settings else {
            *kept = Kept::default();
            *lock(&self.adopted) = None;
            *lock(&self.config) = None;
            *lock(&self.problems) = Problems::default();
            return Ok(());
        };
        let path = settings.ticket_keys.clone();
        let is_same_file = kept.settings.as_ref().is_some_and(|known| known.ticket_keys == path);
        let tickets = kept.tickets.take().filter(|_| is_same_file);
        let mut next = Kept {
            settings: Some(settings.clone()),
            // Certificates of the same files stay known, also where these are broken now.
            store: std::mem::take(&mut kept.store),
            tickets: Some(tickets.unwrap_or_else(|| TicketKeys::new(path))),
            provider: None,
            is_made: false,
            said: Vec::new(),
        };
        let done = next.refresh();
        match done {
            Err(why) if !is_first => {
                (kept.store, kept.tickets) = (next.store, next.tickets);
                return Err(why);
            }
            done => self.put(&mut next, done),
        }
        *kept = next;
        *lock(&self.adopted) = Some(settings.clone());
        drop(kept);
        if let Some(watcher) = self.watcher.get() {
            watcher.unpark();
        }
        Ok(())
    }

    /// True if there are files to look after with [`Tls::refresh`].
    pub fn has_files(&self) -> bool {
        lock(&self.adopted).is_some()
    }

    /// This thread is woken when there are files to look after.
    pub fn set_watcher(&self, watcher: Thread) {
        // There is one.
        let _ = self.watcher.set(watcher);
    }

    /// Looks whether files have changed, and takes over what can be used. Returns what is wrong
    /// and was not wrong before, and which clients were refused, for the log. To be called once a second.
    pub fn refresh(&self) -> Vec<String> {
        let mut kept = lock(&self.kept);
        if kept.settings.is_none() {
            return Vec::new();
        }
        let done = kept.refresh();
        self.put(&mut kept, done);
        let mut problems = self.problems().faults;
        problems.extend(kept.store.gone.iter().cloned());
        let new = problems.iter().filter(|problem| !kept.said.contains(problem)).cloned();
        let new = new.chain(self.counts.refusals()).collect();
        kept.said = problems;
        new
    }

    /// Ends the connections of clients that others have vouched for: each after its request.
    fn vouched_for_by(&self, context: Vec<u8>) {
        let mut vouching = lock(&self.vouching);
        if vouching.0 != context {
            let before = std::mem::replace(&mut *vouching, (context, Arc::default()));
            drop(vouching);
            before.1.raise();
        }
    }

    fn put(&self, kept: &mut Kept, done: Result<Option<ServerConfig>, String>) {
        let mut faults = kept.store.problems.clone();
        match done {
            Ok(Some(config)) => {
                *lock(&self.config) = Some(Arc::new(config));
                if let Some(settings) = &kept.settings {
                    self.vouched_for_by(context(settings, &kept.store));
                }
            }
            Ok(None) => {}
            Err(why) => faults.push(match lock(&self.config).is_some() {
                true => format!("{why} (TLS goes on with what was there before)"),
                false => format!("{why} (every TLS client is refused)"),
            }),
        }
        *lock(&self.problems) = Problems { faults, notes: kept.store.notes.clone() };
    }
}

impl Kept {
    /// Reads what has changed. `None`: what is in force is still right.
    fn refresh(&mut self) -> Result<Option<ServerConfig>, String> {
        let (Some(settings), Some(tickets)) = (&self.settings, &self.tickets) else {
            return Ok(None);
        };
        let provider = match &self.provider {
            Some(provider) => provider.clone(),
            None => self.provider.insert(Arc::new(provider(&settings.ciphers)?)).clone(),
        };
        let tickets_work = tickets.refresh();
        let refreshed = self.store.refresh(settings, &provider);
        self.is_made &= matches!(refreshed, Ok(false));
        refreshed?;
        if let Err(why) = tickets_work {
            let path = settings.ticket_keys.as_deref().unwrap_or_else(|| "tickets".as_ref());
            self.store.problems.push(format!(
                "{}: {why}: clients that come to another front need a whole handshake",
                path.display()
            ));
        }
        if self.is_made {
            return Ok(None);
        }
        let made = make(settings, &self.store, provider, tickets)?;
        self.is_made = true;
        Ok(Some(made))
    }
}

/// The suites of OpenSSL's names as rustls has them.
fn provider(ciphers: &[String]) -> Result<CryptoProvider, String> {
    let all = rustls::crypto::aws_lc_rs::default_provider();
    let name = |suite: &rustls::SupportedCipherSuite| {
        let name = format!("{:?}", suite.suite());
        match name.strip_prefix("TLS13_") {
            Some(rest) => format!("TLS_{rest}"),
            None => {
                let name = name.trim_start_matches("TLS_").replace("_WITH_", "_");
                let name = name.replace("CHACHA20_POLY1305_SHA256", "CHACHA20_POLY1305");
                name.replace("AES_", "AES").replace('_', "-")
            }
        }
    };
    let find = |wanted: &String| all.cipher_suites.iter().find(|suite| name(suite) == *wanted);
    let cipher_suites: Vec<_> = ciphers.iter().filter_map(find).copied().collect();
    match cipher_suites.is_empty() {
        true => Err("no cipher is left to offer ([nginx] ssl_ciphers)".into()),
        false => Ok(CryptoProvider { cipher_suites, ..all }),
    }
}

fn make(
    settings: &TlsSettings,
    store: &Store,
    provider: Arc<CryptoProvider>,
    tickets: &Arc<TicketKeys>,
) -> Result<ServerConfig, String> {
    let versions: Vec<&SupportedProtocolVersion> = settings
        .versions
        .iter()
        .map(|version| match version {
            Version::V1_2 => &TLS12,
            Version::V1_3 => &TLS13,
        })
        .collect();
    let unusable = |why: rustls::Error| {
        format!("[nginx] ssl_protocols and ssl_ciphers do not go together: {why}")
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .map_err(unusable)?;
    let builder = match clients(settings, store, provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(store.hosts()));
    // The order of `ssl_ciphers` counts, as people expect who write one.
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Arc::new(tickets.tickets(&context(settings, store)));
    // The protocols of the front (RFC 7301): a client that knows others as well chooses these.
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    Ok(config)
}

/// Who is asked for a certificate, and who vouches for it.
fn clients(
    settings: &TlsSettings,
    store: &Store,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    if settings.client_certificates == ClientCertificates::Off {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    let shown = settings.client_authorities.as_deref().unwrap_or_else(|| "".as_ref()).display();
    for authority in store.authorities() {
        roots.add(authority.clone()).map_err(|why| format!("{shown}: {why}"))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match settings.client_certificates {
        ClientCertificates::Optional => builder.allow_unauthenticated(),
        _ => builder,
    };
    builder.build().map(Some).map_err(|why| format!("{shown}: {why}"))
}

/// What a ticket is bound to: whom the authorities are that have vouched for its client.
fn context(settings: &TlsSettings, store: &Store) -> Vec<u8> {
    let mut context = vec![settings.client_certificates as u8];
    for authority in store.authorities() {
        context.extend_from_slice(&(authority.len() as u64).to_be_bytes());
        context.extend_from_slice(authority);
    }
    context
}

/// Reads all files of these settings as a front does, and returns what it would warn of.
///
/// # Errors
/// Says why the front would refuse every TLS client.
pub fn inspect(settings: &TlsSettings) -> Result<Problems, String> {
    let settings = TlsSettings { ticket_keys: None, ..settings.clone() };
    let mut kept =
        Kept { settings: Some(settings), tickets: Some(TicketKeys::new(None)), ..Kept::default() };
    kept.refresh()?;
    Ok(Problems { faults: kept.store.problems, notes: kept.store.notes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_with_the_same_settings_does_not_wait_for_a_disk() {
        let settings = TlsSettings {
            port: 1,
            certificate: "/none".into(),
            key: "/none".into(),
            directory: None,
            versions: vec![Version::V1_3],
            ciphers: mfserv_core::tls::SUITES.map(String::from).to_vec(),
            client_certificates: ClientCertificates::Off,
            client_authorities: None,
            redirect: false,
            strict_transport: None,
            ticket_keys: None,
        };
        let tls = Arc::new(Tls::default());
        tls.adopt(Some(&settings), true).unwrap();
        let reads_files = lock(&tls.kept);
        let (told, done) = std::sync::mpsc::channel();
        let publishes = tls.clone();
        std::thread::spawn(move || told.send(publishes.adopt(Some(&settings), false)));
        assert_eq!(done.recv_timeout(std::time::Duration::from_secs(60)), Ok(Ok(())));
        drop(reads_files);
    }

    #[test]
    fn every_suite_that_a_list_can_name_is_one_of_the_library() {
        for suite in mfserv_core::tls::SUITES {
            let found = provider(&[suite.to_string()]).unwrap().cipher_suites;
            assert_eq!(found.len(), 1, "{suite}");
        }
        assert!(provider(&[]).is_err() && provider(&["AES128-SHA".into()]).is_err());
    }
}
