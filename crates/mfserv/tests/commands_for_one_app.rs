//! Commands for one app: `shell`, `run`, `open`, and the spelling of its name in all others.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use mfserv_testkit::{Node, Plugin, programs, until};
use rustix::process::{Pid, Signal, kill_process};

use crate::top::Terminal;
use crate::{PATIENCE, Turn, node};

/// What a command says that reads this.
#[track_caller]
fn typed(node: &Node, args: &[&str], text: &str) -> String {
    let mut command = node.command(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// A plugin with two apps and an extra daemon.
fn shop() -> Plugin {
    let command = "python3 -u {plugin_dir}/main.py {unix_socket_path}";
    let idle = "python3 -c 'import time; time.sleep(1000)'";
    Plugin::python("shop", programs::SERVES)
        .app("admin", command)
        .key("extra_daemon_job", "_cmd_and_args", idle)
        .key("extra_daemon_job", "numprocesses", "1")
}

#[test]
fn a_shell_has_the_language_the_variables_and_the_secrets_of_its_app() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = node.add(&Plugin::python("one", programs::SERVES).key("app_main", "debug", "1"));
    node.add(&shop());
    node.link_sample("sample_node", &[]);
    node.start();
    node.mfserv(&["env", "set", "one.main", "TOKEN=hidden", "--secret"]).code(0);
    let asks = "import os\nprint(os.getcwd(), os.environ['TOKEN'], os.environ['MFSERV_CURRENT_APP_DEBUG'])\n";
    let expected = format!("{} hidden 1\n", dir.canonicalize().unwrap().display());
    for name in ["one", "one.main", "app.one.main"] {
        assert_eq!(typed(&node, &["shell", name], asks), expected, "{name}");
    }
    let asks = "console.log(process.env.MFSERV_CURRENT_PLUGIN_NAME)\n";
    assert_eq!(typed(&node, &["shell", "sample_node"], asks), "sample_node\n");
    let asks = "echo $MFSERV_CURRENT_PLUGIN_NAME\n";
    assert_eq!(typed(&node, &["shell", "--sh", "shop.admin"], asks), "shop\n");
    assert_eq!(typed(&node, &["shell", "welcome"], asks), "welcome\n");

    let several = node.mfserv(&["shell", "shop"]).code(2);
    assert!(several.stderr.contains("shop.main") && several.stderr.contains("shop.admin"));
    let none = node.mfserv(&["shell", "shop.nothing"]).code(2);
    assert!(none.stderr.contains("it has shop.main, shop.admin, shop.job"), "{none:?}");

    let mut terminal = Terminal::of(&node, &["shell", "one"], (100, 24), &[]);
    terminal.shows("a prompt", |text| text.contains(">>>"));
    terminal.press("print(6 * 7)\r");
    terminal.shows("its answer", |text| text.lines().any(|line| line.trim() == "42"));
    assert!(terminal.text().contains("- python of one.main in "), "{}", terminal.text());
    terminal.press("\x04");
    assert!(terminal.end().success());
    node.stop();
}

#[test]
fn a_shell_of_django_is_that_of_its_project() {
    let _turn = Turn::heavy();
    let node = node();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/django");
    let to = node.path("site");
    assert!(Command::new("cp").arg("-r").arg(from).arg(&to).status().unwrap().success());
    node.mfserv(&["deploy", "site"]).code(0);
    let asks = "from django.conf import settings\nprint('urls', settings.ROOT_URLCONF)\n";
    let said = typed(&node, &["shell", "site"], asks);
    assert!(said.contains("urls "), "{said}");
    let said = node.mfserv(&["run", "site", "python", "manage.py", "check"]).code(0);
    assert!(said.stdout.contains("no issues"), "{said:?}");
}

#[test]
fn a_command_beside_an_app_has_its_directory_and_ends_as_it_ends() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = node.add(&Plugin::python("one", programs::SERVES));
    node.mfserv(&["env", "set", "one", "TOKEN=hidden", "--secret"]).code(0);
    let ran = node.mfserv(&["run", "one", "--", "sh", "-c", "pwd; echo $TOKEN; exit 7"]).code(7);
    assert_eq!(ran.stdout, format!("{}\nhidden\n", dir.canonicalize().unwrap().display()));
    node.mfserv(&["run", "one.main", "no-such-program"]).code(127);
    let empty = node.mfserv(&["run", "one"]).code(2);
    assert!(empty.stderr.contains("mfserv run one -- COMMAND"), "{empty:?}");
    node.mfserv(&["run", "nobody", "true"]).code(2);

    let script = "trap 'exit 9' TERM; echo up; while :; do read -t 1 x < /dev/zero; done";
    let args = ["run", "one", "--", "bash", "-c", script];
    let mut child = node.command(&args).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn a_stopped_app_stays_stopped_until_it_is_started_and_a_restart_says_what_it_applies() {
    let _turn = Turn::cheap();
    let node = node();
    let plugin = Plugin::python("one", programs::SERVES);
    node.add(&plugin);
    node.start();
    node.settled("app.one.main");
    let said = node.mfserv(&["restart", "one"]).code(0);
    assert!(!said.stdout.contains("applied"), "nothing has changed: {said:?}");
    node.mfserv(&["stop", "one"]).code(0);
    node.mfserv(&["env", "set", "one", "COLOR=red"]).code(0);
    // The monitor of configuration files would apply it first.
    node.mfserv(&["config", "set", "autorestart.flag", "0"]).code(0);
    node.mfserv(&["reload"]).code(0);
    assert!(node.pids("app.one.main").is_empty(), "variables and a reload do not start it");
    let status = node.mfserv(&["status"]).stdout;
    assert!(status.contains("app.one.main is stopped: `mfserv start one.main`"), "{status}");
    node.mfserv(&["restart"]).code(0);
    assert!(node.pids("app.one.main").is_empty(), "nor does a restart of everything");
    node.mfserv(&["start", "one"]).code(0);
    assert_eq!(node.pids("app.one.main").len(), 1);
    node.mfserv(&["stop", "one"]).code(0);
    node.mfserv(&["restart", "one"]).code(0);
    assert_eq!(node.pids("app.one.main").len(), 1, "a restart by name starts it");

    let overrides = node.path("config/plugins/one.ini");
    std::fs::create_dir_all(overrides.parent().unwrap()).unwrap();
    std::fs::write(overrides, "[app_main]\nmax_age=777\n[custom]\nurl=x\n").unwrap();
    let said = node.mfserv(&["restart", "one"]).code(0).stdout;
    assert!(said.starts_with("applied what has changed in the configuration:"), "{said}");
    assert!(said.contains("CUSTOM_URL") && said.contains("max age"), "{said}");
    node.mfserv(&["stop", "one"]).code(0);
    node.stop();
    node.start();
    node.settled("app.one.main");
    assert_eq!(node.pids("app.one.main").len(), 1, "a node that starts is as it is configured");
}

#[test]
fn an_app_is_spelled_alike_in_every_command() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&shop());
    node.start();
    for name in ["app.shop.main", "app.shop.admin", "extra.shop.job"] {
        node.settled(name);
    }
    for args in [
        &["restart", "shop.main"][..],
        &["logs", "shop.main"],
        &["env", "shop.main"],
        &["exec", "shop.main", "true"],
        &["run", "shop.main", "true"],
        &["run", "shop.job", "true"],
        &["open", "--print", "shop.main"],
        &["scale", "shop.main", "2"],
        &["scale", "shop.main", "--reset"],
        &["info", "shop.main"],
        &["history", "shop.main", "--since", "1m"],
    ] {
        until(&format!("{args:?}"), PATIENCE, || node.mfserv(args).code == 0);
    }
    // Variables are those of all apps of the plugin.
    let refused = node.mfserv(&["env", "set", "shop.main", "A=1"]).code(2);
    assert!(refused.stderr.contains("name the plugin: shop"), "{refused:?}");
    let before = node.pids("app.shop.admin");
    let said = node.mfserv(&["stop", "shop.main", "shop.job"]).code(0).stdout;
    assert!(said.contains("shop.main is stopped until `mfserv start shop.main`"), "{said}");
    assert!(node.pids("app.shop.main").is_empty() && node.pids("extra.shop.job").is_empty());
    assert_eq!(node.pids("app.shop.admin"), before, "the other one goes on");
    node.mfserv(&["start", "shop.main", "shop.job"]).code(0);
    assert_eq!(node.pids("app.shop.main").len(), 1);
    assert_eq!(node.pids("extra.shop.job").len(), 1);

    node.mfserv(&["scale", "shop.main", "0"]).code(0);
    let refused = node.mfserv(&["start", "shop.main"]).code(5);
    assert!(refused.stderr.contains("mfserv scale shop.main N"), "{refused:?}");
    for command in ["restart", "stop", "start", "env", "exec", "run", "shell", "open"] {
        let more = if ["exec", "run"].contains(&command) { &["true"][..] } else { &[] };
        let ran = node.mfserv(&[&[command, "shop.nothing"], more].concat());
        assert!(
            ran.code != 0
                && ran.stderr.contains("shop.nothing") | ran.stderr.contains("no app nothing"),
            "{command}: {ran:?}"
        );
    }
    let shop = node.mfserv(&["stop", "shop"]).code(2);
    assert!(shop.stderr.contains("app.shop.admin, app.shop.main"), "{shop:?}");
    node.stop();
    node.mfserv(&["stop", "shop.main"]).code(3);
}

