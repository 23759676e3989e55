//! The makers of keys: one function for each Rust type that a key can have.
//!
//! A maker chooses how the text is read ([`Type`]) and how the result becomes the Rust type,
//! so that the two agree for every key.

use std::net::IpAddr;
use std::path::PathBuf;

use super::reading::Read;
use super::{Key, Row, Type};
use crate::circus::Endpoint;
use crate::log_outputs::SyslogAddress;
use crate::route::{Symlinks, UnknownHost};
use crate::tls::{self, ClientCertificates, Version};

type Text = &'static str;
/// Section and key.
type Place = (Text, Text);

/// A key that this version obeys.
pub(super) const fn obeyed<T>(
    at: Place,
    default: Text,
    kind: Type,
    meaning: Text,
    take: fn(&Read) -> T,
) -> Key<T> {
    let (section, key) = at;
    Key { row: Row { section, key, default: Some(default), kind, meaning, obeyed: true }, take }
}

/// A key that is known, accepted and exported, and has no effect in this version.
pub(super) const fn known(at: Place, default: Text, kind: Type, meaning: Text) -> Key<()> {
    let ((section, key), default) = (at, Some(default));
    Key { row: Row { section, key, default, kind, meaning, obeyed: false }, take: |_| () }
}

/// The same, without a default: nothing is exported unless it is set.
pub(super) const fn unset(at: Place, kind: Type, meaning: Text) -> Key<()> {
    let (section, key) = at;
    Key { row: Row { section, key, default: None, kind, meaning, obeyed: false }, take: |_| () }
}

pub(super) const fn flag(at: Place, default: Text, meaning: Text) -> Key<bool> {
    obeyed(at, default, Type::Flag, meaning, |read| matches!(read, Read::Flag(true)))
}

/// A number; what is below 0 counts as 0.
pub(super) const fn count(at: Place, default: Text, kind: Type, meaning: Text) -> Key<u64> {
    obeyed(at, default, kind, meaning, |read| read.number().unwrap_or(0))
}

/// A number that is no larger than a `u32`.
pub(super) const fn small(at: Place, default: Text, kind: Type, meaning: Text) -> Key<u32> {
    obeyed(at, default, kind, meaning, |read| {
        read.number().map_or(0, |number| u32::try_from(number).unwrap_or(u32::MAX))
    })
}

/// A number, or `null`.
pub(super) const fn optional(
    at: Place,
    default: Text,
    kind: Type,
    meaning: Text,
) -> Key<Option<u64>> {
    obeyed(at, default, kind, meaning, Read::number)
}

pub(super) const fn port(at: Place, default: Text, meaning: Text) -> Key<Option<u16>> {
    obeyed(at, default, Type::Port, meaning, |read| {
        read.number().and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)
    })
}

pub(super) const fn file_mode(at: Place, default: Text, meaning: Text) -> Key<Option<u32>> {
    obeyed(at, default, Type::FileMode, meaning, |read| {
        read.number().and_then(|mode| u32::try_from(mode).ok())
    })
}

/// One of a few words, as the table writes it.
pub(super) const fn one_of(at: Place, default: Text, words: Type, meaning: Text) -> Key<String> {
    obeyed(at, default, words, meaning, |read| read.text().unwrap_or_default())
}

pub(super) const fn symlinks(at: Place, default: Text, meaning: Text) -> Key<Symlinks> {
    const WORDS: Type = Type::OneOf { words: &["follow", "beneath"] };
    obeyed(at, default, WORDS, meaning, |read| match read.text().as_deref() {
        Some("beneath") => Symlinks::Beneath,
        _ => Symlinks::Follow,
    })
}

pub(super) const fn unknown_host(at: Place, default: Text, meaning: Text) -> Key<UnknownHost> {
    const WORDS: Type = Type::OneOf { words: &["default", "404", "421", "close"] };
    obeyed(at, default, WORDS, meaning, |read| match read.text().as_deref() {
        Some("404") => UnknownHost::NotFound,
        Some("421") => UnknownHost::Misdirected,
        Some("close") => UnknownHost::Close,
        _ => UnknownHost::Default,
    })
}

