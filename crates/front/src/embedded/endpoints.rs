//! The front's own paths: health, identity, counters.

use std::net::IpAddr;

use mfserv_core::route::ServerSettings;
use serde_json::json;

use super::answer;
use super::client::Client;
use super::h1::{Framing, RequestHead};
use super::state::Front;
use super::visit::Visit;

/// Answers a request for one of the front's own paths. False if it is none of them.
pub fn answer(
    front: &Front,
    settings: &ServerSettings,
    client: &mut Client,
    (head, visit): (&RequestHead, &mut Visit),
    path: &str,
) -> bool {
    let is_health = settings.health_path.as_deref() == Some(path);
    let (status, content_type, body) = match path {
        _ if is_health => health(front),
        "/status" | "/__status" if client.is_local() => counters(front),
        "/__upstream_status" if client.is_local() => upstreams(front),
        "/uuid" | "/__uuid" if may_ask_uuid(settings, client) => {
            let uuid = if settings.uuid.is_empty() { "unknown" } else { &settings.uuid };
            (200, "text/plain", format!("{uuid}\n"))
        }
        "/status" | "/__status" | "/__upstream_status" | "/uuid" | "/__uuid" => {
            (403, "text/plain", "forbidden\n".to_string())
        }
        _ => return false,
    };
    visit.of_plugin("#monitoring#");
    visit.logged = is_health && settings.health_access_log;
    visit.keep &= head.framing == Framing::None;
    let to_head = head.method() == b"HEAD";
    let what = (status, content_type, body.as_bytes());
    answer::put_text(&mut client.out, settings, visit, to_head, what);
    true
}

fn health(front: &Front) -> (u16, &'static str, String) {
    let word = front.word.borrow();
    match word.as_str() {
        "RUNNING" => (200, "text/plain", "OK\n".into()),
        word => (503, "text/plain", word.to_string()),
    }
}

/// In the form of nginx's stub_status, which collectors know.
fn counters(front: &Front) -> (u16, &'static str, String) {
    let (active, busy) = (front.connections.get(), front.busy.get());
    let (accepted, requests) = (front.accepted.get(), front.requests.get());
    let text = format!(
        "Active connections: {active} \nserver accepts handled requests\n \
         {accepted} {accepted} {requests} \nReading: 0 Writing: {busy} Waiting: {} \n",
        active.saturating_sub(busy)
    );
    (200, "text/plain", text)
}

fn upstreams(front: &Front) -> (u16, &'static str, String) {
    let mut all = serde_json::Map::new();
    for upstream in front.upstreams() {
        let peers: Vec<_> = upstream
            .peers()
            .into_iter()
            .enumerate()
            .map(|(id, (peer, in_flight, admitted))| {
                let name = format!("unix:{}", peer.socket.display());
                let worker = peer.worker.to_string();
                let mut told =
                    json!({"name": name, "id": id, "conns": in_flight, "worker": worker});
                if !admitted {
                    told["down"] = true.into();
                }
                told
            })
            .collect();
        all.insert(upstream.name.clone(), peers.into());
    }
    (200, "application/json", format!("{}\n", serde_json::Value::Object(all)))
}

fn may_ask_uuid(settings: &ServerSettings, client: &Client) -> bool {
    let Some(address) = client.address else { return true };
    client.is_local() || settings.uuid_allows.iter().any(|network| is_in(address, network))
}

/// True if the address is in a network written as `ADDRESS` or `ADDRESS/BITS`.
fn is_in(address: IpAddr, network: &str) -> bool {
    let (base, bits) = network.split_once('/').map_or((network, None), |(b, n)| (b, Some(n)));
    let Ok(base) = base.trim().parse::<IpAddr>() else { return false };
    let (left, right, width) = match (address, base) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    let Ok(bits) = bits.map_or(Ok(width), |text| text.trim().parse::<u32>()) else { return false };
    if bits > width {
        return false;
    }
    let ignored = width - bits;
    ignored == 128 || (left >> ignored) == (right >> ignored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_compared_by_their_bits() {
        for (address, network, inside) in [
            ("10.1.2.3", "10.0.0.0/8", true),
            ("11.1.2.3", "10.0.0.0/8", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "0.0.0.0/0", true),
            ("10.1.2.3", "::/0", false),
            ("fe80::1", "fe80::/10", true),
            ("fe80::1", "::/0", true),
            ("10.1.2.3", "10.0.0.0/33", false),
            ("10.1.2.3", "nonsense", false),
        ] {
            assert_eq!(is_in(address.parse().unwrap(), network), inside, "{address} {network}");
        }
    }
}
