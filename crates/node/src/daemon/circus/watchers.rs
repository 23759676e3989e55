//! The watchers as a client of Circus sees them, and those that it means.

use mfserv_core::glob;
use mfserv_core::names::WatcherName;
use mfserv_core::status::{WatcherState, WatcherStatus};
use regex_lite::RegexBuilder;

use super::message::{Message, Refusal};

/// What MFSERV called the web front.
const NGINX: &str = "nginx";
/// The longest pattern.
const LONGEST_PATTERN: usize = 500;

/// The watchers of the node without those that MFSERV did not have.
pub struct Watchers(Vec<WatcherStatus>);

impl Watchers {
    /// Those of a status.
    pub fn new(mut all: Vec<WatcherStatus>) -> Watchers {
        all.retain(|watcher| watcher.name != WatcherName::telemetry());
        all.sort_by(|a, b| shown(&a.name).cmp(shown(&b.name)));
        Watchers(all)
    }

    /// All of them, by the name that is shown.
    pub fn iter(&self) -> std::slice::Iter<'_, WatcherStatus> {
        self.0.iter()
    }

    /// A watcher, whatever the case of its name.
    pub fn find(&self, name: &str) -> Result<&WatcherStatus, Refusal> {
        let same = |one: &&WatcherStatus| {
            shown(&one.name).eq_ignore_ascii_case(name) || one.name.as_str() == name
        };
        self.0.iter().find(same).ok_or_else(|| not_found(name))
    }

    /// The watcher that a message names.
    pub fn named(&self, message: &Message) -> Result<&WatcherStatus, Refusal> {
        self.find(message.name()?)
    }

    /// The watchers that a message is about, as its `match` says; all without a name.
    pub fn meant(&self, message: &Message) -> Result<Vec<&WatcherStatus>, Refusal> {
        let Some(name) = message.text("name")? else { return Ok(self.0.iter().collect()) };
        if name.len() > LONGEST_PATTERN {
            return Err(Refusal::message("the name is too long"));
        }
        let meant: Vec<&WatcherStatus> = match message.text("match")?.unwrap_or("glob") {
            "simple" => vec![self.find(name)?],
            "glob" => {
                let pattern = name.to_lowercase();
                let like = |one: &&WatcherStatus| {
                    glob::matches(&pattern, &shown(&one.name).to_lowercase())
                };
                self.0.iter().filter(like).collect()
            }
            "regex" => {
                // As Python's re.match: from the beginning, not up to the end.
                let built = RegexBuilder::new(&format!("^(?:{name})"))
                    .case_insensitive(true)
                    .size_limit(1 << 20)
                    .build();
                let pattern = built
                    .map_err(|why| Refusal::message(format!("'{name}' is no pattern: {why}")))?;
                self.0.iter().filter(|one| pattern.is_match(shown(&one.name))).collect()
            }
            other => return Err(Refusal::message(format!("unknown match method {other}"))),
        };
        if meant.is_empty() { Err(not_found(name)) } else { Ok(meant) }
    }

    /// The watchers of plugins among those that a message is about. Roles start and stop with
    /// the node.
    pub fn of_plugins(&self, message: &Message) -> Result<Vec<&WatcherStatus>, Refusal> {
        let meant = self.meant(message)?;
        let own: Vec<_> = meant.iter().copied().filter(|one| one.plugin.is_some()).collect();
        match (own.is_empty(), meant.first()) {
            (true, Some(role)) => Err(belongs_to_the_node(&role.name)),
            _ => Ok(own),
        }
    }
}

fn not_found(name: &str) -> Refusal {
    Refusal::message(format!("program {name} not found"))
}

/// A role is started and stopped with the node only.
pub fn belongs_to_the_node(name: &WatcherName) -> Refusal {
    let what = match *name == WatcherName::front() {
        true => "the web front",
        false => name.as_str(),
    };
    Refusal::message(format!(
        "{what} is started and stopped with the node: use mfserv.start and mfserv.stop, or \
         circusctl restart {}",
        shown(name)
    ))
}

