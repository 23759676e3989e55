//! Session tickets (RFC 8446, 4.6.1; RFC 5077): a client that comes back needs no new handshake
//! with a signature, whichever thread or front it comes to.
//!
//! The keys are in a file of the node, mode 0600, which all its fronts read: a front that
//! replaces another one knows the tickets of that one, also after a kill. A new key is made
//! every 12 hours, and each opens tickets for 24. Whoever can read the file can read the private
//! key too. A session of TLS 1.3 has a new key exchange all the same.

use std::fs::{OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use mfserv_platform::disk;
use mfserv_platform::sync::lock;
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::files::{Stamp, stamp};
use crate::embedded::io::clock;

/// A key makes tickets for so long, seconds.
const ROTATION_S: i64 = 12 * 3600;
/// … and opens them for so long.
const LIFETIME_S: i64 = 2 * ROTATION_S;
/// The bytes of a ticket that name its key.
const NAME_LEN: usize = 16;

/// The file.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    /// The newest first.
    keys: Vec<StoredKey>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredKey {
    /// When it was made, seconds since the Unix epoch.
    made_s: i64,
    secret: [u8; 32],
}

impl Stored {
    /// Leaves out what is too old (or of the future: the clock was set), and adds a key if the
    /// newest one is not to make tickets any more. Returns whether something has changed.
    fn renew(
        &mut self,
        now_s: i64,
        make: impl FnOnce() -> io::Result<[u8; 32]>,
    ) -> io::Result<bool> {
        let before = self.keys.len();
        self.keys.retain(|key| (0..LIFETIME_S).contains(&(now_s - key.made_s)));
        let is_due = self.keys.first().is_none_or(|key| now_s - key.made_s >= ROTATION_S);
        if is_due {
            self.keys.insert(0, StoredKey { made_s: now_s, secret: make()? });
        }
        Ok(is_due || self.keys.len() != before)
    }
}

fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| io::Error::other("no random bytes"))?;
    Ok(bytes)
}

/// The keys as sessions use them.
#[derive(Debug)]
struct Keys {
    stamp: Stamp,
    stored: Stored,
    /// Another one for other keys.
    version: u64,
    /// When the oldest of the keys has to go, or a new one has to come, seconds.
    until_s: i64,
}

/// The keys of a node, in memory and in their file.
#[derive(Debug)]
pub struct TicketKeys {
    path: Option<PathBuf>,
    keys: Mutex<Keys>,
}

impl TicketKeys {
    /// With this file; `None`: in memory alone.
    pub fn new(path: Option<PathBuf>) -> Arc<Self> {
        let keys = Keys { stamp: None, stored: Stored::default(), version: 0, until_s: 0 };
        Arc::new(Self { path, keys: Mutex::new(keys) })
    }

    /// Follows the file and the clock. To be called about once a second.
    ///
    /// # Errors
    /// Says why the file could not be used; the keys are in memory then.
    pub fn refresh(&self) -> io::Result<()> {
        let now_s = clock::unix_seconds();
        let mut stored = {
            let keys = lock(&self.keys);
            let known = keys.stamp.is_some() || self.path.is_none();
            let is_same = known && self.path.as_deref().and_then(stamp) == keys.stamp;
            if is_same && now_s < keys.until_s {
                return Ok(());
            }
            keys.stored.clone()
        };
        // The lock is not held meanwhile: sessions need the keys.
        let done = match &self.path {
            Some(path) => shared(path, now_s).map(|shared| stored = shared),
            None => Ok(()),
        };
        // Also where the file cannot be used: else there would be no tickets.
        stored.renew(now_s, random)?;
        let until_s = stored.keys.first().map_or(0, |key| key.made_s + ROTATION_S);
        let stamp = self.path.as_deref().filter(|_| done.is_ok()).and_then(stamp);
        let mut keys = lock(&self.keys);
        let version = keys.version + u64::from(keys.stored != stored);
        *keys = Keys { stamp, stored, version, until_s };
        done
    }

    /// Tickets for sessions of one kind: those of another `context` cannot be used. (A client that
    /// an authority has vouched for must not come back after the authority was removed.)
    pub fn tickets(self: &Arc<Self>, context: &[u8]) -> Tickets {
        let context = Sha256::digest(context).into();
        Tickets { keys: self.clone(), context, derived: Mutex::default() }
    }

    /// The keys for a context as OpenSSL and nginx have them in files, the newest first: 16 bytes
    /// for the name, 32 to authenticate, 32 to encrypt.
    pub fn for_openssl(&self, context: &[u8]) -> Vec<[u8; 80]> {
        let context: [u8; 32] = Sha256::digest(context).into();
        let whole = |key: &StoredKey| {
            let of = |what: &[u8]| Sha256::digest([what, &key.secret[..], &context[..]].concat());
            let mut whole = [0; 80];
            whole[..16].copy_from_slice(&of(b"openssl name")[..16]);
            whole[16..48].copy_from_slice(&of(b"openssl hmac"));
            whole[48..].copy_from_slice(&of(b"openssl aes"));
            whole
        };
        lock(&self.keys).stored.keys.iter().map(whole).collect()
    }

    /// The keys for a context, made once for each set of keys.
    fn derived(&self, context: &[u8; 32], known: &Mutex<Derived>) -> Arc<[DerivedKey]> {
        let mut known = lock(known);
        let version = lock(&self.keys).version;
        if known.version != version || known.keys.is_empty() {
            *known = Derived { version, keys: self.derive(context).into() };
        }
        known.keys.clone()
    }

