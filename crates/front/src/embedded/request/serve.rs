//! The life of a request, from the first byte of a client to its line in the access log.

use std::cell::RefCell;
use std::rc::Rc;

use mfserv_core::maintenance::Shut;
use mfserv_core::route::{self, Route, ServerSettings, Target};
use mfserv_core::wire::metrics::Answerer;
use mfserv_h1::{Refusal, RequestHead};

use super::browsers;
use super::endpoints::{self, Endpoint};
use super::extensions::Attendant;
use super::faults::{self, Beside};
use super::https;
use super::lane::Lane;
use super::sendfile;
use super::state::InForce;
use crate::embedded::clients::access_log::AccessRecord;
use crate::embedded::clients::answer::{self, Text};
use crate::embedded::clients::connection::{Arrival, Connection, Ends, Patience};
use crate::embedded::clients::edge;
use crate::embedded::clients::exchange::Exchange;
use crate::embedded::clients::fault::{Cause, Fault};
use crate::embedded::clients::trace::Trace;
use crate::embedded::files::{self, Served, Site};
use crate::embedded::io::tls::TlsStream;
use crate::embedded::io::wire::Wire;
use crate::embedded::workers::destination::{Destination, Reply};
use crate::embedded::workers::fastcgi::Mapped;
use crate::embedded::workers::forward;
use crate::embedded::workers::pool::App;
use crate::embedded::workers::stripped::Stripped;

/// The most unused scratches that a lane keeps.
const SCRATCHES_KEPT: usize = 64;

/// The memory that a request needs besides its connection. The next request of the lane
/// uses it again; an idle connection has none.
struct Scratch {
    head: RequestHead,
    record: AccessRecord,
    reply: Reply,
}

thread_local! {
    #[expect(clippy::vec_box, reason = "a scratch is large: its pointer is moved, not itself")]
    static SCRATCHES: RefCell<Vec<Box<Scratch>>> = const { RefCell::new(Vec::new()) };
}

impl Scratch {
    fn take() -> Box<Self> {
        SCRATCHES.with_borrow_mut(Vec::pop).unwrap_or_else(|| {
            let (head, record) = (RequestHead::default(), AccessRecord::new());
            Box::new(Self { head, record, reply: Reply::default() })
        })
    }

    fn give_back(mut self: Box<Self>) {
        self.reply.shrink();
        self.head.fields.shrink();
        SCRATCHES.with_borrow_mut(|scratches| {
            if scratches.len() < SCRATCHES_KEPT {
                scratches.push(self);
            }
        });
    }
}

/// What follows an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Another request.
    Request,
    /// The end of the connection.
    End {
        /// The client may still be sending.
        unread: bool,
    },
}

/// Serves a client until it or the front ends the connection.
pub async fn serve(lane: Rc<Lane>, wire: Wire, ends: Ends) {
    let patience_of = |settings: &ServerSettings| match ends.is_edge {
        true => Patience::of(settings).for_edge(),
        false => Patience::of(settings),
    };
    let Some(mut patience) = lane.table().map(|table| patience_of(&table.server)) else {
        return;
    };
    let mut connection = Connection::new(wire, ends, lane.front.closing.clone());
    let mut is_first = true;
    loop {
        let arrival = connection.next_head(patience, is_first).await;
        let Some(table) = lane.table().filter(|_| arrival != Arrival::End) else { return };
        is_first = false;
        patience = patience_of(&table.server);
        let in_work = lane.begin_request();
        // In a box of its own, so that the task of an idle connection is small.
        let next = Box::pin(one_request(&lane, &table, &mut connection, arrival)).await;
        drop(in_work);
        if let Next::End { unread } = next {
            return Box::pin(connection.leave(unread)).await;
        }
    }
}

/// Answers a request and logs it.
async fn one_request(
    lane: &Lane,
    in_force: &InForce,
    connection: &mut Connection,
    arrival: Arrival,
) -> Next {
    let mut scratch = Scratch::take();
    let Scratch { head, record, reply } = &mut *scratch;
    record.begin(connection.traffic());
    let mut understood = connection.read_head(arrival, head, in_force.server.request_head);
    if connection.is_edge() {
        let asks = Ends { is_edge: true, ..Ends::default() };
        connection.set_ends(asks, None);
        understood = understood.and_then(|()| {
            let (ends, identity) = edge::ends_of(head, &lane.front.edge_key)?;
            connection.set_ends(ends, identity);
            Ok(())
        });
    }
    identify(lane, &in_force.server, record, Some(&*head).filter(|_| understood.is_ok()));
    // A client that has not seen that this is the TLS listener is told so, and no more.
    let is_clear = understood.is_ok() && connection.tls().is_some_and(TlsStream::is_clear);
    let (settings, trust) = (&in_force.server, in_force.trust.as_ref());
    let asked = (&*head, understood.is_ok() && !is_clear);
    let mut exchange = Exchange::new(connection, settings, asked, trust, record);
    let mut beside = Beside::default();
    let outcome = match understood {
        Ok(()) if is_clear => Err(Cause::PlainHttp.into()),
        Ok(()) => answer(lane, in_force, &mut exchange, reply, &mut beside).await,
        Err(Refusal { status, .. }) => Err(Cause::BadRequest(status).into()),
    };
    let fault = match outcome {
        Err(Fault::Answer(cause)) => Some(cause),
        _ => None,
    };
    let is_sent = finish(lane, &mut exchange, beside, outcome).await;
    exchange.log(&lane.front.access);
    lane.count(&exchange, fault);
    let next = match is_sent && exchange.keeps_connection() {
        true => Next::Request,
        false => Next::End { unread: exchange.may_be_sending() },
    };
    scratch.give_back();
    next
}

