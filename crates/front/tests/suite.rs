//! What the suite is run with: the kind of front and the number of its threads. The tests
//! say what every front does, so each kind of front is a run of the suite.

use std::process::Command;

use crate::heavy::alone;
use crate::kind;

const THREADS: &str = "FRONT_THREADS";

/// The threads of each front in this run.
pub fn threads() -> u32 {
    std::env::var(THREADS).map_or(1, |text| text.parse().unwrap())
}

#[test]
fn every_test_here_holds_for_each_kind_of_front_and_with_four_threads() {
    // The runs below have large tests too, which are not to be beside those of this one.
    let _alone = alone();
    let all = kind::KINDS.into_iter().flat_map(|(kind, _)| [(kind, 1), (kind, 4)]);
    // The number of threads is the matter of the front behind nginx, and tested without that.
    let has_nginx = |threads: u32| threads == 1 && crate::start::nginx().is_some();
    let all = all.filter(|(kind, threads)| *kind != "nginx" || has_nginx(*threads));
    for (kind, threads) in all.filter(|run| *run != (kind::under_test().0, self::threads())) {
        let again = Command::new(std::env::current_exe().unwrap())
            .args(["--skip", "suite::"])
            .env(kind::VARIABLE, kind)
            .env(THREADS, threads.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&again.stdout);
        let errors = String::from_utf8_lossy(&again.stderr);
        assert!(again.status.success(), "{kind}, {threads} threads: {text}{errors}");
        assert!(text.contains("test result: ok. "), "{kind}, {threads} threads: {text}");
    }
}
