//! Configuration files are applied when they change, and only what changed is touched.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use mfserv_testkit::{Load, Node, Plugin, programs, until};

use crate::{PATIENCE, Turn, node};

/// Ways to change a file.
#[derive(Debug, Clone, Copy)]
enum How {
    InPlace,
    RenameOver,
}

fn write(how: How, path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    match how {
        How::InPlace => fs::write(path, text).unwrap(),
        How::RenameOver => {
            let beside = path.with_extension("new~");
            fs::write(&beside, text).unwrap();
            fs::rename(&beside, path).unwrap();
        }
    }
}

fn workers(count: u32) -> String {
    format!("[app_main]\nnumprocesses={count}\n")
}

#[track_caller]
fn has(node: &Node, count: u32) {
    until(&format!("changing has {count} workers"), PATIENCE, || {
        node.try_status().is_some_and(|status| {
            let watcher = status.watchers.iter().find(|w| w.name.as_str() == "app.changing.main");
            watcher.is_some_and(|watcher| watcher.wanted == count && watcher.ready == count)
        })
    });
}

#[test]
fn every_file_that_decides_the_plan_is_applied_when_it_changes_and_nothing_else_is_touched() {
    let _turn = Turn::heavy();
    let node = node();
    node.set("autorestart.configuration", "1");
    for name in ["changing", "quiet"] {
        node.add(&Plugin::python(name, programs::SERVES));
    }
    // As the templates have it: its config.ini is left to what renews its workers.
    node.add(&Plugin::python("made", programs::SERVES).file(".autorestart_includes", "*.ini\n"));
    // The site's directory does not exist yet.
    fs::remove_dir_all(node.path("site")).ok();
    node.start();
    let quiet = node.pids("app.quiet.main");
    let load = Load::new(node.address(), "/quiet").also("/changing").connections(4).start();
    load.answers(20);

    a_crontab_is_read(&node);
    let own = node.path("config/plugins/changing.ini");
    let site = node.path("site/mfserv/plugins/changing.ini");
    let plugin = node.path("var/plugins/changing/config.ini");
    let its = Plugin::python("changing", programs::SERVES).key("app_main", "numprocesses", "2");
    // The plugin's own file, then an override of the node, then one of the site, which wins.
    let steps: [(&PathBuf, String, u32); 3] =
        [(&plugin, its.config_text(), 2), (&own, workers(3), 3), (&site, workers(2), 2)];
    for (path, text, count) in &steps {
        write(How::InPlace, path, text);
        has(&node, *count);
    }
    write(How::RenameOver, &site, &workers(1));
    has(&node, 1);
    links_are_followed(&node, &own);
    // What a command writes is in force already, and stays.
    node.mfserv(&["scale", "changing", "3"]).code(0);
    write(How::InPlace, &node.path("config/plugins/other.ini"), &workers(9));
    a_broken_file_leaves_what_was_in_force(&node);
    has(&node, 3);

    assert_eq!(node.pids("app.quiet.main"), quiet);
    load.stop().assert_nothing_failed();
    node.set("autorestart.configuration", "0");
    until("the last change was read", PATIENCE, || {
        fs::read_to_string(node.path("var/run/plan.json"))
            .is_ok_and(|plan| plan.contains("\"watches_configuration\":false"))
    });
    write(How::RenameOver, &own, &workers(1));
    let ran = node.mfserv(&["reload"]).code(0);
    assert!(ran.stdout.contains("changing"), "nobody else has applied it: {ran:?}");
    node.stop();
}

fn a_broken_file_leaves_what_was_in_force(node: &Node) {
    let file = node.path("config/config.ini");
    let good = fs::read_to_string(&file).unwrap();
    write(How::RenameOver, &file, &format!("{good}\n[misc]\ncore_size = many\n"));
    until("the broken file is told of", PATIENCE, || node.mfserv(&["status"]).code == 1);
    let said = node.mfserv(&["status"]);
    let text = format!("{}{}", said.stdout, said.stderr);
    assert!(text.contains("core_size") && text.contains("goes on"), "{text}");
    write(How::InPlace, &file, &good);
    until("it is mended", PATIENCE, || node.mfserv(&["status"]).code == 0);
}

fn a_crontab_is_read(node: &Node) {
    let crontab = node.path("var/plugins/made/crontab");
    let jobs = || node.mfserv(&["jobs"]).code(0).stdout;
    write(How::InPlace, &crontab, "5 4 * * * true\n");
    until("its line is a job", PATIENCE, || jobs().contains("made.crontab:1"));
    fs::remove_file(&crontab).unwrap();
    until("the job is gone", PATIENCE, || !jobs().contains("made.crontab:1"));
}

/// The file of the site says 1, the own one 3, the plugin 2.
fn links_are_followed(node: &Node, own: &Path) {
    // The site's directory is a link, which is replaced as a whole.
    fs::rename(node.path("site/mfserv"), node.path("site/one")).unwrap();
    symlink("one", node.path("site/mfserv")).unwrap();
    write(How::InPlace, &node.path("site/two/plugins/changing.ini"), &workers(2));
    symlink("two", node.path("site/other")).unwrap();
    fs::rename(node.path("site/other"), node.path("site/mfserv")).unwrap();
    has(node, 2);
    write(How::InPlace, &node.path("site/two/plugins/changing.ini"), &workers(1));
    has(node, 1);
    fs::remove_file(node.path("site/two/plugins/changing.ini")).unwrap();
    has(node, 3);
    write(How::RenameOver, &node.path("site/two/plugins/changing.ini"), &workers(1));
    has(node, 1);
    fs::remove_file(node.path("site/two/plugins/changing.ini")).unwrap();
    has(node, 3);
    // A link to a file elsewhere, which is edited there.
    write(How::InPlace, &node.path("elsewhere.ini"), &workers(1));
    fs::remove_file(own).unwrap();
    has(node, 2);
    symlink(node.path("elsewhere.ini"), own).unwrap();
    has(node, 1);
    write(How::RenameOver, &node.path("elsewhere.ini"), &workers(2));
    until("the file behind the link was read", PATIENCE, || {
        node.watcher("app.changing.main").ready == 2
    });
}
