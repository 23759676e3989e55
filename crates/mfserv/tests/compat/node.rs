//! The node and its watchers, with the old names.

use mfserv_testkit::{Node, Plugin, Signal, kill, programs, until};

use super::{OldNames, case, check};
use crate::install::edit;
use crate::{PATIENCE, Turn, node};

#[test]
fn a_node_is_started_looked_at_and_stopped_with_the_old_names() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    node.add(&Plugin::python("hello", programs::SERVES));
    check(
        &old,
        &[
            case(
                "mfserv.start",
                0,
                &[
                    "*****     STARTING MFSERV     *****",
                    "- Starting circus... [ OK ]",
                    "- Waiting for circus daemon... [ OK ]",
                    "- Starting plugin: hello",
                    "    - Starting app.hello.main... [ OK ] ",
                    "OK !",
                ],
            ),
            case(
                "mfserv.start",
                0,
                &[
                    "- Starting circus... [ WARNING ] (already started)",
                    "    - Starting app.hello.main... [ WARNING ] (already started)",
                    "OK !",
                ],
            ),
            case(
                "mfserv.status",
                0,
                &[
                    "- Checking circus status... [ OK ]",
                    "- Checking circus conf generation... [ OK ]",
                    "- Checking nginx... [ OK ]",
                    "- Checking nginx uuid... [ OK ]",
                    "- Checking plugin: hello (basic)... [ OK ] ",
                    "- Checking plugin: hello (processes)... [ OK ] ",
                    "OK !",
                ],
            ),
            case("mfserv.status QUIET", 0, &["- Checking nginx uuid... [ OK ]", "OK !"]),
            case("nginx.status", 0, &[]),
            case("plugins.list --raw", 0, &["…~~~dev_link~~~dev_link~~~HOME/var/plugins/hello"]),
            case("plugins.info --just-home hello", 0, &["HOME/var/plugins/hello"]),
            case(
                "plugins.stop h*",
                0,
                &[
                    "- Collecting infos about plugins... [ OK ] ",
                    "- Scheduling stop of plugin: hello",
                    "- Waiting for stop of plugin: hello",
                ],
            ),
            case(
                "plugins.status hello",
                1,
                &[
                    "- Checking plugin: hello (processes)... [ WARNING ] ",
                    "=> the status of the watcher: app.hello.main is stopped",
                ],
            ),
            case("plugins.status w*", 0, &["- Checking plugin: welcome (basic)... [ OK ] "]),
            // Plugins that are not well do not make the node unwell.
            case(
                "mfserv.status",
                0,
                &["WARNING: SOME ERRORS DETECTED DURING MFSERV PLUGINS CHECK", "OK !"],
            ),
        ],
    );
    assert_eq!(node.get("/hello").status, 503);
    check(
        &old,
        &[
            case(
                "plugins.start hello",
                0,
                &["- Starting plugin: hello", "    - Starting app.hello.main... [ OK ] "],
            ),
            case("plugins.status hello", 0, &["- Checking plugin: hello (processes)... [ OK ] "]),
            case("plugins.stop", 0, &["- Scheduling stop of plugin: welcome"]),
            case("mfserv.stop", 0, &["- Stopping circus... [ OK ]"]),
            // What was stopped comes back with the node.
            case("mfserv.start NOINIT", 0, &["    - Starting app.hello.main... [ OK ] "]),
        ],
    );
    until("the app answers again", PATIENCE, || node.get("/hello").status == 200);
    check(
        &old,
        &[case("mfserv.init", 0, &["- Removing plugins, logs and temporary files... [ OK ]"])],
    );
    node.assert_nothing_left(None);
    assert!(node.path("config/config.ini").is_file() && node.path("var/base").exists());
    assert!(!node.path("var/plugins/hello").exists() && !node.path("log/daemon.log").exists());
}

/// Kills everything, the keeper first, so that nothing is started again.
fn kill_all(node: &Node) {
    node.kill(node.role_pid("keep"));
    until("nothing lives", PATIENCE, || {
        let left = node.processes(None);
        left.iter().for_each(|process| kill(process.pid, Signal::KILL));
        left.is_empty()
    });
}

