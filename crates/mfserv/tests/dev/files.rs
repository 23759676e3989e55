//! Which changes of files are noticed, and what an edit brings.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use mfserv_core::event::Fact;
use mfserv_testkit::{Load, programs, until};

use super::{
    developing, edition, get_with, problems, renewals, save, until_renewed, until_said,
    until_served, watched,
};
use crate::{PATIENCE, Turn};

#[test]
fn a_file_that_is_renamed_into_place_and_one_in_a_new_directory_are_served() {
    let _turn = Turn::cheap();
    let (node, dir) = developing(&watched("saved"));
    until_served(&node, "saved", "first");
    save(&dir.join("main.py"), &edition("second"));
    until_served(&node, "saved", "second");

    let text = edition("third").replace("import json", "import json\nfrom new.deep import names");
    std::fs::create_dir_all(dir.join("new/deep")).unwrap();
    std::fs::write(dir.join("new/deep/names.py"), "edition = 'made'\n").unwrap();
    save(&dir.join("main.py"), &text.replace("\"third", "names.edition + \""));
    until_served(&node, "saved", "made edition");
    // A directory that was moved is watched where it is now, and what is in it.
    std::fs::rename(dir.join("new"), dir.join("old")).unwrap();
    std::fs::rename(dir.join("old"), dir.join("new")).unwrap();
    until_served(&node, "saved", "made edition");
    std::fs::write(dir.join("new/deep/names.py"), "edition = 'moved'\n").unwrap();
    until_served(&node, "saved", "moved edition");
    node.stop();
}

#[test]
fn what_the_rules_exclude_renews_nothing_and_other_rules_are_obeyed_at_once() {
    let _turn = Turn::cheap();
    let (node, dir) = developing(&watched("ruled"));
    std::fs::create_dir_all(dir.join("ignored/deep")).unwrap();
    std::fs::write(dir.join("ignored/deep/x.py"), "x = 1\n").unwrap();
    std::fs::write(dir.join("notes.txt"), "no code\n").unwrap();
    save(&dir.join("main.py"), &edition("second"));
    until_served(&node, "ruled", "second");
    until_renewed(&node, "ruled", 1);
    let changed = |node: &mfserv_testkit::Node| -> Vec<String> {
        let facts = node.events().into_iter().map(|event| event.fact);
        let files = facts.filter_map(|fact| match fact {
            Fact::FilesChanged { files, .. } => Some(files),
            _ => None,
        });
        files.flatten().collect()
    };
    assert_eq!(changed(&node), ["main.py"]);

    std::fs::write(dir.join(".autorestart_excludes"), "main.py\n").unwrap();
    until_renewed(&node, "ruled", 2);
    std::fs::write(dir.join("ignored/deep/x.py"), "x = 2\n").unwrap();
    until_renewed(&node, "ruled", 3);
    save(&dir.join("main.py"), &edition("third"));
    std::fs::write(dir.join("ignored/deep/x.py"), "x = 3\n").unwrap();
    until_renewed(&node, "ruled", 4);
    let files = changed(&node);
    assert_eq!(files[1..], [".autorestart_excludes", "ignored/deep/x.py", "ignored/deep/x.py"]);
    node.stop();
}

#[test]
fn five_hundred_files_at_once_are_one_renewal() {
    let _turn = Turn::cheap();
    let (node, dir) = developing(&watched("checkout"));
    until_served(&node, "checkout", "first");
    for number in 0..500 {
        let dir = dir.join(format!("package{}", number % 20));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(format!("module{number}.py")), "x = 1\n").unwrap();
    }
    save(&dir.join("main.py"), &edition("second"));
    until_served(&node, "checkout", "second");
    until_renewed(&node, "checkout", 1);
    node.settled("app.checkout.main");
    // A machine that stops this test for a while makes two checkouts of it.
    assert!(renewals(&node, "checkout") <= 2);
    node.stop();
}

