//! Releases are listed, gone back to under load, and packed again.

use std::path::Path;

use mfserv_testkit::{Load, Node, Plugin, Ran, programs};
use serde_json::Value;

use crate::install::{edit, install, release, traces};
use crate::{Turn, node, samples};

/// A node that runs with two releases of a plugin whose answers differ.
fn two_releases() -> Node {
    let node = node();
    node.start();
    let dir = node.path("work/sample_wsgi");
    samples().copy("sample_wsgi", &dir);
    edit(&dir.join("config.ini"), "{{MFHARDWARE_NUMBER_OF_CPU_CORES_MULTIPLIED_BY_2}}", "2");
    install(&node, &release(&node, &dir));
    edit(&dir.join("main/wsgi.py"), "Hello World!", "Hello again!");
    edit(&dir.join("config.ini"), "_release=1", "_release=2");
    install(&node, &release(&node, &dir));
    node
}

/// Two releases of a static plugin that is installed; nothing is started.
fn two_static_releases(node: &Node) {
    let dir = node.path("work/sample_static");
    samples().copy("sample_static", &dir);
    install(node, &release(node, &dir));
    edit(&dir.join("config.ini"), "_release=1", "_release=2");
    edit(&dir.join("main/index.html"), "default home page", "second edition");
    install(node, &release(node, &dir));
}

fn releases(node: &Node, plugin: &str) -> Vec<Value> {
    let said = node.mfserv(&["releases", plugin, "--json"]).code(0).stdout;
    serde_json::from_str(&said).unwrap()
}

/// The number of the release that is current.
fn current(node: &Node, plugin: &str) -> u64 {
    let all = releases(node, plugin);
    let current: Vec<&Value> = all.iter().filter(|one| one["current"] == true).collect();
    assert_eq!(current.len(), 1, "{all:?}");
    current[0]["number"].as_u64().unwrap()
}

