//! The front's own paths: health, identity, counters, workers.
//!
//! Who may ask for more than health is judged by the real address of the connection;
//! where real_ip replaces it, by the replacement as well: a header can only take away.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use md5::{Digest, Md5};
use mfserv_core::node_state::NodeState;
use mfserv_core::route::ServerSettings;
use serde_json::json;

use crate::embedded::clients::access_log::Visit;
use crate::embedded::clients::answer;
use crate::embedded::clients::connection::Client;
use crate::embedded::clients::real_ip::Network;
use crate::embedded::lanes::lane::Lane;
use crate::embedded::request::dev_page;
use crate::embedded::request::state::Front;
use crate::embedded::workers::forward::Fault;
use crate::embedded::workers::upstream::{PeerState, Upstream};
use mfserv_h1::{Framing, RequestHead};

/// How often a request with `wait=1` looks whether the worker holds nothing more.
const LOOK_EVERY: Duration = Duration::from_millis(20);

type Said = (u16, &'static str, String);

/// Which of the front's own paths is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint<'a> {
    /// Is the node well?
    Health,
    /// Counters of the connections.
    Status,
    /// The workers of each app.
    Upstreams,
    /// The node's identity.
    Uuid,
    /// No more traffic to the worker with this socket.
    SocketDown(&'a str),
    /// Traffic again.
    SocketUp(&'a str),
    /// Does the newest code of this plugin start?
    Dev(&'a str),
}

impl<'a> Endpoint<'a> {
    /// The endpoint of a path.
    pub fn of(path: &'a str, settings: &ServerSettings) -> Option<Self> {
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
                down.or_else(up).or_else(|| own.strip_prefix("dev/").map(Endpoint::Dev))
            }
        }
    }

    fn is_allowed(self, settings: &ServerSettings, client: &Client, head: &RequestHead) -> bool {
        match self {
            Endpoint::Health => true,
            Endpoint::Uuid => {
                let inside = |address| {
                    let has = |network: Network| network.contains(address);
                    settings.uuid_allows.iter().any(|text| Network::parse(text).is_some_and(has))
                };
                client.is_local(&head.fields) || client.is_among(inside)
            }
            _ => client.is_local(&head.fields),
        }
    }

    fn steers(self) -> bool {
        matches!(self, Endpoint::SocketDown(_) | Endpoint::SocketUp(_))
    }
}

/// Answers a request for one of the front's own paths.
pub async fn answer(
    endpoint: Endpoint<'_>,
    lane: &Lane,
    settings: &ServerSettings,
    client: &mut Client,
    (head, visit): (&RequestHead, &mut Visit),
) -> Result<(), Fault> {
    visit.of_plugin(if endpoint.steers() { "#core#" } else { "#monitoring#" });
    visit.logged = endpoint == Endpoint::Health && settings.health_access_log;
    visit.keep &= head.framing == Framing::None;
    if !endpoint.is_allowed(settings, client, head) {
        return Err(Fault::Answer(403, "forbidden"));
    }
    let front = &lane.front;
    let (status, content_type, body) = match endpoint {
        Endpoint::Health => health(front),
        Endpoint::Status => counters(lane),
        Endpoint::Upstreams => upstreams(front),
        Endpoint::Uuid => {
            let uuid = if settings.uuid.is_empty() { "unknown" } else { &settings.uuid };
            (200, "text/plain", format!("{uuid}\n"))
        }
        Endpoint::SocketDown(name) => {
            let socket = socket_of(name)?;
            steer(front, &socket, false);
            let target = head.target();
            let query = target.split(|&b| b == b'?').nth(1).unwrap_or_default();
            if query.split(|&b| b == b'&').any(|pair| pair == b"wait=1") {
                wait_until_idle(front, &socket, client).await?;
            }
            (200, "text/plain", String::new())
        }
        Endpoint::Dev(plugin) => dev_page::state(&front.broken, plugin, head),
        Endpoint::SocketUp(name) => {
            steer(front, &socket_of(name)?, true);
            (200, "text/plain", String::new())
        }
    };
    let to_head = head.method() == b"HEAD";
    let what = (status, content_type, body.as_bytes());
    answer::put_text(&mut client.out, settings, visit, to_head, what);
    Ok(())
}

fn health(front: &Front) -> Said {
    match front.node_state() {
        NodeState::Running => (200, "text/plain", "OK\n".into()),
        other => (503, "text/plain", other.to_string()),
    }
}

/// In the form of nginx's stub_status, which collectors know.
fn counters(lane: &Lane) -> Said {
    let (active, accepted) = (lane.front.connections(), lane.front.accepted());
    let (requests, busy) = lane.requests();
    let text = format!(
        "Active connections: {active} \nserver accepts handled requests\n \
         {accepted} {accepted} {requests} \nReading: 0 Writing: {busy} Waiting: {} \n",
        active.saturating_sub(busy)
    );
    (200, "text/plain", text)
}

/// By the md5 of `PLUGIN/APP`, as tools know it; the name itself is told of each peer.
fn upstreams(front: &Front) -> Said {
    let mut all = serde_json::Map::new();
    for upstream in front.upstreams() {
        let peers = upstream.peers();
        let told = peers.iter().enumerate().map(|(id, peer)| told(&upstream.name, id, peer));
        let digest = Md5::digest(upstream.name.as_bytes());
        let key = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        all.insert(key, told.collect());
    }
    (200, "application/json", format!("{}\n", serde_json::Value::Object(all)))
}

fn told(app: &str, id: usize, peer: &PeerState) -> serde_json::Value {
    let mut told = json!({
        "name": format!("unix:{}", peer.name.socket.display()),
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
        told["down"] = true.into();
    }
    told
}

fn socket_of(encoded: &str) -> Result<String, Fault> {
    decode_base64url(encoded)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or(Fault::Answer(400, "bad_socket"))
}

/// Stops or starts the traffic to the worker behind a socket. An unknown one gets none.
fn steer(front: &Front, socket: &str, up: bool) {
    for upstream in front.upstreams() {
        for peer in upstream.peers() {
            if is_socket_of(&peer.name.socket, socket) {
                match up {
                    true => upstream.resume(&peer.name.worker),
                    false => upstream.suspend(&peer.name.worker),
                }
            }
        }
    }
}

/// Until no request is in the worker behind a socket; not longer than the app's timeout,
/// because streams and upgraded connections may last for ever.
async fn wait_until_idle(front: &Front, socket: &str, client: &mut Client) -> Result<(), Fault> {
    let began = Instant::now();
    while let Some(app) = busy_app(front, socket) {
        if began.elapsed() >= app.timeout() {
            return Err(Fault::Answer(504, "still_busy"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        if client.is_gone().await || front.closing.has_rung() {
            return Err(Fault::Gone);
        }
    }
    Ok(())
}

/// The app whose worker behind this socket holds a request.
fn busy_app(front: &Front, socket: &str) -> Option<Arc<Upstream>> {
    let holds = |peer: &PeerState| peer.in_flight > 0 && is_socket_of(&peer.name.socket, socket);
    front.upstreams().into_iter().find(|app| app.peers().iter().any(holds))
}

/// True for the socket itself, and for the link that stands for its slot number:
/// `app_P_A_1.socket` means whichever `app_P_A_1.K.socket` there is.
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

/// RFC 4648, 5; the padding may be left out.
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
