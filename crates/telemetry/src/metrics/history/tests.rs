use std::path::Path;

use mfserv_core::names::WatcherName;

use super::*;
use crate::metrics::changes::OfFronts;

fn reading(requests: u64) -> Reading {
    let mut sample = Sample::default();
    sample.classes[0] = requests;
    sample.buckets[4] = requests;
    let (name, workers) = (WatcherName::app("shop", "web"), Vec::new());
    Reading {
        requests: BTreeMap::from([(("shop".into(), "web".into(), Answerer::Dynamic), sample)]),
        ends: BTreeMap::from([(name.clone(), (2, 1))]),
        fronts: Some(OfFronts {
            load: vec![("shop/web".into(), 3, 4)],
            connections: 9,
            in_work: 5,
        }),
        watchers: Some(vec![WatcherSample { name, wanted: 2, memory_limit: 0, workers }]),
        ..Reading::default()
    }
}

fn recorder(dir: Option<&Path>) -> Recorder {
    let history = Arc::new(History::new(dir.map(Path::to_owned)));
    let registry = Arc::new(Mutex::new(Registry::new(false)));
    Recorder::new(history, registry, Arc::default(), 16 << 20)
}

fn second(recorder: &mut Recorder, at: u64, requests: u64) -> Tick {
    let tick = recorder.tick(at, Duration::from_secs(1), reading(requests));
    recorder.rings.as_mut().unwrap().append(&tick);
    tick
}

fn stored(dir: &Path, step_s: u64) -> Vec<(u64, u64, u64)> {
    let mut found = Vec::new();
    let each = &mut |tick: Tick| {
        let requests = tick.apps.values().map(Sample::requests).sum();
        found.push((tick.at, tick.covered_ms, requests));
    };
    ring::read_since(dir, step_s, 0, each).unwrap();
    found
}

#[test]
fn a_tick_says_of_an_app_what_fronts_and_daemon_know_of_it() {
    let mut recorder = recorder(None);
    let tick = recorder.tick(7, Duration::from_secs(1), reading(5));
    let subject = Subject::new("app", "shop", "web");
    let sample = &tick.apps[&subject];
    let gauges = Gauges {
        in_flight: Some(3),
        waiting: Some(4),
        ready: Some(0),
        wanted: Some(2),
        memory: Some(0),
    };
    assert_eq!((sample.requests(), sample.ends, sample.crashes), (5, 2, 1));
    assert_eq!((sample.gauges, tick.apps.len()), (gauges, 1));
    assert_eq!((tick.node.connections, tick.node.in_work), (Some(9), Some(5)));
}

#[test]
fn what_is_true_now_is_unknown_while_those_who_say_it_are_away() {
    let mut recorder = recorder(None);
    let mut tick = |reading| recorder.tick(7, Duration::from_secs(1), reading);
    let subject = Subject::new("app", "shop", "web");
    let without_daemon = tick(Reading { watchers: None, ..reading(5) });
    let gauges = Gauges { in_flight: Some(3), waiting: Some(4), ..Gauges::default() };
    assert_eq!(without_daemon.apps[&subject].gauges, gauges);
    let without_front = tick(Reading { fronts: None, ..reading(5) });
    let gauges = without_front.apps[&subject].gauges;
    assert_eq!((gauges.in_flight, gauges.waiting, gauges.wanted), (None, None, Some(2)));
    assert_eq!((without_front.node.connections, without_front.node.in_work), (None, None));
    // A front that names no app has no requests of any.
    let idle = tick(Reading { fronts: Some(OfFronts::default()), ..reading(5) });
    let gauges = idle.apps[&subject].gauges;
    assert_eq!((gauges.in_flight, gauges.waiting), (Some(0), Some(0)));
}

#[test]
fn what_was_remembered_is_read_back_each_time_once_in_the_finest_resolution() {
    let dir = tempfile::tempdir().unwrap();
    let end = now_ms() / 1000;
    let mut rings = Rings::new(dir.path(), 16 << 20);
    for at in end / 60 * 60 - 1_800 + 1..=end {
        let sample = Sample { classes: [2, 0, 0, 0, 0], ..Sample::default() };
        let apps = BTreeMap::from([(Arc::new(Subject::new("app", "shop", "web")), sample)]);
        let tick = Tick { at, covered_ms: 1_000, apps, ..Tick::default() };
        // The finest ring does not go back so far.
        match at > end - 90 {
            true => rings.append(&tick),
            false => (1..3).for_each(|ring| rings.fold(ring, &tick).unwrap()),
        }
    }
    let history = History::new(Some(dir.path().into()));
    let read = |before_end: u64| {
        let (mut requests, mut lasts) = (0, Vec::new());
        let seconds = now_ms() / 1000 - end + before_end;
        history.read_back(seconds, &mut |tick| {
            requests += tick.apps.values().map(Sample::requests).sum::<u64>();
            lasts.push(tick.at);
        });
        assert!(lasts.is_sorted_by(|one, other| one < other), "{lasts:?}");
        (requests, lasts.len())
    };
    // A second may begin between two looks at the clock.
    let (requests, ticks) = read(60);
    assert!((118..=120).contains(&requests) && (59..=60).contains(&ticks), "{requests} {ticks}");
    let (requests, ticks) = read(1_000);
    assert!((1_978..=2_020).contains(&requests), "{requests}");
    assert!((170..=190).contains(&ticks), "{ticks}: 90 seconds, and tens before");
}

