//! An answer in which an app names a file: `X-Accel-Redirect` or `X-Sendfile`.

use std::path::PathBuf;

use mfserv_core::route::UpstreamSpec;
use mfserv_h1::{Name, ResponseHead};

use super::upstream::Peer;
use crate::embedded::clients::edge::OWN_LOCATIONS;

/// The field of nginx.
const ACCEL: &[u8] = b"x-accel-redirect";

/// The file that an app has named, as it has named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// By its path in the address space of the front (`X-Accel-Redirect`), not on the disk.
    pub is_accel: bool,
    /// The text of the field.
    pub said: Vec<u8>,
    /// The home of the release that its worker is of.
    pub home: PathBuf,
}

/// What becomes of such an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Sending {
    /// It names no file, or is none that has content.
    Nothing,
    /// The front sends the file.
    ByFront(Named),
    /// nginx before the front knows the path.
    ByNginx,
    /// The app may not name files: the answer is passed on without the field.
    Unasked,
}

impl Sending {
    /// What becomes of the answer with this head. `has_nginx`: it goes to nginx.
    pub fn of(head: &ResponseHead, spec: &UpstreamSpec, peer: &Peer, has_nginx: bool) -> Self {
        if head.fields.values(Name::SendFile).next().is_none() {
            return Sending::Nothing;
        }
        let said = |is_wanted: fn(&[u8]) -> bool| {
            let mut fields = head.fields.iter();
            let named = |(name, written, _): &(Name, &[u8], &[u8])| {
                *name == Name::SendFile && is_wanted(written)
            };
            fields.find(named).map(|(_, _, value)| value)
        };
        let (accel, file) = (said(is_accel), said(|written| !is_accel(written)));
        let Some(text) = accel.or(file) else { return Sending::Nothing };
        let is_own = text.starts_with(OWN_LOCATIONS.as_bytes());
        let goes_to_nginx = accel.is_some() && has_nginx && spec.accel_by_nginx && !is_own;
        // 304 is the app's word that the client has it.
        let Some(sendfile) =
            spec.sendfile.as_ref().filter(|_| !matches!(head.status, 101 | 204 | 304))
        else {
            return match (goes_to_nginx, &spec.sendfile) {
                (true, _) => Sending::ByNginx,
                (false, Some(_)) => Sending::Nothing,
                (false, None) => Sending::Unasked,
            };
        };
        let home = peer.home().unwrap_or(&sendfile.home).to_owned();
        if goes_to_nginx && sendfile.by_path(text, &home).is_none() {
            return Sending::ByNginx;
        }
        Sending::ByFront(Named { is_accel: accel.is_some(), said: text.to_vec(), home })
    }
}

/// True for the field that nginx obeys.
pub fn is_accel(written: &[u8]) -> bool {
    written.eq_ignore_ascii_case(ACCEL)
}
