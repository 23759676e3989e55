//! Sends alerts to webhooks, in the form of Prometheus' Alertmanager
//! (<https://prometheus.io/docs/alerting/latest/configuration/#webhook_config>).

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use mfserv_core::alerts::Alert;
use mfserv_platform::sync::lock;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::evaluate::Change;
use crate::metrics::report_once;
use crate::ship::http::{Credentials, Nodes, Target};

/// The most messages that wait for a receiver.
const WAITING_MAX: usize = 1000;
/// The first wait after a failure; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A receiver.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Receiver {
    /// Its address.
    url: String,
    /// Certificates to trust there instead of those of the system, a PEM file.
    #[serde(default)]
    ca: Option<PathBuf>,
}

impl Receiver {
    /// That of an alert, if it has one.
    pub fn of(alert: &Alert) -> Option<Self> {
        Some(Self { url: alert.webhook.clone()?, ca: alert.ca.clone() })
    }
}

/// A message that a receiver has not taken yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsent {
    /// The receiver.
    #[serde(flatten)]
    pub to: Receiver,
    about: String,
    message: String,
}

/// The receivers, each with a thread of its own: one that does not answer delays no other.
pub struct Webhooks {
    host: String,
    receivers: BTreeMap<Receiver, Arc<Waiting>>,
}

impl Webhooks {
    /// Starts a thread for each address.
    pub fn start(all: impl Iterator<Item = Receiver>, host: &str) -> Self {
        let mut receivers = BTreeMap::new();
        for receiver in all {
            if receivers.contains_key(&receiver) {
                continue;
            }
            let waiting = Arc::<Waiting>::default();
            let messages = waiting.clone();
            let hook = Hook::new(receiver.clone());
            let thread = std::thread::Builder::new().name("webhook".into());
            if let Err(why) = thread.spawn(move || hook.run(&messages)) {
                let to = shown(&receiver.url);
                say(&format!("no alerts are sent to {to} before the next start: {why}"));
            }
            // Whatever is wrong, the messages wait: the next process has them.
            receivers.insert(receiver, waiting);
        }
        Self { host: host.into(), receivers }
    }

    /// Says a change in the log, and to the receiver of its alert.
    pub fn send(&self, change: &Change) {
        if !change.is_repeated {
            say(&format!("alert {}: {}", change.alert.name, summary(change)));
        }
        let Some(to) = Receiver::of(&change.alert) else { return };
        let Some(receiver) = self.receivers.get(&to) else { return };
        let message = message(change, &self.host).to_string();
        if !receiver.put(identity(change, &self.host), message) {
            let name = &change.alert.name;
            say(&format!("{WAITING_MAX} messages wait for {}: {name} is not sent", shown(&to.url)));
        }
    }

    /// What no receiver has taken yet.
    pub fn unsent(&self) -> Vec<Unsent> {
        let mut all = Vec::new();
        for (to, receiver) in &self.receivers {
            all.extend(lock(&receiver.messages).iter().cloned().map(|(about, message)| Unsent {
                to: to.clone(),
                about,
                message,
            }));
        }
        all
    }

    /// Sends what an earlier process could not.
    pub fn send_again(&self, unsent: Vec<Unsent>) {
        for Unsent { to, about, message } in unsent {
            if let Some(receiver) = self.receivers.get(&to) {
                // There are not more of them than have room.
                receiver.put(about, message);
            }
        }
    }
}

/// The messages that wait for a receiver, each with what it is about. Only the newest one about an
/// alert and its subject waits, in the place of the one before: what is resolved while the receiver
/// is away is not said to fire.
#[derive(Default)]
struct Waiting {
    messages: Mutex<VecDeque<(String, String)>>,
    is_not_empty: Condvar,
}

impl Waiting {
    /// False if there are too many.
    fn put(&self, about: String, message: String) -> bool {
        let mut messages = lock(&self.messages);
        if let Some((_, before)) = messages.iter_mut().find(|(known, _)| *known == about) {
            *before = message;
            return true;
        }
        if messages.len() >= WAITING_MAX {
            return false;
        }
        messages.push_back((about, message));
        self.is_not_empty.notify_one();
        true
    }