#[test]
fn a_name_that_is_no_app_is_refused_with_the_apps_that_there_are_and_changes_nothing() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = node.add(&shop());
    node.start();
    for name in ["app.shop.main", "app.shop.admin", "extra.shop.job"] {
        node.settled(name);
    }
    for command in ["info", "logs", "history"] {
        let none = node.mfserv(&[command, "shop.nothing"]);
        assert_eq!(none.code, 2, "{command}: {none:?}");
        let why = ["shop has no app nothing", "shop.main, shop.admin, shop.job"];
        assert!(why.iter().all(|part| none.stderr.contains(part)), "{command}: {none:?}");
    }
    for command in ["releases", "uninstall", "rollback"] {
        let app = node.mfserv(&[command, "shop.main"]).code(2);
        assert!(app.stderr.contains("name the plugin: shop"), "{command}: {app:?}");
    }
    let job = node.mfserv(&["open", "--print", "shop.job"]);
    assert!(job.code != 0 && job.stderr.contains("is an extra daemon"), "{job:?}");
    let none = node.mfserv(&["open", "--print", "shop.nothing"]).code(2);
    assert!(
        none.stderr.contains("it has shop.admin, shop.main\n"),
        "daemons answer nowhere: {none:?}"
    );
    let by_name = node.mfserv(&["open", "--print", "shop"]).code(0).stdout;
    let by_path = node.mfserv(&["open", "--print", dir.to_str().unwrap()]).code(0).stdout;
    assert_eq!(by_path, by_name);
    let json = node.mfserv(&["open", "--json", "shop.admin"]).code(0).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["urls"][0], format!("http://{}/shop/admin", node.address()));

    let before = ["app.shop.main", "app.shop.admin", "extra.shop.job"].map(|app| node.pids(app));
    let none = node.mfserv(&["stop", "shop.main", "shop.nothing", "shop.admin"]).code(2);
    assert!(none.stderr.contains("shop has no app nothing"), "{none:?}");
    let after = ["app.shop.main", "app.shop.admin", "extra.shop.job"].map(|app| node.pids(app));
    assert_eq!(after, before, "nothing is stopped");
    node.stop();
}

