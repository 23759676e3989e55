//! The certificates of a front, as their files were when they could last be used.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use mfserv_core::tls::{ClientCertificates, TlsSettings, Version};
use rustls::SignatureAlgorithm;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;

use super::files::{self, Certificate, Pair, Stamp, stamp};
use super::hosts::Hosts;
use crate::embedded::io::clock;

/// A certificate is warned of when it ends within this, seconds: tools renew them earlier.
const ENDS_SOON_S: i64 = 7 * 24 * 3600;
/// After files have changed and cannot be used, they are looked at once more before that is
/// said: somebody replaces first the one, then the other.
const LOOKS: u32 = 2;
/// It is said for so long that the files of a certificate have vanished, seconds.
const GONE_S: i64 = 24 * 3600;

/// Something that was read from files.
#[derive(Debug)]
struct Held<T, S> {
    /// In which state the files were when they were last read.
    stamps: S,
    /// What could last be used.
    good: Option<T>,
    /// Why the files cannot be used, and how often that was so.
    wrong: Option<(String, u32)>,
}

impl<T, S: PartialEq> Held<T, S> {
    fn new(stamps: S) -> Self {
        Self { stamps, good: None, wrong: None }
    }

    /// Reads the files if they are not as they were, or could not be used. Returns whether there
    /// is something new to use.
    fn refresh(
        &mut self,
        stamps: S,
        is_first: bool,
        load: impl FnOnce() -> Result<T, String>,
    ) -> bool {
        let is_same = self.stamps == stamps && !is_first;
        if is_same && self.wrong.as_ref().is_none_or(|(_, looks)| *looks >= LOOKS) {
            return false;
        }
        self.stamps = stamps;
        match load() {
            Ok(loaded) => {
                self.good = Some(loaded);
                self.wrong = None;
                true
            }
            Err(why) => {
                let looks = self.wrong.as_ref().filter(|_| is_same).map_or(0, |(_, looks)| *looks);
                self.wrong = Some((why, looks + 1));
                false
            }
        }
    }

    /// What is to be said of the files.
    fn problem(&self) -> Option<String> {
        let (why, looks) = self.wrong.as_ref()?;
        match self.good.is_some() {
            true if *looks < LOOKS => None,
            true => Some(format!("{why}: the certificate before is used")),
            false => Some(why.clone()),
        }
    }
}

type HeldPair = Held<Arc<Certificate>, (Stamp, Stamp)>;

/// All certificates.
#[derive(Debug, Default)]
pub struct Store {
    /// The default one.
    first: Option<Pair>,
    pairs: BTreeMap<Pair, HeldPair>,
    /// With their file.
    authorities: Option<(PathBuf, Held<Vec<CertificateDer<'static>>, Stamp>)>,
    /// The directory of the pairs, as it was last read.
    directory: Option<PathBuf>,
    /// Those with an expired certificate.
    expired: BTreeSet<Pair>,
    /// Those whose files are not there any more, with their hosts, and since when, seconds.
    vanished: BTreeMap<Pair, (Vec<String>, i64)>,
    /// Where copies of what can be used are made, if they are.
    copies: Option<PathBuf>,
    /// What is wrong now, a sentence each.
    pub problems: Vec<String>,
    /// What will be wrong soon, or is perhaps wanted.
    pub notes: Vec<String>,
    /// Those of the notes that are for the log.
    pub gone: Vec<String>,
}

impl Store {
    /// With copies of what can be used, in this directory.
    pub fn with_copies(dir: PathBuf) -> Self {
        Self { copies: Some(dir), ..Self::default() }
    }

    /// Reads what has changed. Returns whether something has.
    ///
    /// # Errors
    /// Says why there is no default certificate, or no authority where one is needed, nor one
    /// from before.
    pub fn refresh(
        &mut self,
        settings: &TlsSettings,
        provider: &CryptoProvider,
    ) -> Result<bool, String> {
        self.problems.clear();
        self.notes.clear();
        self.gone.clear();
        let first = Pair { certificate: settings.certificate.clone(), key: settings.key.clone() };
        let mut wanted = BTreeSet::from([first.clone()]);
        match settings.directory.as_deref().map(files::pairs_of) {
            Some(Ok(pairs)) => wanted.extend(pairs),
            // It cannot be read: those that are known stay.
            Some(Err(why)) => {
                self.problems.push(format!("[front] tls_certificates: {why}"));
                wanted.extend(self.pairs.keys().cloned());
            }
            None => {}
        }
        let mut changed = self.leave_out(&wanted, settings);
        for pair in wanted {
            changed |= self.refresh_pair(pair, provider);
        }
        self.first = Some(first);
        changed |= self.note_expired();
        changed |= self.refresh_authorities(settings)?;
        self.look_at_all();
        self.problems.extend(self.unusable(settings));
        let held = self.first.as_ref().and_then(|first| self.pairs.get(first));
        match held {
            Some(Held { good: None, wrong: Some((why, _)), .. }) => Err(why.clone()),
            _ => Ok(changed),
        }
    }

