//! nginx as the front of a real node: fragments of plugins, and what happens to clients when
//! something changes or dies.

mod hanging;
mod installing;
mod missing;
mod openresty;

use std::path::Path;
use std::process::Command;

use mfserv_testkit::{
    Load, Method, Nginx, Node, Plugin, get, nginx, nginx_with_lua, of_home, programs, until,
};

use crate::{PATIENCE, Turn, node};

/// The variable with which other tests of this program are run behind nginx.
pub const FRONT: &str = "MFSERV_TEST_FRONT";

/// The directory below which servers are unpacked.
pub fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()
}

fn use_nginx(node: &Node, nginx: &Nginx) {
    node.set("front.kind", "nginx");
    node.set("front.nginx_program", &nginx.program.display().to_string());
    if let Some(modules) = &nginx.modules {
        node.set("front.nginx_modules", &modules.display().to_string());
    }
    node.set("nginx.workers", "2");
}

/// Has nginx be the front of a node.
pub fn stand_before(node: &Node) {
    use_nginx(node, &nginx(target()).expect("nginx can be had"));
}

/// A node behind nginx with the plugin `hello`, running; `None` where nginx cannot be had.
fn behind_nginx(workers: &str) -> Option<Node> {
    let nginx = nginx(target())?;
    let node = node();
    use_nginx(&node, &nginx);
    node.add(&Plugin::python("hello", programs::SERVES).key("app_main", "numprocesses", workers));
    node.start();
    Some(node)
}

/// The pids of nginx: its masters, its workers.
fn of_nginx(node: &Node) -> (Vec<u32>, Vec<u32>) {
    let title = |pid: &u32, what: &str| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).starts_with(&format!("nginx: {what} process"))
    };
    let hash = node.hash();
    let pids: Vec<u32> =
        of_home(node.home(), hash.as_deref()).into_iter().map(|process| process.pid).collect();
    let all = |what| pids.iter().copied().filter(|pid| title(pid, what)).collect();
    (all("master"), all("worker"))
}

fn config(node: &Node) -> String {
    std::fs::read_to_string(node.path("tmp/config_auto/nginx.conf")).unwrap()
}

#[test]
fn restarts_scaling_new_plugins_and_crashes_behind_nginx_fail_no_request_and_change_nothing_of_it()
{
    let _turn = Turn::heavy();
    let Some(node) = behind_nginx("2") else { return };
    let (before, workers) = (config(&node), of_nginx(&node));
    let load = Load::new(node.address(), "/hello").also("/hello/slow?5").post_every(3).start();
    for round in 0..3 {
        load.answers(100);
        node.mfserv(&["restart", "hello"]).code(0);
        node.mfserv(&["scale", "hello", "4"]).code(0);
        node.add(&Plugin::python(&format!("other{round}"), programs::SERVES));
        node.mfserv(&["reload"]).code(0);
        assert_eq!(node.get(&format!("/other{round}")).status, 200);
        node.mfserv(&["scale", "hello", "2"]).code(0);
    }
    load.stop().assert_nothing_failed();
    let load = Load::new(node.address(), "/hello").start();
    for _ in 0..3 {
        load.answers(50);
        let pid = node.settled("app.hello.main").workers[0].pid.unwrap();
        node.kill(pid);
    }
    node.settled("app.hello.main");
    load.stop().assert_nothing_failed();
    assert_eq!(config(&node), before, "no plugin has a fragment");
    assert_eq!(of_nginx(&node), workers, "nginx was not reloaded");
    node.stop();
}

fn obeys_the_good_ones(node: &Node) {
    let answer = node.get("/good/pid?x=one");
    assert_eq!((answer.status, answer.field("x-good")), (200, Some("1 good")));
    assert_eq!(node.get("/from_server").text(), node.address().port().to_string());
    let file = node.get("/good/static/a.html");
    assert_eq!((file.text().as_str(), file.field("content-type")), ("a file", Some("text/html")));
    assert_eq!(file.field("cache-control"), Some("max-age=3600"));
    assert!(node.get("/good/static/").text().contains("a.html"), "autoindex");
    assert_eq!(node.get("/hello").field("x-good"), None);
}

