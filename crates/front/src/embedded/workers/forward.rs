//! A request to an app: a slot, a connection, the head of the answer; and whether it is
//! tried again when a worker goes away in the middle of that.

mod attempt;
mod place;
mod pull;
mod tries;

use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use mfserv_core::route::Affinity;
use mfserv_core::tls::ClientCertificates;
use mfserv_core::wire::front::TroubleCause;

use self::pull::NotTaken;
use self::tries::Tries;
use super::destination::{Destination, Reply};
use super::failure::Failure;
use super::heads::{self, Forwarded};
use super::sendfile::{Named, Sending};
use super::upload::Upload;
use super::upstream::{Client, Link, NoLink, Peer, Place, Slot, Speaks};
use super::{fastcgi, relay, tunnel};
use crate::embedded::clients::exchange::Exchange;
use crate::embedded::clients::fault::{Cause, Fault};
use crate::embedded::io::budget::FairShare;
use crate::embedded::io::signal::Subscription;
use crate::embedded::io::tls::{Identity, NOBODY};

/// How long a worker that may be dying is left alone by a request that it did not answer.
const DYING: Duration = Duration::from_millis(100);
const NO_ROOM: &str = "requests are refused with 503: no room in temporary files for their bodies \
                       (an app alone has half of it, and [nginx] upload_max_body_size makes it \
                       larger), or too few file descriptors (ulimit -Hn, LimitNOFILE of systemd)";
const SENDS_FILE: &str = "it answers with X-Accel-Redirect or X-Sendfile, and has no directories \
                          for that (_sendfile_roots in its section): clients get the answer as it \
                          is, without that field and the file";

/// Forwards a request and passes the answer on, to its end; or says which file is to be sent in
/// its place. `under_way` is dropped then, or when the connection is upgraded.
pub async fn run(
    exchange: &mut Exchange<'_>,
    reply: &mut Reply,
    to: Destination<'_>,
    under_way: impl Sized,
) -> Result<Option<Named>, Fault> {
    // First: a body takes up room, and its client may be told to come again without it.
    place::pass_gate(exchange, &to, false).await?;
    let own = &to.app.upstream;
    let room = (FairShare::new(&own.bodies, &to.pool.spooled), &own.descriptors);
    let unwritten =
        |dir: &Path, why: &io::Error| to.pool.report_unwritten(&to.app.upstream, dir, why);
    let received = Upload::receive(exchange, to.app.spec.is_finite(), room, &unwritten).await;
    let mut upload = received.inspect_err(|fault| {
        if *fault == Fault::Answer(Cause::NoRoom) {
            to.pool.warn_of(&to.app.upstream, NO_ROOM);
        }
    })?;
    let mut forwarding = Forwarding { exchange, reply, to, tries: Tries::default() };
    let (mut slot, link) = forwarding.answered(&mut upload).await?;
    slot.answered(reply.head.status);
    mark_client(exchange, reply, &to, &slot);
    if reply.head.status == 101 {
        drop(under_way);
        return tunnel::run(exchange, reply, to, slot, link).await.map(|()| None);
    }
    let sending = Sending::of(&reply.head, &to.app.spec, &slot.peer, exchange.is_by_nginx());
    if sending == Sending::Unasked {
        to.pool.warn_of(&to.app.upstream, SENDS_FILE);
    }
    if let Sending::ByFront(named) = sending {
        relay::discard(exchange, reply, to, (slot, link), &upload);
        drop(under_way);
        return Ok(Some(named));
    }
    let by_nginx = sending == Sending::ByNginx;
    let done = relay::run(exchange, reply, to, (slot, link), upload, by_nginx).await;
    drop(under_way);
    done.map(|()| None)
}

/// Tells a client by a cookie which worker it has, if it does not say that itself.
fn mark_client(exchange: &mut Exchange<'_>, reply: &Reply, to: &Destination<'_>, slot: &Slot) {
    let Some(Affinity::Cookie { name }) = &to.app.spec.affinity else { return };
    let client = Client::of(to.app.spec.affinity.as_ref(), exchange.request(), "");
    if client.says(&slot.peer.mark) || sets_cookie(reply, name) {
        return;
    }
    let path = to.mapped.prefix();
    // In a cookie, this would mean something else than in a path.
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && !b";,%".contains(&byte));
    let path = if is_plain && path.starts_with('/') { path } else { "/" };
    let is_https = exchange.is_secure() || exchange.is_by_proxy_over_tls();
    let secure = if is_https { "; Secure" } else { "" };
    let mark = &slot.peer.mark;
    exchange.set_cookie(format!("{name}={mark}; Path={path}; HttpOnly; SameSite=Lax{secure}"));
}

/// True if the app sets this cookie itself: it would lose it.
fn sets_cookie(reply: &Reply, name: &str) -> bool {
    let mut fields = reply.head.fields.iter();
    fields.any(|(_, written, value)| {
        written.eq_ignore_ascii_case(b"set-cookie")
            && value.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
    })
}

/// A request that looks for a worker that answers it.
struct Forwarding<'r, 'x> {
    exchange: &'r mut Exchange<'x>,
    reply: &'r mut Reply,
    to: Destination<'r>,
    tries: Tries,
}