#[test]
fn stop_and_start_of_an_app_say_what_became_of_it_also_as_json() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&shop());
    node.start();
    node.settled("app.shop.main");
    let json = |args: &[&str]| -> serde_json::Value {
        // What it does is said before, a line each.
        let said = node.mfserv(args).code(0).stdout;
        serde_json::from_str(said.lines().last().unwrap()).unwrap()
    };
    assert_eq!(json(&["stop", "shop.main", "--json", "--timeout", "60"])["ok"], true);
    assert!(node.pids("app.shop.main").is_empty());
    assert_eq!(json(&["start", "shop.main", "--json"])["ok"], true);
    assert_eq!(node.pids("app.shop.main").len(), 1);
    node.mfserv(&["stop", "shop.main", "--no-wait"]).code(0);
    until("it is stopped", PATIENCE, || node.pids("app.shop.main").is_empty());
    node.mfserv(&["scale", "shop.admin", "0"]).code(0);
    let off = node.mfserv(&["start", "shop.admin"]).code(5);
    assert!(!off.stdout.contains("done") && off.stderr.contains("numprocesses=0"), "{off:?}");
    // The node itself.
    assert_eq!(json(&["start", "--json"])["was_running"], true);
    assert_eq!(json(&["stop", "--json"])["was_running"], true);
    assert_eq!(json(&["stop", "--json"])["was_running"], false);
    let started = json(&["start", "--json"]);
    assert_eq!((&started["running"], &started["was_running"]), (&true.into(), &false.into()));
    node.stop();
}

