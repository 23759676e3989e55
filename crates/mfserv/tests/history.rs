//! What was counted is remembered, whoever is killed and whatever the disk does.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mfserv_testkit::{Node, Plugin, programs, until};
use serde_json::Value;

use crate::{PATIENCE, PROGRAM, Turn, node};

fn history(node: &Node, args: &[&str]) -> Value {
    let ran = node.mfserv(&[&["history", "--json"], args].concat());
    serde_json::from_str(&ran.stdout).unwrap_or(Value::Null)
}

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().into_iter().flatten().map(|it| it.as_f64().unwrap_or(0.0)).collect()
}

/// All requests of the last minutes, and the most in a second.
fn requests(node: &Node) -> (f64, f64) {
    let answer = history(node, &["shop.main", "--since", "9m", "--step", "1s"]);
    let covered_s = numbers(&answer["covered_s"]);
    let rates = numbers(&answer["series"][0]["values"]["requests_per_s"]);
    assert!(rates.iter().all(|rate| *rate >= 0.0), "{answer}");
    let sum: f64 = rates.iter().zip(&covered_s).map(|(rate, s)| rate * s).sum();
    (sum.round(), rates.into_iter().fold(0.0, f64::max))
}

fn counters_arrive(node: &Node) {
    until("front and daemon send their counters", PATIENCE, || {
        let text = node.mfserv(&["metrics", "--format", "prometheus"]).stdout;
        ["front", "daemon"]
            .iter()
            .all(|role| text.contains(&format!("mfserv_telemetry_sources{{role=\"{role}\"}} 1\n")))
    });
}

fn newest(node: &Node, ring: &str) -> PathBuf {
    let files = std::fs::read_dir(node.path("var/telemetry/history")).unwrap().flatten();
    let names = files.map(|file| file.path());
    let of_ring = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(ring);
    names.filter(of_ring).max().unwrap()
}

#[test]
fn what_was_counted_is_remembered_and_no_counter_that_begins_anew_makes_a_jump() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&Plugin::python("shop", programs::SERVES));
    node.start();
    node.settled("app.shop.main");
    counters_arrive(&node);
    let mut count = 0.0;
    let mut serve = |number: usize| {
        (0..number).for_each(|_| assert_eq!(node.get("/shop/x").status, 200));
        count += number as f64;
        until("all requests are in the history", PATIENCE, || requests(&node).0 == count);
        assert!(requests(&node).1 <= 40.0, "{:?}", requests(&node));
    };
    serve(30);
    let telemetry = node.role_pid("telemetry");
    node.kill(telemetry);
    until("another telemetry role", PATIENCE, || node.role_pids("telemetry") != [telemetry]);
    counters_arrive(&node);
    serve(10);
    // The sums of this role go on; another front begins at 0.
    node.mfserv(&["restart", "front"]).code(0);
    node.kill(node.role_pid("daemon"));
    counters_arrive(&node);
    serve(5);
    node.mfserv(&["restart", "shop"]).code(0);
    until("the end of a worker is in the history", PATIENCE, || {
        let answer = history(&node, &["shop"]);
        let values = &answer["series"][0]["values"];
        let sum = |name: &str| numbers(&values[name]).iter().sum::<f64>();
        sum("restarts") == 1.0 && sum("crashes") == 0.0 && sum("memory_bytes") > 1e6
    });

    let table = node.mfserv(&["history", "shop.main", "--since", "9m"]).code(0).stdout;
    let (titles, row) = (table.lines().next().unwrap(), table.lines().last().unwrap());
    assert!(titles.starts_with("TIME ") && row.contains(" shop.main "), "{table}");
    let columns = |line: &str| line.split_whitespace().count();
    assert_eq!(columns(titles), columns(row), "{table}");
    let nobody = node.mfserv(&["history", "nobody"]).code(2);
    assert!(nobody.stderr.contains("nothing is known of nobody"), "{nobody:?}");
    node.mfserv(&["history", "--step", "soon"]).code(2);
    node.mfserv(&["history", "--since", "30d", "--step", "1m"]).code(2);

    node.stop();
    node.mfserv(&["history"]).code(3);
    // As if the role had been killed in the middle of a write.
    for ring in ["1s-", "10s-", "60s-"] {
        let path = newest(&node, ring);
        std::fs::File::options().append(true).open(path).unwrap().write_all(&[200; 99]).unwrap();
    }
    node.start();
    counters_arrive(&node);
    serve(3);
    node.stop();
}

/// Runs a command of the node in a namespace in which its history is on a full disk.
fn with_full_disk(node: &Node, args: &[&str]) -> Option<()> {
    let unshare = ["unshare", "--map-root-user", "--mount"];
    let possible =
        Command::new(unshare[0]).args(&unshare[1..]).arg("true").stderr(Stdio::null()).status();
    if !possible.is_ok_and(|status| status.success()) {
        mfserv_testkit::skipped("a history on a full disk: this machine makes no mount namespace");
        return None;
    }
    let dir = node.path("var/telemetry/history");
    std::fs::create_dir_all(&dir).unwrap();
    let script =
        r#"mount -t tmpfs -o size=64k tmpfs "$0" && (cat /dev/zero > "$0/other"; exec "$@")"#;
    let script =
        [&unshare[1..], &["sh", "-c", script, dir.to_str().unwrap(), PROGRAM], args].concat();
    let mut command = node.other(Path::new(unshare[0]), &script);
    assert!(command.status().unwrap().success());
    Some(())
}

#[test]
fn a_full_disk_costs_the_history_and_nothing_else() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&Plugin::python("shop", programs::SERVES));
    let Some(()) = with_full_disk(&node, &["start"]) else { return };
    node.settled("app.shop.main");
    let telemetry = node.role_pid("telemetry");
    until("the role says that the disk is full", PATIENCE, || {
        let said = node.log_lines("telemetry").join("\n");
        said.contains("no history is kept") && said.contains("No space left on device")
    });
    counters_arrive(&node);
    for _ in 0..9 {
        assert_eq!(node.get("/shop/x").status, 200);
    }
    until("requests are counted", PATIENCE, || {
        let text = node.mfserv(&["metrics", "--format", "prometheus"]).stdout;
        text.contains("app=\"main\",type=\"dynamic\",code=\"200\"} 9\n")
    });
    assert_eq!(node.role_pid("telemetry"), telemetry);
    // Another node of this machine may have the port of statsd: that is another line.
    let said = node.log_lines("telemetry");
    let count = said.iter().filter(|line| line.contains("no history is kept")).count();
    assert_eq!(count, 1, "it is said once: {said:?}");
    node.stop();
}
