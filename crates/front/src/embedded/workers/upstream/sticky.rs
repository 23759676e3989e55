//! Clients that come back to the worker that they have had: by a cookie that names it, or by their
//! address.

use mfserv_core::names::WorkerId;
use mfserv_core::peers::{PeerKey, by_address};
use mfserv_core::route::Affinity;
use mfserv_h1::RequestHead;
use sha2::{Digest, Sha256};

use super::{Inner, Waiting};
use mfserv_platform::disk::hex;
use mfserv_platform::sync::lock;

/// What tells the client of a request from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Client<'a> {
    /// Nothing: any worker will do.
    Any,
    /// It says the marks of workers that it has had.
    Marked(Vec<&'a [u8]>),
    /// Its address.
    At(&'a str),
}

impl<'a> Client<'a> {
    /// The client of a request to an app with this affinity.
    pub fn of(affinity: Option<&Affinity>, head: &'a RequestHead, address: &'a str) -> Self {
        match affinity {
            None => Client::Any,
            Some(Affinity::Ip) => Client::At(address),
            Some(Affinity::Cookie { name }) => Client::Marked(cookies(head, name).collect()),
        }
    }

    /// True if it has said the mark of this worker.
    pub fn says(&self, mark: &str) -> bool {
        matches!(self, Client::Marked(said) if said.contains(&mark.as_bytes()))
    }
}

/// The values of a cookie: one for each path that it was set for.
fn cookies<'a>(head: &'a RequestHead, name: &str) -> impl Iterator<Item = &'a [u8]> {
    let fields = head.fields.iter();
    let fields = fields.filter(|(_, written, _)| written.eq_ignore_ascii_case(b"cookie"));
    let pairs = fields.flat_map(|(_, _, value)| value.split(|&byte| byte == b';'));
    pairs.filter_map(move |pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(value.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(value))
    })
}

/// What a cookie says of a worker: nothing but which one it is, and the same in every front.
pub fn mark(worker: &WorkerId) -> String {
    let digest = Sha256::digest(worker.to_string());
    hex(&digest[..8])
}

impl Inner {
    /// The worker that a client comes back to, if that serves.
    pub(super) fn wanted(&self, client: &Client<'_>) -> Option<PeerKey> {
        let peers = self.members.iter().map(|member| &member.peer);
        let mut serving = peers.filter(|peer| self.roster.serves(peer.key));
        match client {
            Client::Any => None,
            Client::Marked(said) if said.is_empty() => None,
            Client::Marked(_) => serving.find(|peer| client.says(&peer.mark)).map(|peer| peer.key),
            Client::At(address) => by_address(
                address.as_bytes(),
                serving.map(|peer| (peer.name.worker.slot, peer.key)),
            ),
        }
    }
}

impl Waiting {
    /// True for a request that waits for one worker.
    pub fn is_sticky(&self) -> bool {
        self.is_sticky
    }

    /// Lets it have any worker.
    pub fn loosen(&self) {
        let mut inner = lock(&self.upstream.inner);
        let handed = inner.roster.loosen(self.ticket);
        inner.deliver(handed);
    }
}