impl Forwarding<'_, '_> {
    /// Asks workers until one has sent the head of an answer.
    async fn answered(&mut self, upload: &mut Upload<'_>) -> Result<(Slot, Link), Fault> {
        let mut last = NoLink::Busy;
        loop {
            let (mut slot, mut link, came) = match self.place(last).await? {
                Place::Turn(turn) => match self.pull(turn, upload).await {
                    Ok(taken) => taken,
                    Err(NotTaken::Again) => {
                        // Other tasks run first: one of them may have to note that no worker pulls.
                        tokio::task::yield_now().await;
                        continue;
                    }
                    Err(NotTaken::Fault(fault)) => return Err(fault),
                    Err(NotTaken::Failed(failure, peer)) => {
                        self.failed(failure, &peer, upload)?;
                        continue;
                    }
                },
                Place::Slot(mut slot) => {
                    self.exchange.set_worker(&slot.peer.source);
                    let speaks = match self.to.app.spec.fastcgi {
                        Some(_) => Speaks::FastCgi,
                        None => Speaks::Http,
                    };
                    match slot.link(self.tries.count > 0, speaks).await {
                        Ok(link) => {
                            self.exchange.ask_worker();
                            self.put_head(Some(&slot.peer), upload)?;
                            (slot, link, Vec::new())
                        }
                        Err(why) => {
                            self.no_link(&slot, why, last);
                            last = why;
                            self.tries.avoid = Some(slot.peer.clone());
                            continue;
                        }
                    }
                }
            };
            let outcome = self.attempt(&mut slot, &mut link, upload, &came).await;
            if let Some(said) = link.wire.take_said() {
                self.to.pool.worker_said(&slot.peer.name.worker, &said);
            }
            match outcome {
                Ok(()) => return Ok((slot, link)),
                Err(failure) => {
                    drop(link);
                    self.failed(failure, &slot.peer, upload)?;
                    let peer = slot.peer.clone();
                    drop(slot);
                    if failure == (Failure::Silent { reused: false }) {
                        self.let_die(&peer).await;
                    }
                }
            }
        }
    }

    /// A worker that has ended a new connection without a word may be dying: its socket takes
    /// connections until the last of its processes has ended. If no other one can be asked, the
    /// request waits until that is known, for a moment.
    async fn let_die(&self, peer: &Peer) {
        if self.to.app.upstream.admitted().iter().any(|other| other.worker != peer.name.worker) {
            return;
        }
        let mut gone = Subscription::new(peer.gone.clone());
        let dead = poll_fn(|cx| match gone.is_raised(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        });
        // Either way the request is tried again.
        let _ = tokio::time::timeout(DYING, dead).await;
    }

    /// A worker has failed. An error if no other one may be asked.
    fn failed(
        &mut self,
        failure: Failure,
        peer: &Arc<Peer>,
        upload: &Upload<'_>,
    ) -> Result<(), Fault> {
        let is_safe = self.exchange.request().is_safe();
        let again = upload.can_be_repeated() && self.tries.allow(failure, peer, is_safe);
        self.report(peer, failure);
        if !again {
            return Err(failure.fault());
        }
        self.to.app.upstream.count_retry();
        Ok(())
    }

    /// Writes the head for a worker, or for whichever takes it from the queue.
    fn put_head(&self, peer: Option<&Peer>, upload: &mut Upload<'_>) -> Result<(), Fault> {
        let exchange = &*self.exchange;
        let keeps = peer.is_none_or(|peer| !peer.is_unruly());
        let with = Forwarded {
            address: exchange.address_text(),
            port: exchange.client_port(),
            reached_port: exchange.reached_port(),
            id: exchange.id(),
            trace: exchange.trace(),
            trusted: exchange.is_trusted(),
            length: exchange.content_length(),
            keep_alive: self.to.app.spec.keep_alive && keeps,
            secure: exchange.is_secure(),
            identity: identity(exchange),
            stripped: self.to.stripped,
        };
        let (request, settings) = (exchange.request(), exchange.settings());
        match &self.to.app.spec.fastcgi {
            None => upload.begin(|out| heads::put_request(out, request, settings, with)),
            Some(scripts) => {
                let root = peer.map_or(scripts.clone(), |peer| peer.scripts(scripts));
                let at = (exchange.reached_address(), root.as_path(), self.to.mapped);
                let begin = fastcgi::request(request, settings, with, at)?;
                upload.begin_records(|out| out.push(&begin));
            }
        }
        Ok(())
    }

    fn no_link(&self, slot: &Slot, why: NoLink, last: NoLink) {
        self.to.app.upstream.cool_down(&slot.peer, why);
        if why == NoLink::NoDescriptor && last != NoLink::NoDescriptor {
            self.to.pool.report_few_descriptors(&self.to.app.upstream);
        }
        if why.is_refusal() && !last.is_refusal() {
            let mut detail = slot.address().to_string();
            if let NoLink::Foreign(uid) = why {
                detail += &format!(", where a process of the user {uid} listens");
            }
            let worker = &slot.peer.name.worker;
            self.to.pool.report_trouble(worker, TroubleCause::Refused, &detail);
        }
    }

    fn report(&self, peer: &Peer, failure: Failure) {
        let Ok((cause, detail)) = failure.trouble() else { return };
        let path = String::from_utf8_lossy(self.exchange.request().path());
        let id = String::from_utf8_lossy(self.exchange.id());
        let detail = format!("{detail} (path {path}, request {id})");
        self.to.pool.report_trouble(&peer.name.worker, cause, &detail);
    }
}

/// The lines that say who the client is, where clients are asked for certificates.
fn identity<'e>(exchange: &'e Exchange<'_>) -> Option<&'e [u8]> {
    let tls = exchange.settings().tls.as_ref()?;
    let asks = tls.client_certificates != ClientCertificates::Off;
    asks.then(|| exchange.identity().map_or(NOBODY, Identity::fields))
}