#[test]
fn autorestart_leaves_a_well_node_alone_and_brings_back_one_that_was_killed() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    node.add(&Plugin::python("hello", programs::SERVES));
    check(&old, &[case("mfserv.autorestart", 0, &[])]);
    assert!(node.role_pids("keep").is_empty(), "it was never started");
    old.run(&["mfserv.start"]).code(0);
    let (workers, keeper) = (node.worker_pids(), node.role_pid("keep"));
    check(&old, &[case("mfserv.autorestart", 0, &[])]);
    assert_eq!((node.worker_pids(), node.role_pid("keep")), (workers.clone(), keeper));
    let report = || {
        let text = std::fs::read_to_string(node.path("var/status.json")).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    assert_eq!(report()["status"]["plugin: hello (processes)"], "OK");
    assert!(report()["date"].as_str().is_some_and(|date| date.ends_with('Z')));

    // A new keeper takes over what lives.
    node.kill(keeper);
    node.kill(node.role_pid("daemon"));
    let ran = old.run(&["mfserv.autorestart"]).code(0);
    assert!(ran.stderr.contains("CRITICAL") && !ran.stdout.contains("STOPPING"), "{ran:?}");
    assert_eq!(node.worker_pids(), workers);
    assert_eq!(report()["status"]["circus status"], "OK");
    // Everything was killed, as when the machine has started anew.
    kill_all(&node);
    old.run(&["mfserv.autorestart"]).code(0);
    assert_eq!(node.get("/hello").status, 200);
    // It cannot be started.
    kill_all(&node);
    let config = node.path("config/config.ini");
    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{good}\n[misc]\ncore_size = many\n")).unwrap();
    check(
        &old,
        &[case("mfserv.autorestart", 1, &["CRITICAL: mfserv is not well => mfserv.start"])],
    );
    std::fs::write(&config, good).unwrap();
    check(
        &old,
        &[case("mfserv.autorestart", 0, &["CRITICAL: mfserv is not well => mfserv.start"])],
    );
    old.run(&["mfserv.stop"]).code(0);
    check(&old, &[case("mfserv.autorestart", 0, &[])]);
    assert!(node.role_pids("keep").is_empty(), "it was stopped");
}

#[test]
fn circusctl_shows_and_changes_the_watchers_of_the_node() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    node.add(&Plugin::python("hello", programs::SERVES));
    old.run(&["mfserv.start"]).code(0);
    let before = node.pids("app.hello.main");
    check(
        &old,
        &[
            case("circusctl --endpoint ipc:///x --timeout=10 list", 0, &["app.hello.main,nginx"]),
            case("_circusctl status", 0, &["app.hello.main: active", "nginx: active"]),
            case("circusctl status App.Hello.Main", 0, &["active"]),
            case("circusctl status nope", 3, &["error: program nope not found"]),
            case("circusctl numprocesses app.hello.main", 0, &["1"]),
            case("circusctl numwatchers", 0, &["2"]),
            case("circusctl incr app.hello.main 2", 0, &["3"]),
            case("circusctl decr app.hello.main", 0, &["2"]),
            case("circusctl restart --waiting app.hello.main", 0, &["ok"]),
            case("circusctl reload --sequential nginx --waiting", 0, &["ok"]),
            case("circusctl stop --match glob app.h* --waiting", 0, &["ok"]),
            case("circusctl status app.hello.main", 0, &["stopped"]),
            case("circusctl list app.hello.main", 0, &[""]),
            case("circusctl start --waiting", 0, &["ok"]),
            case("circusctl status app.hello.main", 0, &["active"]),
            case("circusctl stats app.hello.main", 0, &["app.hello.main:"]),
            case("circusctl signal app.hello.main 0x7", 3, &["error: signal invalid: 0x7"]),
            case(
                "circusctl signal app.hello.main 1 TERM",
                3,
                &["error: process 1 is not one of app.hello.main"],
            ),
            case("circusctl kill app.hello.main", 0, &["ok"]),
            case("circusctl reloadconfig", 0, &["ok"]),
            case(
                "circusctl stop nginx",
                3,
                &["…use mfserv.start and mfserv.stop, or circusctl restart nginx"],
            ),
            case("circusctl set app.hello.main numprocesses 3 max_age 60", 0, &["ok"]),
            case("circusctl get app.hello.main max_age numprocesses", 0, &["max_age: 60"]),
            case(
                "circusctl set app.hello.main cmd sh",
                3,
                &["…that is said by the configuration of the plugin alone"],
            ),
            case("circusctl", 3, &["error: there is no interactive mode: see circusctl --help"]),
            case("circusctl --nope", 2, &["error: unexpected argument '--nope' found"]),
        ],
    );
    let after = node.settled("app.hello.main");
    assert!(after.workers.iter().all(|worker| worker.pid.is_none_or(|pid| !before.contains(&pid))));
    let worker = node.pids("app.hello.main")[0].to_string();
    old.run(&["circusctl", "signal", "app.hello.main", &worker, "SIGKILL"]).code(0);
    until("it is replaced", PATIENCE, || {
        !node.pids("app.hello.main").iter().any(|pid| pid.to_string() == worker)
    });
    old.run(&["mfserv.stop"]).code(0);
}

