use mfserv_core::wire::metrics::Histogram;

use super::*;
use crate::metrics::history::Subject;

const SECOND: u64 = 1000;

/// An alert that fires after two seconds, measured over ten.
fn alert(quantity: Quantity, threshold: f64) -> Alert {
    Alert {
        name: "x".into(),
        condition: String::new(),
        quantity,
        threshold,
        for_s: 2,
        window_s: 10,
        plugin: None,
        app: None,
        webhook: None,
        ca: None,
        command: None,
        repeat_s: 0,
    }
}

/// A node whose clock is turned by hand.
struct Node {
    evaluator: Evaluator,
    now_ms: u64,
    now: Now,
    /// What is counted in this second, and what is true in it.
    tick: Tick,
}

impl Node {
    fn new(alert: Alert) -> Self {
        Self::restarted(alert, Vec::new()).0
    }

    fn restarted(alert: Alert, fired: Vec<Firing>) -> (Self, Vec<Change>) {
        let (evaluator, removed) = Evaluator::new(vec![alert], fired, 0);
        let now = Now { state: Some(NodeState::Running), ..Now::default() };
        let mut tick = Tick::default();
        tick.node.connections = Some(1);
        (Self { evaluator, now_ms: 0, now, tick }, removed)
    }

    fn of(&mut self, kind: &str) -> &mut Sample {
        self.tick.apps.entry(Arc::new(Subject::new(kind, "shop", "web"))).or_default()
    }

    fn app(&mut self) -> &mut Sample {
        self.of("app")
    }

    fn waits(&mut self, requests: u64) {
        self.app().gauges.waiting = Some(requests);
    }

    fn answers(&mut self, good: u64, bad: u64) {
        let app = self.app();
        app.classes[0] += good;
        app.classes[ERRORS] += bad;
    }

    /// Answers so many requests, each after this time in microseconds.
    fn takes(&mut self, count: u64, us: u64) {
        self.answers(count, 0);
        let mut duration = Histogram::default();
        for _ in 0..count {
            duration.observe(us);
        }
        for (own, count) in self.app().buckets.iter_mut().zip(duration.buckets) {
            *own += count;
        }
    }

    /// Lets so many seconds pass; what is said: `+` fires, `-` is resolved, `=` is repeated.
    fn pass(&mut self, seconds: u64) -> String {
        let mut said = String::new();
        for _ in 0..seconds {
            self.now_ms += SECOND;
            self.tick.at = self.now_ms / SECOND;
            self.now.ticks = vec![Arc::new(self.tick.clone())];
            for sample in self.tick.apps.values_mut() {
                *sample = Sample { gauges: sample.gauges, ..Sample::default() };
            }
            for change in self.evaluator.step(self.now_ms, &self.now) {
                said.push(match (change.ended_ms, change.is_repeated) {
                    (Some(_), _) => '-',
                    (None, true) => '=',
                    (None, false) => '+',
                });
            }
        }
        said
    }

    /// The same while each second has these answers.
    fn answer(&mut self, seconds: u64, good: u64, bad: u64) -> String {
        let mut said = String::new();
        for _ in 0..seconds {
            self.answers(good, bad);
            said += &self.pass(1);
        }
        said
    }
}

#[test]
fn a_share_of_errors_fires_after_its_time_and_is_resolved_when_they_have_left_the_window() {
    let mut node = Node::new(alert(Quantity::ErrorRate, 10.0));
    assert_eq!(node.answer(10, 9, 1), "", "a tenth is not more than a tenth");
    assert_eq!(node.answer(1, 0, 10), "", "not for long enough yet");
    assert_eq!(node.evaluator.shown()[0].state, State::Pending);
    assert_eq!(node.answer(3, 5, 5), "+");
    assert_eq!(node.evaluator.shown()[0].state, State::Firing);
    assert_eq!(node.answer(5, 10, 0), "", "the errors are still in the window");
    assert_eq!(node.answer(15, 10, 0), "-");
    assert_eq!(node.evaluator.shown()[0].state, State::Ok);
    assert_eq!(node.evaluator.firing(), []);
}

