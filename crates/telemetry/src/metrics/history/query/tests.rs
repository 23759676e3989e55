use std::path::Path;

use super::*;
use crate::metrics::history::{Gauges, Ring};

fn sample(requests: u64) -> Sample {
    let gauges = Gauges { memory: Some(1), ..Gauges::default() };
    let mut sample = Sample { cpu_ms: 250, gauges, ..Sample::default() };
    sample.classes[3] = requests;
    sample.buckets[0] = requests;
    sample
}

fn tick(at: u64, apps: &[(&str, u64)]) -> Tick {
    let of = |(app, requests): &(&str, u64)| {
        (Arc::new(Subject::new("app", "shop", app)), sample(*requests))
    };
    Tick { at, covered_ms: 1000, apps: apps.iter().map(of).collect(), ..Tick::default() }
}

fn now() -> u64 {
    now_ms() / 1000
}

fn write(dir: &Path, resolution: Resolution, ticks: impl IntoIterator<Item = Tick>) {
    let mut ring = Ring::new(dir, resolution, 1 << 20);
    ticks.into_iter().for_each(|tick| ring.append(&tick).unwrap());
}

fn ask(dir: &Path, question: &str) -> Answer {
    answer(&History::new(Some(dir.into())), question).unwrap()
}

#[test]
fn intervals_are_summed_and_where_nothing_was_there_is_null() {
    let dir = tempfile::tempdir().unwrap();
    let begin = (now() - 300) / 10 * 10;
    let web = (begin + 1..=begin + 20).map(|at| tick(at, &[("web", 4), ("api", 1)]));
    let later = (begin + 31..=begin + 35).map(|at| tick(at, &[("web", 8)]));
    write(dir.path(), RESOLUTIONS[0].0, web.chain(later));
    let until = begin + 40;
    let question = format!("plugin=shop&app=web&since={begin}&until={until}&step=10s");
    let answer = ask(dir.path(), &question);
    assert_eq!(answer.times, [begin + 10, begin + 20, begin + 30, begin + 40]);
    assert_eq!(answer.covered_s, [10.0, 10.0, 0.0, 5.0]);
    let [web] = answer.series.as_slice() else { panic!("{answer:?}") };
    assert_eq!((web.name.as_str(), web.kind.as_str()), ("shop.web", "app"));
    let rates = [Some(4.0), Some(4.0), None, Some(8.0)];
    assert_eq!(web.values["requests_per_s"], rates);
    assert_eq!(web.values["5xx_per_s"], rates);
    assert_eq!(web.values["p95_ms"], [Some(0.95), Some(0.95), None, Some(0.95)]);
    assert_eq!(web.values["cpu_percent"], [Some(25.0), Some(25.0), None, Some(25.0)]);
    let all = ask(dir.path(), &format!("since={begin}&until={until}&step=10"));
    let api = all.series.iter().find(|it| it.name == "shop.api").unwrap();
    assert_eq!(api.values["requests_per_s"], [Some(1.0), Some(1.0), None, None]);
}

#[test]
fn an_interval_that_has_not_ended_has_the_time_of_the_question() {
    let dir = tempfile::tempdir().unwrap();
    let begin = now() - 20;
    write(dir.path(), RESOLUTIONS[0].0, (begin..begin + 20).map(|at| tick(at, &[("web", 1)])));
    let times = ask(dir.path(), "since=400d&step=7d").times;
    let last = times.last().copied().unwrap();
    assert!((begin + 20..=now()).contains(&last), "{times:?}");
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn what_nobody_said_is_null_and_files_of_an_app_are_requests_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let begin = (now() - 300) / 10 * 10;
    let of_app = |at: u64, daemon_is_there: bool| {
        let mut tick = tick(at, &[("web", 4)]);
        tick.node.connections = Some(3);
        let sample = tick.apps.values_mut().next().unwrap();
        let known = |value| daemon_is_there.then_some(value);
        sample.gauges = Gauges { in_flight: Some(0), ready: known(2), ..Gauges::default() };
        let files = Sample { classes: [6, 0, 0, 0, 0], ..Sample::default() };
        tick.apps.insert(Arc::new(Subject::new("static", "shop", "web")), files);
        tick
    };
    let ticks = (begin + 1..=begin + 20).map(|at| of_app(at, at <= begin + 8));
    write(dir.path(), RESOLUTIONS[0].0, ticks);
    let answer = ask(dir.path(), &format!("since={begin}&until={}&step=10s", begin + 20));
    let [web] = answer.series.as_slice() else { panic!("{answer:?}") };
    assert_eq!((web.name.as_str(), web.kind.as_str()), ("shop.web", "app"));
    assert_eq!(web.values["requests_per_s"], [Some(10.0), Some(10.0)]);
    assert_eq!(web.values["5xx_per_s"], [Some(4.0), Some(4.0)]);
    assert_eq!(web.values["workers_ready"], [Some(2.0), None]);
    assert_eq!(web.values["in_flight"], [Some(0.0), Some(0.0)]);
    for unknown in ["workers_wanted", "memory_bytes", "cpu_percent", "waiting"] {
        assert_eq!(web.values[unknown], [None, None], "{unknown}");
    }
    assert_eq!(answer.node["connections"], [Some(3.0), Some(3.0)]);
    assert_eq!(answer.node["requests_in_work"], [None, None]);
}