    /// Forgets the pairs that are not wanted. It is remembered which ones went by themselves. Returns
    /// whether there were any.
    fn leave_out(&mut self, wanted: &BTreeSet<Pair>, settings: &TlsSettings) -> bool {
        let is_same = self.directory == settings.directory;
        self.directory.clone_from(&settings.directory);
        if !is_same {
            self.vanished.clear();
        }
        let now_s = clock::unix_seconds();
        self.vanished.retain(|pair, (_, since)| {
            !wanted.contains(pair) && (0..GONE_S).contains(&(now_s - *since))
        });
        let before = self.pairs.len();
        let vanished = &mut self.vanished;
        self.pairs.retain(|pair, held| {
            let is_wanted = wanted.contains(pair);
            let names = held.good.as_ref().map(|good| good.names.clone());
            let is_below = settings.directory.as_ref().is_some_and(|dir| pair.key.starts_with(dir));
            if let Some(names) = names.filter(|_| !is_wanted && is_same && is_below) {
                vanished.insert(pair.clone(), (names, now_s));
            }
            is_wanted
        });
        before != self.pairs.len()
    }

    /// Returns whether another certificate has expired: one that is valid is preferred from then on.
    fn note_expired(&mut self) -> bool {
        let now_s = clock::unix_seconds();
        let has_expired =
            |held: &HeldPair| held.good.as_ref().is_some_and(|it| it.has_expired(now_s));
        let all = self.pairs.iter().filter(|(_, held)| has_expired(held));
        let expired: BTreeSet<Pair> = all.map(|(pair, _)| pair.clone()).collect();
        let before = std::mem::replace(&mut self.expired, expired);
        before != self.expired
    }

    /// What nobody can get of these certificates, since no suite goes with their kind of key.
    fn unusable(&self, settings: &TlsSettings) -> Vec<String> {
        if settings.versions.contains(&Version::V1_3)
            && settings.ciphers.iter().any(|suite| suite.starts_with("TLS_"))
        {
            return Vec::new();
        }
        let unusable = self.pairs.iter().filter_map(|(pair, held)| {
            let kind = held.good.as_ref()?.certified.key.algorithm();
            let (kind, named) = match kind {
                SignatureAlgorithm::RSA => ("RSA", "-RSA-"),
                _ => ("ECDSA", "-ECDSA-"),
            };
            let can = settings.ciphers.iter().any(|suite| suite.contains(named));
            let shown = pair.certificate.display();
            (!can).then(|| {
                format!(
                    "{shown} cannot be used: its key is for {kind}, and neither [nginx] ssl_protocols nor \
                     ssl_ciphers has anything for it"
                )
            })
        });
        unusable.collect()
    }

    fn refresh_pair(&mut self, pair: Pair, provider: &CryptoProvider) -> bool {
        let stamps = pair.stamps();
        let is_first = !self.pairs.contains_key(&pair);
        let held = self.pairs.entry(pair.clone()).or_insert_with(|| Held::new(stamps));
        let copies = self.copies.as_deref();
        held.refresh(stamps, is_first, || {
            let loaded = pair.load(provider)?;
            let Some(dir) = copies else { return Ok(Arc::new(loaded)) };
            // The copy is what has to be right: the files may have been replaced meanwhile.
            let copy = pair.copy_into(dir)?;
            let loaded = copy.load(provider)?;
            Ok(Arc::new(Certificate { copy: Some(copy.key.with_extension("")), ..loaded }))
        })
    }

