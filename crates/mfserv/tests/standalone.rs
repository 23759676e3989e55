//! A package that brings its base environment along is installed in a new home of a machine
//! without a network; one that does not is refused at once, and the message says what is missing.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mfserv_plugin::archive;
use mfserv_testkit::{Node, Plugin, Ran, offline, until};

use crate::compat::OldNames;
use crate::{PATIENCE, Turn, node};

/// A tenth of what pip takes to give up an index that is not there.
const AT_ONCE: Duration = Duration::from_secs(3);

/// A plugin made from a template and packed, with `more` options of `release`.
fn package(node: &Node, template: &str, more: &[&str]) -> PathBuf {
    node.mfserv(&["new", "--no-input", "--template", template, "alone"]).code(0);
    node.mfserv(&[&["release", "alone"], more].concat()).code(0);
    node.path("alone-0.0.1-1.metwork.mfserv.plugin")
}

/// A home without a base environment, and where its uv would be.
pub fn fresh() -> Node {
    let node = node();
    std::fs::remove_file(node.path("var/base")).unwrap();
    node
}

/// Runs something without a network, or with indexes that cannot be reached.
pub fn unplugged(old: &mut OldNames, run: impl Fn(&OldNames) + Send + Sync) {
    if !offline(|| run(old)) {
        println!("no network of its own is allowed here: its indexes are made unreachable");
        old.cut_off();
        run(old);
    }
}

#[test]
fn a_standalone_package_is_served_from_a_new_home_without_a_network() {
    let _turn = Turn::heavy();
    let (here, there) = (node(), fresh());
    let file = package(&here, "python3_flask", &["--standalone"]);
    let size = std::fs::metadata(&file).unwrap().len();
    let mut old = OldNames::new(&there);
    unplugged(&mut old, |old| {
        let began = Instant::now();
        old.run(&["plugins.install", &file.to_string_lossy()]).code(0);
        println!("{size} bytes, installed in {:?}", began.elapsed());
        old.run(&["mfserv.start"]).code(0);
        until("it serves", PATIENCE, || there.get("/alone/").text().contains("Hello World !"));
        // What is packed again brings it along again.
        old.run(&["plugins.repackage", "alone"]).code(0);
        old.run(&["mfserv.stop"]).code(0);
    });
    let again = old.work().join("alone-0.0.1-1.metwork.mfserv.plugin");
    let wheels = |file: &Path| {
        let files = archive::read(file).unwrap().files;
        files.into_iter().filter(|one| one.starts_with(".mfserv-base/wheels/")).collect::<Vec<_>>()
    };
    assert!(wheels(&file).iter().any(|one| one.contains("/uvicorn-")), "{:?}", wheels(&file));
    assert_eq!(wheels(&file), wheels(&again));
    // The developer's directory has none of it.
    assert!(!here.path("alone/.mfserv-base").exists());
    there.assert_nothing_left(None);
}

#[test]
fn without_a_network_a_package_without_its_base_environment_is_refused_at_once() {
    let _turn = Turn::heavy();
    let (here, there) = (node(), fresh());
    let file = package(&here, "python3_raw_wsgi", &[]);
    let mut old = OldNames::new(&there);
    unplugged(&mut old, |old| {
        let began = Instant::now();
        let refused: Ran = old.run(&["plugins.install", &file.to_string_lossy()]);
        let took = began.elapsed();
        assert_ne!(refused.code, 0);
        let said = refused.stdout + &refused.stderr;
        for part in [
            "the base environment of Python 3",
            "it was made without --standalone",
            "cannot be reached",
            "mfserv release --standalone",
            "mfserv setup --import FILE",
        ] {
            assert!(said.contains(part), "{part:?} is not in {said}");
        }
        assert!(took < AT_ONCE, "{took:?}");
        // Neither can its packages be collected.
        let began = Instant::now();
        let dir = here.path("alone");
        let refused =
            old.run(&["_plugins.make", "--standalone", "--plugin-path", dir.to_str().unwrap()]);
        let (took, said) = (began.elapsed(), refused.stdout + &refused.stderr);
        assert!(refused.code != 0 && said.contains("that --standalone brings along"), "{said}");
        assert!(said.contains("cannot be reached") && took < AT_ONCE, "{took:?}: {said}");
    });
    assert!(!there.path("var/releases/alone").exists());
}

#[test]
fn an_installation_names_the_programs_that_the_machine_lacks() {
    let _turn = Turn::cheap();
    let node = node();
    let command = "no-such-interpreter main.x {unix_socket_path}";
    let dir = Plugin::new("lacking").app("main", command).write(&node.path("work"));
    node.mfserv(&["release", dir.to_str().unwrap()]).code(0);
    let file = "lacking-1.0.0-1.metwork.mfserv.plugin";
    let file =
        if node.path(file).exists() { file } else { "lacking-0.0.1-1.metwork.mfserv.plugin" };
    let said = node.mfserv(&["install", file]).code(0).stderr;
    let what = "warning: the program no-such-interpreter of lacking/main is not there";
    assert!(said.contains(what) && said.contains("install it, or correct"), "{said}");
}

#[test]
fn a_package_that_needs_no_base_environment_is_the_same_standalone_or_not() {
    let node = node();
    let file = package(&node, "static", &["--standalone"]);
    let alone = std::fs::read(&file).unwrap();
    node.mfserv(&["release", "alone"]).code(0);
    assert_eq!(std::fs::read(&file).unwrap(), alone);
}