/// The request id: the client's, if that is accepted, or a new one. The trace: the client's.
fn identify(
    lane: &Lane,
    settings: &ServerSettings,
    record: &mut AccessRecord,
    head: Option<&RequestHead>,
) {
    let accepted = head.is_some_and(|head| settings.accept_request_id && record.accept_id(head));
    if !accepted {
        lane.new_id(record.id_mut());
    }
    if let Some(head) = head.filter(|_| settings.trace_sample.is_some()) {
        record.set_trace(Trace::of_caller(&head.fields));
    }
}

/// Chooses who answers a request, and has it answered. `beside`: what is found out for `finish`.
async fn answer<'t>(
    lane: &Lane,
    in_force: &'t InForce,
    exchange: &mut Exchange<'_>,
    reply: &mut Reply,
    beside: &mut Beside<'t>,
) -> Result<(), Fault> {
    let head = exchange.request();
    let site = in_force.matcher.site(head.host());
    let refused = unknown_host(in_force, head, site.is_named);
    if head.method() == b"TRACE" {
        return Err(refused.unwrap_or(Cause::Method).into());
    }
    if head.target() == b"*" {
        refused.map_or(Ok(()), Err)?;
        put_text(exchange, 200, "", "");
        return Ok(());
    }
    let path = route::normalise(head.path()).map_err(|_| refused.unwrap_or(Cause::BadPath))?;
    let own = Endpoint::of(&path, head, &lane.front.extensions, exchange.settings());
    if let Some(cause) = refused {
        // Load balancers and this machine ask for the node's own pages by an address.
        return match own.filter(|own| own.refusal(exchange).is_none()) {
            Some(own) => endpoints::answer(own, lane, exchange).await,
            None => Err(cause.into()),
        };
    }
    if let Some(own) = own.filter(|own| !(site.is_named && own.is_free_on_hosts_of_apps(&path))) {
        return endpoints::answer(own, lane, exchange).await;
    }
    if exchange.settings().stopping {
        return Err(Cause::Stopping.into());
    }
    if https::has_to_come_again(exchange) {
        return https::redirect(exchange);
    }
    let Some(hit) = site.paths.find(&path) else {
        let page = in_force.not_found_page.as_deref().filter(|_| !site.is_named);
        return files::page_of(Cause::NoRoute, page, exchange).await;
    };
    let route = &hit.rule.route;
    exchange.set_plugin(&route.plugin);
    exchange.set_app(&route.app, answerer(&route.target));
    beside.pages = route.error_pages.as_ref();
    if let Some(Shut { page }) = &route.maintenance {
        return files::page_of(Cause::Maintenance, page.as_deref(), exchange).await;
    }
    let mapped = Mapped { path: &path, rest_at: hit.rest_at };
    let target = (route, hit.rule.with.as_ref());
    to_target(lane, target, mapped, exchange, (reply, beside)).await
}