pub(super) const fn path(at: Place, default: Text, meaning: Text) -> Key<Option<PathBuf>> {
    obeyed(at, default, Type::Path, meaning, |read| read.text().map(PathBuf::from))
}

pub(super) const fn host(at: Place, default: Text, meaning: Text) -> Key<Option<String>> {
    obeyed(at, default, Type::Host, meaning, Read::text)
}

pub(super) const fn http_url(at: Place, default: Text, meaning: Text) -> Key<Option<String>> {
    obeyed(at, default, Type::HttpUrl, meaning, Read::text)
}

/// Several of them.
pub(super) const fn http_urls(at: Place, default: Text, meaning: Text) -> Key<Vec<String>> {
    obeyed(at, default, Type::HttpUrls, meaning, list)
}

pub(super) const fn index_name(at: Place, default: Text, meaning: Text) -> Key<String> {
    obeyed(at, default, Type::IndexName, meaning, |read| read.text().unwrap_or_default())
}

pub(super) const fn syslog_address(
    at: Place,
    default: Text,
    meaning: Text,
) -> Key<Option<SyslogAddress>> {
    obeyed(at, default, Type::SyslogAddress, meaning, |read| {
        SyslogAddress::parse(&read.text()?).ok()
    })
}

pub(super) const fn endpoint(at: Place, default: Text, meaning: Text) -> Key<Option<Endpoint>> {
    obeyed(at, default, Type::Endpoint, meaning, |read| Endpoint::parse(&read.text()?).ok())
}

pub(super) const fn url_path(at: Place, default: Text, meaning: Text) -> Key<Option<String>> {
    obeyed(at, default, Type::UrlPath, meaning, Read::text)
}

pub(super) const fn addresses(at: Place, default: Text, meaning: Text) -> Key<Vec<IpAddr>> {
    obeyed(at, default, Type::Addresses, meaning, |read| {
        list(read).iter().filter_map(|text| text.parse().ok()).collect()
    })
}

pub(super) const fn networks(at: Place, default: Text, meaning: Text) -> Key<Vec<String>> {
    obeyed(at, default, Type::Networks, meaning, list)
}

fn list(read: &Read) -> Vec<String> {
    match read {
        Read::List(items) => items.clone(),
        _ => Vec::new(),
    }
}

pub(super) const fn program(at: Place, default: Text, meaning: Text) -> Key<Option<String>> {
    obeyed(at, default, Type::Program, meaning, Read::text)
}

pub(super) const fn text(at: Place, default: Text, meaning: Text) -> Key<String> {
    obeyed(at, default, Type::Text, meaning, |read| read.text().unwrap_or_default())
}

/// Who has to show a certificate.
pub(super) const fn client_certificates(
    at: Place,
    default: Text,
    meaning: Text,
) -> Key<ClientCertificates> {
    const WORDS: Type = Type::OneOf { words: &["off", "optional", "required"] };
    obeyed(at, default, WORDS, meaning, |read| match read.text().as_deref() {
        Some("optional") => ClientCertificates::Optional,
        Some("required") => ClientCertificates::Required,
        _ => ClientCertificates::Off,
    })
}

pub(super) const fn tls_versions(at: Place, default: Text, meaning: Text) -> Key<Vec<Version>> {
    obeyed(at, default, Type::TlsVersions, meaning, |read| {
        let chosen = tls::versions(&read.text().unwrap_or_default());
        chosen.map_or_else(|_| Vec::new(), |chosen| chosen.offered)
    })
}

pub(super) const fn tls_ciphers(at: Place, default: Text, meaning: Text) -> Key<Vec<String>> {
    obeyed(at, default, Type::TlsCiphers, meaning, |read| {
        let chosen = tls::ciphers(&read.text().unwrap_or_default());
        let offered = chosen.map_or_else(|_| Vec::new(), |chosen| chosen.offered);
        offered.into_iter().map(String::from).collect()
    })
}

/// Any text, or `null`.
pub(super) const fn some_text(at: Place, default: Text, meaning: Text) -> Key<Option<String>> {
    obeyed(at, default, Type::Text, meaning, |read| {
        read.text().filter(|text| !text.is_empty() && text != "null")
    })
}
