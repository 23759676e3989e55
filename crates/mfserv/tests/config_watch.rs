//! Configuration files are applied when they change, and only what changed is touched.

mod matrix;
mod site;

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use mfserv_core::event::Fact;
use mfserv_testkit::{Load, Node, Plugin, programs, until};

use crate::install::release;
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

/// A package whose app says in which edition it is.
fn package(node: &Node, name: &str, edition: &str) -> PathBuf {
    let plugin = Plugin::python(name, programs::SERVES)
        .key("general", "_version", edition)
        .key("custom", "edition", edition);
    release(node, &plugin.write(&node.path("work")))
}

fn edition(node: &Node) -> String {
    let env = node.get("/dropped/env").text();
    let found = env.split("MFSERV_CURRENT_PLUGIN_CUSTOM_EDITION\": \"").nth(1);
    found.and_then(|rest| rest.split('"').next()).unwrap_or_default().into()
}

/// When each operation began that concerns a file of this name.
fn installations(node: &Node, name: &str) -> Vec<u64> {
    let began =
        |fact: Fact| matches!(fact, Fact::OperationBegan { what, .. } if what.ends_with(name));
    let events = node.events().into_iter();
    events.filter(|event| began(event.fact.clone())).map(|event| event.at_ms).collect()
}

/// Puts a copy of a file in its place whole.
fn put(node: &Node, from: &Path, place: &Path) {
    let beside = node.path("beside");
    fs::copy(from, &beside).unwrap();
    fs::rename(&beside, place).unwrap();
}

/// The last of them is the build that serves now: it is installed again, after the other one.
fn the_last_of_two_packages_of_a_plugin_stays(node: &Node, site: &Path, packages: [&Path; 2]) {
    for (from, name) in packages.into_iter().zip(["dropped-1.plugin", "dropped-2.plugin"]) {
        put(node, from, &site.join(name));
    }
    until("the last one was installed", PATIENCE, || {
        !installations(node, "dropped-2.plugin").is_empty() && edition(node) == "1"
    });
    assert_eq!(installations(node, "dropped-1.plugin").len(), 1);
}

#[test]
fn a_package_that_is_put_into_the_directory_of_the_site_is_installed_once_it_is_complete() {
    let _turn = Turn::heavy();
    let node = node();
    node.set("autorestart.configuration", "1");
    node.add(&Plugin::python("quiet", programs::SERVES));
    let site = node.path("site/mfserv/plugins");
    fs::create_dir_all(&site).unwrap();
    fs::copy(package(&node, "early", "1"), site.join("early.plugin")).unwrap();
    let (one, two) = (package(&node, "dropped", "1"), package(&node, "dropped", "2"));
    node.start();
    let quiet = node.pids("app.quiet.main");
    let load = Load::new(node.address(), "/quiet").connections(4).start();
    load.answers(20);

    // Half of it, whose writer goes on, is not touched, however long that takes.
    let (target, bytes) = (site.join("dropped.plugin"), fs::read(&one).unwrap());
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    let mut writer = fs::File::create(&target).unwrap();
    writer.write_all(first).unwrap();
    fs::write(node.path("junk"), "this is no package").unwrap();
    fs::rename(node.path("junk"), site.join("junk.plugin")).unwrap();
    let said = || node.mfserv(&["status"]);
    until("what is no package is told of", PATIENCE, || said().stderr.contains("junk.plugin"));
    let text = said();
    assert!(text.code == 1 && !text.stderr.contains("dropped"), "{text:?}");
    assert!(text.stderr.contains("goes on"), "{text:?}");
    assert!(installations(&node, "dropped.plugin").is_empty());
    fs::remove_file(site.join("junk.plugin")).unwrap();
    until("it is forgotten", PATIENCE, || said().code == 0);

    writer.write_all(rest).unwrap();
    drop(writer);
    let complete_ms = mfserv_platform::clock::now_ms();
    until("it is installed", PATIENCE, || node.get("/dropped").status == 200);
    let began = installations(&node, "dropped.plugin");
    assert!(began.len() == 1 && began[0] < complete_ms + 2_000, "{began:?} {complete_ms}");
    assert_eq!(edition(&node), "1");

    let both = Load::new(node.address(), "/dropped").connections(4).start();
    put(&node, &two, &target);
    until("the other build serves", PATIENCE, || edition(&node) == "2");
    // A newer daemon knows what was handled, and what failed.
    fs::write(node.path("junk"), &bytes[..bytes.len() - 9]).unwrap();
    fs::rename(node.path("junk"), &target).unwrap();
    until("the broken one is told of", PATIENCE, || said().stderr.contains("dropped.plugin"));
    node.kill(node.role_pid("daemon"));
    until("it is told of again", PATIENCE, || {
        node.try_status().is_some() && said().stderr.contains("dropped.plugin")
    });
    fs::write(&target, &bytes).unwrap();
    until("the first build serves again", PATIENCE, || edition(&node) == "1");
    assert_eq!(installations(&node, "dropped.plugin").len(), 3);
    the_last_of_two_packages_of_a_plugin_stays(&node, &site, [&two, &one]);
    assert!(installations(&node, "early.plugin").is_empty(), "it was there at the start");
    both.stop().assert_nothing_failed();
    load.stop().assert_nothing_failed();
    assert_eq!(node.pids("app.quiet.main"), quiet);
    node.stop();
}
