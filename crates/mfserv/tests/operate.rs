//! Restarting and scaling an app under load loses nothing.

use mfserv_testkit::Load;

use crate::{Turn, node};

const FLASK: &str = "app.sample_flask.main";

#[test]
fn restarting_an_app_under_load_fails_no_request_and_replaces_every_worker() {
    let _turn = Turn::heavy();
    let node = node();
    node.link_sample("sample_flask", &[("app_main", "numprocesses", "4")]);
    node.start();
    let before = node.pids(FLASK);
    let load = Load::new(node.address(), "/sample_flask/count")
        .also("/sample_flask/slow/50")
        .post_every(4)
        .start();
    load.answers(200);
    node.mfserv(&["restart", "sample_flask"]).code(0);
    let after = node.settled(FLASK);
    load.answers(200);
    let report = load.stop();
    println!("{}", report.sentence());
    report.assert_nothing_failed();
    let after: Vec<u32> = after.workers.iter().filter_map(|worker| worker.pid).collect();
    assert_eq!(after.len(), 4);
    assert!(after.iter().all(|pid| !before.contains(pid)), "{before:?} and {after:?}");
    node.stop();
}

#[test]
fn scaling_up_and_down_under_load_fails_no_request() {
    let _turn = Turn::heavy();
    let node = node();
    node.link_sample("sample_flask", &[("app_main", "numprocesses", "2")]);
    node.start();
    let first = node.pids(FLASK);
    let load = Load::new(node.address(), "/sample_flask/count").post_every(3).start();
    for count in ["5", "1", "3", "config"] {
        node.mfserv(&["scale", "sample_flask", count]).code(0);
        let watcher = node.settled(FLASK);
        let wanted = count.parse().unwrap_or(2);
        assert_eq!((watcher.wanted, watcher.ready), (wanted, wanted));
        if count == "5" {
            let pids = node.pids(FLASK);
            assert!(first.iter().all(|pid| pids.contains(pid)), "those who served go on serving");
        }
    }
    let report = load.stop();
    println!("{}", report.sentence());
    report.assert_nothing_failed();
    node.mfserv(&["scale", "sample_flask", "many"]).code(2);
    node.mfserv(&["scale", "nobody", "2"]).code(2);
    node.stop();
}

#[test]
fn a_count_that_was_scaled_to_stands_in_the_override_file_until_it_is_taken_back() {
    use std::os::unix::fs::PermissionsExt;
    let _turn = Turn::cheap();
    let node = node();
    let plugin = mfserv_testkit::Plugin::python("hello", mfserv_testkit::programs::SERVES);
    node.add(&plugin);
    node.start();
    let wanted = || node.settled("app.hello.main").wanted;
    let file = node.path("config/plugins/hello.ini");
    let said = node.mfserv(&["scale", "hello", "3"]).code(0);
    assert!(said.stderr.contains(&*file.to_string_lossy()), "{said:?}");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let shown = node.mfserv(&["status"]).code(0).stdout;
    let line = format!("app.hello.main is scaled: numprocesses=3 in {}:3", file.display());
    assert!(shown.contains(&line), "{shown}");
    node.mfserv(&["reload"]).code(0);
    node.mfserv(&["restart", "hello"]).code(0);
    node.stop();
    node.start();
    assert_eq!(wanted(), 3);
    let mine = format!("# mine\n{}max_age=0\n", std::fs::read_to_string(&file).unwrap());
    std::fs::write(&file, &mine).unwrap();
    node.mfserv(&["scale", "hello", "2"]).code(0);
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text, mine.replace("numprocesses=3", "numprocesses=2"));
    node.mfserv(&["scale", "hello", "--reset"]).code(0);
    assert_eq!((wanted(), std::fs::read_to_string(&file).unwrap().lines().count()), (1, 3));
    let said = node.mfserv(&["scale", "hello", "--reset"]).code(0);
    assert!(said.stderr.contains("has written nothing"), "{said:?}");
    std::fs::write(&file, "[app_main\n").unwrap();
    node.mfserv(&["scale", "hello", "2"]).code(4);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "[app_main\n");
    node.stop();
    let said = node.mfserv(&["uninstall", "hello"]).code(0);
    assert_eq!(said.stdout, "hello is uninstalled\n");
}

#[test]
fn status_shows_where_each_app_answers_and_no_path_of_what_has_none() {
    let _turn = Turn::cheap();
    let node = node();
    let serve = "python3 -u {plugin_dir}/main.py {unix_socket_path}";
    let plugin = mfserv_testkit::Plugin::python("several", mfserv_testkit::programs::SERVES)
        .app("admin", serve)
        .key("extra_daemon_queue", "_cmd_and_args", "sleep 600");
    node.add(&plugin);
    node.start();
    let shown = node.mfserv(&["status"]).code(0).stdout;
    let path = |row: &str| {
        let line = shown.lines().find(|line| line.starts_with(row));
        let last = line.and_then(|line| line.split_whitespace().last());
        last.filter(|word| word.starts_with('/')).map(str::to_owned)
    };
    assert_eq!(path("app.several.admin").as_deref(), Some("/several/admin"), "{shown}");
    assert_eq!(path("app.several.main").as_deref(), Some("/several"), "{shown}");
    assert_eq!(path("extra.several.queue"), None, "{shown}");
    assert_eq!(path("welcome").as_deref(), Some("/welcome"), "{shown}");
    node.stop();
}

#[test]
fn words_of_other_tools_directories_without_a_plugin_and_ids_of_requests_get_advice() {
    let _turn = Turn::cheap();
    let node = node();
    for (word, here) in [("create", "`mfserv new NAME`"), ("push", "`mfserv deploy DIR`")] {
        let said = node.mfserv(&[word, "shop"]).code(2).stderr;
        assert!(said.contains(&format!("no command {word}")) && said.contains(here), "{said}");
    }
    node.mfserv(&["scael"]).code(2);
    let shop = node.path("shop");
    std::fs::create_dir_all(&shop).unwrap();
    for (command, here) in [
        ("dev", "a Procfile"),
        ("deploy", "a Procfile"),
        ("check", "a Procfile"),
        ("release", "a Procfile"),
    ] {
        let said = node.mfserv(&[command, &shop.to_string_lossy()]).stderr;
        assert!(said.contains("`mfserv new NAME`") && said.contains(here), "{command}: {said}");
    }
    node.start();
    let answer = node.get("/nothing");
    let id = answer.field("x-request-id").unwrap().to_string();
    mfserv_testkit::until("the request is logged", crate::PATIENCE, || {
        node.log_lines("nginx_access").iter().any(|line| line.contains(&id))
    });
    let said = node.mfserv(&["logs", &id]).code(1).stderr;
    assert!(said.contains("is a request") && said.contains("mfserv logs --request"), "{said}");
    let said = node.mfserv(&["logs", "0123456789abcdef"]).code(2).stderr;
    assert!(said.contains("no log of 0123456789abcdef"), "{said}");
    node.stop();
}
