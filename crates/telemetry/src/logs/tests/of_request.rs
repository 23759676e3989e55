//! Which lines belong to a request.

use super::*;

const WORKERS: [&str; 2] = ["app.p.main.1.1", "app.p.main.2.2"];

#[test]
fn the_lines_of_a_request_are_those_of_its_worker_and_behind_the_answer_those_with_its_id() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app_p_main.log");
    let mut log = LogFile::new(&path, rotation(0));
    let workers = [source("app.p.main.1.1", "1"), source("app.p.main.2.2", "1")];
    let mut write = |n: u64, text: &str| {
        let kind = MarkKind::Output(START_MS + n * 1000);
        let mark = Mark { at: 0, source: &workers[n as usize % 2], kind };
        log.append_marked(format!("line {n} {text}\n").as_bytes(), &[mark]).unwrap();
    };
    for n in 0..60 {
        write(n, if n % 15 == 0 { "of id1" } else { "" });
    }
    let selection = |from: u64| Selection {
        since_ms: Some(START_MS + from * 1000),
        request: Some(OfRequest {
            id: Pattern::text("id1"),
            workers: vec![OfWorker {
                worker: "app.p.main.1.1".into(),
                from_ms: START_MS + from * 1000,
                until_ms: START_MS + 20_500,
            }],
        }),
        ..Selection::default()
    };
    let found = |from| {
        let logs = std::slice::from_ref(&path);
        numbers(&lines(logs, &selection(from), Order::OldestFirst(None)))
    };
    assert_eq!(found(10), [10, 12, 14, 15, 16, 18, 20, 30, 45]);
    // Far behind the answer nothing is read any more: the id may be in no line at all.
    for n in 60..66 {
        write(n, &"x".repeat(12 << 20));
    }
    write(66, "of id1");
    assert_eq!(found(30), [30, 45]);
}

/// A request of a test: by a worker, from a time for so long, milliseconds.
struct Had {
    worker: usize,
    from_ms: u64,
    for_ms: u64,
}

/// Writes the access log of these requests: `id0`, `id1`…
fn access_log(path: &Path, requests: &[Had]) {
    let mut log = LogFile::new(path, rotation(0));
    for (n, Had { worker, from_ms, for_ms }) in requests.iter().enumerate() {
        let id = format!("id{n}");
        let (from_ms, to_ms) = (START_MS + from_ms, START_MS + from_ms + for_ms);
        let served = Served { from_ms, to_ms, end_ms: to_ms };
        let end = jiff::Timestamp::from_millisecond(to_ms as i64).unwrap();
        let line = format!(
            "{{ \"@timestamp\": \"{}\", \"duration\": {}, \"request_id\": \"{id}\" }}\n",
            end.strftime("%Y-%m-%dT%H:%M:%S+00:00"),
            *for_ms as f64 / 1000.0,
        );
        let kind = MarkKind::Served(request_hash(id.as_bytes()), served);
        let mark = Mark { at: 0, source: &source(WORKERS[*worker], ""), kind };
        log.append_marked(line.as_bytes(), &[mark]).unwrap();
    }
}

/// The lines of a request, as `mfserv logs --request` looks for them.
fn of_request(home: &Path, id: &str) -> Vec<String> {
    let found = request(&home.join("nginx_access.log"), id).unwrap();
    let selection = Selection {
        since_ms: Some(found.from_ms),
        until_ms: Some(found.to_ms + 60_000),
        request: Some(OfRequest {
            id: Pattern::text(id),
            workers: found.of_worker.into_iter().collect(),
        }),
        ..Selection::default()
    };
    lines(&[home.join("app_p_main.log")], &selection, Order::OldestFirst(None))
}

/// Writes into the log of the app: by a worker, read at a time, milliseconds.
fn say(log: &mut LogFile, worker: usize, at_ms: u64, text: &str) {
    let kind = MarkKind::Output(START_MS + at_ms);
    let mark = Mark { at: 0, source: &source(WORKERS[worker], "1"), kind };
    log.append_marked(text.as_bytes(), &[mark]).unwrap();
}

#[test]
fn the_lines_of_one_of_many_requests_in_a_second_are_its_own_and_no_others() {
    let home = tempfile::tempdir().unwrap();
    // 10 ms each, one behind the other, by each of two workers.
    let had = |n: u64| Had { worker: n as usize % 2, from_ms: 1000 + n / 2 * 15, for_ms: 10 };
    access_log(&home.path().join("nginx_access.log"), &(0..80).map(had).collect::<Vec<_>>());
    let mut log = LogFile::new(home.path().join("app_p_main.log"), rotation(0));
    for n in 0..80 {
        let Had { worker, from_ms, .. } = had(n);
        say(&mut log, worker, from_ms, &format!("first {n}\n"));
        say(
            &mut log,
            worker,
            from_ms + 5,
            &format!("ERROR second {n}\nTraceback (most recent call last):\n  x {n}\nE: {n}\n"),
        );
        // Read when the answer has gone already.
        say(&mut log, worker, from_ms + 13, &format!("third {n}\n"));
    }
    for n in [0, 20, 41, 79] {
        let expected = [
            format!("first {n}"),
            format!("ERROR second {n}"),
            "Traceback (most recent call last):".into(),
            format!("  x {n}"),
            format!("E: {n}"),
            format!("third {n}"),
        ];
        assert_eq!(of_request(home.path(), &format!("id{n}")), expected);
    }
}