/// The name of a watcher, as MFSERV had it.
pub fn shown(name: &WatcherName) -> &str {
    if *name == WatcherName::front() { NGINX } else { name.as_str() }
}

/// One of the four states of Circus.
pub fn state(watcher: &WatcherStatus) -> &'static str {
    match (watcher.state, watcher.ready) {
        (WatcherState::Off, _) => "stopped",
        (WatcherState::Stopping, _) => "stopping",
        (_, 0) => "starting",
        _ => "active",
    }
}

/// The process ids of a watcher, oldest worker first.
pub fn pids(watcher: &WatcherStatus) -> Vec<u32> {
    watcher.workers.iter().filter_map(|worker| worker.pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watchers() -> Watchers {
        let of = |name: WatcherName| WatcherStatus {
            plugin: name.plugin().map(str::to_owned),
            name,
            path: None,
            hosts: Vec::new(),
            wanted: 1,
            ready: 1,
            scaled: None,
            state: WatcherState::Ready,
            crashes: 0,
            last_end: None,
            workers: Vec::new(),
        };
        let names = [
            WatcherName::telemetry(),
            WatcherName::front(),
            WatcherName::extra("shop", "queue"),
            WatcherName::app("shop", "main"),
            WatcherName::app("shop", "admin"),
        ];
        Watchers::new(names.map(of).into())
    }

    fn message(properties: &str) -> Message {
        let text = format!(r#"{{"command": "x", "properties": {properties}}}"#);
        Message::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_message_means_watchers_by_name_by_pattern_or_all() {
        let watchers = watchers();
        let meant = |properties: &str| -> Vec<&str> {
            let meant = watchers.meant(&message(properties)).unwrap();
            meant.iter().map(|one| shown(&one.name)).collect()
        };
        let all = ["app.shop.admin", "app.shop.main", "extra.shop.queue", "nginx"];
        assert_eq!(meant("{}"), all);
        assert_eq!(meant(r#"{"name": "*"}"#), all);
        assert_eq!(meant(r#"{"name": "App.Shop.Main"}"#), ["app.shop.main"]);
        assert_eq!(meant(r#"{"name": "app.*", "match": "glob"}"#), all[..2]);
        assert_eq!(meant(r#"{"name": "NGINX", "match": "simple"}"#), ["nginx"]);
        assert_eq!(meant(r#"{"name": "app.shop.(a|x)", "match": "regex"}"#), ["app.shop.admin"]);
        // From the beginning, not up to the end.
        assert_eq!(meant(r#"{"name": "EXTRA", "match": "regex"}"#), ["extra.shop.queue"]);
        let own = watchers.of_plugins(&message("{}")).unwrap();
        assert_eq!(own.len(), 3);
    }

    #[test]
    fn what_means_no_watcher_is_refused_with_the_reason() {
        let watchers = watchers();
        for (properties, why) in [
            (r#"{"name": "nope"}"#, "program nope not found"),
            (r#"{"name": "shop", "match": "regex"}"#, "program shop not found"),
            (r#"{"name": "telemetry"}"#, "program telemetry not found"),
            (r#"{"name": "(", "match": "regex"}"#, "'(' is no pattern"),
            (r#"{"name": "a", "match": "soundex"}"#, "unknown match method soundex"),
            (r#"{"name": 5}"#, "'name' isn't a string"),
            (r#"{"name": "nginx"}"#, "the web front is started and stopped with the node"),
        ] {
            let refusal = watchers.of_plugins(&message(properties)).map(drop).unwrap_err();
            assert!(refusal.reason.contains(why), "{properties}: {}", refusal.reason);
        }
        let long = format!(r#"{{"name": "{}"}}"#, "*a".repeat(300));
        assert!(watchers.meant(&message(&long)).is_err());
    }
}
