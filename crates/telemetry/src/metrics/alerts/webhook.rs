//! Sends alerts to webhooks, in the form of Prometheus' Alertmanager
//! (<https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>).

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use jiff::Timestamp;
use mfserv_core::alerts::Alert;
use serde_json::{Value, json};

use super::evaluate::Change;
use crate::metrics::report_once;
use crate::ship::http::{Credentials, Nodes, Target};

/// The most messages that wait for a receiver.
const WAITING_MAX: usize = 100;
/// The first wait after a failure; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The receivers, each with a thread of its own: one that does not answer delays no other.
pub struct Webhooks {
    host: String,
    receivers: BTreeMap<String, SyncSender<String>>,
}

impl Webhooks {
    /// Starts a thread for each address.
    pub fn start(alerts: &[Alert], host: &str) -> Self {
        let mut receivers = BTreeMap::new();
        for url in alerts.iter().filter_map(|alert| alert.webhook.as_ref()) {
            if receivers.contains_key(url) {
                continue;
            }
            let (sender, messages) = sync_channel(WAITING_MAX);
            let spawned = Hook::new(url).and_then(|hook| {
                let thread = std::thread::Builder::new().name("webhook".into());
                thread.spawn(move || hook.run(&messages)).map_err(|e| e.to_string())
            });
            match spawned {
                Ok(_) => drop(receivers.insert(url.clone(), sender)),
                Err(why) => say(&format!("no alerts are sent to {}: {why}", shown(url))),
            }
        }
        Self { host: host.into(), receivers }
    }

    /// Says a change in the log, and to the receiver of its alert.
    pub fn send(&self, change: &Change) {
        if !change.is_repeated {
            say(&format!("alert {}: {}", change.alert.name, summary(change)));
        }
        let Some(url) = &change.alert.webhook else { return };
        let Some(receiver) = self.receivers.get(url) else { return };
        if receiver.try_send(message(change, &self.host).to_string()).is_err() {
            let name = &change.alert.name;
            say(&format!("{WAITING_MAX} messages wait for {}: {name} is not sent", shown(url)));
        }
    }
}

/// One receiver.
struct Hook {
    /// Its address as it may be shown.
    shown: String,
    node: Nodes,
    /// The path with the query.
    path: String,
}

impl Hook {
    fn new(url: &str) -> Result<Self, String> {
        let (origin, path) = split(url);
        let target = Target {
            nodes: vec![origin.into()],
            credentials: Credentials::None,
            authorities: None,
            gzip: false,
        };
        let node = Nodes::new(target).map_err(|problem| problem.to_string())?;
        Ok(Self { shown: shown(url), node, path })
    }

    /// Sends one message after the other. It ends with the process.
    fn run(self, messages: &Receiver<String>) {
        let mut last = String::new();
        while let Ok(message) = messages.recv() {
            let mut wait = FIRST_WAIT;
            while let Err((why, again)) = self.deliver(&message) {
                let what = if again { "it is tried again" } else { "it is not sent" };
                report_once(&mut last, format!("alert to {}: {why}; {what}", self.shown));
                if !again {
                    break;
                }
                std::thread::sleep(wait);
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }

    /// Why a message did not arrive, and whether it may at another time.
    fn deliver(&self, message: &str) -> Result<(), (String, bool)> {
        let sent = self.node.send("POST", &self.path, "application/json", message.as_bytes());
        // The address is a part of what is said of some errors.
        let answer = sent.map_err(|why| (why.replace(&self.path, "/…"), true))?;
        match answer.status {
            200..=299 => Ok(()),
            408 | 425 | 429 | 500.. => Err((format!("it answers {}", answer.status), true)),
            status => Err((format!("it answers {status}"), false)),
        }
    }
}

/// Scheme and host of an address, and its path with the query.
fn split(url: &str) -> (&str, String) {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?']).map_or(url.len(), |at| host + at);
    let (origin, path) = url.split_at(end);
    let path = if path.starts_with('/') { path.into() } else { format!("/{path}") };
    (origin, path)
}

/// An address without its path, which is often a secret.
fn shown(url: &str) -> String {
    format!("{}/…", split(url).0)
}

fn say(text: &str) {
    // Standard error is `log/telemetry.log`; who closes it loses the message.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// `shop.main: error_rate > 5%, it is 12.0%`.
fn summary(change: &Change) -> String {
    let (alert, value) = (&change.alert, change.alert.quantity.show(change.value));
    let subject = match (change.plugin.as_str(), change.app.as_str()) {
        ("", _) => "the node".into(),
        (plugin, app) => format!("{plugin}.{app}"),
    };
    match change.ended_ms {
        None => format!("{subject}: {}, it is {value}", alert.condition),
        Some(_) => format!("{subject}: {} is resolved, it was {value}", alert.condition),
    }
}

fn message(change: &Change, host: &str) -> Value {
    let time = |ms: u64| {
        let at = Timestamp::from_millisecond(i64::try_from(ms).unwrap_or(i64::MAX));
        at.unwrap_or_default().to_string()
    };
    let name = &change.alert.name;
    let status = if change.ended_ms.is_some() { "resolved" } else { "firing" };
    let mut labels = BTreeMap::from([("alertname", name.as_str()), ("host", host)]);
    if !change.plugin.is_empty() {
        labels.extend([("plugin", change.plugin.as_str()), ("app", change.app.as_str())]);
    }
    let identity = format!("{name}/{host}/{}/{}", change.plugin, change.app);
    let annotations = json!({
        "summary": summary(change),
        "condition": change.alert.condition,
        "value": change.alert.quantity.show(change.value),
    });
    json!({
        "version": "4",
        "groupKey": identity,
        "truncatedAlerts": 0,
        "status": status,
        "receiver": name,
        "groupLabels": {"alertname": name},
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "",
        "alerts": [{
            "status": status,
            "labels": labels,
            "annotations": annotations,
            "startsAt": time(change.since_ms),
            "endsAt": change.ended_ms.map_or("0001-01-01T00:00:00Z".into(), time),
            "generatorURL": "",
            "fingerprint": format!("{:016x}", mfserv_core::fingerprint::of(identity.as_bytes())),
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_asked_with_its_query_and_shown_without_its_path() {
        for (url, origin, path) in [
            ("http://h:1", "http://h:1", "/"),
            ("https://h/a/b/", "https://h", "/a/b/"),
            ("https://h/a?token=x", "https://h", "/a?token=x"),
            ("https://h?token=x", "https://h", "/?token=x"),
        ] {
            assert_eq!(split(url), (origin, path.to_string()));
            assert_eq!(shown(url), format!("{origin}/…"));
        }
    }
}