    /// Waits for the next one, which stays until it is [`Self::done`].
    fn next(&self) -> (String, String) {
        let mut messages = lock(&self.messages);
        loop {
            if let Some(next) = messages.front() {
                return next.clone();
            }
            messages = self.is_not_empty.wait(messages).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// This one need not be sent any more; a newer one about the same takes its place.
    fn done(&self, sent: &(String, String)) {
        lock(&self.messages).retain(|waiting| waiting != sent);
    }
}

/// One receiver.
struct Hook {
    to: Receiver,
    /// Its address as it may be shown.
    shown: String,
    /// `None` as long as its certificates cannot be read.
    node: Option<Nodes>,
    /// The path with the query.
    path: String,
}

impl Hook {
    fn new(to: Receiver) -> Self {
        let (shown, path) = (shown(&to.url), split(&to.url).1);
        Self { to, shown, node: None, path }
    }

    fn node(&self) -> Result<Nodes, String> {
        let Receiver { url, ca } = &self.to;
        let (origin, _) = split(url);
        let target = Target {
            nodes: vec![origin.into()],
            credentials: Credentials::None,
            authorities: ca.clone(),
            gzip: false,
        };
        Nodes::new(target).map_err(|problem| problem.to_string())
    }

    /// Sends one message after the other. It ends with the process.
    fn run(mut self, messages: &Waiting) {
        let (mut last, mut wait) = (String::new(), FIRST_WAIT);
        loop {
            // After a failure, there may be a newer one about the same.
            let next = messages.next();
            let sent = self.deliver(&next.1);
            let is_done = sent.as_ref().map_or_else(|(_, again)| !again, |()| true);
            if let Err((why, again)) = sent {
                let what = if again { "it is tried again" } else { "it is not sent" };
                report_once(&mut last, format!("alert to {}: {why}; {what}", self.shown));
            }
            if is_done {
                messages.done(&next);
                wait = FIRST_WAIT;
            } else {
                std::thread::sleep(wait);
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }

    /// Why a message did not arrive, and whether it may at another time.
    fn deliver(&mut self, message: &str) -> Result<(), (String, bool)> {
        let node = match self.node.take() {
            Some(node) => node,
            None => self.node().map_err(|why| (why, true))?,
        };
        let node = self.node.insert(node);
        let sent = node.send("POST", &self.path, "application/json", message.as_bytes());
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
        Some(_) if change.is_removed => {
            format!("{subject}: {} is not looked at any more, it was {value}", alert.condition)
        }
        Some(_) => format!("{subject}: {} is resolved, it was {value}", alert.condition),
    }
}

/// The alert and its subject: equal for all messages about them.
fn identity(change: &Change, host: &str) -> String {
    format!("{}/{host}/{}/{}", change.alert.name, change.plugin, change.app)
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
    let identity = identity(change, host);
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
    fn only_the_newest_message_about_an_alert_and_subject_waits() {
        let waiting = Waiting::default();
        for n in 0..WAITING_MAX {
            assert!(waiting.put(n.to_string(), "fires".into()));
        }
        assert!(!waiting.put("one more".into(), "fires".into()));
        assert!(waiting.put("0".into(), "resolved".into()));
        let first = waiting.next();
        assert_eq!(first.1, "resolved");
        assert_eq!(waiting.next(), first, "it was not taken");
        assert!(waiting.put("0".into(), "fires again".into()));
        waiting.done(&first);
        assert_eq!(waiting.next().1, "fires again", "it came while the other one was sent");
        waiting.done(&waiting.next());
        assert_eq!(waiting.next(), ("1".to_string(), "fires".to_string()));
    }

    #[test]
    fn messages_wait_for_a_receiver_whose_certificates_cannot_be_read() {
        let ca = Some(PathBuf::from("/nowhere/ca.pem"));
        let to = Receiver { url: "https://127.0.0.1:1/a".into(), ca };
        let webhooks = Webhooks::start([to.clone()].into_iter(), "h");
        let unsent = Unsent { to: to.clone(), about: "x".into(), message: "{}".into() };
        webhooks.send_again(vec![unsent.clone()]);
        assert_eq!(webhooks.unsent(), [unsent]);
        let (why, again) = Hook::new(to).deliver("{}").unwrap_err();
        assert!(again && why.contains("ca.pem"), "{why}");
    }

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
