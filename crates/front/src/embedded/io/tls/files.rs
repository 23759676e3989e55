//! Certificates and keys in files.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

use super::names;

/// A longer file is no certificate and no key, bytes.
const LONGEST: u64 = 1024 * 1024;
/// The most certificates of a directory.
pub const MOST_PAIRS: usize = 10_000;

/// Which file a path names, and in which state it is: another value when the content is replaced,
/// renamed or written, or when a symbolic link on the way leads elsewhere.
pub type Stamp = Option<(u64, u64, u64, i64, i64, i64, i64, u32)>;

/// The stamp of a path; `None` if nothing is there.
pub fn stamp(path: &Path) -> Stamp {
    let found = std::fs::metadata(path).ok()?;
    Some((
        found.dev(),
        found.ino(),
        found.len(),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
        found.mode(),
    ))
}

/// The files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The certificate, with its chain.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// A certificate that fits its key.
#[derive(Debug)]
pub struct Certificate {
    /// What a session needs of it.
    pub certified: Arc<CertifiedKey>,
    /// The names of hosts that it is for, in small letters; one with a wildcard begins with `*.`.
    pub names: Vec<String>,
    /// When it ends, seconds since the Unix epoch.
    pub not_after: Option<i64>,
    /// Where its copies are, without their endings, if there are any.
    pub copy: Option<PathBuf>,
}

impl Certificate {
    /// True if clients refuse it.
    pub fn has_expired(&self, now_s: i64) -> bool {
        self.not_after.is_some_and(|end| end < now_s)
    }
}

impl Pair {
    /// The stamps of both files.
    pub fn stamps(&self) -> (Stamp, Stamp) {
        (stamp(&self.certificate), stamp(&self.key))
    }

    /// Reads both files.
    ///
    /// # Errors
    /// Says which file is wrong, and why. Nothing of a key is ever in it.
    pub fn load(&self, provider: &CryptoProvider) -> Result<Certificate, String> {
        let chain = certificates(&self.certificate)?;
        let key = private_key(&self.key)?;
        let certified = CertifiedKey::from_der(chain, key, provider).map_err(|why| match why {
            rustls::Error::InconsistentKeys(_) => {
                format!("{} is not the key of {}", self.key.display(), self.certificate.display())
            }
            why => format!("{} and {}: {why}", self.certificate.display(), self.key.display()),
        })?;
        let unusable = |why: &dyn std::fmt::Display| {
            format!("{}: the certificate cannot be used: {why}", self.certificate.display())
        };
        let first = certified.end_entity_cert().map_err(|why| unusable(&why))?;
        let read = EndEntityCert::try_from(first).map_err(|why| unusable(&why))?;
        let names = read.valid_dns_names().map(str::to_ascii_lowercase).collect();
        let not_after = names::not_after(first);
        Ok(Certificate { names, not_after, certified: Arc::new(certified), copy: None })
    }

    /// What both files contain, as they are.
    ///
    /// # Errors
    /// Says which file cannot be read, or is a key that others may use.
    pub fn contents(&self) -> Result<(Vec<u8>, Vec<u8>), String> {
        let certificate = read(open(&self.certificate)?, &self.certificate)?;
        Ok((certificate, read(open_key(&self.key)?, &self.key)?))
    }
}

/// The certificates of a PEM file, in order; one at least.
///
/// # Errors
/// Says what is wrong with the file.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(open(path)?, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(format!(
            "{} has no certificate: a block BEGIN CERTIFICATE is expected",
            path.display()
        )),
        Ok(found) => Ok(found),
        Err(why) => Err(format!("{} is no PEM: {why}", path.display())),
    }
}

/// Opens the file of a key, which must be one that others cannot read.
fn open_key(path: &Path) -> Result<File, String> {
    let file = open(path)?;
    let mode = file.metadata().map_err(|why| format!("{}: {why}", path.display()))?.mode() & 0o777;
    // Its group may read it: packages of systems keep keys for a group (`ssl-cert`).
    if mode & 0o037 != 0 {
        return Err(format!(
            "{} may be used by others (mode {mode:04o}): chmod 600 {0}",
            path.display()
        ));
    }
    Ok(file)
}

/// The key of a PEM file.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let pem = read(open_key(path)?, path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        let is_encrypted = pem.windows(9).any(|part| part == b"ENCRYPTED");
        let why = match is_encrypted {
            true => {
                "the key needs a passphrase, and nobody is asked for one: openssl pkey removes it"
            }
            false => "it has no private key: a block BEGIN PRIVATE KEY is expected",
        };
        format!("{}: {why}", path.display())
    })
}

fn open(path: &Path) -> Result<File, String> {
    // A pipe without a writer would be waited for.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = opened.map_err(|why| format!("{}: {why}", path.display()))?;
    match file.metadata() {
        Ok(found) if !found.is_file() => Err(format!("{} is no file", path.display())),
        Ok(found) if found.len() > LONGEST => Err(format!("{} is too long", path.display())),
        Ok(_) => Ok(file),
        Err(why) => Err(format!("{}: {why}", path.display())),
    }
}

fn read(file: File, path: &Path) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let done = file.take(LONGEST).read_to_end(&mut content);
    done.map_err(|why| format!("{}: {why}", path.display()))?;
    Ok(content)
}

/// The pairs of a directory, by name: `NAME.crt` or `NAME.pem` with `NAME.key`, and directories
/// `NAME` with `fullchain.pem` and `privkey.pem` (as certbot has them in `live`). Other files are
/// none of them.
///
/// # Errors
/// Says why the directory cannot be read, or that it has too many pairs.
pub fn pairs_of(directory: &Path) -> Result<Vec<Pair>, String> {
    let unreadable = |why: std::io::Error| format!("{}: {why}", directory.display());
    let mut pairs = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let extension = path.extension().and_then(|it| it.to_str());
        if extension == Some("key") {
            let of = |extension: &str| path.with_extension(extension);
            let certificate = [of("crt"), of("pem")].into_iter().find(|path| path.exists());
            // A key that is alone is a certificate to come: it is no fault.
            pairs.extend(certificate.map(|certificate| Pair { certificate, key: path.clone() }));
        } else if path.join("privkey.pem").exists() {
            let (certificate, key) = (path.join("fullchain.pem"), path.join("privkey.pem"));
            pairs.push(Pair { certificate, key });
        }
        if pairs.len() > MOST_PAIRS {
            let directory = directory.display();
            return Err(format!("{directory} has more than {MOST_PAIRS} certificates"));
        }
    }
    pairs.sort();
    Ok(pairs)
}