#[test]
fn a_line_that_names_another_request_or_says_another_time_is_left_out_with_its_traceback() {
    let home = tempfile::tempdir().unwrap();
    let requests = [
        Had { worker: 0, from_ms: 1000, for_ms: 10 },
        Had { worker: 0, from_ms: 1012, for_ms: 500 },
    ];
    access_log(&home.path().join("nginx_access.log"), &requests);
    let mut log = LogFile::new(home.path().join("app_p_main.log"), rotation(0));
    let at = |ms: u64| jiff::Timestamp::from_millisecond((START_MS + ms) as i64).unwrap();
    let traceback = "Traceback (most recent call last):\n  File \"x\"\nValueError: late\n";
    // The keeper was late: these are of the first request.
    say(&mut log, 0, 1013, &format!("{} [ERROR] (a#1) late\n{traceback}", at(1008)));
    say(&mut log, 0, 1020, "{\"event\": \"of the first\", \"request_id\": \"id0\"}\n");
    say(&mut log, 0, 1030, "[INFO] (a#1) of the first, too {plugin=p request_id=id0}\n");
    say(&mut log, 0, 1040, &format!("{} [INFO] (a#1) mine\n", at(1039)));
    say(&mut log, 0, 1050, "{\"event\": \"mine\", \"request_id\": \"id1\"}\n");
    say(&mut log, 0, 1060, "a plain line\n");
    // An hour's offset is no time of this request: the clock of a program may be wrong.
    say(&mut log, 0, 1070, "2001-01-01T00:00:00.000Z [INFO] (a#1) of a wrong clock\n");
    // A job goes on behind the answer.
    say(&mut log, 0, 9000, "of nobody\n{\"event\": \"mine\", \"request_id\": \"id1\"}\n");
    let of_first = of_request(home.path(), "id0");
    assert_eq!(of_first.len(), 6, "{of_first:?}");
    assert!(of_first[0].ends_with("late") && of_first[3] == "ValueError: late", "{of_first:?}");
    let of_second = of_request(home.path(), "id1");
    let expected = ["(a#1) mine", "\"id1\"}", "a plain line", "of a wrong clock", "\"id1\"}"];
    let is_expected = |(line, end): (&String, &str)| line.ends_with(end);
    assert!(of_second.iter().zip(expected).all(is_expected), "{of_second:?}");
    assert_eq!(of_second.len(), expected.len(), "{of_second:?}");
}

#[test]
fn the_lines_of_a_request_are_there_although_the_index_has_become_coarse() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app_p_main.log");
    let mut log = LogFile::new(&path, rotation(0));
    // Short lines, each in a millisecond of its own: the index has no room for all of them.
    (0..20_000).for_each(|n| say(&mut log, 0, n, &format!("{n}\n")));
    let index = mfserv_logfile::Index::read(&path, None).unwrap();
    assert!(index.chunks.last().is_some_and(|chunk| !chunk.is_exact));
    let requests = [Had { worker: 0, from_ms: 19_055, for_ms: 3 }];
    access_log(&home.path().join("nginx_access.log"), &requests);
    let found = of_request(home.path(), "id0");
    let all = (19_055..=19_058).map(|n| n.to_string());
    assert!(all.into_iter().all(|line| found.contains(&line)), "{found:?}");
    assert!(found.len() < 800, "{}", found.len());
}

#[test]
fn a_trace_leads_to_its_newest_request() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("nginx_access.log");
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let mut log = LogFile::new(&path, rotation(0));
    for n in 0..3 {
        let id = format!("id{n}");
        let in_uri = if n == 2 { trace } else { "" };
        let of = if n == 2 { "another" } else { trace };
        let line = format!(
            "{{ \"uri\": \"{in_uri}\", \"request_id\": \"{id}\", \"trace_id\": \"{of}\" }}\n"
        );
        let kind = MarkKind::Request(request_hash(id.as_bytes()));
        let mark = Mark { at: 0, source: &source(WORKERS[0], ""), kind };
        log.append_marked(line.as_bytes(), &[mark]).unwrap();
    }
    let found = |id| find_trace(&path, id, &mut Vec::new()).unwrap();
    let line = found(trace).unwrap().line;
    assert!(line.contains("\"id1\""), "{line}");
    assert_eq!(found(&trace.replace('0', "1")), None);
}
