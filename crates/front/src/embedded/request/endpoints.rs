//! The front's own endpoints: health, identity, counters, workers.
//!
//! All but health are for clients on this machine, judged by the address that connected.
//! Where `real_ip` replaces it, both addresses have to be good: a header can only take
//! rights away. A web page that a browser on this machine shows is not on this machine
//! (`browsers.rs`), and what has an effect is asked for with POST.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use md5::{Digest, Md5};
use mfserv_core::node_state::NodeState;
use mfserv_core::route::ServerSettings;
use mfserv_core::wire::front::Address;
use mfserv_h1::RequestHead;
use mfserv_platform::disk::hex;
use serde_json::json;

use super::browsers;
use super::extensions::Extensions;
use super::lane::Lane;
use super::state::Front;
use crate::embedded::clients::answer::{self, Text};
use crate::embedded::clients::exchange::Exchange;
use crate::embedded::clients::fault::{Cause, Fault};
use crate::embedded::clients::real_ip::Network;
use crate::embedded::workers::upstream::{PeerState, Upstream};

/// How often a request with `wait=1` looks whether the worker is idle.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// An endpoint.
#[derive(Debug)]
pub enum Endpoint<'a> {
    /// The node's health.
    Health,
    /// Counters of the connections.
    Status,
    /// The workers of each app.
    Upstreams,
    /// The node's identity.
    Uuid,
    /// Give no traffic to the worker with this socket.
    SocketDown(&'a str),
    /// Give traffic to it again.
    SocketUp(&'a str),
    /// The answer of an extension.
    Extension(Text),
}

impl<'a> Endpoint<'a> {
    /// The endpoint of a path.
    pub fn of(
        path: &'a str,
        head: &RequestHead,
        extensions: &Extensions,
        settings: &ServerSettings,
    ) -> Option<Self> {
        if settings.health_path.as_deref() == Some(path) {
            return Some(Endpoint::Health);
        }
        match path {
            "/status" => return Some(Endpoint::Status),
            "/uuid" => return Some(Endpoint::Uuid),
            _ => {}
        }
        let own = path.strip_prefix("/__")?;
        match own {
            "status" => Some(Endpoint::Status),
            "uuid" => Some(Endpoint::Uuid),
            "upstream_status" => Some(Endpoint::Upstreams),
            _ => {
                let down = own.strip_prefix("socket_down/").map(Endpoint::SocketDown);
                let up = || own.strip_prefix("socket_up/").map(Endpoint::SocketUp);
                down.or_else(up).or_else(|| extensions.endpoint(own, head).map(Endpoint::Extension))
            }
        }
    }

    /// True if an app answers this path itself on a host of its own: /status and /uuid are names
    /// that any site may have, what begins with `/__` and the health check are not.
    pub fn is_free_on_hosts_of_apps(&self, path: &str) -> bool {
        matches!(self, Endpoint::Status | Endpoint::Uuid) && !path.starts_with("/__")
    }

    /// Why this request is not answered, if it is not.
    pub fn refusal(&self, exchange: &Exchange<'_>) -> Option<Cause> {
        let head = exchange.request();
        if let Endpoint::Health = self {
            // Load balancers ask with any of these.
            let is_good = matches!(head.method(), b"GET" | b"HEAD" | b"OPTIONS");
            return (!is_good).then_some(Cause::Method);
        }
        let is_local = exchange.is_local();
        if !is_local && !self.is_open_to(exchange) {
            return Some(Cause::Forbidden);
        }
        // How other machines call this one is not known here.
        let is_called_rightly = !is_local || browsers::names_this_machine(head);
        if !is_called_rightly || browsers::is_by_foreign_page(head) {
            return Some(Cause::ForeignPage);
        }
        match self {
            Endpoint::SocketDown(_) | Endpoint::SocketUp(_) => {
                (head.method() != b"POST").then_some(Cause::PostOnly)
            }
            _ => (!matches!(head.method(), b"GET" | b"HEAD")).then_some(Cause::Method),
        }
    }

    /// True if the settings open it to this client on another machine.
    fn is_open_to(&self, exchange: &Exchange<'_>) -> bool {
        let allows = &exchange.settings().uuid_allows;
        let inside = |address| {
            let has = |network: Network| network.contains(address);
            allows.iter().any(|text| Network::parse(text).is_some_and(has))
        };
        matches!(self, Endpoint::Uuid) && exchange.is_among(inside)
    }

    /// The name that stands for the plugin in the access log.
    fn plugin(&self) -> &'static str {
        match self {
            Endpoint::SocketDown(_) | Endpoint::SocketUp(_) => "#core#",
            _ => "#monitoring#",
        }
    }
}

