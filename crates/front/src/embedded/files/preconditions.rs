//! Preconditions (`If-…`), ranges and accepted codings of a request for a file.

use std::borrow::Cow;

use super::dates;
use super::ranges::{self, Asked};
use mfserv_h1::{Name, RequestHead};

/// A date identifies a version of a file only if the file has not been written for so many
/// seconds: two versions may be written within a second, and clocks differ.
const SETTLED: i64 = 2;

/// The fields that matter. Several fields of one name are joined by commas; where the field
/// is no list, the result means nothing and is ignored.
#[derive(Debug, Default)]
pub struct Preconditions<'a> {
    if_match: Option<Cow<'a, [u8]>>,
    if_none_match: Option<Cow<'a, [u8]>>,
    if_modified_since: Option<Cow<'a, [u8]>>,
    if_unmodified_since: Option<Cow<'a, [u8]>>,
    if_range: Option<Cow<'a, [u8]>>,
    range: Option<Cow<'a, [u8]>>,
    /// Accept-Encoding.
    pub accept_encoding: Option<Cow<'a, [u8]>>,
}

/// The outcome of the preconditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They hold, or there are none.
    Holds,
    /// The client has this version already.
    NotModified,
    /// The file is not the version that the client expects.
    Failed,
}

/// What identifies a version of a file.
#[derive(Debug, Clone, Copy)]
pub struct Validators<'a> {
    /// Its ETag.
    pub tag: &'a str,
    /// When it was written, Unix time.
    pub modified: i64,
    /// The time now, Unix time.
    pub now: i64,
}

impl Validators<'_> {
    fn date(&self, text: &[u8]) -> Option<i64> {
        let this_year = 1970 + self.now / 31_556_952;
        dates::parse(text, i16::try_from(this_year).unwrap_or(i16::MAX - 100))
    }
}

impl<'a> Preconditions<'a> {
    /// Collects the fields in one pass.
    pub fn of(head: &'a RequestHead) -> Self {
        let mut asked = Self::default();
        for (name, written, value) in head.fields.iter() {
            let is = |known: &str| written.eq_ignore_ascii_case(known.as_bytes());
            let slot = match name {
                Name::IfNoneMatch => &mut asked.if_none_match,
                Name::IfModifiedSince => &mut asked.if_modified_since,
                Name::IfRange => &mut asked.if_range,
                Name::Range => &mut asked.range,
                Name::Other if written.len() == 8 && is("if-match") => &mut asked.if_match,
                Name::Other if written.len() == 15 && is("accept-encoding") => {
                    &mut asked.accept_encoding
                }
                Name::Other if written.len() == 19 && is("if-unmodified-since") => {
                    &mut asked.if_unmodified_since
                }
                _ => continue,
            };
            match slot {
                None => *slot = Some(Cow::Borrowed(value)),
                Some(before) => {
                    let before = before.to_mut();
                    before.push(b',');
                    before.extend_from_slice(value);
                }
            }
        }
        asked
    }

    /// Evaluates the preconditions in the order of RFC 9110, 13.2.2.
    pub fn evaluate(&self, has: &Validators<'_>) -> Verdict {
        if let Some(tags) = &self.if_match {
            if !matches_strongly(tags, has.tag) {
                return Verdict::Failed;
            }
        } else if let Some(since) = self.if_unmodified_since.as_ref().and_then(|t| has.date(t)) {
            if has.modified > since {
                return Verdict::Failed;
            }
        }
        let unchanged = if let Some(tags) = &self.if_none_match {
            matches_weakly(tags, has.tag)
        } else {
            let since = self.if_modified_since.as_ref().and_then(|text| has.date(text));
            since.is_some_and(|since| has.modified <= since)
        };
        if unchanged { Verdict::NotModified } else { Verdict::Holds }
    }

    /// True if the client has a version, and wants nothing if there is another one.
    pub fn insists(&self) -> bool {
        self.if_match.is_some()
    }

    /// True if it does not insist on another version than that with this tag.
    pub fn lets_have(&self, tag: &str) -> bool {
        self.if_match.as_ref().is_none_or(|tags| matches_strongly(tags, tag))
    }

    /// True if parts are asked for.
    pub fn asks_for_parts(&self) -> bool {
        self.range.is_some()
    }

    /// The parts that are asked for of this version, which has `whole` bytes.
    pub fn parts(&self, has: &Validators<'_>, whole: u64) -> Asked {
        let Some(range) = &self.range else { return Asked::All };
        match &self.if_range {
            Some(version) if !self.is_version(version, has) => Asked::All,
            _ => ranges::parse(range, whole),
        }
    }

    fn is_version(&self, version: &[u8], has: &Validators<'_>) -> bool {
        if version == has.tag.as_bytes() && !is_weak(has.tag) {
            return true;
        }
        has.now - has.modified >= SETTLED && has.date(version) == Some(has.modified)
    }
}

fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&b| b == b',').map(<[u8]>::trim_ascii)
}

/// True if versions with this tag may differ in their bytes (RFC 9110, 8.8.1).
fn is_weak(tag: &str) -> bool {
    tag.starts_with("W/")
}

fn matches_strongly(list: &[u8], tag: &str) -> bool {
    members(list).any(|one| one == b"*" || (one == tag.as_bytes() && !is_weak(tag)))
}

fn matches_weakly(list: &[u8], tag: &str) -> bool {
    let tag = tag.strip_prefix("W/").unwrap_or(tag).as_bytes();
    members(list).any(|one| one == b"*" || one.strip_prefix(b"W/").unwrap_or(one) == tag)
}