#[test]
fn going_back_to_a_release_and_forth_again_under_load_fails_no_request() {
    let _turn = Turn::heavy();
    let node = two_releases();
    let all = releases(&node, "sample_wsgi");
    let numbers: Vec<_> = all.iter().map(|one| (&one["number"], &one["release"])).collect();
    assert_eq!(format!("{numbers:?}"), r#"[(Number(1), String("1")), (Number(2), String("2"))]"#);
    assert_eq!(current(&node, "sample_wsgi"), 2);
    assert!(node.mfserv(&["releases", "sample_wsgi"]).code(0).stdout.contains("current"));

    let load = Load::new(node.address(), "/sample_wsgi").connections(16).post_every(4).start();
    load.answers(200);
    node.mfserv(&["rollback", "sample_wsgi"]).code(0);
    assert_eq!(node.get("/sample_wsgi").text(), "Hello World!");
    assert_eq!(current(&node, "sample_wsgi"), 1);
    let said = node.mfserv(&["rollback", "sample_wsgi", "2", "--json"]).code(0).stdout;
    let said: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(said["plugin"]["origin"]["packed"], 2, "{said}");
    assert!(said["applied"]["generation"].is_u64(), "{said}");
    assert_eq!(node.get("/sample_wsgi").text(), "Hello again!");
    let report = load.stop();
    println!("{}", report.sentence());
    report.assert_nothing_failed();
    node.stop();
}

#[test]
fn a_release_that_does_not_start_any_more_is_not_gone_back_to_and_nothing_changes() {
    let _turn = Turn::heavy();
    let node = two_releases();
    let before = node.settled("app.sample_wsgi.main");
    let broken = node.path("var/releases/sample_wsgi/1/main/wsgi.py");
    std::fs::write(broken, "raise RuntimeError('eels in the disk')\n").unwrap();
    let load = Load::new(node.address(), "/sample_wsgi").connections(8).start();
    let ran = node.mfserv(&["rollback", "sample_wsgi", "--timeout", "60"]);
    assert!([1, 6].contains(&ran.code), "{ran:?}");
    assert!(ran.stderr.contains("eels in the disk"), "{ran:?}");
    assert_eq!(current(&node, "sample_wsgi"), 2);
    assert_eq!(node.get("/sample_wsgi").text(), "Hello again!");
    load.stop().assert_nothing_failed();
    let after = node.settled("app.sample_wsgi.main");
    let pids = |watcher: &mfserv_core::status::WatcherStatus| -> Vec<Option<u32>> {
        watcher.workers.iter().map(|worker| worker.pid).collect()
    };
    assert_eq!(pids(&before), pids(&after), "its workers did not notice");
    node.stop();
}

#[test]
fn what_can_not_be_gone_back_to_is_refused_with_its_reason() {
    let _turn = Turn::cheap();
    let node = node();
    two_static_releases(&node);
    assert!(node.mfserv(&["rollback", "sample_static", "2"]).code(5).stderr.contains("is current"));
    let ran = node.mfserv(&["rollback", "sample_static", "7"]).code(5);
    assert!(ran.stderr.contains("its releases are 1, 2"), "{ran:?}");
    node.mfserv(&["rollback", "sample_static", "0"]).code(2);
    node.mfserv(&["rollback", "nobody"]).code(2);
    node.mfserv(&["releases", "nobody"]).code(2);
    node.link_sample("sample_node", &[]);
    let ran = node.mfserv(&["rollback", "sample_node"]).code(5);
    assert!(ran.stderr.contains("link"), "{ran:?}");

    // without a node that runs, it is only the link that changes
    node.mfserv(&["rollback", "sample_static"]).code(0);
    assert_eq!(current(&node, "sample_static"), 1);
    let ran = node.mfserv(&["rollback", "sample_static"]).code(5);
    assert!(ran.stderr.contains("before release 1"), "{ran:?}");
    node.start();
    assert!(node.get("/sample_static/").text().contains("default home page"));
    node.stop();
}

#[test]
fn when_the_directory_of_the_current_release_has_gone_another_one_or_a_new_one_repairs_it() {
    let _turn = Turn::cheap();
    let node = node();
    two_static_releases(&node);
    node.start();
    let dir = node.path("var/releases/sample_static/2");
    std::fs::remove_dir_all(&dir).unwrap();
    let list: Value =
        serde_json::from_str(&node.mfserv(&["list", "--json"]).code(0).stdout).unwrap();
    assert_eq!(list[0]["origin"]["packed"], 2, "{list}");
    let ran = node.mfserv(&["info", "sample_static"]).code(4);
    assert!(ran.stderr.contains("has gone") && ran.stderr.contains("rollback"), "{ran:?}");
    node.mfserv(&["rollback", "sample_static"]).code(0);
    assert_eq!(current(&node, "sample_static"), 1);
    assert!(node.get("/sample_static/").text().contains("default home page"));

    std::fs::remove_dir_all(node.path("var/releases/sample_static/1")).unwrap();
    install(&node, &release(&node, &node.path("work/sample_static")));
    assert_eq!(current(&node, "sample_static"), 2, "its number is another one");
    assert!(node.get("/sample_static/").text().contains("second edition"));
    node.stop();
}

#[test]
fn what_an_uninstallation_has_kept_is_listed_and_removed_when_asked() {
    let _turn = Turn::cheap();
    let node = node();
    two_static_releases(&node);
    std::fs::write(node.path("var/releases/sample_static/2/main/made"), "by the app").unwrap();
    std::fs::create_dir_all(node.path("var/data/sample_static")).unwrap();
    std::fs::write(node.path("var/data/sample_static/x"), "data").unwrap();
    let ran = node.mfserv(&["uninstall", "sample_static"]).code(0);
    assert!(ran.stderr.contains("--clean") && !ran.stderr.contains("new release"), "{ran:?}");
    assert_eq!(releases(&node, "sample_static").len(), 1);
    node.mfserv(&["uninstall", "sample_static"]).code(2);
    node.mfserv(&["uninstall", "sample_static", "--clean"]).code(0);
    assert_eq!(traces(&node, "sample_static"), Vec::<std::path::PathBuf>::new());
    node.mfserv(&["uninstall", "sample_static", "--clean"]).code(2);
    node.mfserv(&["releases", "sample_static"]).code(2);
}

#[test]
fn a_directory_of_plugins_that_can_not_be_read_is_said_and_not_shown_as_empty() {
    let _turn = Turn::cheap();
    let node = node();
    two_static_releases(&node);
    let plugins = node.path("var/plugins");
    std::fs::rename(&plugins, node.path("var/away")).unwrap();
    // what a directory of another user is to root too: nothing that can be listed
    std::fs::write(&plugins, "").unwrap();
    let ran = node.mfserv(&["list"]).code(1);
    assert!(ran.stdout.is_empty() && ran.stderr.contains("can't read"), "{ran:?}");
}

#[test]
fn a_release_whose_configuration_is_refused_now_is_not_gone_back_to() {
    let _turn = Turn::cheap();
    let node = node();
    two_static_releases(&node);
    let config = node.path("var/releases/sample_static/1/config.ini");
    edit(&config, "[app_main]", "[app_main]\n_statik_routing=1");
    node.mfserv(&["rollback", "sample_static"]).code(4);
    assert_eq!(current(&node, "sample_static"), 2);
}

#[test]
fn an_installed_plugin_is_packed_again_with_what_the_administrator_has_changed() {
    let _turn = Turn::cheap();
    let node = node();
    two_static_releases(&node);
    let overrides = node.path("config/plugins/sample_static.ini");
    std::fs::write(&overrides, "[custom]\ncolour=blue\n").unwrap();
    let output = node.path("packages");
    let ran =
        node.mfserv(&["repackage", "sample_static", "--output", &output.to_string_lossy()]).code(0);
    assert!(ran.stdout.contains("NEW [custom]/colour = blue"), "{ran:?}");
    let file = ran.stdout.lines().find_map(|line| line.strip_prefix("plugin file is ready at "));
    std::fs::remove_file(&overrides).unwrap();
    node.mfserv(&["install", file.unwrap()]).code(0);
    let own = std::fs::read_to_string(node.path("var/plugins/sample_static/config.ini")).unwrap();
    assert!(own.contains("colour=blue") || own.contains("colour = blue"), "{own}");
    node.link_sample("sample_node", &[]);
    assert_eq!(node.mfserv(&["repackage", "sample_node"]).code, 5);
}

#[test]
fn a_hot_swap_is_an_installation_of_what_is_installed_already() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = node.path("work/sample_static");
    samples().copy("sample_static", &dir);
    let file = release(&node, &dir);
    let file = file.to_string_lossy();
    let ran = node.mfserv(&["hotswap", &file]).code(5);
    assert!(ran.stderr.contains("is not installed"), "{ran:?}");
    install(&node, Path::new(&*file));
    let said = node.mfserv(&["hotswap", &file]).code(0);
    assert!(said.stdout.contains("nothing to do"), "{said:?}");
    node.mfserv(&["hotswap", "--force", &file]).code(0);
    assert_eq!(current(&node, "sample_static"), 2);
}

