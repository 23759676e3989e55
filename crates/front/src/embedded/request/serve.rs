//! The life of a request, from the first byte of a client to its line in the access log.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use mfserv_core::route::{self, ServerSettings, Target};

use crate::embedded::clients::access_log::Visit;
use crate::embedded::clients::answer;
use crate::embedded::clients::connection::{Arrival, Client, Patience};
use crate::embedded::files;
use crate::embedded::io::buffer::Lent;
use crate::embedded::io::wire::Wire;
use crate::embedded::lanes::lane::Lane;
use crate::embedded::request::dev_page;
use crate::embedded::request::endpoints::{self, Endpoint};
use crate::embedded::request::state::InForce;
use crate::embedded::workers::forward::{Fault, Forwarding};
use mfserv_h1::{Framing, Refusal, RequestHead, ResponseHead};

/// What a request needs besides its client; used again for the next one in the lane, so
/// that a connection without a request has none of it.
struct Desk {
    head: RequestHead,
    reply: ResponseHead,
    visit: Visit,
    back: Lent,
}

/// Desks of a lane that are kept when they are not used.
const DESKS_KEPT: usize = 64;

thread_local! {
    #[expect(clippy::vec_box, reason = "a desk is large: its pointer is moved, not itself")]
    static DESKS: RefCell<Vec<Box<Desk>>> = const { RefCell::new(Vec::new()) };
}

impl Desk {
    fn take() -> Box<Self> {
        let used = DESKS.with_borrow_mut(Vec::pop);
        used.unwrap_or_else(|| {
            Box::new(Self {
                head: RequestHead::default(),
                reply: ResponseHead::default(),
                visit: Visit::new(),
                back: Lent::default(),
            })
        })
    }

    fn give_back(mut self: Box<Self>) {
        self.back.give_back();
        self.head.fields.shrink();
        self.reply.fields.shrink();
        DESKS.with_borrow_mut(|desks| {
            if desks.len() < DESKS_KEPT {
                desks.push(self);
            }
        });
    }
}

/// What follows an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Another request.
    Request,
    /// The end; `unread`: the client may still be sending.
    End { unread: bool },
}

/// Serves a client until one of the two has had enough.
pub async fn serve(lane: Rc<Lane>, wire: Wire, address: Option<IpAddr>) {
    let Some(mut patience) = lane.table().map(|table| Patience::of(&table.server)) else {
        return;
    };
    let mut client = Client::new(wire, address, lane.front.closing.clone());
    let mut first = true;
    loop {
        let arrival = client.next_head(patience, first).await;
        let Some(table) = lane.table().filter(|_| arrival != Arrival::End) else { return };
        first = false;
        patience = Patience::of(&table.server);
        let in_work = lane.begin_request();
        // In memory of its own: an idle connection is small.
        let next = Box::pin(one_request(&lane, &table, &mut client, arrival)).await;
        drop(in_work);
        if let Next::End { unread } = next {
            return Box::pin(client.leave(unread)).await;
        }
    }
}

/// Answers a request and tells it.
async fn one_request(
    lane: &Lane,
    in_force: &InForce,
    client: &mut Client,
    arrival: Arrival,
) -> Next {
    let mut desk = Desk::take();
    let settings = &in_force.server;
    desk.visit.begin(client);
    let outcome = match understand(client, &mut desk, arrival) {
        Ok(()) => {
            choose_id(lane, settings, &mut desk);
            desk.visit.trusted = client.identify(in_force.trust.as_ref(), &desk.head.fields);
            desk.visit.keep = desk.head.keep_alive && !lane.front.closing.has_rung();
            answer(lane, in_force, client, &mut desk).await
        }
        Err(refusal) => {
            client.identify_nobody();
            lane.new_id(&mut desk.visit.id);
            Err(Fault::Answer(refusal.status, "bad_request"))
        }
    };
    let done = finish(lane, settings, client, &mut desk, outcome).await;
    if settings.access_log && desk.visit.logged {
        let via = settings.real_ip.is_some();
        desk.visit.log(&lane.front.access, client, &desk.head, via);
    }
    let unread =
        !desk.visit.understood || desk.head.framing != Framing::None || !client.inbox.is_empty();
    let next = match done && desk.visit.keep && !client.ended {
        true => Next::Request,
        false => Next::End { unread },
    };
    desk.give_back();
    next
}

fn understand(client: &mut Client, desk: &mut Desk, arrival: Arrival) -> Result<(), Refusal> {
    match arrival {
        Arrival::Head(length) => {
            let read = desk.head.read(&client.inbox.filled()[..length]);
            client.inbox.consume(length);
            if client.inbox.is_empty() {
                client.inbox.give_back();
            }
            desk.visit.understood = read.is_ok();
            read
        }
        Arrival::Refused(refusal) => Err(refusal),
        Arrival::Late | Arrival::End => Err(Refusal { status: 408, reason: "a slow head" }),
    }
}