/// Answers a request for an endpoint.
pub async fn answer(
    endpoint: Endpoint<'_>,
    lane: &Lane,
    exchange: &mut Exchange<'_>,
) -> Result<(), Fault> {
    let is_health = matches!(endpoint, Endpoint::Health);
    exchange.set_plugin(endpoint.plugin());
    exchange.set_logged(is_health && exchange.settings().health_access_log);
    if let Some(cause) = endpoint.refusal(exchange) {
        return Err(cause.into());
    }
    let front = &lane.front;
    let text = match endpoint {
        Endpoint::Health => health(front),
        Endpoint::Status => plain(counters(front)),
        Endpoint::Upstreams => upstreams(front),
        Endpoint::Uuid => plain(match exchange.settings().uuid.as_str() {
            "" => "unknown\n".into(),
            uuid => format!("{uuid}\n"),
        }),
        Endpoint::SocketDown(name) => {
            let socket = socket_of(name)?;
            steer(front, &socket, false);
            let target = exchange.request().target();
            let query = target.split(|&b| b == b'?').nth(1).unwrap_or_default();
            if query.split(|&b| b == b'&').any(|pair| pair == b"wait=1") {
                wait_until_idle(front, &socket, exchange).await?;
            }
            plain(String::new())
        }
        Endpoint::SocketUp(name) => {
            steer(front, &socket_of(name)?, true);
            plain(String::new())
        }
        Endpoint::Extension(text) => text,
    };
    answer::put_text(exchange, &text, &[]);
    Ok(())
}

fn plain(content: String) -> Text {
    Text { status: 200, content_type: "text/plain", content }
}

fn health(front: &Front) -> Text {
    match front.node_state() {
        NodeState::Running => plain("OK\n".into()),
        other => Text { status: 503, ..plain(other.to_string()) },
    }
}

/// The counters in the form of nginx's stub_status, which collectors know.
fn counters(front: &Front) -> String {
    let (active, accepted) = (front.connections(), front.accepted());
    let (requests, busy) = front.requests();
    format!(
        "Active connections: {active} \nserver accepts handled requests\n \
         {accepted} {accepted} {requests} \nReading: 0 Writing: {busy} Waiting: {} \n",
        active.saturating_sub(busy)
    )
}

/// The workers of each app. The key of an app is the md5 of `PLUGIN/APP`, as tools of
/// nginx's upstream module know it; the name itself is in the entry of each worker.
fn upstreams(front: &Front) -> Text {
    let mut all = serde_json::Map::new();
    for upstream in front.pool.upstreams() {
        let peers = upstream.peers();
        let states = peers.iter().enumerate().map(|(id, peer)| state_of(&upstream.name, id, peer));
        let digest = Md5::digest(upstream.name.as_bytes());
        all.insert(hex(&digest), states.collect());
    }
    let content = format!("{}\n", serde_json::Value::Object(all));
    Text { content_type: "application/json", ..plain(content) }
}

fn state_of(app: &str, id: usize, peer: &PeerState) -> serde_json::Value {
    let mut state = json!({
        "name": match &peer.name.address {
            Address::Socket(path) => format!("unix:{}", path.display()),
            port => port.to_string(),
        },
        "id": id,
        "conns": peer.in_flight,
        "weight": 1,
        "current_weight": 0,
        "effective_weight": 1,
        "fails": 0,
        "max_fails": 0,
        "fail_timeout": 10,
        "app": app,
        "worker": peer.name.worker.to_string(),
    });
    if !peer.serves {
        state["down"] = true.into();
    }
    state
}