#[test]
fn the_same_package_again_is_nothing_to_do_unless_it_is_forced_or_its_plugin_was_stopped() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = Plugin::python("foo", programs::SERVES).write(&node.path("work"));
    let first = release(&node, &dir);
    let first = first.to_string_lossy();
    node.start();
    node.mfserv(&["install", &first]).code(0);
    let ready_at = node.settled("app.foo.main").workers[0].since_ms;
    let said = node.mfserv(&["install", &first]).code(0);
    assert!(said.stdout.contains("foo 1.0.0-1 is installed from this package already"), "{said:?}");
    let said = node.mfserv(&["install", &first, "--json"]).code(0).stdout;
    let said: serde_json::Value = serde_json::from_str(said.trim()).unwrap();
    assert_eq!((&said["ok"], &said["nothing_to_do"]), (&true.into(), &true.into()), "{said}");
    assert_eq!(node.watcher("app.foo.main").workers[0].since_ms, ready_at, "nothing restarts");
    assert_eq!(current(&node, "foo"), 1);
    node.mfserv(&["install", &first, "--force"]).code(0);
    node.mfserv(&["install", &first, "--new-name", "bar"]).code(0);
    let said = node.mfserv(&["install", &first, "--new-name", "bar"]).code(0);
    assert!(said.stdout.contains("bar 1.0.0-1 is installed from this package already"), "{said:?}");
    assert_eq!((current(&node, "foo"), current(&node, "bar")), (2, 1));

    // Another content of the same version, name and size is another build.
    let old = node.path("circusctl");
    std::os::unix::fs::symlink(crate::PROGRAM, &old).unwrap();
    Ran::of(node.other(&old, &["stop", "app.foo.main"])).code(0);
    node.mfserv(&["install", &first]).code(0);
    assert_eq!((current(&node, "foo"), node.settled("app.foo.main").ready), (3, 1), "it runs");
    let text = std::fs::read_to_string(dir.join("main.py")).unwrap();
    std::fs::write(dir.join("main.py"), text.replace("hello from", "hallo from")).unwrap();
    let second = release(&node, &dir);
    node.mfserv(&["install", &second.to_string_lossy()]).code(0);
    assert_eq!(current(&node, "foo"), 4);
    node.stop();
}