    /// Of each key, its name and the key for a context; the newest first.
    fn derive(&self, context: &[u8; 32]) -> Vec<DerivedKey> {
        let derive = |key: &StoredKey| {
            let of = |what: &[u8]| Sha256::digest([what, &key.secret[..], context].concat());
            let mut name = [0; NAME_LEN];
            name.copy_from_slice(&of(b"name")[..NAME_LEN]);
            (name, of(b"key").into())
        };
        lock(&self.keys).stored.keys.iter().map(derive).collect()
    }
}

/// What the file has, with a key that may make tickets. It is made, or made anew, if it has to be;
/// of two fronts that do so at the same time, one is refused and tries again.
fn shared(path: &Path, now_s: i64) -> io::Result<Stored> {
    let beside = path.with_extension("lock");
    let locked = OpenOptions::new().create(true).append(true).mode(0o600).open(beside)?;
    rustix::fs::flock(&locked, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    // What cannot be read is made anew: clients need a whole handshake then.
    let mut stored: Stored = match std::fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).unwrap_or_default(),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Stored::default(),
        Err(why) => return Err(why),
    };
    let is_private =
        std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o077 == 0);
    if !is_private {
        // Others have perhaps read it.
        stored = Stored::default();
    }
    if stored.renew(now_s, random)? {
        let text = serde_json::to_vec(&stored)?;
        disk::replace(path, 0o600, &text)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    }
    Ok(stored)
}

/// Makes and opens tickets.
#[derive(Debug)]
pub struct Tickets {
    keys: Arc<TicketKeys>,
    context: [u8; 32],
    derived: Mutex<Derived>,
}

/// The name of a key, and the key for a context.
type DerivedKey = ([u8; NAME_LEN], [u8; 32]);

/// The keys for a context, of one version of the keys.
#[derive(Debug, Default)]
struct Derived {
    version: u64,
    keys: Arc<[DerivedKey]>,
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        ROTATION_S as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let all = self.keys.derived(&self.context, &self.derived);
        let (name, secret) = *all.first()?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &secret).ok()?;
        let mut sealed = plain.to_vec();
        let nonce = key.seal_in_place_append_tag(Aad::from(&name), &mut sealed).ok()?;
        Some([&name, &nonce.as_ref()[..], &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME_LEN)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let all = self.keys.derived(&self.context, &self.derived);
        let (name, secret) = *all.iter().find(|(known, _)| known == name)?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &secret).ok()?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut plain = sealed.to_vec();
        let length = key.open_in_place(nonce, Aad::from(&name), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_opened_by_every_front_that_has_the_file_and_in_its_context_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        let fronts = [0, 1].map(|_| TicketKeys::new(Some(path.clone())));
        fronts.iter().for_each(|keys| keys.refresh().unwrap());
        let ticket = fronts[0].tickets(b"a").encrypt(b"session").unwrap();
        assert_eq!(fronts[1].tickets(b"a").decrypt(&ticket).unwrap(), b"session");
        assert_eq!(fronts[1].tickets(b"b").decrypt(&ticket), None);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for at in 0..ticket.len() {
            let mut altered = ticket.clone();
            altered[at] ^= 1;
            assert_eq!(fronts[1].tickets(b"a").decrypt(&altered), None, "byte {at}");
            assert_eq!(fronts[1].tickets(b"a").decrypt(&ticket[..at]), None, "{at} bytes");
        }
    }

    #[test]
    fn keys_make_tickets_for_half_a_day_and_open_them_for_a_day() {
        let mut stored = Stored::default();
        let made = |stored: &Stored| stored.keys.iter().map(|key| key.made_s).collect::<Vec<_>>();
        for (now_s, expected) in [
            (100, &[100][..]),
            (100 + ROTATION_S - 1, &[100]),
            (100 + ROTATION_S, &[100 + ROTATION_S, 100]),
            (100 + LIFETIME_S, &[100 + LIFETIME_S, 100 + ROTATION_S]),
            // The clock was set back.
            (50, &[50]),
        ] {
            stored.renew(now_s, || Ok([1; 32])).unwrap();
            assert_eq!(made(&stored), expected, "{now_s}");
        }
    }

    #[test]
    fn a_file_that_is_damaged_or_was_open_to_others_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        let first = TicketKeys::new(Some(path.clone()));
        first.refresh().unwrap();
        let ticket = first.tickets(b"").encrypt(b"session").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let second = TicketKeys::new(Some(path.clone()));
        second.refresh().unwrap();
        assert_eq!(second.tickets(b"").decrypt(&ticket), None);
        assert!(second.tickets(b"").encrypt(b"x").is_some());
        std::fs::write(&path, "{").unwrap();
        second.refresh().unwrap();
        assert!(second.tickets(b"").encrypt(b"x").is_some());
        // Without a place for the file, the keys are in memory.
        let nowhere = TicketKeys::new(Some(dir.path().join("missing/keys.json")));
        assert!(nowhere.refresh().is_err());
        let ticket = nowhere.tickets(b"").encrypt(b"x").unwrap();
        assert!(nowhere.refresh().is_err());
        assert_eq!(nowhere.tickets(b"").decrypt(&ticket).unwrap(), b"x");
    }
}
