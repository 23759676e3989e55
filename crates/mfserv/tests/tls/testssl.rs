//! What testssl.sh finds on the port of TLS of a node. Only with `MFSERV_LONG`: a minute for each
//! kind of front.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use mfserv_testkit::{Node, Plugin, nginx, programs, servers, skipped};

use super::{certificate, configured, free_port};
use crate::nginx::{FRONT, stand_before, target};
use crate::{Turn, node};

/// The package, in the version whose findings are known.
const PACKAGE: &str = "testssl.sh=3.0.8+dfsg-1";
/// It refuses to begin without a program that asks name servers, and runs none with `-n none`.
const RESOLVER: (&str, &str) = ("ldnsutils", "usr/bin/drill");
/// What it is made of, or runs.
const NEEDED: [&str; 4] = ["bash", "openssl", "hexdump", "timeout"];
/// Protocols, categories of ciphers, forward secrecy, vulnerabilities.
const ASKED: [&str; 4] = ["-p", "-s", "-f", "-U"];
/// The levels at which it finds nothing wrong.
const QUIET: [&str; 2] = ["OK", "INFO"];
/// The OpenSSL with which it asks has no GOST: that says nothing of the node.
const OF_THE_MACHINE: &str = "engine_problem";
/// What it has to say something of.
const IDS: [&str; 31] = [
    "SSLv2",
    "SSLv3",
    "TLS1",
    "TLS1_1",
    "TLS1_2",
    "TLS1_3",
    "cipherlist_NULL",
    "cipherlist_aNULL",
    "cipherlist_EXPORT",
    "cipherlist_LOW",
    "cipherlist_3DES_IDEA",
    "cipherlist_AVERAGE",
    "cipherlist_STRONG",
    "PFS",
    "heartbleed",
    "CCS",
    "ticketbleed",
    "ROBOT",
    "secure_renego",
    "secure_client_renego",
    "CRIME_TLS",
    "BREACH",
    "POODLE_SSL",
    "fallback_SCSV",
    "SWEET32",
    "FREAK",
    "DROWN",
    "LOGJAM",
    "BEAST",
    "LUCKY13",
    "RC4",
];

/// A finding: its level, and what it says.
type Finding = (String, String);

/// testssl.sh and the directory of a resolver; `None`, with the reason, where it cannot run.
fn testssl() -> Option<(PathBuf, PathBuf)> {
    if std::env::var_os("MFSERV_LONG").is_none() {
        skipped("testssl.sh asks the port of TLS: MFSERV_LONG=1 runs it");
        return None;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has = |name: &&str| std::env::split_paths(&path).any(|dir| dir.join(name).exists());
    if let Some(name) = NEEDED.iter().find(|name| !has(name)) {
        skipped(&format!("testssl.sh: {name}, which it needs, is not on PATH"));
        return None;
    }
    let program = servers::of_debian(target(), PACKAGE, "usr/bin/testssl")?;
    let resolver = servers::of_debian(target(), RESOLVER.0, RESOLVER.1)?;
    Some((program, resolver.parent()?.to_owned()))
}

/// Has it ask; what it finds, by the name of the question.
fn findings(
    (program, resolver): &(PathBuf, PathBuf),
    node: &Node,
    port: u16,
) -> BTreeMap<String, Finding> {
    let report = node.path("tmp/testssl.json");
    let data = program.ancestors().nth(3).unwrap().join("etc/testssl");
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":");
    path.push(resolver);
    let mut command = Command::new("bash");
    command.arg(program).args(["--quiet", "--color", "0", "--warnings", "batch"]);
    command.args(["--connect-timeout", "20", "--openssl-timeout", "20", "-n", "none"]);
    command.args(ASKED).arg("--jsonfile").arg(&report).arg(format!("127.0.0.1:{port}"));
    command.env("TESTSSL_INSTALL_DIR", data).env("PATH", path).current_dir(node.home());
    let ran = command.output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    let text = std::fs::read_to_string(&report).unwrap_or_else(|why| panic!("{why}: {said}"));
    let all: Vec<BTreeMap<String, String>> = serde_json::from_str(&text).unwrap();
    let finding = |mut one: BTreeMap<String, String>| {
        let mut word = |name: &str| one.remove(name).unwrap_or_default();
        (word("id"), (word("severity"), word("finding")))
    };
    all.into_iter().map(finding).collect()
}

/// The findings that are more than information, and what was not asked.
fn wrong(findings: &BTreeMap<String, Finding>) -> Vec<String> {
    let bad = findings.iter().filter(|(id, (level, _))| {
        !QUIET.contains(&level.as_str()) && id.as_str() != OF_THE_MACHINE
    });
    let bad = bad.map(|(id, (level, text))| format!("{id}: {level}: {text}"));
    let unasked = IDS.iter().filter(|id| !findings.contains_key(**id));
    bad.chain(unasked.map(|id| format!("{id}: nothing is said"))).collect()
}

fn finds_nothing_wrong(node: &Node, testssl: &(PathBuf, PathBuf)) {
    let port = free_port();
    configured(node, port);
    certificate(node.home(), "one");
    node.add(&Plugin::python("good", programs::SERVES));
    node.start();
    let findings = findings(testssl, node, port);
    let wrong = wrong(&findings);
    assert!(wrong.is_empty(), "{wrong:#?} of {findings:#?}");
    for version in ["TLS1_2", "TLS1_3"] {
        assert!(findings[version].1.starts_with("offered"), "{findings:#?}");
    }
    println!("{} findings, none above INFO", findings.len());
    node.stop();
}

/// This program runs these tests behind nginx too: once is enough.
fn is_run_again() -> bool {
    std::env::var_os(FRONT).is_some()
}

#[test]
fn testssl_finds_nothing_wrong_with_the_embedded_front() {
    if is_run_again() {
        return;
    }
    let Some(testssl) = testssl() else { return };
    let _turn = Turn::heavy();
    finds_nothing_wrong(&node(), &testssl);
}

#[test]
fn testssl_finds_nothing_wrong_with_nginx() {
    if is_run_again() {
        return;
    }
    let Some(testssl) = testssl() else { return };
    if nginx(target()).is_none() {
        return;
    }
    let _turn = Turn::heavy();
    let node = node();
    stand_before(&node);
    finds_nothing_wrong(&node, &testssl);
}

#[test]
fn a_finding_of_testssl_above_information_is_wrong_and_so_is_one_that_is_missing() {
    let finding = |level: &str| (level.to_string(), "text".to_string());
    let mut all: BTreeMap<String, Finding> =
        IDS.iter().map(|id| (id.to_string(), finding("OK"))).collect();
    all.insert(OF_THE_MACHINE.into(), finding("WARN"));
    assert!(wrong(&all).is_empty());
    for level in ["LOW", "MEDIUM", "HIGH", "CRITICAL", "WARN", "FATAL"] {
        all.insert("LUCKY13".into(), finding(level));
        assert_eq!(wrong(&all), [format!("LUCKY13: {level}: text")]);
    }
    all.remove("LUCKY13");
    assert_eq!(wrong(&all), ["LUCKY13: nothing is said"]);
}
