//! `mfserv dev --live-reload`: an address of this session, whose pages the browser loads again after
//! an edit.
//!
//! The front alters no answer of an app, so the session does it, for whoever opens its address: it
//! passes everything on to the node, and adds a script to HTML. The script waits for an event
//! (`text/event-stream`) and loads the page again.

use std::convert::Infallible;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use hyper::header::{HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use mfserv_core::Diagnostic;
use mfserv_plugin::sources::Sources;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// The port of LiveReload, which a browser finds again in the next session; another one if it is
/// taken.
const PORT: u16 = 35729;
const SCRIPT: &str = "/__mfserv_live/reload.js";
const EVENTS: &str = "/__mfserv_live/events";
/// What the script does. The browser connects again by itself. A page that nobody sees keeps no
/// connection: a browser has six for all pages of an address. Part of a page, loaded later, brings
/// the script again.
const RELOADS: &str = "if (!window.__mfserv_live) {
  const source = '/__mfserv_live/events' + new URL(document.currentScript.src).search;
  const look = () => {
    window.__mfserv_live?.close?.();
    window.__mfserv_live = document.hidden || new EventSource(source);
    window.__mfserv_live.onmessage = () => location.reload();
  };
  document.addEventListener('visibilitychange', look);
  look();
}
";
/// How often files are looked at that renew no worker.
const OFTEN: Duration = Duration::from_millis(200);
/// What pages show and no program reads once for all.
const SHOWN: &[&str] =
    &["css", "svg", "png", "jpg", "jpeg", "gif", "webp", "avif", "ico", "woff", "woff2", "ttf"];

const RELOAD: &[u8] = b"data: reload\n\n";
/// Looking at files may take one part in so many of the time.
const SHARE: u32 = 20;

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// Browsers that wait for an event.
#[derive(Clone, Default)]
struct Browsers(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    /// How often pages were loaded again.
    edits: u64,
    browsers: Vec<Sender<Bytes>>,
}

impl Browsers {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A browser waits whose page was asked for after so many edits: one that came meanwhile, or
    /// another session, is an event at once.
    fn wait(&self, known: Option<&str>) -> Events {
        let (sender, receiver) = channel(4);
        // The head goes out at once, and the browser knows that it is connected.
        let _ = sender.try_send(Bytes::from_static(b": here\n\n"));
        let mut waiting = self.lock();
        if known.is_some_and(|known| known != waiting.edits.to_string()) {
            let _ = sender.try_send(Bytes::from_static(RELOAD));
        }
        waiting.browsers.push(sender);
        Events(receiver)
    }
}

/// The address of a session.
pub struct Live {
    browsers: Browsers,
    /// `http://127.0.0.1:35729`.
    pub address: String,
    sources: Sources,
    /// Files that the front serves as they are, also those that git ignores.
    served: Vec<Sources>,
    looked: Instant,
    /// How long it is waited until they are looked at again.
    wait: Duration,
}

impl Live {
    /// Serves what the node serves at its address (`http://HOST:PORT`), until this process ends.
    /// `served`: the directories of files that it serves.
    pub fn start(node: &str, dir: &Path, served: &[PathBuf]) -> Result<Live, Diagnostic> {
        let failed = |e: std::io::Error| Diagnostic::error("no live reload").because(e);
        let Some(node) = node.strip_prefix("http://").map(str::to_owned) else {
            return Err(Diagnostic::error("no live reload")
                .because(format!("the node answers at {node}, and only http is passed on"))
                .help("develop with a node that listens on [front] port"));
        };
        let local = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listener = local(PORT).or_else(|_| local(0)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = format!("http://{}", listener.local_addr().map_err(failed)?);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let browsers = Browsers::default();
        let waiting = browsers.clone();
        std::thread::spawn(move || runtime.block_on(serve(listener, node.into(), waiting)));
        let (sources, looked) = (Sources::of(dir, None), Instant::now());
        let served = served.iter().map(|dir| Sources::served(dir)).collect();
        Ok(Live { browsers, address, sources, served, looked, wait: OFTEN })
    }

    /// Has all pages loaded again.
    pub fn reload(&self) {
        let mut waiting = self.browsers.lock();
        waiting.edits += 1;
        // One that has gone, or does not read, is forgotten.
        waiting.browsers.retain(|one| one.try_send(Bytes::from_static(RELOAD)).is_ok());
    }

    /// Has them loaded again if a file has changed that is served as it is. `is_site`: all are.
    pub fn look(&mut self, is_site: bool) {
        if self.looked.elapsed() < self.wait {
            return;
        }
        let begun = Instant::now();
        let changed = self.sources.changed();
        let is_served = self.served.iter_mut().any(|served| !served.changed().is_empty());
        self.looked = Instant::now();
        self.wait = OFTEN.max(begun.elapsed() * SHARE);
        let is_shown = |file: &Path| {
            let ending = file.extension().and_then(|end| end.to_str());
            is_site || ending.is_some_and(|end| SHOWN.contains(&end))
        };
        if is_served || changed.iter().any(|file| is_shown(file)) {
            self.reload();
        }
    }
}

async fn serve(listener: TcpListener, node: Arc<str>, browsers: Browsers) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // No descriptor is free: others end meanwhile.
            tokio::time::sleep(OFTEN).await;
            continue;
        };
        let (node, browsers) = (node.clone(), browsers.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let (node, browsers) = (node.clone(), browsers.clone());
                async move { Ok::<_, Infallible>(answer(request, &node, &browsers).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            // A browser that goes away is no error.
            let _ =
                connection.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        });
    }
}

