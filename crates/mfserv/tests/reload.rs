//! A change of one plugin touches no other; a broken configuration takes nothing down.

use std::os::unix::fs::PermissionsExt;

use mfserv_core::node_state::NodeState;
use mfserv_core::plan::PluginState;
use mfserv_core::status::PluginStatus;
use mfserv_testkit::{Node, Plugin, programs, until};

use crate::{PATIENCE, Turn, node, tree};

fn plugin(name: &str) -> Plugin {
    Plugin::python(name, programs::SERVES)
}

fn two_plugins() -> Node {
    let node = node();
    node.add(&plugin("changing"));
    node.add(&plugin("quiet"));
    node.start();
    node
}

#[track_caller]
fn state(node: &Node, name: &str) -> PluginStatus {
    let status = node.status();
    status.plugins.iter().find(|plugin| plugin.name == name).expect("the plugin").clone()
}

#[test]
fn a_configuration_broken_later_leaves_the_plugin_running_with_its_last_good_one() {
    let _turn = Turn::cheap();
    let node = two_plugins();
    let (changing, quiet) = (node.pids("app.changing.main"), node.pids("app.quiet.main"));
    node.add(&plugin("changing").key("app_main", "numprocesses", "two or three").key(
        "app_main",
        "_no_such_key",
        "1",
    ));
    let ran = node.mfserv(&["reload"]).code(4);
    let file = node.path("var/plugins/changing/config.ini");
    assert!(ran.stderr.contains(&format!("{}:", file.display())), "{ran:?}");
    assert_eq!(state(&node, "changing").state, PluginState::LastGood);
    assert_eq!(state(&node, "quiet").state, PluginState::Active);
    assert_eq!(node.pids("app.changing.main"), changing);
    assert_eq!(node.pids("app.quiet.main"), quiet);
    assert_eq!(node.get("/changing").status, 200);
    let text = node.mfserv(&["status"]);
    assert!(text.stdout.contains("RUNNING, 1 plugin refused at "), "{text:?}");
    assert!(text.code == 1 && text.stdout.contains("last good"), "{text:?}");
    node.mfserv(&["check"]).code(4);

    node.add(&plugin("changing").key("app_main", "numprocesses", "2"));
    node.mfserv(&["reload"]).code(0);
    assert_eq!(state(&node, "changing").state, PluginState::Active);
    let after = node.settled("app.changing.main");
    assert_eq!(after.ready, 2);
    assert_eq!(node.pids("app.quiet.main"), quiet);
    node.stop();
}

#[test]
fn a_plugin_with_a_broken_configuration_goes_on_serving_when_the_daemon_is_killed() {
    let _turn = Turn::cheap();
    let node = two_plugins();
    let changing = node.pids("app.changing.main");
    node.add(&plugin("changing").config("this is no configuration\n"));
    node.mfserv(&["reload"]).code(4);
    let daemon = node.role_pid("daemon");
    node.kill(daemon);
    until("another daemon runs the node", PATIENCE, || {
        node.try_status().is_some_and(|s| s.daemon.pid != daemon && s.state == NodeState::Running)
    });
    assert_eq!(node.get("/changing").status, 200);
    assert_eq!(node.pids("app.changing.main"), changing);
    node.stop();
}

#[test]
fn a_plugin_that_is_broken_from_the_start_is_refused_alone() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&plugin("broken").key("app_main", "_no_such_key", "1"));
    node.add(&plugin("quiet"));
    let ran = node.mfserv(&["start"]).code(0);
    assert!(ran.stderr.contains("_no_such_key"), "{ran:?}");
    assert_eq!(state(&node, "broken").state, PluginState::Refused);
    assert_eq!(node.get("/quiet").status, 200);
    assert_eq!(node.get("/broken").status, 404);
    node.stop();
}

