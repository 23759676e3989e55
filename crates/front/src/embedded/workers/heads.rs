//! What the worker and the client are told: heads written anew from what was understood.

use mfserv_core::route::ServerSettings;

use crate::embedded::clients::access_log::Visit;
use crate::embedded::clients::answer;
use crate::embedded::io::buffer::{Buffer, Lent};
use crate::embedded::request::dev_page;
use mfserv_h1::{Framing, Name, RequestHead, ResponseHead};

/// How the client is told the end of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// By Content-Length, or there is no body.
    Plain,
    /// In chunks.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

/// What the worker is told besides what the client said.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// The client's address.
    pub address: &'a str,
    /// The request id.
    pub id: &'a [u8],
    /// What the client says in X-Forwarded-* is passed on.
    pub trusted: bool,
    /// The length of the whole body, where it is known.
    pub length: Option<u64>,
    /// The connection may be used again.
    pub keep_alive: bool,
}

/// The head of a request as the worker gets it: for whoever wants to compare it with
/// the request.
pub fn request_for_worker(
    head: &RequestHead,
    settings: &ServerSettings,
    told: Told<'_>,
) -> Vec<u8> {
    let mut out = Lent::default();
    put_request(&mut out, head, settings, told);
    out.filled().to_vec()
}

/// The head of a request as the worker gets it.
pub fn put_request(
    out: &mut Buffer,
    head: &RequestHead,
    settings: &ServerSettings,
    told: Told<'_>,
) {
    out.push_all(&[head.method(), b" ", head.target(), b" HTTP/1.1\r\nHost: "]);
    out.push_all(&[if head.host().is_empty() { b"localhost" } else { head.host() }, b"\r\n"]);
    for (name, written, value) in head.fields.iter() {
        let is_claim = !told.trusted && settings.add_forwarded && is_forwarded(written);
        if passes_to_worker(name, settings) && !is_claim && !head.fields.is_nominated(written) {
            out.push_all(&[written, b": ", value, b"\r\n"]);
        }
    }
    put_body_framing(out, head, told.length);
    if settings.add_request_id {
        out.push_all(&[b"X-Request-Id: ", told.id, b"\r\n"]);
    }
    if settings.add_forwarded {
        put_forwarded(out, head, told);
    }
    if head.upgrade {
        for protocol in head.fields.values(Name::Upgrade) {
            out.push_all(&[b"Upgrade: ", protocol, b"\r\n"]);
        }
        out.push(b"Connection: upgrade\r\n");
    } else if !told.keep_alive {
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
        | Name::Underscored => false,
        Name::RequestId => !settings.add_request_id,
        Name::RealIp
        | Name::ForwardedFor
        | Name::ForwardedProto
        | Name::ForwardedHost
        | Name::ForwardedPort
        | Name::ForwardedPath => !settings.add_forwarded,
        _ => true,
    }
}

/// X-Forwarded-… and Forwarded: what a proxy says of the client.
fn is_forwarded(written: &[u8]) -> bool {
    let start = written.get(..12).unwrap_or_default();
    start.eq_ignore_ascii_case(b"x-forwarded-") || written.eq_ignore_ascii_case(b"forwarded")
}

fn put_body_framing(out: &mut Buffer, head: &RequestHead, length: Option<u64>) {
    let said = head.framing != Framing::None || head.fields.values(Name::ContentLength).count() > 0;
    match length {
        Some(length) if said => {
            out.push(b"Content-Length: ");
            out.push_number(length);
            out.push(b"\r\n");
        }
        Some(_) => {}
        None => out.push(b"Transfer-Encoding: chunked\r\n"),
    }
}

/// X-Real-IP and X-Forwarded-*: what came in wins, except for the address; from a
/// client that is not trusted nothing came in.
fn put_forwarded(out: &mut Buffer, head: &RequestHead, told: Told<'_>) {
    let (address, trusted) = (told.address.as_bytes(), told.trusted);
    out.push_all(&[b"X-Real-IP: ", address, b"\r\nX-Forwarded-For: "]);
    let earlier = head.fields.values(Name::ForwardedFor).filter(|value| !value.is_empty());
    for value in earlier.filter(|_| trusted) {
        out.push_all(&[value, b", "]);
    }
    out.push_all(&[address, b"\r\n"]);
    let incoming = |name| head.fields.first(name).filter(|_| trusted);
    let proto = incoming(Name::ForwardedProto).unwrap_or(b"http");
    out.push_all(&[b"X-Forwarded-Proto: ", proto, b"\r\n"]);
    if let Some(host) = incoming(Name::ForwardedHost) {
        out.push_all(&[b"X-Forwarded-Host: ", host, b"\r\n"]);
    } else if !head.host_name().is_empty() {
        let host = head.host_name().to_ascii_lowercase();
        out.push_all(&[b"X-Forwarded-Host: ", &host, b"\r\n"]);
    }
    if let Some(port) = incoming(Name::ForwardedPort) {
        out.push_all(&[b"X-Forwarded-Port: ", port, b"\r\n"]);
    }
    let path = incoming(Name::ForwardedPath).unwrap_or(head.target());
    out.push_all(&[b"X-Forwarded-Path: ", path, b"\r\n"]);
}

