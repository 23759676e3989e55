//! The heads of a forwarded request and of its answer. Both are written anew from what
//! was understood; here it is decided which fields are passed on.

use mfserv_core::route::ServerSettings;

use mfserv_h1::{Framing, Name, RequestHead, ResponseHead};

use super::sendfile::is_accel;
use super::stripped::Stripped;
use crate::embedded::clients::exchange::{Exchange, HeadWriter, STRICT_TRANSPORT, Size, Start};
use crate::embedded::clients::trace::Trace;
use crate::embedded::io::buffer::Buffer;
use crate::embedded::io::tls::is_of_identity;

/// What a worker learns besides what the client has sent.
#[derive(Debug, Clone, Copy)]
pub struct Forwarded<'a> {
    /// The client's address.
    pub address: &'a str,
    /// The client's port, where it is the client that connected.
    pub port: Option<u16>,
    /// The port that was connected to.
    pub reached_port: Option<u16>,
    /// The request id.
    pub id: &'a [u8],
    /// The trace.
    pub trace: Trace,
    /// What the client has sent in X-Forwarded-* is passed on.
    pub trusted: bool,
    /// The length of the whole content, where it is known.
    pub length: Option<u64>,
    /// The connection to the worker may be used again.
    pub keep_alive: bool,
    /// The client has connected over TLS.
    pub secure: bool,
    /// The client, where clients are asked for certificates.
    pub identity: Option<&'a [u8]>,
    /// It gets the rest of the path after a prefix.
    pub stripped: Option<Stripped<'a>>,
}

/// Writes the head of a request for a worker.
pub fn put_request(
    out: &mut Buffer,
    head: &RequestHead,
    settings: &ServerSettings,
    with: Forwarded<'_>,
) {
    out.push_all(&[head.method(), b" "]);
    match with.stripped {
        Some(stripped) => stripped.put_target(out, head),
        None => out.push(head.target()),
    }
    out.push(b" HTTP/1.1\r\nHost: ");
    out.push_all(&[if head.host().is_empty() { b"localhost" } else { head.host() }, b"\r\n"]);
    for (name, written, value) in head.fields.iter() {
        let is_claim = !with.trusted && settings.add_forwarded && is_forwarded(written);
        let is_of_trace = matches!(name, Name::TraceParent | Name::TraceState);
        let is_replaced = is_of_trace && matches!(with.trace, Trace::Begun { .. });
        let is_prefix = with.stripped.is_some() && name == Name::ForwardedPrefix;
        let is_identity = with.identity.is_some() && is_of_identity(written);
        if passes_to_worker(name, settings)
            && !is_claim
            && !is_identity
            && !is_prefix
            && !is_replaced
            && !head.fields.is_nominated(written)
        {
            out.push_all(&[written, b": ", value, b"\r\n"]);
        }
    }
    put_body_framing(out, head, with.length);
    if settings.add_request_id {
        out.push_all(&[b"X-Request-Id: ", with.id, b"\r\n"]);
    }
    with.trace.put(out);
    if let Some(identity) = with.identity {
        out.push(identity);
    }
    if settings.add_forwarded {
        put_forwarded(out, head, with);
    }
    if let Some(stripped) = with.stripped {
        stripped.put_field(out, head);
    }
    if head.upgrade {
        for protocol in head.fields.values(Name::Upgrade) {
            out.push_all(&[b"Upgrade: ", protocol, b"\r\n"]);
        }
        out.push(b"Connection: upgrade\r\n");
    } else if !with.keep_alive {
        out.push(b"Connection: close\r\n");
    }
    out.push(b"\r\n");
}

fn passes_to_worker(name: Name, settings: &ServerSettings) -> bool {
    match name {
        Name::Host
        | Name::ContentLength
        | Name::TransferEncoding
        | Name::Connection
        | Name::KeepAlive
        | Name::Upgrade
        | Name::Expect
        | Name::Dropped
        | Name::Edge
        | Name::Underscored => false,
        Name::RequestId => !settings.add_request_id,
        Name::RealIp
        | Name::RealPort
        | Name::ForwardedFor
        | Name::ForwardedProto
        | Name::ForwardedHost
        | Name::ForwardedPort
        | Name::ForwardedPath => !settings.add_forwarded,
        _ => true,
    }
}