#[test]
fn coarser_rings_have_the_sums_also_of_what_a_killed_process_had_not_written_to_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut killed = recorder(Some(dir.path()));
    (1..=95).for_each(|at| drop(second(&mut killed, at, 2)));
    assert_eq!(stored(dir.path(), 60), [(60, 60_000, 120)]);
    drop(killed);
    let mut next = recorder(Some(dir.path()));
    next.rings.as_mut().unwrap().catch_up();
    // It was away for some seconds.
    (101..=180).for_each(|at| drop(second(&mut next, at, 3)));
    assert_eq!(stored(dir.path(), 1).len(), 95 + 80);
    let minutes = [(60, 60_000, 120), (120, 55_000, 35 * 2 + 20 * 3), (180, 60_000, 180)];
    assert_eq!(stored(dir.path(), 60), minutes);
    let tens = stored(dir.path(), 10);
    assert_eq!((tens.len(), tens[9], tens[10]), (18, (95, 5_000, 10), (110, 10_000, 30)));
}

#[test]
fn apps_without_end_are_counted_together_and_a_place_is_given_on_when_it_is_not_used() {
    let mut recorder = recorder(None);
    let mut tick = |at: u64, from: usize| {
        let one = |number: usize| {
            (("shop".into(), number.to_string(), Answerer::Dynamic), Sample::default())
        };
        let requests = (from..from + SUBJECTS_MAX + 9).map(one).collect();
        let reading = Reading { requests, ..Reading::default() };
        recorder.tick(at, Duration::from_secs(1), reading).apps
    };
    let first = tick(100, 0);
    assert_eq!(first.len(), SUBJECTS_MAX + 1);
    assert!(first.contains_key(&Subject::rest()));
    assert_eq!(tick(101, 5_000).len(), 1, "all of them are others");
    assert_eq!(tick(100 + UNUSED_S + 1, 5_000).len(), SUBJECTS_MAX + 1);
    assert!(recorder.known.len() <= SUBJECTS_MAX);
}

#[test]
fn a_disk_that_fails_is_left_alone_and_costs_the_history_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history");
    std::fs::write(&path, "no directory").unwrap();
    let mut recorder = recorder(Some(&path));
    let tick = second(&mut recorder, 1, 5);
    assert_eq!(tick.apps.len(), 1);
    let rings = recorder.rings.as_mut().unwrap();
    assert!(rings.failed.is_some() && rings.problem.contains("no history is kept"));
    std::fs::remove_file(&path).unwrap();
    rings.append(&tick);
    assert!(!path.exists(), "not tried again at once");
    rings.failed = Instant::now().checked_sub(PAUSE);
    rings.append(&tick);
    assert_eq!(stored(&path, 1), [(1, 1_000, 5)]);
}

fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A second of apps of which every other one has requests.
fn busy(apps: usize, second: usize) -> Reading {
    let mut reading = Reading::default();
    let mut watchers = Vec::new();
    for app in 0..apps {
        let (plugin, name) = (format!("plugin{app}"), "main".to_string());
        watchers.push(WatcherSample {
            name: WatcherName::app(&plugin, &name),
            wanted: 4,
            memory_limit: 0,
            workers: Vec::new(),
        });
        if app % 2 == 0 {
            let mut sample = Sample::default();
            let number = (second * 7919 + app * 104_729) as u64;
            sample.classes = [number % 2_000, number % 50, number % 9, 0, 0];
            (2..7).for_each(|at| sample.buckets[at] = number % (300 * at as u64));
            let fronts = reading.fronts.get_or_insert_with(OfFronts::default);
            fronts.load.push((format!("{plugin}/{name}"), number % 4, number % 3));
            reading.requests.insert((plugin, name, Answerer::Dynamic), sample);
        }
    }
    reading.watchers = Some(watchers);
    reading
}

#[test]
#[ignore = "it measures: cargo test --release -p mfserv-telemetry what_the_history_costs -- --ignored --nocapture"]
fn what_the_history_costs() {
    const SECONDS: usize = 3_600;
    for apps in [1, 50, 500] {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = recorder(Some(dir.path()));
        let began = own_cpu();
        for second in 0..SECONDS {
            let at = 1_000_000_000 + second as u64;
            let tick = recorder.tick(at, Duration::from_secs(1), busy(apps, second));
            recorder.rings.as_mut().unwrap().append(&tick);
        }
        let cpu = (own_cpu() - began) / SECONDS as u32;
        let bytes = |step_s: u64| {
            let files = std::fs::read_dir(dir.path()).unwrap().flatten();
            let of_ring = |name: &str| name.starts_with(&format!("{step_s}s-"));
            let files = files.filter(|file| of_ring(file.file_name().to_str().unwrap()));
            let bytes: u64 = files.map(|file| file.metadata().unwrap().len()).sum();
            bytes as f64 / stored(dir.path(), step_s).len() as f64
        };
        let whole: f64 = RESOLUTIONS
            .iter()
            .map(|(kept, _)| bytes(kept.step_s) * (kept.age_s / kept.step_s) as f64)
            .sum();
        println!(
            "{apps} apps: {cpu:?} of CPU a second, {:.0}, {:.0} and {:.0} bytes a record, \
             {:.1} MB for all that is kept without a bound",
            bytes(1),
            bytes(10),
            bytes(60),
            whole / 1e6
        );
    }
}