/// The head of a worker's answer as the client gets it: for whoever wants to compare it
/// with the answer.
pub fn answer_for_client(
    reply: &ResponseHead,
    head: &RequestHead,
    settings: &ServerSettings,
) -> Vec<u8> {
    let mut visit = Visit::new();
    visit.keep = head.keep_alive;
    let mut out = Lent::default();
    put_answer(&mut out, reply, head, settings, &mut visit);
    out.filled().to_vec()
}

/// The head of a worker's answer as the client gets it; says how the body must follow.
pub fn put_answer(
    out: &mut Buffer,
    reply: &ResponseHead,
    head: &RequestHead,
    settings: &ServerSettings,
    visit: &mut Visit,
) -> Shape {
    let shape = shape_for(reply, head);
    visit.keep &= shape != Shape::UntilClose;
    visit.status = reply.status;
    put_status(out, reply);
    let mut dated = false;
    for (name, written, value) in reply.fields.iter() {
        dated |= name == Name::Date;
        // Whatever Connection names: without its length the client could not tell where
        // this answer ends and the next one begins.
        let is_of_the_hop = name != Name::ContentLength && reply.fields.is_nominated(written);
        if passes_to_client(name, reply, settings) && !is_of_the_hop {
            out.push_all(&[written, b": ", value, b"\r\n"]);
        }
    }
    if !dated {
        answer::put_date(out);
    }
    if shape == Shape::Chunked {
        out.push(b"Transfer-Encoding: chunked\r\n");
    }
    if settings.add_request_id {
        out.push_all(&[b"X-Request-Id: ", &visit.id, b"\r\n"]);
    }
    if visit.broken {
        dev_page::put_field(out);
    }
    put_connection(out, reply, head, visit);
    out.push(b"\r\n");
    shape
}

/// An interim answer (103…) as the client gets it.
pub fn put_interim(out: &mut Buffer, reply: &ResponseHead, settings: &ServerSettings) {
    put_status(out, reply);
    for (name, written, value) in reply.fields.iter() {
        if passes_to_client(name, reply, settings) && !reply.fields.is_nominated(written) {
            out.push_all(&[written, b": ", value, b"\r\n"]);
        }
    }
    out.push(b"\r\n");
}

fn put_status(out: &mut Buffer, reply: &ResponseHead) {
    out.push(b"HTTP/1.1 ");
    out.push_number(u64::from(reply.status));
    out.push_all(&[b" ", reply.reason(), b"\r\n"]);
}

fn shape_for(reply: &ResponseHead, head: &RequestHead) -> Shape {
    match reply.framing {
        Framing::None | Framing::Length(_) => Shape::Plain,
        Framing::Chunked | Framing::UntilClose if head.is_1_1 => Shape::Chunked,
        Framing::Chunked | Framing::UntilClose => Shape::UntilClose,
    }
}

fn passes_to_client(name: Name, reply: &ResponseHead, settings: &ServerSettings) -> bool {
    match name {
        Name::TransferEncoding
        | Name::Connection
        | Name::KeepAlive
        | Name::Upgrade
        | Name::Dropped => false,
        // RFC 9110, 8.6: never with 1xx and 204.
        Name::ContentLength => reply.status != 204 && reply.status >= 200,
        Name::RequestId => !settings.add_request_id,
        _ => true,
    }
}

fn put_connection(out: &mut Buffer, reply: &ResponseHead, head: &RequestHead, visit: &Visit) {
    if reply.status == 101 {
        for protocol in reply.fields.values(Name::Upgrade) {
            out.push_all(&[b"Upgrade: ", protocol, b"\r\n"]);
        }
        out.push(b"Connection: upgrade\r\n");
    } else if !visit.keep || !head.is_1_1 {
        answer::put_connection(out, visit.keep);
    }
}
