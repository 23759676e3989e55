use super::*;

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
        repeat_s: 0,
    }
}

/// A node whose clock is turned by hand.
struct Node {
    evaluator: Evaluator,
    now_ms: u64,
    sample: Sample,
}

impl Node {
    fn new(alert: Alert) -> Self {
        Self::restarted(alert, Vec::new())
    }

    fn restarted(alert: Alert, fired: Vec<Firing>) -> Self {
        let evaluator = Evaluator::new(vec![alert], fired, 0);
        let sample = Sample { fronts: 1, state: Some(NodeState::Running), ..Sample::default() };
        Self { evaluator, now_ms: 0, sample }
    }

    fn app(&mut self) -> &mut AppSample {
        self.sample.apps.entry(("shop".into(), "web".into())).or_default()
    }

    fn answers(&mut self, good: u64, bad: u64) {
        let app = self.app();
        app.requests += good + bad;
        app.errors += bad;
    }

    /// Answers so many requests, each after this time in microseconds.
    fn takes(&mut self, count: u64, us: u64) {
        self.answers(count, 0);
        for _ in 0..count {
            self.app().duration.observe(us);
        }
    }

    /// Lets so many seconds pass; what is said: `+` fires, `-` is resolved, `=` is repeated.
    fn pass(&mut self, seconds: u64) -> String {
        let mut said = String::new();
        for _ in 0..seconds {
            self.now_ms += SECOND;
            for change in self.evaluator.step(self.now_ms, self.sample.clone()) {
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
    node.app().waiting = 4;
    assert_eq!(node.pass(2), "");
    node.app().waiting = 3;
    assert_eq!(node.pass(5), "");
    node.app().waiting = 9;
    assert_eq!(node.pass(9), "+");
    node.app().waiting = 0;
    assert_eq!(node.pass(2), "");
    node.app().waiting = 9;
    assert_eq!(node.pass(9), "", "it fires all the while");
    node.app().waiting = 0;
    assert_eq!(node.pass(9), "-");
}

#[test]
fn what_was_counted_before_the_start_or_by_a_front_that_connects_is_of_no_window() {
    let mut node = Node::new(alert(Quantity::ErrorRate, 10.0));
    node.answers(0, 1000);
    assert_eq!(node.pass(20), "");
    node.answers(0, 1000);
    node.sample.fronts += 1;
    assert_eq!(node.pass(20), "", "a front has connected again with its counts");
    *node.app() = AppSample::default();
    assert_eq!(node.pass(20), "", "counters have begun again at 0");
    let mut node = Node::new(alert(Quantity::Restarts, 2.0));
    node.pass(10);
    node.app().crashes = 50;
    node.sample.daemon =
        Some(mfserv_core::wire::metrics::Source { pid: 1, since_ms: 1, version: String::new() });
    assert_eq!(node.pass(20), "", "a daemon has connected with its counts");
    node.app().crashes += 3;
    assert_eq!(node.pass(3), "+");
    assert_eq!(node.pass(20), "-");
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
    let found = super::super::sample::p95(&node.app().duration).unwrap();
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
    node.app().waiting = 9;
    assert_eq!(node.pass(9), "");
    only.plugin = Some("shop".into());
    let mut node = Node::new(only);
    node.pass(6);
    node.app().waiting = 9;
    assert_eq!(node.pass(26), "+==");
}

#[test]
fn a_new_process_resolves_what_fired_in_the_one_before_and_does_not_say_it_again() {
    let mut node = Node::new(alert(Quantity::Queue, 3.0));
    node.pass(6);
    node.app().waiting = 9;
    assert_eq!(node.pass(9), "+");
    let fired = node.evaluator.firing();
    let fired: Vec<Firing> = serde_json::from_slice(&serde_json::to_vec(&fired).unwrap()).unwrap();
    let mut node = Node::restarted(alert(Quantity::Queue, 3.0), fired);
    node.app().waiting = 9;
    assert_eq!(node.pass(20), "");
    node.app().waiting = 0;
    assert_eq!(node.pass(9), "-");
}

#[test]
fn a_node_does_not_run_without_a_daemon_and_a_disk_is_looked_at_by_what_is_free() {
    let mut node = Node::new(alert(Quantity::Node, 0.0));
    assert_eq!(node.pass(9), "");
    node.sample.state = Some(NodeState::Error);
    assert_eq!(node.pass(9), "+");
    node.sample.state = None;
    assert_eq!(node.pass(9), "", "no daemon says anything");
    node.sample.state = Some(NodeState::Running);
    assert_eq!(node.pass(9), "-");
    node.sample.state = None;
    assert_eq!(node.pass(9), "+");
    let mut node = Node::new(alert(Quantity::Disk, 5.0));
    node.sample.disk_free = Some(5.0);
    assert_eq!(node.pass(9), "");
    node.sample.disk_free = Some(4.9);
    assert_eq!(node.pass(9), "+");
}