#[test]
fn a_command_that_fails_says_why_as_json_if_that_is_asked_for() {
    let _turn = Turn::cheap();
    let node = node();
    let app = node.path("app");
    std::fs::create_dir(&app).unwrap();
    let app = app.to_str().unwrap();
    for (args, code, what) in [
        (&["info", "nope"][..], 2, "nope"),
        (&["status"], 3, "not running"),
        (&["scale", "nope", "2"], 3, "not running"),
        (&["stop", "nope"], 3, "not running"),
        (&["build", app], 4, app),
        (&["deploy", app], 4, app),
        (&["install", "nope.plugin"], 1, "nope.plugin"),
    ] {
        let failed = node.mfserv(&[args, &["--json"]].concat()).code(code);
        let said: serde_json::Value = serde_json::from_str(&failed.stdout).unwrap();
        assert_eq!(said["ok"], false, "{args:?}");
        assert!(said["problem"]["what"].as_str().unwrap().contains(what), "{args:?}: {said}");
        // People read it, too.
        assert!(failed.stderr.contains(what), "{args:?}: {failed:?}");
        assert_eq!(node.mfserv(args).code(code).stdout, "", "{args:?}");
    }
}

#[test]
fn open_prints_the_address_and_opens_the_browser_that_is_named() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&shop());
    node.mfserv(&["open", "shop"]).code(3);
    node.start();
    let url = format!("http://{}/shop", node.address());
    let opened = node.path("opened");
    let browser = node.path("browser");
    std::fs::write(&browser, format!("#!/bin/sh\necho \"$@\" > {}\n", opened.display())).unwrap();
    Command::new("chmod").arg("+x").arg(&browser).status().unwrap();
    let open = |args: &[&str], browser: &str| {
        let mut command = node.command(&[&["open"], args].concat());
        let output = command.env("BROWSER", browser).env_remove("DISPLAY").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let named = browser.display().to_string();
    let (said, _) = open(&["shop.admin", "--print"], &named);
    assert_eq!(said, format!("{url}/admin\n"));
    assert!(!opened.exists());
    let (said, _) = open(&["shop"], &format!("/no/such/browser:{named} --new %s"));
    assert!(said.starts_with(&url), "{said}");
    let first = said.lines().next().unwrap();
    until("it is opened", PATIENCE, || {
        std::fs::read_to_string(&opened).is_ok_and(|text| text == format!("--new {first}\n"))
    });
    let (said, complaint) = open(&["shop"], "/no/such/browser");
    assert!(said.starts_with(&url) && complaint.contains("no browser could be started"));
    let nobody = node.mfserv(&["open", "nobody"]);
    assert!(nobody.code == 2 && nobody.stderr.contains("it serves "), "{nobody:?}");
    node.stop();
}

#[test]
fn what_is_set_for_the_node_and_was_meant_for_a_plugin_is_said() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(&Plugin::new("shop").app("main", "sleep 9"));
    let said = node.mfserv(&["config", "set", "shop.SECRET_KEY", "x"]).code(0);
    assert!(said.stderr.contains("`mfserv env set shop SECRET_KEY=x`"), "{said:?}");
    assert!(said.stderr.contains("MFSERV_SHOP_SECRET_KEY"), "{said:?}");
    let other = node.mfserv(&["config", "set", "mine.key", "x"]).code(0);
    assert!(!other.stderr.contains("env set") && other.stderr.is_empty(), "{other:?}");
    assert!(other.stdout.contains("plugins see it as MFSERV_MINE_KEY"), "{other:?}");
    let of_plugin = node.mfserv(&["config", "set", "app_main.numprocesses=3"]).code(0);
    assert!(of_plugin.stderr.contains("config/plugins/PLUGIN.ini"), "{of_plugin:?}");
    let elsewhere = node.mfserv(&["config", "set", "nginx.static_compression=0"]).code(0);
    assert!(elsewhere.stderr.contains("did you mean [front] static_compression?"), "{elsewhere:?}");
}

#[test]
fn several_values_are_set_together_or_none_and_one_is_shown_by_its_name() {
    let _turn = Turn::cheap();
    let node = node();
    let set = |values: &[&str]| node.mfserv(&[&["config", "set"], values].concat());
    let said = set(&["front.header_timeout=21", "mine.x=1", "mine.y=a=b"]).code(0);
    assert_eq!(said.stdout.matches(" is written to ").count(), 3, "{said:?}");
    let shown = |name: &str| node.mfserv(&["config", "show", name]).code(0).stdout;
    assert!(shown("front.header_timeout").contains("header_timeout = 21 "));
    assert!(!shown("mine.x").contains("y = ") && shown("mine").contains("y = a=b "));
    // One is wrong: none is written.
    set(&["front.header_timeout=22", "nginx.port=abc"]).code(4);
    set(&["front.header_timeout=22", "nonsense"]).code(2);
    assert!(shown("front.header_timeout").contains("header_timeout = 21 "));
    let none = node.mfserv(&["config", "show", "zork"]).code(2);
    assert!(none.stderr.contains("no value is called zork"), "{none:?}");
}
