use super::*;
use crate::maintenance::Mark;

fn status() -> Status {
    let role = RoleStatus { pid: 1, version: String::new(), since_ms: 0 };
    Status {
        state: NodeState::Running,
        home: "/rt".into(),
        address: None,
        tls_address: None,
        generation: 1,
        keeper: Some(role.clone()),
        daemon: role,
        notes: Vec::new(),
        plugins: Vec::new(),
        watchers: Vec::new(),
        requests: BTreeMap::new(),
        maintenance: Marks::default(),
        problems: Vec::new(),
        front_warnings: Default::default(),
    }
}

fn watcher(name: WatcherName, (ready, wanted): (u32, u32)) -> WatcherStatus {
    WatcherStatus {
        plugin: name.plugin().map(str::to_owned),
        name,
        path: None,
        hosts: Vec::new(),
        wanted,
        ready,
        state: WatcherState::Ready,
        crashes: 0,
        last_end: None,
        workers: Vec::new(),
        scaled: Default::default(),
    }
}

#[test]
fn a_node_is_well_when_it_runs_and_nothing_is_missing() {
    let app = |name, count| watcher(WatcherName::app(name, "main"), count);
    let extra = |count| watcher(WatcherName::extra("x", "queue"), count);
    let front = |count| watcher(WatcherName::front(), count);
    let of = |watchers| Status { watchers, ..status() }.faults();
    let well = vec![app("a", (2, 2)), app("b", (0, 0)), extra((1, 1)), front((1, 1))];
    assert!(Status { watchers: well.clone(), ..status() }.is_well());
    assert_eq!(of(vec![app("a", (0, 2)), app("b", (3, 2))]), ["1 of 2 apps down"]);
    assert_eq!(of(vec![app("a", (1, 2))]), ["1 of 1 app with too few workers"]);
    assert_eq!(of(vec![extra((0, 1)), app("a", (1, 1))]), ["1 of 1 extra daemon down"]);
    assert_eq!(of(vec![front((0, 1))]), ["the front is down"]);
    // Another one was to take its place: it serves.
    let failing = WatcherStatus { state: WatcherState::Failing, ..front((1, 1)) };
    assert_eq!(of(vec![failing]), ["the new front does not start"]);
    let telemetry = |count| watcher(WatcherName::telemetry(), count);
    assert_eq!(of(vec![telemetry((0, 1)), front((1, 1))]), ["telemetry is down"]);
    let starting = Status { state: NodeState::Starting, watchers: well, ..status() };
    assert!(!starting.is_well() && starting.faults().is_empty());
    assert_eq!(Status { keeper: None, ..status() }.faults(), ["no keeper"]);
}

#[test]
fn an_app_in_maintenance_may_be_down_and_others_may_not() {
    let app = |name| watcher(WatcherName::app(name, "main"), (0, 2));
    let watchers = vec![app("a"), app("b"), watcher(WatcherName::extra("a", "queue"), (0, 1))];
    let faults = |marks: &[&str]| {
        let mark = Mark { hold: false, page: None, since_ms: 1 };
        let marks = marks.iter().map(|name| (name.to_string(), mark.clone())).collect();
        Status { watchers: watchers.clone(), maintenance: Marks(marks), ..status() }.faults()
    };
    let extra = "1 of 1 extra daemon down";
    assert_eq!(faults(&[]), ["2 of 2 apps down", extra]);
    assert_eq!(faults(&["a"]), ["1 of 2 apps down", extra]);
    assert_eq!(faults(&["a.main", "b"]), [extra]);
    assert_eq!(faults(&["*"]), [extra]);
}

#[test]
fn a_refused_plugin_and_an_error_of_the_plan_are_faults_and_a_warning_is_none() {
    let plugin = |name: &str, state| PluginStatus {
        name: name.into(),
        version: String::new(),
        dir: "/p".into(),
        state,
        paths: Vec::new(),
        hosts: Vec::new(),
    };
    let mut seen = status();
    seen.problems.push(Diagnostic::warning("doubtful"));
    assert!(seen.is_well());
    seen.plugins = vec![plugin("a", PluginState::Refused), plugin("b", PluginState::LastGood)];
    seen.problems.push(Diagnostic::error("refused").about("a"));
    assert_eq!(seen.faults(), ["2 plugins refused"]);
    seen.problems.push(Diagnostic::error("app.c.main is not started").about("c"));
    assert_eq!(seen.faults(), ["2 plugins refused", "1 error"]);
}

#[test]
fn a_watcher_state_is_the_same_word_in_json_and_on_a_terminal() {
    use WatcherState as S;
    let words = ["ready", "starting", "restarting", "failing", "stopping", "off"];
    let states = [S::Ready, S::Starting, S::Restarting, S::Failing, S::Stopping, S::Off];
    for (state, word) in states.into_iter().zip(words) {
        assert_eq!(state.to_string(), word);
        assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{word}\""));
    }
}

#[test]
fn the_state_of_a_plugin_is_shown_in_words() {
    let words = ["active", "refused", "last good"];
    for (state, word) in PluginState::ALL.into_iter().zip(words) {
        let status = PluginStatus {
            name: "p".into(),
            version: String::new(),
            dir: "/p".into(),
            state,
            paths: Vec::new(),
            hosts: Vec::new(),
        };
        let text = serde_json::to_string(&status).unwrap();
        assert!(text.contains(&format!(r#""state":"{word}""#)), "{text}");
        assert_eq!(serde_json::from_str::<PluginStatus>(&text).unwrap(), status);
        let other = text.replace(word, "lost");
        assert!(serde_json::from_str::<PluginStatus>(&other).is_err());
    }
}