#[test]
fn a_reload_replaces_only_the_workers_of_what_changed() {
    let _turn = Turn::cheap();
    let node = two_plugins();
    let (changing, quiet) = (node.pids("app.changing.main"), node.pids("app.quiet.main"));
    let front = node.role_pid("front");
    node.mfserv(&["reload"]).code(0);
    assert_eq!(node.pids("app.changing.main"), changing, "nothing changed");

    node.add(&plugin("changing").key("custom", "colour", "green"));
    node.mfserv(&["reload"]).code(0);
    node.settled("app.changing.main");
    assert_ne!(node.pids("app.changing.main"), changing, "its environment changed");
    let env = node.get("/changing/env").text();
    assert!(env.contains(r#""MFSERV_CURRENT_PLUGIN_CUSTOM_COLOUR": "green""#), "{env}");
    assert_eq!(node.pids("app.quiet.main"), quiet);

    node.add(&plugin("newcomer"));
    node.mfserv(&["reload"]).code(0);
    assert_eq!(node.get("/newcomer").status, 200);
    assert_eq!(node.pids("app.quiet.main"), quiet);
    assert_eq!(node.role_pid("front"), front);
    node.stop();
}

#[test]
fn a_plan_shows_what_a_reload_would_do_and_ends_as_it_would_and_changes_nothing() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&plugin("changing").file("crontab", "5 4 * * * true\n"));
    node.add(&plugin("quiet"));
    let before = tree(node.home());
    let ran = node.mfserv(&["plan"]).code(0);
    assert!(ran.stdout.contains("does not run") && ran.stdout.contains("+ app.quiet.main: 1"));
    node.mfserv(&["reload", "--dry-run"]).code(3);
    assert_eq!(tree(node.home()), before, "nothing is written");

    node.start();
    for asked in [["plan"].as_slice(), &["reload", "--dry-run"]] {
        assert_eq!(node.mfserv(asked).code(0).stdout, "nothing would change\n");
    }
    let (workers, generation) = (node.worker_pids(), node.status().generation);
    let more = plugin("changing").key("app_main", "numprocesses", "2");
    node.add(&more.key("custom", "secret", "hunter2").file("crontab", "# none\n"));
    node.add(&plugin("newcomer"));
    let said = node.mfserv(&["plan"]).code(0).stdout;
    for line in [
        "~ app.changing.main: 1 → 2, all replaced: its environment (MFSERV_CURRENT_PLUGIN",
        "+ app.newcomer.main: 1 started",
        "+ /newcomer of newcomer/main: workers of newcomer/main",
        "- changing.crontab:1 (5 4 * * *)",
        "then, at most ",
    ] {
        assert!(said.contains(line), "{line:?} in {said}");
    }
    assert!(!said.contains("quiet") && !said.contains("hunter2"), "{said}");
    let json: serde_json::Value =
        serde_json::from_str(&node.mfserv(&["plan", "--json"]).code(0).stdout).unwrap();
    assert!(json["memory"]["now_bytes"].as_u64() > Some(1 << 20), "{json}");
    assert_eq!(json["in_force"], generation);

    assert_eq!((node.worker_pids(), node.status().generation), (workers, generation));
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port().to_string();
    let own = node.address().port().to_string();
    node.set("nginx.port", &port);
    let dry = node.mfserv(&["plan"]).code(5);
    assert!(dry.stdout.contains("+ 127.0.0.1:") && dry.stderr.contains(&port), "{dry:?}");
    node.mfserv(&["reload"]).code(5);
    node.set("nginx.port", &own);
    shows_the_configuration(&node);
    node.add(&plugin("changing").config("this is no configuration\n"));
    node.mfserv(&["reload", "--dry-run"]).code(4);
    assert_eq!(node.get("/newcomer").status, 200, "it was applied by the reload meanwhile");
    node.stop();
}

/// `tmp/config_auto/config.ini` is written with what is in force, and for nobody else.
fn shows_the_configuration(node: &Node) {
    let file = node.path("tmp/config_auto/config.ini");
    let shown = || std::fs::read_to_string(&file).unwrap();
    let origin = |text: &str| {
        let line = text.lines().position(|line| line == "nginxlog_port = 99");
        line.and_then(|at| text.lines().nth(at - 1)).unwrap_or_default().to_string()
    };
    assert_eq!(origin(&shown()), "");
    // It is shown although no plan depends on it.
    node.set("vector.nginxlog_port", "99");
    node.mfserv(&["reload"]).code(0);
    let path = node.path("config/config.ini");
    assert!(origin(&shown()).starts_with(&format!("# {}:", path.display())), "{}", shown());
    assert!(shown().starts_with("# The configuration that is in force, made by mfserv "));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_broken_module_configuration_is_refused_by_a_reload_and_everything_goes_on() {
    let _turn = Turn::cheap();
    let node = two_plugins();
    let workers = node.worker_pids();
    let file = node.path("config/config.ini");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{good}\n[log]\nnumber_of_rotated_files = lots\n")).unwrap();
    let ran = node.mfserv(&["reload"]).code(4);
    assert!(ran.stderr.contains("number_of_rotated_files"), "{ran:?}");
    assert_eq!(node.worker_pids(), workers);
    assert_eq!(node.get("/quiet").status, 200);

    // A daemon that comes back to it must not take the node down either.
    let daemon = node.role_pid("daemon");
    node.kill(daemon);
    until("another daemon answers", PATIENCE, || {
        node.try_status().is_some_and(|status| status.daemon.pid != daemon)
    });
    assert_eq!(node.worker_pids(), workers);
    assert_eq!(node.get("/quiet").status, 200);
    std::fs::write(&file, good).unwrap();
    node.runs();
    assert_eq!(node.worker_pids(), workers);
    node.stop();
}