#[test]
fn fragments_are_obeyed_and_one_that_nginx_refuses_is_left_out_alone() {
    let _turn = Turn::heavy();
    let Some(node) = behind_nginx("2") else { return };
    let good = Plugin::python("good", programs::SERVES)
        .key("general", "_extra_nginx_http_conf_filename", "http.conf")
        .key("general", "_extra_nginx_server_conf_filename", "server.conf")
        .key("app_main", "_extra_nginx_conf_filename", "main.conf")
        .key("app_main", "_extra_nginx_conf_static_filename", "static.conf")
        .file("http.conf", "map $arg_x $good_of_x { default none; one 1; }\n")
        .file("server.conf", "location = /from_server { return 200 \"{{MFSERV_NGINX_PORT}}\"; }\n")
        .file("main.conf", "add_header X-Good \"$good_of_x $plugin\";\n")
        .file("static.conf", "expires 1h;\nautoindex on;\n")
        .file("main/static/a.html", "a file");
    node.add(&good);
    let load = Load::new(node.address(), "/hello").start();
    node.mfserv(&["reload"]).code(0);
    obeys_the_good_ones(&node);
    let bad = Plugin::python("bad", programs::SERVES)
        .key("app_main", "_extra_nginx_conf_filename", "main.conf")
        .file("main.conf", "# a comment\nno_such_directive on;\n");
    let open = Plugin::python("broken", programs::SERVES)
        .key("general", "_extra_nginx_server_conf_filename", "server.conf")
        .file("server.conf", "location = /never { return 200;\n");
    // A check says it before, and leaves nothing behind.
    let dir = bad.write(&node.path("unchecked")).display().to_string();
    let check = node.mfserv(&["check", &dir]);
    assert!(format!("{check:?}").contains("(its line 2)"), "{check:?}");
    let check = node.mfserv(&["check", "--set", "front.nginx_program=/no/nginx", &dir]);
    assert!(format!("{check:?}").contains("nginx could not be asked about frag"), "{check:?}");
    node.add(&bad);
    node.add(&open);
    let reload = node.mfserv(&["reload"]).code(0).stderr;
    for path in ["/bad", "/broken", "/good", "/hello"] {
        assert_eq!(node.get(path).status, 200, "{path}");
    }
    assert_eq!(node.get("/good?x=one").field("x-good"), Some("1 good"));
    let said = node.mfserv(&["status"]).stdout;
    for words in [
        "plugin bad: main.conf (in the locations of main) is left out",
        "unknown directive \"no_such_directive\" (its line 2)",
        "plugin broken: server.conf (in the server) is left out",
    ] {
        assert!(said.contains(words) && reload.contains(words), "{words}: {said} {reload}");
    }
    until("the log says it too", PATIENCE, || {
        node.log_lines("nginx_error").iter().any(|line| line.contains("plugin bad: main.conf"))
    });

    // Corrected, it is obeyed and no longer spoken of.
    let bad = bad.file("main.conf", "add_header X-Bad no;\n");
    bad.write(&node.path("corrected"));
    let link = node.path("var/plugins/bad");
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(node.path("corrected/bad"), link).unwrap();
    node.mfserv(&["reload"]);
    assert_eq!(node.get("/bad").field("x-bad"), Some("no"));
    assert!(!node.mfserv(&["status"]).stdout.contains("plugin bad"));
    load.stop().assert_nothing_failed();
    node.stop();
}

#[test]
fn nginx_and_its_workers_are_killed_and_others_take_their_port() {
    let _turn = Turn::heavy();
    let Some(node) = behind_nginx("2") else { return };
    let (masters, workers) = of_nginx(&node);
    // One worker: its requests are lost, no other.
    node.kill(workers[0]);
    until("nginx has another worker", PATIENCE, || {
        let (_, now) = of_nginx(&node);
        now.len() == 2 && !now.contains(&workers[0])
    });
    assert_eq!(node.get("/hello").status, 200);
    // The master: its workers go on until there is another one, and no request is lost.
    let load = Load::new(node.address(), "/hello").post_every(5).start();
    load.answers(50);
    let orphans = of_nginx(&node).1;
    node.kill(masters[0]);
    until("there is another nginx, and nobody of the one before", PATIENCE, || {
        let (now, workers) = of_nginx(&node);
        now.len() == 1
            && now != masters
            && workers.len() == 2
            && !workers.iter().any(|pid| orphans.contains(pid))
    });
    load.answers(50);
    let report = load.stop();
    let gets: Vec<_> = report.failed(Method::Get).collect();
    assert!(gets.is_empty(), "{gets:?}");
    // All of the front: the daemon starts another one.
    for pid in node.role_pids("front") {
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(),
            rustix::process::Signal::KILL,
        )
        .ok();
    }
    until("another front serves", PATIENCE, || {
        get(node.address(), "/hello").is_ok_and(|answer| answer.status == 200)
            && of_nginx(&node).0.len() == 1
    });
    node.stop();
}

#[test]
fn one_nginx_hands_over_to_another_on_the_same_port() {
    let _turn = Turn::heavy();
    let Some(node) = behind_nginx("2") else { return };
    let masters = of_nginx(&node).0;
    let load = Load::new(node.address(), "/hello").also("/hello/slow?50").start();
    load.answers(50);
    node.mfserv(&["restart", "front"]).code(0);
    load.answers(50);
    until("the first one has ended", PATIENCE, || of_nginx(&node).0.len() == 1);
    assert_ne!(of_nginx(&node).0, masters);
    load.stop().assert_nothing_failed();
    node.stop();
}