#[test]
fn a_condition_that_holds_for_a_moment_says_nothing_in_either_direction() {
    let mut node = Node::new(alert(Quantity::Queue, 3.0));
    node.pass(6);
    node.waits(4);
    assert_eq!(node.pass(2), "");
    node.waits(3);
    assert_eq!(node.pass(5), "");
    node.waits(9);
    assert_eq!(node.pass(9), "+");
    node.waits(0);
    assert_eq!(node.pass(2), "");
    node.waits(9);
    assert_eq!(node.pass(9), "", "it fires all the while");
    node.waits(0);
    assert_eq!(node.pass(9), "-");
}

#[test]
fn crashes_of_an_app_and_of_an_extra_daemon_are_counted_and_files_are_no_answers_of_an_app() {
    let mut node = Node::new(alert(Quantity::Restarts, 2.0));
    node.pass(6);
    node.app().crashes = 1;
    node.pass(3);
    node.app().crashes = 2;
    assert_eq!(node.pass(3), "+", "whoever counted them, and when");
    assert_eq!(node.pass(20), "-");
    node.of("extra").crashes = 3;
    assert_eq!(node.pass(3), "+");
    let mut node = Node::new(alert(Quantity::ErrorRate, 10.0));
    node.pass(6);
    node.of("static").classes[0] = 1_000;
    node.answers(0, 5);
    assert_eq!(node.pass(3), "+");
}

#[test]
fn what_was_counted_before_a_process_began_is_in_its_windows() {
    let mut node = Node::new(alert(Quantity::Restarts, 2.0));
    node.app().crashes = 3;
    for at in [1, 90] {
        node.evaluator.add(&Tick { at, ..node.tick.clone() });
    }
    (node.now_ms, node.tick.apps) = (91 * SECOND, BTreeMap::new());
    assert_eq!(node.evaluator.longest_window_s(), 10);
    assert_eq!(node.pass(4), "+");
    assert_eq!(node.evaluator.firing()[0].value, 3.0, "the older ones have left the window");
}

#[test]
fn what_is_not_known_changes_nothing() {
    let mut node = Node::new(alert(Quantity::Queue, 3.0));
    node.pass(6);
    node.waits(9);
    assert_eq!(node.pass(9), "+");
    (node.tick.node.connections, node.app().gauges.waiting) = (None, None);
    assert_eq!(node.pass(60), "", "no front says what waits");
    (node.tick.node.connections, node.app().gauges.waiting) = (Some(1), Some(0));
    assert_eq!(node.pass(9), "-");
}

#[test]
fn an_alert_that_is_removed_while_it_fires_is_resolved_once() {
    let with_hook = |name: &str, url: &str| {
        let (name, webhook) = (name.into(), Some(url.into()));
        Alert { name, webhook, ..alert(Quantity::Queue, 3.0) }
    };
    let mut node = Node::new(with_hook("old", "http://a"));
    node.pass(6);
    node.waits(9);
    assert_eq!(node.pass(9), "+");
    let fired = node.evaluator.firing();
    for now in [with_hook("new", "http://a"), with_hook("old", "http://b")] {
        let (mut next, removed) = Node::restarted(now, fired.clone());
        let [change] = removed.as_slice() else { panic!("{removed:?}") };
        assert_eq!((&change.alert, change.is_removed), (&with_hook("old", "http://a"), true));
        assert_eq!((change.since_ms, change.ended_ms), (fired[0].since_ms, Some(0)));
        assert_eq!(next.evaluator.firing(), [], "it is stored without it");
        next.waits(9);
        assert_eq!(next.pass(20), "+", "the other one fires by itself");
    }
    let same = Alert { threshold: 1.0, ..with_hook("old", "http://a") };
    assert_eq!(Node::restarted(same, fired).1, []);
}