    fn refresh_authorities(&mut self, settings: &TlsSettings) -> Result<bool, String> {
        let asks = settings.client_certificates != ClientCertificates::Off;
        let Some(path) = settings.client_authorities.as_deref().filter(|_| asks) else {
            return Ok(self.authorities.take().is_some());
        };
        let now = stamp(path);
        // Those of another file vouch for nobody here, whatever became of this one.
        let (known, other) = match self.authorities.take() {
            Some((of, held)) if of == path => (Some(held), None),
            other => (None, other),
        };
        let is_first = known.is_none();
        let mut held = known.unwrap_or_else(|| Held::new(now));
        let changed = held.refresh(now, is_first, || files::certificates(path));
        match held {
            Held { good: None, wrong: Some((why, _)), .. } if other.is_some() => {
                // These settings are refused, and those before stay.
                self.authorities = other;
                Err(why)
            }
            held => {
                let why = held.wrong.as_ref().filter(|_| held.good.is_none());
                let outcome = why.map_or(Ok(changed), |(why, _)| Err(why.clone()));
                self.authorities = Some((path.to_path_buf(), held));
                outcome
            }
        }
    }

    /// Finds what has to be said of the certificates.
    fn look_at_all(&mut self) {
        let first = self.first.as_ref();
        let is_fatal = |pair: &Pair, held: &HeldPair| Some(pair) == first && held.good.is_none();
        let wrong = self.pairs.iter().filter(|(pair, held)| !is_fatal(pair, held));
        self.problems.extend(wrong.filter_map(|(_, held)| held.problem()));
        let authorities = self.authorities.as_ref().map(|(_, held)| held);
        self.problems.extend(authorities.and_then(Held::problem));
        let hosts = self.hosts();
        for (pair, (names, _)) in &self.vanished {
            let alone: Vec<&str> =
                names.iter().filter(|name| hosts.of(name).is_empty()).map(String::as_str).collect();
            if !alone.is_empty() {
                let (shown, alone) = (pair.certificate.display(), alone.join(", "));
                self.gone.push(format!(
                    "{shown} or its key is gone: clients of {alone} get the default certificate"
                ));
            }
        }
        self.notes.clone_from(&self.gone);
        let now_s = clock::unix_seconds();
        for (pair, held) in &self.pairs {
            let Some(not_after) = held.good.as_ref().and_then(|good| good.not_after) else {
                continue;
            };
            let shown = pair.certificate.display();
            match not_after - now_s {
                ..0 => self.problems.push(format!("{shown} has expired: clients refuse it")),
                left_s @ ..ENDS_SOON_S => {
                    let hours = left_s / 3600;
                    self.notes.push(format!("{shown} expires in {hours} hours"));
                }
                _ => {}
            }
        }
    }

    /// The default certificate; if it cannot be used, the first one.
    pub fn of_any_host(&self) -> Option<&Arc<Certificate>> {
        let first = self.first.as_ref().and_then(|first| self.pairs.get(first)?.good.as_ref());
        first.or_else(|| self.certificates().next())
    }

    /// The certificates in the order in which they are preferred: those that have expired last, else
    /// the default one first.
    pub fn certificates(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        let mut all: Vec<(&Pair, &HeldPair)> = self.pairs.iter().collect();
        all.sort_by_key(|(pair, _)| {
            (self.expired.contains(pair), Some(*pair) != self.first.as_ref())
        });
        all.into_iter().filter_map(|(_, held)| held.good.as_ref())
    }

    /// The certificates by the names that they are for.
    pub fn hosts(&self) -> Hosts {
        Hosts::new(self.of_any_host().cloned(), self.certificates().cloned())
    }

    /// The authorities that vouch for clients.
    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        let held = self.authorities.as_ref().map(|(_, held)| held);
        held.and_then(|held| held.good.as_deref()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_used_are_looked_at_again_before_that_is_said() {
        let mut held: Held<u32, u32> = Held::new(0);
        assert!(held.refresh(0, true, || Ok(1)));
        assert!(!held.refresh(0, false, || unreachable!("it has not changed")));
        assert!(!held.refresh(1, false, || Err("broken".into())));
        assert_eq!((held.problem(), held.good), (None, Some(1)));
        assert!(!held.refresh(1, false, || Err("broken".into())));
        assert_eq!(held.problem().unwrap(), "broken: the certificate before is used");
        assert!(!held.refresh(1, false, || unreachable!("it has not changed")));
        assert!(held.refresh(2, false, || Ok(2)));
        assert_eq!((held.problem(), held.good), (None, Some(2)));
        let mut none: Held<u32, u32> = Held::new(0);
        none.refresh(0, true, || Err("broken".into()));
        assert_eq!(none.problem().unwrap(), "broken");
    }
}