#[test]
fn of_edits_during_a_renewal_the_newest_wins_and_no_queue_grows() {
    let _turn = Turn::cheap();
    // Slower to start than the edits come.
    let slow = |edition: &str| format!("import time\ntime.sleep(0.5)\n{edition}");
    let plugin = watched("often").key("app_main", "smart_stop_signal", "2");
    let (node, dir) = developing(&plugin.file("main.py", &slow(&edition("first"))));
    until_served(&node, "often", "first");
    // Who saves all the time sees something new too, however long a renewal takes.
    let sees_nothing_new =
        |began: Instant| renewals(&node, "often") < 2 && began.elapsed() < PATIENCE;
    let began = Instant::now();
    let mut saved = 0;
    while began.elapsed() < Duration::from_secs(5) || sees_nothing_new(began) {
        saved += 1;
        save(&dir.join("main.py"), &slow(&edition(&format!("number {saved}"))));
        // The pace of the edits: faster than a renewal.
        std::thread::sleep(Duration::from_millis(70));
        let living = node.try_status().map_or(0, |status| {
            let own = status.watchers.iter().find(|w| w.name.as_str() == "app.often.main");
            own.map_or(0, |watcher| watcher.workers.len())
        });
        assert!(living <= 8, "{living} workers of an app that has two");
    }
    let during = renewals(&node, "often");
    assert!(during >= 2, "{during} renewals for {saved} edits");
    until_served(&node, "often", &format!("number {saved} "));
    // What was being tried at the last edit, and that edit.
    let behind = renewals(&node, "often") - during;
    assert!(behind <= 2, "{behind} renewals behind the last of {saved} edits");
    let settled = node.settled("app.often.main");
    assert_eq!((problems(&node), settled.crashes), (Vec::new(), 0));
    let interrupted = |line: &String| line.contains("time.sleep(0.5)");
    let lines = node.log_lines("app_often_main");
    assert!(!lines.iter().any(interrupted), "what was given up tells of it: {lines:?}");
    node.stop();
}

