//! W3C Trace Context and Server-Timing.

use std::collections::HashSet;
use std::time::Duration;

use mfserv_core::route::{Slots, Target};

use crate::world::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Asks for `path` with these lines in the head.
fn asked(front: &Front, path: &str, lines: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n{lines}Connection: close\r\n\r\n");
    ask(front.address, request)
}

#[test]
fn a_valid_trace_is_passed_on_unchanged_and_any_other_is_replaced_by_a_new_one() {
    let Some(world) = World::where_holds("nominated_fields") else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    // The id of each request, and that of its trace.
    let mut expected = Vec::new();
    let later = format!("cc{}-what-the-future-brings", &VALID[2..]);
    for passed in [VALID, &VALID.replace("-01", "-00"), &VALID.replace("00-", "01-"), &later] {
        let lines = format!("Traceparent: {passed}\r\ntracestate: a=1\r\nTraceState: b=2\r\n");
        let answer = asked(&front, "/a", &lines);
        assert_eq!(answer.status, 200);
        expected.push((answer.field("x-request-id")[0].clone(), TRACE.to_string()));
        let seen = worker.last();
        assert_eq!(seen.field("traceparent"), [passed]);
        assert_eq!(seen.field("tracestate"), ["a=1", "b=2"], "{passed}");
    }
    let with = |value: &str| format!("traceparent: {value}\r\n");
    let zero = "0".repeat(32);
    let refused = [
        String::new(),
        with(""),
        with(&VALID.replacen("00", "ff", 1)),
        with(&VALID.replace(TRACE, &zero)),
        with(&VALID.replace("b7ad6b7169203331", &zero[..16])),
        with(&VALID.to_ascii_uppercase()),
        with(&format!("{VALID}-more")),
        with(&format!("{VALID}0").replacen("00", "01", 1)),
        with(&VALID[..54]),
        with(&VALID.replace('-', "_")),
        with(VALID) + &with(VALID),
        with(VALID) + "Connection: traceparent\r\n",
    ];
    for lines in &refused {
        let answer = asked(&front, "/a", &format!("{lines}tracestate: theirs=1\r\n"));
        let seen = worker.last();
        let made = seen.field("traceparent");
        let id = answer.field("x-request-id")[0].clone();
        assert_eq!(made, [format!("00-{id}-{}-01", &id[16..])], "{lines:?}");
        assert_eq!(seen.field("tracestate"), [""; 0], "{lines:?}");
        expected.push((id.clone(), id));
    }
    for (id, trace) in &expected {
        assert_eq!(world.logged("request_id", id.as_str())["trace_id"], **trace);
    }
    let different: HashSet<&String> = expected.iter().map(|(_, trace)| trace).collect();
    assert_eq!(different.len(), refused.len() + 1);
}

#[test]
fn traces_begin_as_the_keys_say_and_only_for_apps() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut routes = table(Slots::Unlimited, true);
    routes.server.trace_sample = Some(0);
    routes.server.accept_request_id = true;
    routes.routes.push(route("/fixed", Target::Fixed { status: 200, body: String::new() }));
    let mut front = world.serving(routes.clone(), &[&worker]);
    asked(&front, "/a", "X-Request-Id: mine\r\n");
    let made = worker.last().field("traceparent").pop().unwrap();
    assert!(made.len() == 55 && made.starts_with("00-") && made.ends_with("-00"), "{made}");
    asked(&front, "/fixed/none", "");
    asked(&front, "/fixed/theirs", &format!("traceparent: {VALID}\r\n"));
    assert_eq!(world.logged("request_id", "mine")["trace_id"], made[3..35]);
    assert_eq!(world.logged("uri", "/fixed/none").get("trace_id"), None);
    assert_eq!(world.logged("uri", "/fixed/theirs")["trace_id"], TRACE);

    routes.server.trace_sample = None;
    front.daemon.publish(2, routes, &[&worker]);
    asked(&front, "/a/as-it-came", "traceparent: theirs\r\ntracestate: theirs=1\r\n");
    let seen = worker.last();
    assert_eq!(seen.field("traceparent"), ["theirs"]);
    assert_eq!(seen.field("tracestate"), ["theirs=1"]);
    assert_eq!(world.logged("uri", "/a/as-it-came").get("trace_id"), None);
}

#[test]
fn server_timing_says_how_long_a_request_has_waited_and_how_long_its_app_took() {
    let world = World::new();
    let worker = Worker::start(&world, 1, |stream, received| {
        if received.target() == "/a/slow" {
            // The time that the app takes for the answer.
            std::thread::sleep(Duration::from_secs(2));
        }
        let head = "HTTP/1.1 200 OK\r\nServer-Timing: db;dur=5\r\nContent-Length: 2\r\n\r\nok";
        std::io::Write::write_all(stream, head.as_bytes()).is_ok()
    });
    let mut routes = table(Slots::Finite { per_worker: 1 }, true);
    let without = world.serving(routes.clone(), &[&worker]);
    assert_eq!(asked(&without, "/a", "").field("server-timing"), ["db;dur=5"]);
    drop(without);
    routes.server.server_timing = true;
    let mut front = world.front(2);
    front.daemon.publish(1, routes, &[&worker]);
    let fields: Vec<Vec<String>> = std::thread::scope(|scope| {
        let one = || asked(&front, "/a/slow", "").field("server-timing");
        let both = [scope.spawn(one), scope.spawn(one)];
        both.map(|asking| asking.join().unwrap()).into()
    });
    let durations = |field: &str| -> Vec<f64> {
        let parts = field.split(", ").zip(["queue", "app", "total"]);
        parts
            .map(|(part, name)| part.strip_prefix(&format!("{name};dur=")).unwrap())
            .map(|ms| ms.parse().unwrap())
            .collect()
    };
    let mut queues = Vec::new();
    for field in fields {
        assert_eq!(field[0], "db;dur=5");
        let [queue, app, total] = durations(&field[1])[..] else { panic!("{field:?}") };
        assert!(app >= 2000.0 && queue + app <= total && total < 60_000.0, "{field:?}");
        queues.push(queue);
    }
    queues.sort_by(f64::total_cmp);
    assert!(queues[0] < 500.0 && queues[1] >= 500.0, "the second one waited: {queues:?}");
    let own = asked(&front, "/__health", "").field("server-timing").pop().unwrap();
    assert!(own.starts_with("total;dur="), "{own}");
}
