use std::sync::Mutex;

use mfserv_platform::sync::lock;

use super::*;

fn source(pid: u32) -> Source {
    Source { pid, since_ms: u64::from(pid), version: "1".into() }
}

fn front(app: &str, requests: u64, in_flight: u64) -> ToTelemetry {
    let mut row = Requests::new("shop", app, Answerer::Dynamic);
    row.statuses.push((200, requests));
    row.duration.buckets[0] = requests;
    let load = Load { upstream: format!("shop/{app}"), in_flight, ..Load::default() };
    let counters =
        FrontCounters { requests: vec![row], load: vec![load], ..FrontCounters::default() };
    ToTelemetry::Front(Box::new(counters))
}

fn requests(registry: &Registry) -> u64 {
    let sums = registry.snapshot().sums;
    sums.requests.values().map(|row| row.duration.count()).sum()
}

#[test]
fn counters_of_a_process_replace_its_former_ones_and_stay_when_it_has_ended() {
    let mut registry = Registry::new(false);
    for (pid, counts) in [(1, [5, 9]), (2, [1, 2])] {
        registry.connected(&source(pid));
        for count in counts {
            registry.receive(&source(pid), front("web", count, 3));
        }
    }
    let sums = registry.snapshot().sums;
    assert_eq!((requests(&registry), sums.load["shop/web"].in_flight), (11, 6));
    registry.disconnected(&source(1));
    let sums = registry.snapshot().sums;
    assert_eq!((requests(&registry), sums.load["shop/web"].in_flight), (11, 3));
    // The same process connects again: it is not counted twice.
    registry.connected(&source(1));
    registry.receive(&source(1), front("web", 10, 0));
    assert_eq!(requests(&registry), 12);
}

#[test]
fn the_sums_of_the_next_process_go_on_whoever_has_ended_or_lives() {
    let dir = tempfile::tempdir().unwrap();
    let (path, status) = (dir.path().join("counters.json"), dir.path().join("status"));
    let registry = Mutex::new(Registry::new(false));
    let mut store = Store::new(path.clone(), status.clone());
    for (pid, count) in [(1, 1), (2, 20)] {
        lock(&registry).connected(&source(pid));
        store.look(&registry, false);
        lock(&registry).receive(&source(pid), front("web", count, 3));
    }
    assert_eq!(Registry::restored(false, &path).sources.len(), 2, "that they are there is known");
    lock(&registry).receive(&source(1), front("web", 100, 3));
    store.look(&registry, false);
    assert_eq!(requests(&Registry::restored(false, &path)), 1, "those that live say it again");
    lock(&registry).disconnected(&source(1));
    store.look(&registry, false);
    // This is not in the file, and the process is killed.
    lock(&registry).receive(&source(2), front("web", 25, 3));
    let mut next = Registry::restored(false, &path);
    assert_eq!((requests(&next), next.snapshot().fronts), (120, 0));
    assert_eq!(next.snapshot().sums.load["shop/web"].in_flight, 0, "nobody says it now");
    assert!(!next.is_settled(), "a front that lives has not said what it has counted since");
    next.connected(&source(2));
    next.receive(&source(2), front("web", 27, 1));
    assert!(next.is_settled());
    next.connected(&source(3));
    next.receive(&source(3), front("web", 4, 0));
    assert_eq!(requests(&next), 100 + 27 + 4);
    assert_eq!(next.read_changes().requests.len(), 0, "it is not known when they were counted");
    // A node that stops begins anew.
    let next = Mutex::new(next);
    store.look(&next, true);
    assert_eq!(requests(&Registry::restored(false, &path)), 131);
    std::fs::write(&status, "STOPPING\n").unwrap();
    store.look(&next, true);
    assert_eq!(requests(&Registry::restored(false, &path)), 0);
}

#[test]
fn what_an_earlier_process_has_counted_is_no_change_also_if_it_was_not_saved() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("counters.json");
    let registry = Mutex::new(Registry::new(false));
    let young = Source { since_ms: now_ms(), ..source(1) };
    lock(&registry).connected(&young);
    Store::new(path.clone(), dir.path().join("status")).look(&registry, false);
    lock(&registry).receive(&young, front("web", 30, 0));
    assert_eq!(lock(&registry).read_changes().requests.len(), 1);
    let mut next = Registry::restored(false, &path);
    next.connected(&young);
    next.receive(&young, front("web", 31, 0));
    assert_eq!((requests(&next), next.read_changes().requests.len()), (31, 0));
}

