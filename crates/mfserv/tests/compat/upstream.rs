//! What MFSERV's own integration tests do, beyond the journey of each template.

use std::time::{Duration, Instant};

use mfserv_testkit::{get, until};

use super::OldNames;
use crate::{PATIENCE, Turn, node};

/// How long MFSERV's tests wait for an answer.
const BUDGET: Duration = Duration::from_secs(30);

#[test]
fn plugins_of_one_name_follow_each_other_and_nothing_of_the_one_before_is_seen() {
    let _turn = Turn::heavy();
    let node = node();
    let old = OldNames::new(&node);
    old.run(&["mfserv.start"]).code(0);
    let install = "plugins.install \"$(ls *.plugin)\"";
    let round = |template: &str, change: &str| {
        old.run(&["sh", "-c", "rm -Rf foobar; plugins.uninstall foobar || true"]).code(0);
        let dir = old.create(template, "foobar");
        old.run_in(&dir, &["sh", "-ec", &format!("{change}\nmake release\n{install}")]).code(0);
    };
    let answers = |text: &str| {
        let answer = || get(node.address(), "/foobar/works.txt").map(|page| page.text());
        until(text, BUDGET, || answer().is_ok_and(|page| page.contains(text)));
    };
    round("static", "echo ok > main/works.txt");
    answers("ok");
    let falcon = "echo falcon > python3_virtualenv_sources/requirements-to-freeze.txt
        sed -i '1i import falcon' main/wsgi.py";
    round("python3_raw_wsgi", falcon);
    answers("Hello World!");
    round("python3_noweb", "");
    assert_eq!(node.get("/foobar/works.txt").status, 404);
    round("node_noweb", "");
    round("static", "echo again > main/works.txt");
    answers("again");
    old.run(&["plugins.uninstall", "foobar"]).code(0);
    old.run(&["mfserv.stop"]).code(0);
}

#[test]
fn an_extra_daemon_of_a_developed_plugin_is_found_in_its_bin_and_goes_with_it() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    old.run(&["mfserv.start"]).code(0);
    let dir = old.create("python3_noweb", "foobar");
    let written = node.path("written");
    let more = "\n[extra_daemon_foo]\n_cmd_and_args = foo.sh 0123456789abcdef\nnumprocesses=1\n";
    let config = std::fs::read_to_string(dir.join("config.ini")).unwrap();
    std::fs::write(dir.join("config.ini"), config + more).unwrap();
    let script = format!("#!/bin/sh\necho foobar > {}.$1\nsleep 600\n", written.display());
    std::fs::write(dir.join("bin/foo.sh"), script).unwrap();
    old.run_in(&dir, &["chmod", "+x", "bin/foo.sh"]).code(0);
    old.run_in(&dir, &["make", "develop"]).code(0);
    let written = node.path("written.0123456789abcdef");
    until("the daemon has written its file", BUDGET, || {
        std::fs::read_to_string(&written).is_ok_and(|text| text == "foobar\n")
    });
    let pid = node.pids("extra.foobar.foo")[0];
    old.run(&["plugins.uninstall", "foobar"]).code(0);
    until("the daemon is gone", PATIENCE, || mfserv_testkit::process(pid).is_none());
    assert!(dir.join("bin/foo.sh").is_file());
    old.run(&["mfserv.stop"]).code(0);
}

#[test]
fn every_answer_of_a_django_plugin_is_right_while_it_is_hotswapped_by_the_same_file() {
    let _turn = Turn::heavy();
    let node = node();
    let old = OldNames::new(&node);
    old.run(&["mfserv.start"]).code(0);
    let dir = old.create("python3_django", "foobar");
    old.run_in(&dir, &["sh", "-ec", "make release; plugins.install \"$(ls *.plugin)\""]).code(0);
    let right = || {
        let page = get(node.address(), "/foobar/");
        page.is_ok_and(|p| p.status == 200 && p.text().contains("Hello World from django main app"))
    };
    until("the first page", BUDGET, right);
    let before = node.worker_pids();
    let (asked, wrong, took) = std::thread::scope(|scope| {
        let swap = scope.spawn(|| {
            let began = Instant::now();
            let swap = "plugins.hotswap \"$(ls *.plugin)\"";
            old.run_in(&dir, &["sh", "-ec", swap]).code(0);
            began.elapsed()
        });
        let (mut asked, mut wrong) = (0, 0);
        while !swap.is_finished() {
            asked += 1;
            wrong += usize::from(!right());
            // The pace of the requests.
            std::thread::sleep(Duration::from_millis(20));
        }
        (asked, wrong, swap.join().unwrap())
    });
    println!("{asked} requests during a hot swap of {took:?}, {wrong} not answered as they should");
    assert_eq!(wrong, 0);
    assert!(asked > 20, "{asked}");
    let after = node.settled("app.foobar.main");
    assert!(after.workers.iter().all(|worker| worker.pid.is_none_or(|pid| !before.contains(&pid))));
    old.run(&["plugins.uninstall", "--clean", "foobar"]).code(0);
    old.run(&["mfserv.stop"]).code(0);
}