#[test]
fn an_edit_is_not_lost_when_other_plugins_are_reloaded_while_it_is_tried() {
    let _turn = Turn::cheap();
    let slow = |edition: &str| format!("import time\ntime.sleep(3)\n{edition}");
    let (node, dir) = developing(&watched("tried").file("main.py", &slow(&edition("first"))));
    save(&dir.join("main.py"), &slow(&edition("second")));
    let mut others = 0;
    while renewals(&node, "tried") == 0 {
        others += 1;
        assert!(others < 200, "it is never renewed");
        node.add(&watched("other").key("custom", "number", &others.to_string()));
        node.mfserv(&["reload", "--no-wait"]).code(0);
    }
    assert!(others > 1, "nothing happened in between");
    until_served(&node, "tried", "second");
    // The other one is still being renewed: what is being tried does not outlive a stop.
    let began = Instant::now();
    node.stop();
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

#[test]
fn a_changed_configuration_is_served_with_the_changed_code() {
    let _turn = Turn::cheap();
    let (node, dir) = developing(&watched("configured"));
    save(&dir.join("main.py"), &edition("second"));
    node.add(
        &watched("configured").file("main.py", &edition("second")).key("custom", "colour", "green"),
    );
    until("both are served", PATIENCE, || {
        node.get("/configured").text().starts_with("second")
            && node.get("/configured/env").text().contains("CUSTOM_COLOUR\": \"green\"")
    });
    let broken = watched("configured").key("app_main", "numprocesses", "many");
    std::fs::write(dir.join("config.ini"), broken.key("app_main", "_no_such", "1").config_text())
        .unwrap();
    until_said(&node, "_no_such");
    assert!(node.get("/configured").text().starts_with("second"));
    let page = get_with(&node, "/configured", &[("Sec-Fetch-Dest", "document")]);
    assert!(page.text().contains("the configuration of configured is refused"), "{page:?}");
    assert!(page.text().contains("_no_such"), "{}", page.text());
    node.stop();
}

#[test]
fn a_directory_that_is_deleted_goes_on_serving_and_is_served_anew_when_it_is_back() {
    let _turn = Turn::heavy();
    let (node, dir) = developing(&watched("deleted"));
    node.add(&watched("quiet"));
    node.mfserv(&["reload"]).code(0);
    let (pids, quiet) = (node.pids("app.deleted.main"), node.pids("app.quiet.main"));
    let load = Load::new(node.address(), "/deleted").also("/quiet").connections(8).start();
    let away = node.path("away");
    std::fs::rename(&dir, &away).unwrap();
    let said = until_said(&node, "the directory of plugin deleted has gone");
    assert!(said.contains(&*dir.to_string_lossy()) && said.contains("put it back"), "{said}");
    assert_eq!(node.get("/deleted").status, 200);
    assert_eq!(node.pids("app.deleted.main"), pids);
    let status = node.mfserv(&["status"]);
    assert!(status.stdout.contains("last good"), "{status:?}");
    assert!(status.stderr.contains("has gone"), "{status:?}");

    std::fs::write(away.join("main.py"), edition("second")).unwrap();
    std::fs::rename(&away, &dir).unwrap();
    until_served(&node, "deleted", "second");
    save(&dir.join("main.py"), &edition("third"));
    until_served(&node, "deleted", "third");
    assert_eq!(node.pids("app.quiet.main"), quiet);
    load.stop().assert_nothing_failed();
    node.stop();
}

/// How many directories a process watches by inotify.
fn watches_of(pid: u32) -> usize {
    let files = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten();
    let texts = files.map(|file| std::fs::read_to_string(file.path()).unwrap_or_default());
    texts.map(|text| text.lines().filter(|line| line.starts_with("inotify ")).count()).sum()
}

#[test]
fn without_room_in_inotify_files_are_looked_at_and_that_is_said() {
    let _turn = Turn::cheap();
    let node = crate::node();
    let dir = node.add(&watched("crowded").file("deep/er/x.py", "x = 1\n"));
    // A user namespace has limits of its own, for who may make one.
    let start = node.command(&["start"]);
    let program = start.get_program().to_owned();
    let limited = "echo 2 > /proc/sys/user/max_inotify_watches && exec \"$0\" start";
    let mut inside = Command::new("unshare");
    inside.args(["-U", "-r", "sh", "-c", limited]).arg(program).process_group(0);
    inside.envs(start.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let output = inside.output();
    if !output.as_ref().is_ok_and(|output| output.status.success()) {
        println!("left out: this machine gives no user namespace: {output:?}");
        return;
    }
    let said = until_said(&node, "changed files may be seen late");
    assert!(said.contains("sysctl -w fs.inotify.max_user_watches"), "{said}");
    save(&dir.join("main.py"), &edition("second"));
    until_served(&node, "crowded", "second");
    std::fs::write(dir.join("deep/er/x.py"), "x = 2\n").unwrap();
    until_renewed(&node, "crowded", 2);
    std::fs::create_dir_all(dir.join("deep/est")).unwrap();
    std::fs::write(dir.join("deep/est/y.py"), programs::SERVES).unwrap();
    until_renewed(&node, "crowded", 3);
    std::fs::write(dir.join("deep/est/y.py"), "y = 2\n").unwrap();
    until_renewed(&node, "crowded", 4);

    let daemon = node.role_pid("daemon");
    assert_eq!(watches_of(daemon), 2);
    let raised = ["-U", "sh", "-c", "echo 99 > /proc/sys/user/max_inotify_watches"];
    let target = daemon.to_string();
    let raised = Command::new("nsenter").args(["-t", &target]).args(raised).status().unwrap();
    assert!(raised.success());
    node.mfserv(&["reload"]).code(0);
    assert_eq!(watches_of(daemon), 4, "the plugin, deep, deep/er and deep/est");
    assert_eq!(problems(&node).len(), 1, "said once: {:?}", problems(&node));
    node.stop();
}

#[test]
fn an_edit_behind_a_link_is_served_in_each_plugin_that_has_one() {
    let _turn = Turn::cheap();
    let (node, one) = developing(&watched("one"));
    let shared = one.parent().unwrap().join("shared");
    std::fs::create_dir_all(shared.join("deep")).unwrap();
    std::fs::write(shared.join("deep/__init__.py"), "edition = 'first'\n").unwrap();
    std::fs::write(shared.join("__init__.py"), "").unwrap();
    std::fs::write(shared.join("single.py"), "edition = 'alone'\n").unwrap();
    // A link back to the plugin is no way round and round.
    std::os::unix::fs::symlink(&one, shared.join("back")).unwrap();
    let two = watched("two").write(one.parent().unwrap());
    for (name, dir) in [("one", &one), ("two", &two)] {
        std::os::unix::fs::symlink("../shared", dir.join("library")).unwrap();
        std::os::unix::fs::symlink("../shared/single.py", dir.join("single.py")).unwrap();
        let text = edition("here")
            .replace("import json", "import json\nimport single\nfrom library import deep");
        save(&dir.join("main.py"), &text.replace("\"here", "single.edition + deep.edition + \""));
        node.mfserv(&["dev", &dir.to_string_lossy(), "--detach"]).code(0);
        until_served(&node, name, "alonefirst");
    }
    let both =
        |text: &str| ["one", "two"].into_iter().for_each(|name| until_served(&node, name, text));
    std::fs::write(shared.join("deep/__init__.py"), "edition = 'second'\n").unwrap();
    both("alonesecond");
    // An editor that renames, and a file that is new.
    std::fs::write(shared.join("single.new"), "edition = 'other'\n").unwrap();
    std::fs::rename(shared.join("single.new"), shared.join("single.py")).unwrap();
    both("othersecond");
    // The link leads elsewhere, and there an edit is seen too.
    let other = shared.with_file_name("other");
    std::fs::create_dir_all(other.join("deep")).unwrap();
    std::fs::write(other.join("__init__.py"), "").unwrap();
    std::fs::write(other.join("deep/__init__.py"), "edition = 'third'\n").unwrap();
    std::os::unix::fs::symlink("../other", one.join("new")).unwrap();
    std::fs::rename(one.join("new"), one.join("library")).unwrap();
    until_served(&node, "one", "otherthird");
    std::fs::write(other.join("deep/__init__.py"), "edition = 'fourth'\n").unwrap();
    until_served(&node, "one", "otherfourth");
    until_served(&node, "two", "othersecond");
    node.stop();
}