fn choose_id(lane: &Lane, settings: &ServerSettings, desk: &mut Desk) {
    if !(settings.accept_request_id && desk.visit.accept_id(&desk.head)) {
        lane.new_id(&mut desk.visit.id);
    }
}

/// Which road does this request take?
async fn answer(
    lane: &Lane,
    in_force: &InForce,
    client: &mut Client,
    desk: &mut Desk,
) -> Result<(), Fault> {
    let settings = &in_force.server;
    let Desk { head, reply, visit, back } = desk;
    if head.method() == b"TRACE" {
        return Err(Fault::Answer(405, "method"));
    }
    if head.target() == b"*" {
        visit.keep &= head.framing == Framing::None;
        answer::put_text(&mut client.out, settings, visit, false, (200, "", b""));
        return Ok(());
    }
    let raw = std::str::from_utf8(head.path()).map_err(|_| Fault::Answer(400, "bad_path"))?;
    let path = route::normalise(raw).map_err(|_| Fault::Answer(400, "bad_path"))?;
    if let Some(own) = Endpoint::of(&path, settings) {
        return endpoints::answer(own, lane, settings, client, (head, visit)).await;
    }
    let Some(hit) = in_force.matcher.find(&path) else {
        visit.keep &= head.framing == Framing::None;
        return files::not_found(in_force, client, head, visit).await;
    };
    let route = &hit.rule.route;
    visit.of_plugin(&route.plugin);
    let broken = lane.front.broken.of(&route.plugin).filter(|_| client.is_local(&head.fields));
    match (&route.target, &hit.rule.with) {
        (Target::Upstream { .. }, Some(app)) => {
            visit.broken = broken.is_some();
            if let Some(breakage) = broken.filter(|one| dev_page::stands_before(head, one)) {
                visit.keep &= head.framing == Framing::None;
                let old_serves = app.upstream.peers().iter().any(|peer| peer.serves);
                let what = (if old_serves { 500 } else { 503 }, "broken_edit", &*breakage);
                dev_page::put(&mut client.out, settings, visit, head, what);
                return Ok(());
            }
            Forwarding { lane, client, head, visit, app, settings, reply, back }.run().await
        }
        (Target::Upstream { .. }, None) => {
            visit.keep &= head.framing == Framing::None;
            Err(Fault::Answer(503, "removed"))
        }
        (Target::Static { root }, _) => {
            let rest = &path[hit.rest_at..];
            files::serve(root, rest, &path, settings, client, head, visit).await
        }
        (Target::Fixed { status, body }, _) => {
            visit.keep &= head.framing == Framing::None;
            let what = (*status, "text/plain; charset=utf-8", body.as_bytes());
            answer::put_text(&mut client.out, settings, visit, head.method() == b"HEAD", what);
            Ok(())
        }
    }
}

/// Sends what is left to send. False if the connection is of no more use.
async fn finish(
    lane: &Lane,
    settings: &ServerSettings,
    client: &mut Client,
    desk: &mut Desk,
    outcome: Result<(), Fault>,
) -> bool {
    let visit = &mut desk.visit;
    match outcome {
        Ok(()) => {}
        Err(Fault::Gone) => {
            visit.keep = false;
            visit.status = if visit.status == 0 { 499 } else { visit.status };
            client.out.clear();
            return false;
        }
        Err(Fault::Cut) => visit.keep = false,
        Err(Fault::Answer(status, cause)) => {
            put_fault(lane, client, settings, desk, (status, cause));
            if status >= 500 {
                let id = String::from_utf8_lossy(&desk.visit.id);
                let target = if desk.visit.understood { desk.head.written_target() } else { b"?" };
                let path = String::from_utf8_lossy(target);
                lane.front.errors.say(&format!("answered {status} {cause}: {path} (request {id})"));
            }
        }
    }
    let patience = Duration::from_millis(settings.client_timeout_ms);
    client.out.is_empty() || client.flush(patience).await.is_ok()
}

fn put_fault(
    lane: &Lane,
    client: &mut Client,
    settings: &ServerSettings,
    desk: &mut Desk,
    (status, cause): (u16, &str),
) {
    let Desk { head, visit, .. } = desk;
    // After these the rest of what the client sends cannot be understood, or is unread.
    let body_was_read = visit.understood && (status >= 502 || head.framing == Framing::None);
    visit.keep &= body_was_read;
    let fields: &[(&str, &str)] = match status {
        503 => &[("Retry-After", "1")],
        405 => &[("Allow", "GET, HEAD")],
        _ => &[],
    };
    if let Some(breakage) =
        lane.front.broken.of(&visit.plugin).filter(|_| visit.broken && status >= 502)
    {
        let what = (status, cause, &*breakage);
        return dev_page::put(&mut client.out, settings, visit, head, what);
    }
    let to_head = visit.understood && head.method() == b"HEAD";
    answer::put_error(&mut client.out, settings, visit, to_head, (status, cause, fields));
}