#[test]
fn many_changes_of_its_configuration_fail_no_request_and_leave_no_process_of_nginx() {
    let _turn = Turn::heavy();
    let Some(node) = behind_nginx("1") else { return };
    let changes = if std::env::var_os("MFSERV_LONG").is_some() { 200 } else { 24 };
    let plugin = Plugin::python("changing", programs::SERVES)
        .key("general", "_extra_nginx_http_conf_filename", "http.conf")
        .key("app_main", "_extra_nginx_conf_filename", "main.conf")
        .file("http.conf", "# nothing\n")
        .file("main.conf", "add_header X-Round 0;\n");
    let dir = node.add(&plugin);
    node.mfserv(&["reload"]).code(0);
    // No POST: nginx closes idle connections at a reload, and who had just sent something asks again
    // (docs/nginx.md, `idle_connections`), which this load does only where it is safe.
    let load = Load::new(node.address(), "/hello").also("/changing").start();
    let mut most = 0;
    for round in 1..=changes {
        load.answers(5);
        let (masters, workers) = of_nginx(&node);
        // Two of now, and two of each of the eight configurations before (docs/nginx.md).
        assert!(masters.len() == 1 && workers.len() <= 18, "{masters:?} {workers:?}");
        most = most.max(workers.len());
        // Each second one with a setting, each fourth with a fragment that is left out.
        let http = if round % 4 == 0 { "no_such_directive on;\n" } else { "# nothing\n" };
        std::fs::write(dir.join("http.conf"), http).unwrap();
        std::fs::write(dir.join("main.conf"), format!("add_header X-Round {round};\n")).unwrap();
        if round % 2 == 0 {
            node.set("nginx.upload_max_body_size", &(100 + round).to_string());
        }
        node.mfserv(&["reload"]);
        let said = node.get("/changing").field("x-round").map(str::to_owned);
        assert_eq!(said, Some(round.to_string()));
    }
    load.answers(5);
    let report = load.stop();
    println!("{changes} changes: {} requests, at most {most} workers", report.answered());
    report.assert_nothing_failed();
    until("the workers before the last change have ended", PATIENCE, || {
        let (masters, workers) = of_nginx(&node);
        (masters.len(), workers.len()) == (1, 2)
    });
    let hash = node.hash();
    node.stop();
    node.assert_nothing_left(hash.as_deref());
}

#[test]
fn lua_of_a_plugin_without_any_app_answers_and_bad_lua_stops_no_other() {
    let _turn = Turn::heavy();
    let Some(nginx) = nginx_with_lua(target()) else { return };
    let node = node();
    use_nginx(&node, &nginx);
    node.add(&Plugin::python("hello", programs::SERVES));
    let server = "location ~ \"^/lua\" { content_by_lua 'require(\"lua.content\").answer()'; }\n";
    let lua = Plugin::new("lua")
        .key("general", "_extra_nginx_server_conf_filename", "server.conf")
        .key("general", "_extra_nginx_init_worker_by_lua_block_filename", "init.lua")
        .key("general", "_add_plugin_dir_to_lua_path", "true")
        .file("server.conf", server)
        .file("init.lua", "started = \"yes [[ok]]\"\n")
        .file(
            "content.lua",
            "local m = {}\nfunction m.answer()\n  ngx.say(\"Hello World, this is request_id: \", \
             ngx.var.mfserv_request_id, \" \", started)\nend\nreturn m\n",
        );
    let bad = Plugin::new("alua")
        .key("general", "_extra_nginx_init_worker_by_lua_block_filename", "init.lua")
        .file("init.lua", "this is no lua(\n");
    node.add(&lua);
    node.add(&bad);
    node.start();
    let answer = node.get("/lua/anything");
    let id = answer.field("x-request-id").unwrap().to_string();
    assert_eq!(answer.text(), format!("Hello World, this is request_id: {id} yes [[ok]]\n"));
    assert_eq!(node.get("/hello").status, 200);
    until("the access log has the request", PATIENCE, || {
        let lines = node.log_lines("nginx_access");
        let line = lines.iter().find(|line| line.contains(&id));
        line.is_some_and(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
    });
    until("what is wrong with the other one is said", PATIENCE, || {
        node.log_lines("nginx_error").join("\n").contains("alua init.lua")
    });
    node.stop();
}

#[test]
fn what_holds_for_crashes_slots_and_stops_holds_behind_nginx_too() {
    if nginx(target()).is_none() || std::env::var_os(FRONT).is_some() {
        return;
    }
    let _turn = Turn::alone();
    let ran = Command::new(std::env::current_exe().unwrap())
        .args([
            "crash::killing_a_worker_each_second",
            "slots::",
            "stopping::",
            "comeback::",
            "php::",
            "tls::",
        ])
        // nginx still takes clients while its parent hangs, and is killed with it: docs/nginx.md.
        .args(["--skip", "a_front_that_hangs"])
        .env(FRONT, "nginx")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{text}{}", String::from_utf8_lossy(&ran.stderr));
    let number = text.lines().find_map(|line| line.strip_prefix("test result: ok. ")).unwrap();
    let number: u32 = number.split(' ').next().unwrap().parse().unwrap();
    assert!(number > 8, "{text}");
}