#[test]
fn few_requests_have_neither_a_share_of_errors_nor_a_percentile() {
    let mut node = Node::new(alert(Quantity::ErrorRate, 10.0));
    node.pass(6);
    node.answers(0, 4);
    assert_eq!(node.pass(9), "");
    let mut node = Node::new(alert(Quantity::P95, 2.0));
    node.pass(6);
    for (count, said) in [(4, ""), (5, "+")] {
        node.takes(count, 4_000_000);
        assert_eq!(node.pass(4), said);
    }
    assert_eq!(node.pass(20), "-", "nobody asks any more");
}

#[test]
fn the_95th_percentile_lies_in_its_bucket() {
    let mut node = Node::new(alert(Quantity::P95, 2.4));
    node.pass(6);
    node.takes(90, 500);
    node.takes(10, 2_000_000);
    let found = value(Quantity::P95, node.app()).unwrap();
    assert!((1.0..2.5).contains(&found), "{found}");
    assert_eq!(node.pass(5), "");
    node.takes(100, 70_000_000);
    assert_eq!(node.pass(5), "+");
}

#[test]
fn an_alert_is_about_the_apps_that_it_names_and_is_repeated_while_it_fires() {
    let mut only = alert(Quantity::Queue, 3.0);
    (only.plugin, only.repeat_s) = (Some("other".into()), 10);
    let mut node = Node::new(only.clone());
    node.pass(6);
    node.waits(9);
    assert_eq!(node.pass(9), "");
    only.plugin = Some("shop".into());
    let mut node = Node::new(only);
    node.pass(6);
    node.waits(9);
    assert_eq!(node.pass(26), "+==");
}

#[test]
fn a_new_process_resolves_what_fired_in_the_one_before_and_does_not_say_it_again() {
    let mut node = Node::new(alert(Quantity::Queue, 3.0));
    node.pass(6);
    node.waits(9);
    assert_eq!(node.pass(9), "+");
    let fired = node.evaluator.firing();
    let fired: Vec<Firing> = serde_json::from_slice(&serde_json::to_vec(&fired).unwrap()).unwrap();
    let (mut node, removed) = Node::restarted(alert(Quantity::Queue, 3.0), fired);
    assert_eq!(removed, []);
    node.waits(9);
    assert_eq!(node.pass(20), "");
    node.waits(0);
    assert_eq!(node.pass(9), "-");
}

#[test]
fn a_node_does_not_run_without_a_daemon_and_a_disk_is_looked_at_by_what_is_free() {
    let mut node = Node::new(alert(Quantity::Node, 0.0));
    assert_eq!(node.pass(9), "");
    node.now.state = Some(NodeState::Error);
    assert_eq!(node.pass(9), "+");
    node.now.state = None;
    assert_eq!(node.pass(9), "", "no daemon says anything");
    node.now.state = Some(NodeState::Running);
    assert_eq!(node.pass(9), "-");
    node.now.state = None;
    assert_eq!(node.pass(9), "+");
    let mut node = Node::new(alert(Quantity::Disk, 5.0));
    node.now.disk_free = Some(5.0);
    assert_eq!(node.pass(9), "");
    node.now.disk_free = Some(4.9);
    assert_eq!(node.pass(9), "+");
}

#[test]
fn alerts_go_on_after_the_clock_was_set_back() {
    let day = 86_400 * SECOND;
    let mut node = Node::new(Alert { repeat_s: 30, ..alert(Quantity::Queue, 3.0) });
    node.now_ms = 9 * day;
    node.pass(6);
    node.waits(9);
    assert_eq!(node.pass(1), "", "it is pending");
    node.now_ms = 8 * day;
    assert_eq!(node.pass(4), "+");
    node.now_ms = 7 * day;
    assert_eq!(node.pass(32), "=");
    let fired = node.evaluator.firing();
    assert!(fired[0].since_ms <= node.now_ms);
    node.waits(0);
    assert_eq!(node.pass(1), "");
    node.now_ms = 6 * day;
    assert_eq!(node.pass(4), "-");

    let (evaluator, _) = Evaluator::new(vec![alert(Quantity::Queue, 3.0)], fired, 9 * day);
    (node.evaluator, node.now_ms) = (evaluator, day);
    assert_eq!(node.pass(9), "-", "it does not settle for eight days");
}
