//! Certificates for another program that speaks TLS with clients (nginx): copies of what could last
//! be used, in files that nobody else replaces.
//!
//! That program reads files when it pleases. The files of the settings may be broken at that
//! moment, or one of a pair replaced and the other one not yet. So it is given copies, which are
//! checked first and never changed: another content gets another name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mfserv_core::tls::TlsSettings;
use mfserv_platform::disk;
use rustls::SignatureAlgorithm;

use super::files::Pair;
use super::store::Store;
use super::tickets::TicketKeys;
use super::{context, names, provider};

/// The copies that are to be used now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copied {
    /// For clients that name no host, or an unknown one; `None`: every client has to be refused.
    pub first: Option<Copy>,
    /// By the names of hosts, in small letters; one with a wildcard begins with `*.`. Of several
    /// for one name there is the first of each kind of key.
    pub by_name: Vec<(String, Vec<Copy>)>,
    /// The keys of session tickets as OpenSSL has them (80 bytes), the newest first.
    pub ticket_keys: Vec<PathBuf>,
    /// The authorities that vouch for clients: a PEM file.
    pub authorities: Option<PathBuf>,
}

/// Where the copies of a certificate are: with the ending `.pem` itself and its chain, with
/// `.key` its key.
pub type Copy = PathBuf;

/// The certificates of the settings, and their copies.
#[derive(Debug)]
pub struct Copies {
    dir: PathBuf,
    store: Store,
    tickets: Option<(Option<PathBuf>, Arc<TicketKeys>)>,
    /// The files that were said last, and those before: somebody may still read them.
    files: [BTreeSet<PathBuf>; 2],
}

impl Copies {
    /// In this directory, which is made, and is for this alone.
    ///
    /// # Errors
    /// Says why there cannot be such a directory.
    pub fn new(dir: PathBuf) -> Result<Self, String> {
        let cannot = |why: &dyn std::fmt::Display| format!("{}: {why}", dir.display());
        disk::create_dir(&dir).map_err(|why| cannot(&why))?;
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&dir, mode).map_err(|why| cannot(&why))?;
        let store = Store::with_copies(dir.clone());
        Ok(Self { dir, store, tickets: None, files: Default::default() })
    }

    /// Looks whether files have changed. What cannot be used leaves what was there before, or
    /// nothing; the front behind that program looks at the same files and says so.
    pub fn refresh(&mut self, settings: &TlsSettings) -> Copied {
        let copied = self.copied(settings).unwrap_or_default();
        let now = self.files_of(&copied);
        if now != self.files[0] {
            let before = std::mem::replace(&mut self.files[0], now);
            let gone = std::mem::replace(&mut self.files[1], before);
            for path in gone.iter().filter(|path| !self.files.iter().any(|all| all.contains(*path)))
            {
                let _ = fs::remove_file(path);
            }
        }
        copied
    }

    fn copied(&mut self, settings: &TlsSettings) -> Result<Copied, String> {
        let provider = provider(&settings.ciphers)?;
        self.store.refresh(settings, &provider)?;
        let first = self.store.of_any_host().and_then(|certificate| certificate.copy.clone());
        let mut copied = Copied { first, ..Copied::default() };
        let mut by_name: BTreeMap<&String, Vec<(SignatureAlgorithm, &Copy)>> = BTreeMap::new();
        for certificate in self.store.certificates() {
            let Some(copy) = &certificate.copy else { continue };
            let kind = certificate.certified.key.algorithm();
            for name in &certificate.names {
                let known = by_name.entry(name).or_default();
                if known.iter().all(|(other, _)| *other != kind) {
                    known.push((kind, copy));
                }
            }
        }
        for (name, of) in by_name {
            let copies = of.into_iter().map(|(_, copy)| copy.clone()).collect();
            copied.by_name.push((name.clone(), copies));
        }
        copied.authorities = self.authorities()?;
        copied.ticket_keys = self.ticket_keys(settings)?;
        Ok(copied)
    }

    fn authorities(&self) -> Result<Option<PathBuf>, String> {
        let authorities = self.store.authorities();
        if authorities.is_empty() {
            return Ok(None);
        }
        let mut text = String::new();
        for authority in authorities {
            text.push_str("-----BEGIN CERTIFICATE-----\n");
            for line in names::base64(authority).as_bytes().chunks(64) {
                text.push_str(&String::from_utf8_lossy(line));
                text.push('\n');
            }
            text.push_str("-----END CERTIFICATE-----\n");
        }
        put(&self.dir, "ca", text.as_bytes()).map(Some)
    }

    fn ticket_keys(&mut self, settings: &TlsSettings) -> Result<Vec<PathBuf>, String> {
        let path = &settings.ticket_keys;
        if self.tickets.as_ref().is_none_or(|(of, _)| of != path) {
            self.tickets = Some((path.clone(), TicketKeys::new(path.clone())));
        }
        let Some((_, tickets)) = &self.tickets else { return Ok(Vec::new()) };
        // Where their file cannot be used they are in memory, and the front behind says why.
        let _ = tickets.refresh();
        let keys = tickets.for_openssl(&context(settings, &self.store));
        keys.iter().map(|key| put(&self.dir, "ticket", key)).collect()
    }

    fn files_of(&self, copied: &Copied) -> BTreeSet<PathBuf> {
        let of_names = copied.by_name.iter().flat_map(|(_, copies)| copies);
        let copies = copied.first.iter().chain(of_names);
        let pairs =
            copies.flat_map(|copy| [copy.with_extension("pem"), copy.with_extension("key")]);
        let others = copied.ticket_keys.iter().chain(&copied.authorities).cloned();
        pairs.chain(others).collect()
    }
}

impl Pair {
    /// Copies both files into a directory.
    ///
    /// # Errors
    /// Says which file cannot be read or written, and why.
    pub fn copy_into(&self, dir: &Path) -> Result<Self, String> {
        let (certificate, key) = self.contents()?;
        let stem = dir.join(disk::fingerprint([("certificate", &*certificate), ("key", &*key)]));
        let copy =
            Self { certificate: stem.with_extension("pem"), key: stem.with_extension("key") };
        for (path, content) in [(&copy.certificate, certificate), (&copy.key, key)] {
            write(path, &content)?;
        }
        Ok(copy)
    }
}

/// Writes a file that is named by its content; returns its path.
fn put(dir: &Path, extension: &str, content: &[u8]) -> Result<PathBuf, String> {
    let path = dir.join(disk::fingerprint([(extension, content)])).with_extension(extension);
    write(&path, content)?;
    Ok(path)
}

fn write(path: &Path, content: &[u8]) -> Result<(), String> {
    if path.exists() {
        return Ok(());
    }
    disk::replace(path, 0o600, content).map_err(|why| format!("{}: {why}", path.display()))
}