/// Has a request answered by what its route leads to.
async fn to_target<'t>(
    lane: &Lane,
    (route, with): (&'t Route, Option<&App>),
    mapped: Mapped<'_>,
    exchange: &mut Exchange<'_>,
    (reply, beside): (&mut Reply, &mut Beside<'t>),
) -> Result<(), Fault> {
    match (&route.target, with) {
        (Target::Upstream { .. }, Some(app)) => {
            let extension = lane.front.extensions.attend(&route.plugin);
            beside.attendant = extension.filter(|_| is_for_developer(exchange));
            if beside.attendant.as_ref().is_some_and(|one| answers_instead(&**one, exchange, app)) {
                return Ok(());
            }
            if let Some(limit) = app.spec.max_body_bytes {
                exchange.set_max_content(limit);
            }
            from_worker(lane, exchange, reply, (route, app), mapped).await
        }
        (Target::Upstream { .. }, None) => Err(Cause::Removed.into()),
        (Target::Static { root }, scripts) => {
            let hides_scripts = scripts.is_some();
            let site = Site { root, fallback: None, complain: None, hides_scripts };
            files::serve(site, (mapped.path, mapped.rest_at), exchange).await.map(|_| ())
        }
        (Target::Site { root, fallback }, scripts) => {
            let (plugin, app) = (&route.plugin, &route.app);
            let complain =
                |sentence: &str| lane.front.complain(&format!("app {plugin}/{app}: {sentence}"));
            let fallback = Some(&**fallback).filter(|file| !file.is_empty());
            let hides_scripts = scripts.is_some();
            let site = Site { root, fallback, complain: Some(&complain), hides_scripts };
            match files::serve(site, (mapped.path, mapped.rest_at), exchange).await? {
                Served::Answered => Ok(()),
                Served::NotFound(file) => {
                    beside.page_of_rule = Some((root, file));
                    Err(Cause::NotFound.into())
                }
            }
        }
        (Target::Fixed { status, body }, _) => {
            faults::put_fixed((*status, body), route.error_pages.as_ref(), exchange).await
        }
    }
}

/// Has a request answered by a worker, or by the file that this names.
async fn from_worker(
    lane: &Lane,
    exchange: &mut Exchange<'_>,
    reply: &mut Reply,
    (route, app): (&Route, &App),
    mapped: Mapped<'_>,
) -> Result<(), Fault> {
    lane.begin_trace(exchange);
    let (pool, stripped) = (&lane.front.pool, stripped(route, exchange));
    let to = Destination { app, pool, lane: lane.number, mapped, stripped };
    match forward::run(exchange, reply, to, lane.begin_under_way()).await {
        Ok(Some(named)) => sendfile::send(lane, exchange, reply, app, &named).await,
        Ok(None) => Ok(()),
        Err(Fault::Answer(Cause::Maintenance)) => shut(lane, exchange, mapped.path).await,
        Err(fault) => Err(fault),
    }
}

/// A request has waited, and its app is in maintenance: with the page that may have come meanwhile.
async fn shut(lane: &Lane, exchange: &mut Exchange<'_>, path: &str) -> Result<(), Fault> {
    let table = lane.table();
    let site = table.as_ref().map(|in_force| in_force.matcher.site(exchange.request().host()));
    let hit = site.and_then(|site| site.paths.find(path));
    let page = hit.and_then(|hit| hit.rule.route.maintenance.as_ref()?.page.as_deref());
    files::page_of(Cause::Maintenance, page, exchange).await
}

/// Why a request is refused that names a host of no app, if the settings want that.
fn unknown_host(in_force: &InForce, head: &RequestHead, is_named: bool) -> Option<Cause> {
    let status = in_force.server.unknown_host.status().filter(|_| !is_named)?;
    (!browsers::names_this_node(head)).then_some(Cause::UnknownHost(status))
}

/// What the worker of a route does not get of the path.
fn stripped<'a>(route: &'a Route, exchange: &Exchange<'_>) -> Option<Stripped<'a>> {
    let rest_at = || route::after_prefix(exchange.request().path(), &route.prefix);
    let is_by_proxy = exchange.is_by_proxy();
    route.strip_prefix.then(|| Stripped { prefix: &route.prefix, rest_at: rest_at(), is_by_proxy })
}

/// True if somebody on this machine asks, and no web page of another site.
fn is_for_developer(exchange: &Exchange<'_>) -> bool {
    let head = exchange.request();
    exchange.is_local() && browsers::names_this_machine(head) && !browsers::is_by_foreign_page(head)
}

fn answerer(target: &Target) -> Answerer {
    match target {
        Target::Upstream { .. } => Answerer::Dynamic,
        Target::Static { .. } | Target::Site { .. } => Answerer::Static,
        Target::Fixed { .. } => Answerer::Front,
    }
}

/// True if an extension has answered in place of the app.
fn answers_instead(attendant: &dyn Attendant, exchange: &mut Exchange<'_>, app: &App) -> bool {
    exchange.add_field(attendant.field());
    let serves = || app.upstream.peers().iter().any(|peer| peer.serves);
    let page = attendant.instead(exchange.request(), serves());
    if let Some(page) = &page {
        answer::put_text(exchange, &page.text, &page.fields);
    }
    page.is_some()
}

fn put_text(exchange: &mut Exchange<'_>, status: u16, content_type: &'static str, text: &str) {
    let text = Text { status, content_type, content: text.into() };
    answer::put_text(exchange, &text, &[]);
}

/// Puts the page of a fault and sends what is left to send. False if the client is lost.
async fn finish(
    lane: &Lane,
    exchange: &mut Exchange<'_>,
    beside: Beside<'_>,
    outcome: Result<(), Fault>,
) -> bool {
    let outcome = match outcome {
        Err(Fault::Answer(cause)) => faults::answer(lane, exchange, beside, cause).await,
        other => other,
    };
    match outcome {
        Ok(()) | Err(Fault::Answer(_)) => {}
        Err(Fault::Gone) => {
            exchange.client_went();
            return false;
        }
        Err(Fault::Cut) => exchange.abort(),
    }
    exchange.flush().await.is_ok()
}
