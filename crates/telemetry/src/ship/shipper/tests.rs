use std::fs;
use std::net::TcpListener;
use std::path::Path;

use mfserv_core::log_outputs::SyslogAddress;

use super::*;
use crate::ship::line::{Format, LineMaker};
use crate::ship::syslog::Syslog;

/// A shipper of one file to a port that nobody listens on; it gives up soon.
fn shipper<'a>(path: &Path, observer: &'a mut dyn FnMut(Said<'_>)) -> Shipper<'a> {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = Options {
        patterns: vec![Pattern::new(path).unwrap()],
        state: None,
        lines: Lines::Single,
        first: Begin::WithLive,
        later: Begin::WithLive,
        once: true,
        patience: Some(Duration::from_millis(600)),
    };
    let making = Making::Lines(LineMaker::new(Format::Rfc3164 { facility: 3 }));
    let sink = Sink::Syslog(Syslog::new(SyslogAddress::Tcp(free.to_string())));
    Shipper::new(options, making, sink, observer).unwrap()
}

#[test]
fn lines_that_are_under_way_while_the_receiver_is_away_have_not_arrived() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    fs::write(&path, "one\ntwo\n").unwrap();
    let mut unread = Vec::new();
    let mut observer = |said: Said<'_>| {
        if let Said::At(progress) = said {
            unread.push(progress.unread);
        }
    };
    let ended = shipper(&path, &mut observer).run();
    assert_eq!(ended.unwrap_err().kind, Kind::Timeout);
    // Nothing is open before the first look.
    assert!(unread.len() > 1 && unread[1..].iter().all(|bytes| *bytes == 8), "{unread:?}");
}

#[test]
fn a_batch_of_short_lines_has_few_of_them_and_the_rest_is_in_the_next_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    fs::write(&path, "x\n".repeat(2 * MOST + 1)).unwrap();
    let mut observer = |_: Said<'_>| {};
    let mut shipper = shipper(&path, &mut observer);
    for expected in [MOST, MOST, 1] {
        let batch = shipper.read().unwrap();
        assert_eq!((batch.documents.len(), batch.is_full), (expected, expected == MOST));
    }
}
