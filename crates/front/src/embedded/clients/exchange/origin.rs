//! Where a request comes from: the client, what it has connected to, and how.

use std::net::IpAddr;

use mfserv_h1::Name;

use super::Exchange;
use crate::embedded::io::tls::Identity;

impl Exchange<'_> {
    /// The port of the client, where it is the client that connected, over TCP.
    pub fn client_port(&self) -> Option<u16> {
        self.connection.peer_port().filter(|_| self.request.forwarded_for.is_none())
    }

    /// True if the client has connected over TLS.
    pub fn is_secure(&self) -> bool {
        self.connection.is_secure()
    }

    /// True if the client speaks TLS: with this node, or as a proxy says that may say so.
    pub(super) fn is_https(&self) -> bool {
        self.is_secure() || self.is_by_proxy_over_tls()
    }

    /// True if a proxy that may say so says that the client speaks TLS with it.
    pub fn is_by_proxy_over_tls(&self) -> bool {
        let is_understood = self.request.is_understood;
        let proto = self.request.head.fields.first(Name::ForwardedProto).filter(|_| is_understood);
        self.is_trusted() && proto.is_some_and(|proto| proto.eq_ignore_ascii_case(b"https"))
    }

    /// Who the client is, as an authority says.
    pub fn identity(&self) -> Option<&Identity> {
        self.connection.identity()
    }

    /// The port that was connected to, over TCP.
    pub fn reached_port(&self) -> Option<u16> {
        self.connection.reached_port()
    }

    /// The address that was connected to, over TCP. Costs a system call.
    pub fn reached_address(&self) -> Option<IpAddr> {
        self.connection.reached_address()
    }

    /// True if what the client says in X-Forwarded-* is passed on.
    pub fn is_trusted(&self) -> bool {
        self.request.is_trusted
    }

    /// True if nginx asks, as the edge of the node.
    pub fn is_by_nginx(&self) -> bool {
        self.connection.is_edge()
    }

    /// True if a proxy whose word is taken asks for the client.
    pub fn is_by_proxy(&self) -> bool {
        self.settings.real_ip.is_some() && self.request.is_trusted
    }
}