/// True for X-Forwarded-… and Forwarded: what a proxy says of its client.
fn is_forwarded(written: &[u8]) -> bool {
    let start = written.get(..12).unwrap_or_default();
    start.eq_ignore_ascii_case(b"x-forwarded-") || written.eq_ignore_ascii_case(b"forwarded")
}

fn put_body_framing(out: &mut Buffer, head: &RequestHead, length: Option<u64>) {
    let had_body =
        head.framing != Framing::None || head.fields.values(Name::ContentLength).count() > 0;
    match length {
        Some(length) if had_body => {
            out.push(b"Content-Length: ");
            out.push_number(length);
            out.push(b"\r\n");
        }
        Some(_) => {}
        None => out.push(b"Transfer-Encoding: chunked\r\n"),
    }
}

/// Writes X-Real-IP and X-Forwarded-*. What a trusted client has sent wins, except for the
/// address; what another client has sent counts as not sent.
fn put_forwarded(out: &mut Buffer, head: &RequestHead, with: Forwarded<'_>) {
    let (address, trusted) = (with.address.as_bytes(), with.trusted);
    out.push_all(&[b"X-Real-IP: ", address, b"\r\n"]);
    put_port(out, b"X-Real-Port: ", with.port);
    out.push(b"X-Forwarded-For: ");
    let earlier = head.fields.values(Name::ForwardedFor).filter(|value| !value.is_empty());
    for value in earlier.filter(|_| trusted) {
        out.push_all(&[value, b", "]);
    }
    out.push_all(&[address, b"\r\n"]);
    let incoming = |name| head.fields.first(name).filter(|_| trusted);
    let proto =
        incoming(Name::ForwardedProto).unwrap_or(if with.secure { b"https" } else { b"http" });
    out.push_all(&[b"X-Forwarded-Proto: ", proto, b"\r\n"]);
    // With its port: an app makes its own address of it.
    if let Some(host) = incoming(Name::ForwardedHost) {
        out.push_all(&[b"X-Forwarded-Host: ", host, b"\r\n"]);
    } else if !head.host().is_empty() {
        let host = head.host().to_ascii_lowercase();
        out.push_all(&[b"X-Forwarded-Host: ", &host, b"\r\n"]);
    }
    match incoming(Name::ForwardedPort) {
        Some(port) => out.push_all(&[b"X-Forwarded-Port: ", port, b"\r\n"]),
        // A proxy that has said another host or scheme knows the port, this front does not.
        None if names_origin(head, trusted) => {}
        None => put_port(out, b"X-Forwarded-Port: ", head.host_port().or(with.reached_port)),
    }
    let path = incoming(Name::ForwardedPath).unwrap_or(head.target());
    out.push_all(&[b"X-Forwarded-Path: ", path, b"\r\n"]);
}

/// True if a proxy whose word is taken has said where its client has connected to.
fn names_origin(head: &RequestHead, trusted: bool) -> bool {
    let said = |name| trusted && head.fields.first(name).is_some();
    said(Name::ForwardedHost) || said(Name::ForwardedProto)
}

fn put_port(out: &mut Buffer, name: &[u8], port: Option<u16>) {
    let Some(port) = port else { return };
    out.push(name);
    out.push_number(u64::from(port));
    out.push(b"\r\n");
}

/// Puts the head of a worker's answer into the exchange.
pub fn put_answer(exchange: &mut Exchange<'_>, reply: &ResponseHead) {
    let settings = exchange.settings();
    exchange.put_head(start(reply), |head| put_fields(head, reply, settings));
}

/// The same for nginx, which is to obey its `X-Accel-Redirect`.
pub fn put_answer_for_nginx(exchange: &mut Exchange<'_>, reply: &ResponseHead) {
    let settings = exchange.settings();
    exchange.put_head(start(reply), |head| {
        put_fields(head, reply, settings);
        let fields = reply.fields.iter();
        let accel =
            fields.filter(|(name, written, _)| *name == Name::SendFile && is_accel(written));
        accel.take(1).for_each(|(_, written, value)| head.field(written, value));
    });
}