async fn answer(request: Request<Incoming>, node: &str, browsers: &Browsers) -> Answer {
    match request.uri().path() {
        SCRIPT => text(StatusCode::OK, "text/javascript", RELOADS.into()),
        EVENTS => {
            let events = browsers.wait(request.uri().query());
            with_type(Response::new(events.boxed()), "text/event-stream")
        }
        _ => forward(request, node, browsers).await.unwrap_or_else(|e| {
            let why = format!("the node does not answer: {e}\n");
            text(StatusCode::BAD_GATEWAY, "text/plain; charset=utf-8", why)
        }),
    }
}

fn text(status: StatusCode, content_type: &'static str, text: String) -> Answer {
    let body = Full::from(text).map_err(|never| match never {}).boxed();
    let mut answer = with_type(Response::new(body), content_type);
    *answer.status_mut() = status;
    answer
}

fn with_type(mut answer: Answer, content_type: &'static str) -> Answer {
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    let name = HeaderName::from_static("cache-control");
    answer.headers_mut().insert(name, HeaderValue::from_static("no-store"));
    answer
}

/// Asks the node. The name that the browser has asked for stays, as the app is found by it.
async fn forward(
    mut request: Request<Incoming>,
    node: &str,
    browsers: &Browsers,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let purpose = request.headers().get("sec-fetch-dest");
    let is_page = request.method() == Method::GET
        && has(request.headers(), &ACCEPT, "text/html")
        && purpose.is_none_or(|purpose| ["document", "iframe"].iter().any(|one| purpose == one));
    // Before it is asked for: what is edited meanwhile may be in it, or not.
    let edits = browsers.lock().edits;
    if is_page {
        // A script can be added to plain text alone.
        request.headers_mut().remove(ACCEPT_ENCODING);
    }
    let upgrades = request.headers().contains_key(UPGRADE);
    let client = upgrades.then(|| hyper::upgrade::on(&mut request));
    let stream = TcpStream::connect(node).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // What is wrong with it the request learns, too.
        let _ = connection.with_upgrades().await;
    });
    let mut answer = sender.send_request(request).await?;
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(client)) = (answer.status(), client) {
        let worker = hyper::upgrade::on(&mut answer);
        tokio::spawn(async move {
            let (Ok(client), Ok(worker)) = tokio::join!(client, worker) else { return };
            let (mut client, mut worker) = (TokioIo::new(client), TokioIo::new(worker));
            let _ = tokio::io::copy_bidirectional(&mut client, &mut worker).await;
        });
    }
    let fields = answer.headers();
    let is_html = has(fields, &CONTENT_TYPE, "text/html") && !fields.contains_key(CONTENT_ENCODING);
    let is_part =
        [StatusCode::NOT_MODIFIED, StatusCode::PARTIAL_CONTENT].contains(&answer.status());
    Ok(match is_page && is_html && !is_part {
        false => answer.map(BodyExt::boxed),
        true => {
            answer.headers_mut().remove(CONTENT_LENGTH);
            answer.headers_mut().remove(TRANSFER_ENCODING);
            let tag = format!("\n<script src=\"{SCRIPT}?{edits}\"></script>\n");
            answer.map(|page| WithScript { page, script: Some(tag.into()) }.boxed())
        }
    })
}

fn has(fields: &HeaderMap, name: &HeaderName, text: &str) -> bool {
    fields.get(name).and_then(|value| value.to_str().ok()).is_some_and(|value| value.contains(text))
}

/// The events of one browser.
struct Events(Receiver<Bytes>);

impl Body for Events {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.0.poll_recv(context).map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}

/// A page, and the script after its end: as it comes, so that a page that is streamed stays so.
struct WithScript {
    page: Incoming,
    script: Option<Bytes>,
}

impl Body for WithScript {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let page = ready!(Pin::new(&mut self.page).poll_frame(context));
        Poll::Ready(page.or_else(|| self.script.take().map(|script| Ok(Frame::data(script)))))
    }
}