fn socket_of(encoded: &str) -> Result<String, Fault> {
    decode_base64url(encoded)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or(Cause::BadSocket.into())
}

/// Stops or starts the traffic to the worker behind a socket; does nothing for an unknown
/// socket.
fn steer(front: &Front, socket: &str, up: bool) {
    for upstream in front.pool.upstreams() {
        for peer in upstream.peers() {
            if is_address_of(&peer.name.address, socket) {
                match up {
                    true => upstream.resume(&peer.name.worker),
                    false => upstream.suspend(&peer.name.worker),
                }
            }
        }
    }
}

/// Waits until the worker behind a socket has no request, but not longer than the timeout
/// of its app, because streams and upgraded connections may last for ever.
async fn wait_until_idle(
    front: &Front,
    socket: &str,
    exchange: &mut Exchange<'_>,
) -> Result<(), Fault> {
    let began = Instant::now();
    while let Some(app) = busy_app(front, socket) {
        if began.elapsed() >= app.timeout() {
            return Err(Cause::StillBusy.into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
        if exchange.has_client_gone().await || front.closing.is_raised() {
            return Err(Fault::Gone);
        }
    }
    Ok(())
}

/// The app whose worker behind this socket has a request.
fn busy_app(front: &Front, socket: &str) -> Option<Arc<Upstream>> {
    let holds = |peer: &PeerState| peer.in_flight > 0 && is_address_of(&peer.name.address, socket);
    front.pool.upstreams().into_iter().find(|app| app.peers().iter().any(holds))
}

/// True if `asked` is where this worker takes connections.
fn is_address_of(peer: &Address, asked: &str) -> bool {
    match peer {
        Address::Socket(path) => is_socket_of(path, asked),
        port => port.to_string() == asked,
    }
}

/// True if `asked` is the socket of `peer`, or the link that stands for its slot: for
/// example, `app_P_A_1.socket` stands for every `app_P_A_1.K.socket`.
fn is_socket_of(peer: &Path, asked: &str) -> bool {
    if peer.as_os_str() == asked {
        return true;
    }
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let (Some(of_peer), Some(asked)) = (name(peer), name(Path::new(asked))) else { return false };
    let (Some(of_peer), Some(stem)) =
        (of_peer.strip_suffix(".socket"), asked.strip_suffix(".socket"))
    else {
        return false;
    };
    let incarnation = of_peer.strip_prefix(stem).and_then(|rest| rest.strip_prefix('.'));
    incarnation.is_some_and(|k| !k.is_empty() && k.bytes().all(|b| b.is_ascii_digit()))
}

/// Decodes base64url (RFC 4648, 5); the padding may be left out.
fn decode_base64url(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    if text.is_empty() || text.len() % 4 == 1 {
        return None;
    }
    let mut decoded = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push((bits >> count) as u8);
        }
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_named_in_base64url_with_or_without_padding() {
        for (text, decoded) in [
            ("L3Zhci9hLnNvY2tldA==", "/var/a.socket"),
            ("L3Zhci9hLnNvY2tldA", "/var/a.socket"),
            ("w78_w74-", "ÿ?þ>"),
        ] {
            assert_eq!(decode_base64url(text).as_deref(), Some(decoded.as_bytes()), "{text}");
        }
        for bad in ["", "=", "a", "a b=", "+a==", "ab/c", "\u{e9}\u{e9}"] {
            assert_eq!(decode_base64url(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_link_stands_for_every_incarnation_of_its_worker_and_no_other() {
        let peer = Path::new("/run/app_p_a_1.7.socket");
        assert!(is_socket_of(peer, "/run/app_p_a_1.7.socket"));
        assert!(is_socket_of(peer, "/var/app_p_a_1.socket"));
        for other in
            ["/var/app_p_a_2.socket", "/var/app_p_a_1.8.socket", "/var/app_p_a.socket", "x"]
        {
            assert!(!is_socket_of(peer, other), "{other}");
        }
    }
}