/// How a worker's answer begins.
pub fn start(reply: &ResponseHead) -> Start<'_> {
    let size = match reply.framing {
        Framing::None | Framing::Length(_) => Size::Known,
        Framing::Chunked | Framing::UntilClose => Size::Unknown,
    };
    Start { status: reply.status, reason: reply.reason(), size, names_connection: false }
}

/// Writes the fields of a worker's answer that are passed on.
pub fn put_fields(head: &mut HeadWriter<'_>, reply: &ResponseHead, settings: &ServerSettings) {
    put_those(head, reply, settings, |_, _| true);
}

/// The same for an answer with other content than the worker has sent: a file that it names, or, with
/// `is_page`, the word why that is not sent. What describes the content is left out.
pub fn put_fields_beside_file(
    head: &mut HeadWriter<'_>,
    reply: &ResponseHead,
    settings: &ServerSettings,
    is_page: bool,
) {
    put_those(head, reply, settings, |name, written| {
        let is_one_of =
            |names: &[&str]| names.iter().any(|one| written.eq_ignore_ascii_case(one.as_bytes()));
        name != Name::ContentLength && !is_one_of(&OF_CONTENT) && !(is_page && is_one_of(&OF_FILE))
    });
}

/// What a front says of a file that it sends, and what is true of nothing but the content that the
/// worker has made: how that is coded, and its digests.
const OF_CONTENT: [&str; 10] = [
    "Content-Type",
    "Content-Range",
    "Accept-Ranges",
    "ETag",
    "Last-Modified",
    "Content-Encoding",
    "Content-MD5",
    "Digest",
    "Content-Digest",
    "Repr-Digest",
];
/// What a worker says of the file, and not of a page in its place.
const OF_FILE: [&str; 3] = ["Content-Disposition", "Content-Language", "Content-Location"];

fn put_those(
    head: &mut HeadWriter<'_>,
    reply: &ResponseHead,
    settings: &ServerSettings,
    is_wanted: impl Fn(Name, &[u8]) -> bool,
) {
    let mut is_dated = false;
    let has_own_security = settings.tls.as_ref().is_some_and(|tls| tls.strict_transport.is_some());
    for (name, written, value) in reply.fields.iter() {
        is_dated |= name == Name::Date;
        // The length is passed on even where the field Connection names it: without it the
        // client could not tell where this answer ends and the next one begins.
        let is_of_the_hop = name != Name::ContentLength && reply.fields.is_nominated(written);
        let is_replaced = has_own_security && written.eq_ignore_ascii_case(STRICT_TRANSPORT);
        let passes = passes_to_client(name, reply, settings) && is_wanted(name, written);
        if passes && !is_of_the_hop && !is_replaced {
            head.field(written, value);
        }
    }
    if !is_dated {
        head.date();
    }
    for protocol in reply.fields.values(Name::Upgrade).filter(|_| reply.status == 101) {
        head.field(b"Upgrade", protocol);
    }
}

/// Puts the head of an interim answer of a worker (103…) into the exchange.
pub fn put_interim(exchange: &mut Exchange<'_>, reply: &ResponseHead) {
    let settings = exchange.settings();
    exchange.put_interim((reply.status, reply.reason()), |head| {
        for (name, written, value) in reply.fields.iter() {
            if passes_to_client(name, reply, settings) && !reply.fields.is_nominated(written) {
                head.field(written, value);
            }
        }
    });
}

fn passes_to_client(name: Name, reply: &ResponseHead, settings: &ServerSettings) -> bool {
    match name {
        Name::TransferEncoding
        | Name::Connection
        | Name::KeepAlive
        | Name::Upgrade
        | Name::Dropped
        // They name files of the node, and a proxy before it would obey them.
        | Name::SendFile => false,
        // RFC 9110, 8.6: never with 1xx and 204.
        Name::ContentLength => reply.status != 204 && reply.status >= 200,
        Name::RequestId => !settings.add_request_id,
        _ => true,
    }
}