#[test]
fn the_http_test_and_the_own_test_of_a_plugin_are_asked_for_its_status() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    let plugin = |body: &str, timeout_s: &str, own: &str| {
        Plugin::python("hello", programs::SERVES)
            .key("app_main", "_http_test_endpoint", "/hello/any")
            .key("app_main", "_http_test_expected_body", body)
            .key("app_main", "_http_test_timeout", timeout_s)
            .file("bin/plugin.status", &format!("#!/bin/sh\n{own}\n"))
    };
    node.add(&plugin("ello", "10", "test \"$MFSERV_CURRENT_PLUGIN_NAME\" = hello"));
    old.run(&["mfserv.start"]).code(0);
    check(
        &old,
        &[case(
            "plugins.status",
            0,
            &[
                "- Checking plugin: hello (http)... [ OK ] ",
                "- Checking plugin: hello (custom)... [ OK ] ",
            ],
        )],
    );
    node.add(&plugin("eels", "1", "echo slippery; exit 4"));
    check(
        &old,
        &[case(
            "plugins.status hello",
            1,
            &[
                "- Checking plugin: hello (http)... [ WARNING ] ",
                "…/hello/any  is failing",
                "- Checking plugin: hello (custom)... [ WARNING ] ",
                "=> bad status code: 4 for plugin.status (see HOME/tmp/plugin.status.hello.log for details)",
            ],
        )],
    );
    let log = std::fs::read_to_string(node.path("tmp/plugin.status.hello.log")).unwrap();
    assert_eq!(log, "slippery\n");
    old.run(&["mfserv.stop"]).code(0);
}

#[test]
fn the_packages_of_the_site_are_installed_at_the_start_and_replaced_when_they_are_others() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    let package = old.package("static", "foo");
    let site = node.path("site/mfserv/plugins");
    std::fs::create_dir_all(&site).unwrap();
    std::fs::copy(&package, site.join("one.plugin")).unwrap();
    std::fs::write(site.join("broken.plugin"), "eels").unwrap();
    check(&old, &[case("mfserv.start NOINIT", 0, &["OK !"])]);
    assert_eq!(node.get("/foo/").status, 404);
    let ran = old.run(&["mfserv.start"]).code(0);
    assert!(ran.stdout.contains("- Installing external plugin: foo... [ OK ]\n"), "{ran:?}");
    assert!(ran.stderr.contains("broken.plugin"), "{ran:?}");
    until("it serves", PATIENCE, || node.get("/foo/").status == 200);
    let again = old.run(&["mfserv.start"]).code(0);
    assert!(!again.stdout.contains("external plugin"), "{again:?}");

    let overrides = node.path("config/plugins/foo.ini");
    std::fs::write(&overrides, "[custom]\na=b\n").unwrap();
    let page = old.work().join("foo/main/index.html");
    // As long as before: only what is in it differs.
    edit(&page, "default home page", "deFault home page");
    old.run_in(&old.work().join("foo"), &["_plugins.make"]).code(0);
    std::fs::copy(&package, site.join("one.plugin")).unwrap();
    let ran = old.run(&["mfserv.start"]).code(0);
    assert!(ran.stdout.contains("- Updating external plugin: foo..."), "{ran:?}");
    until("it serves", PATIENCE, || node.get("/foo/").text().contains("deFault home page"));
    assert!(std::fs::read_to_string(&overrides).unwrap().contains("a=b"));
    old.run(&["mfserv.stop"]).code(0);
}

#[test]
fn a_count_of_circusctl_holds_until_the_configuration_is_reloaded_and_is_shown() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    node.add(&Plugin::python("hello", programs::SERVES));
    old.run(&["mfserv.start"]).code(0);
    let incr = || {
        check(&old, &[case("circusctl incr app.hello.main", 0, &["2"])]);
        assert_eq!(node.settled("app.hello.main").ready, 2);
    };
    incr();
    node.mfserv(&["restart", "hello"]).code(0);
    let status = node.mfserv(&["status"]).code(0).stdout;
    let shown = "app.hello.main is scaled to 2 (configured: 1), until its configuration changes or \
                 is reloaded";
    assert!(status.lines().any(|line| line == shown), "{status}");
    for reload in [&["circusctl", "reloadconfig"], &["mfserv", "reload"]] {
        old.run(reload).code(0);
        assert_eq!(node.settled("app.hello.main").wanted, 1, "{reload:?}");
        incr();
    }
    old.run(&["plugins.stop", "hello"]).code(0);
    edit(&node.path("var/plugins/hello/config.ini"), "numprocesses = 1", "numprocesses = 3");
    node.mfserv(&["restart", "hello"]).code(0);
    assert_eq!(node.settled("app.hello.main").wanted, 3, "a new configuration runs");
    node.stop();
}