#[test]
fn the_finest_resolution_that_goes_back_far_enough_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let now = now();
    let hours_ago = now / 10 * 10 - 7_200;
    write(dir.path(), RESOLUTIONS[0].0, (now - 500..now).map(|at| tick(at, &[("web", 1)])));
    write(dir.path(), RESOLUTIONS[1].0, [tick(hours_ago, &[("web", 70)])]);
    let recent = ask(dir.path(), "since=8m&step=1s");
    assert_eq!((recent.step_s, recent.times.len()), (1, 480));
    let older = ask(dir.path(), "since=3h&step=1s&plugin=shop");
    assert_eq!(older.step_s, 10, "not finer than what is kept");
    let rates = &older.series[0].values["requests_per_s"];
    let at = older.times.iter().position(|end| *end == hours_ago).unwrap();
    assert_eq!((rates[at], rates.iter().flatten().count()), (Some(70.0), 1));
    assert_eq!(ask(dir.path(), "since=1h").step_s, 60);
}

#[test]
fn a_time_that_comes_again_since_the_clock_was_set_back_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let begin = (now() - 120) / 60 * 60;
    let first = (begin + 1..=begin + 30).map(|at| tick(at, &[("web", 100)]));
    let again = (begin + 1..=begin + 30).map(|at| tick(at, &[("web", 1)]));
    write(dir.path(), RESOLUTIONS[0].0, first.chain(again));
    let answer = ask(dir.path(), &format!("since={begin}&until={}&step=60", begin + 60));
    assert_eq!(answer.series[0].values["requests_per_s"], [Some(1.0)]);
}

#[test]
fn the_present_is_in_memory() {
    let history = History::new(None);
    let now = now();
    lock(&history.recent).extend((now - 8..=now).map(|at| Arc::new(tick(at, &[("web", 6)]))));
    let present = answer(&history, "window=5").unwrap();
    assert_eq!(present.times.len(), 1);
    assert_eq!(present.series[0].values["requests_per_s"], [Some(6.0)]);
    let off = answer(&history, "since=1h").unwrap_err();
    assert!(matches!(&off, Refused::None(why) if why.contains("history_max_size")), "{off:?}");
}

#[test]
fn questions_that_cannot_be_answered_say_why() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), RESOLUTIONS[2].0, [tick(now(), &[("web", 1)])]);
    let history = History::new(Some(dir.path().into()));
    for (question, why) in [
        ("step=0", "no length of time"),
        ("step=1x", "no length of time"),
        ("step=%C3%A9", "no length of time"),
        ("step=99999999999999999999d", "no length of time"),
        ("since=whenever", "no time"),
        ("sinse=1h", "none of plugin"),
        ("since=30d&step=1m", "intervals"),
    ] {
        let refused = answer(&history, question).unwrap_err();
        assert!(
            matches!(&refused, Refused::Bad(it) if it.contains(why)),
            "{question}: {refused:?}"
        );
    }
    assert!(answer(&history, "since=0").unwrap().times.len() > 1, "all that there is");
    assert!(
        answer(&history, "since=1000000001&until=1000000000&app=").is_ok(),
        "an empty interval"
    );
}

#[test]
fn an_answer_has_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    let apps: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let begin = now() - 400;
    let mut ring = Ring::new(dir.path(), RESOLUTIONS[0].0, 64 << 20);
    (begin..begin + 205).for_each(|at| ring.append(&tick(at, &apps)).unwrap());
    let history = History::new(Some(dir.path().into()));
    let question = format!("since={begin}&step=1");
    let refused = answer(&history, &question).unwrap_err();
    assert!(matches!(&refused, Refused::Bad(why) if why.contains("choose a longer step")));
    assert!(answer(&history, &format!("{question}&app=7")).is_ok());
}