#[test]
fn a_process_that_says_nothing_any_more_is_not_there() {
    let mut registry = Registry::new(false);
    registry.connected(&source(1));
    registry.receive(&source(1), front("web", 5, 3));
    assert_eq!(registry.read_changes().fronts.unwrap().load, [("shop/web".to_string(), 3, 0)]);
    registry.sources.get_mut(&source(1)).unwrap().heard = Instant::now().checked_sub(SILENT);
    assert!(registry.read_changes().fronts.is_none());
    let snapshot = registry.snapshot();
    assert_eq!((snapshot.fronts, snapshot.sums.load["shop/web"].in_flight), (0, 0));
    assert_eq!(requests(&registry), 5);
}

#[test]
fn changes_are_those_between_messages_of_one_process_whoever_comes_and_goes() {
    let mut registry = Registry::new(false);
    let requests = |registry: &mut Registry| {
        let reading = registry.read_changes();
        let changed =
            reading.requests.values().map(|sample| (sample.classes[0], sample.buckets[0]));
        changed.fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1))
    };
    let (old, new) = (source(1), Source { since_ms: now_ms(), ..source(2) });
    // A front that lives since long before connects to a role that has just begun.
    registry.connected(&old);
    registry.receive(&old, front("web", 1_000_000, 0));
    assert_eq!(requests(&mut registry), (0, 0));
    registry.receive(&old, front("web", 1_000_007, 0));
    // Its first requests of another app.
    registry.receive(&old, front("api", 2, 0));
    assert_eq!(requests(&mut registry), (9, 9));
    registry.connected(&new);
    registry.receive(&new, front("web", 3, 0));
    registry.disconnected(&old);
    assert_eq!(requests(&mut registry), (3, 3), "a new front begins at 0");
    registry.receive(&new, front("web", 1, 0));
    assert_eq!(requests(&mut registry), (0, 0), "counters that shrink");
    // A front that has begun together with the role, a moment before it.
    let earlier = Source { since_ms: now_ms() - 2_000, ..source(3) };
    registry.connected(&earlier);
    registry.receive(&earlier, front("web", 5, 0));
    assert_eq!(requests(&mut registry), (5, 5));
}

#[test]
fn processes_that_come_and_go_for_ever_are_summed_in_bounded_memory() {
    let mut registry = Registry::new(false);
    for pid in 0..100 {
        registry.connected(&source(pid));
        registry.receive(&source(pid), front("web", 2, 1));
        registry.disconnected(&source(pid));
    }
    assert!(registry.sources.len() <= SOURCES_MAX, "{}", registry.sources.len());
    assert_eq!(requests(&registry), 200);
    assert_eq!(registry.snapshot().sums.load["shop/web"].in_flight, 0);
}

#[test]
fn invented_apps_end_in_the_row_of_the_rest() {
    let mut registry = Registry::new(false);
    for number in 0..ROWS_MAX + 7 {
        // Each process invents another name.
        let sender = source(number as u32);
        registry.connected(&sender);
        registry.receive(&sender, front(&number.to_string(), 1, 0));
        registry.disconnected(&sender);
    }
    let sums = registry.snapshot().sums;
    assert_eq!(sums.requests.len(), ROWS_MAX + 1);
    assert_eq!(sums.requests[&rest()].duration.count(), 7);
    assert_eq!(sums.load.len(), ROWS_MAX + 1);
}

#[test]
fn a_file_that_could_not_be_written_is_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let (below, status) = (dir.path().join("below"), dir.path().join("status"));
    std::fs::write(&below, "a file in the place of the directory").unwrap();
    let path = below.join("counters.json");
    let registry = Mutex::new(Registry::new(false));
    let mut store = Store::new(path.clone(), status);
    lock(&registry).connected(&source(1));
    store.look(&registry, false);
    std::fs::remove_file(&below).unwrap();
    store.look(&registry, true);
    assert_eq!(Registry::restored(false, &path).sources.len(), 1);
}
