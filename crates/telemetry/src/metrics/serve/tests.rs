use std::collections::BTreeMap;
use std::sync::TryLockError;

use super::*;

#[test]
fn who_reads_no_metrics_holds_up_neither_apps_nor_alerts() {
    let dir = tempfile::tempdir().unwrap();
    let apps = Arc::new(Mutex::new(AppSeries::default()));
    // More than a socket has room for.
    let long = "x".repeat(10_000);
    (0..100).for_each(|n| lock(&apps).count(&format!("{long}{n}"), &BTreeMap::new(), 1.0));
    let reports = dir.path().join("reports.json");
    let known = Known {
        registry: Arc::new(Mutex::new(Registry::new(false))),
        apps: apps.clone(),
        history: Arc::new(History::new(None)),
        alerts: Shown::default(),
        sources: Sources::new(dir.path().to_owned()),
        troubles: Arc::new(Troubles::new(reports, Arc::new(|_: &str| {}))),
    };
    let alerts = known.alerts.clone();
    let (mut asks, mut answers) = UnixStream::pair().unwrap();
    let answered = std::thread::spawn(move || exchange(&mut answers, true, &known, (1, 0)));
    asks.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut first = [0];
    asks.read_exact(&mut first).unwrap();
    assert!(!answered.is_finished(), "there is more to read");
    let is_held = |held: bool| assert!(!held, "a lock is held while the answer is written");
    is_held(matches!(apps.try_lock(), Err(TryLockError::WouldBlock)));
    is_held(matches!(alerts.try_lock(), Err(TryLockError::WouldBlock)));
    let mut text = String::new();
    asks.read_to_string(&mut text).unwrap();
    answered.join().unwrap().unwrap();
    assert!(text.contains(&format!("{long}99")), "the answer is whole");
}

#[test]
fn a_client_that_reads_slowly_is_let_go_at_the_end_of_its_time() {
    let (mut reads, mut writes) = UnixStream::pair().unwrap();
    let (began, patience) = (Instant::now(), Duration::from_millis(500));
    // Each write makes some progress: only the sum of them has a limit.
    let reader = std::thread::spawn(move || {
        let mut some = [0; 4096];
        while began.elapsed() < Duration::from_secs(10)
            && reads.read(&mut some).is_ok_and(|n| n > 0)
        {
            // A slow reader: only time can pass here.
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let written = write_until(&mut writes, &vec![b'x'; 8 << 20], began + patience);
    let kind = written.unwrap_err().kind();
    assert!(matches!(kind, io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{kind}");
    assert!(began.elapsed() >= patience, "not before");
    assert!(began.elapsed() < Duration::from_secs(8), "as soon as its time is over");
    drop(writes);
    reader.join().unwrap();
}

#[test]
fn only_a_request_that_names_this_machine_is_answered_over_tcp() {
    for (host, is_here) in [
        (Some("127.0.0.1:9187"), true),
        (Some("LOCALHOST"), true),
        (Some("[::1]:9187"), true),
        (None, true),
        (Some("evil.example"), false),
        (Some("evil.example:9187"), false),
        (Some("127.0.0.1.evil.example"), false),
        (Some("192.0.2.1"), false),
    ] {
        // HTTP/1.0 asks for no host.
        let text = match host {
            Some(host) => format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            None => "GET /metrics HTTP/1.0\r\n\r\n".to_string(),
        };
        let mut head = RequestHead::default();
        head.read(text.as_bytes(), FIELDS_MAX).unwrap();
        assert_eq!(names_this_machine(&head), is_here, "{host:?}");
    }
}
