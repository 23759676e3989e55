//! Each watched file, and each way in which it may change.

use std::fs;
use std::path::{Path, PathBuf};

use mfserv_core::event::Fact;
use mfserv_platform::clock::now_ms;
use mfserv_testkit::{Load, Node, Plugin, programs, until};

use super::{How, write};
use crate::{PATIENCE, Turn, node};

/// The longest time from a change to the moment at which it is applied, milliseconds.
const SOON_MS: u64 = 2_000;

/// A file that is watched, and how its content shows.
struct Watched {
    file: PathBuf,
    /// A content that shows as this number.
    text: fn(u32) -> String,
    /// The number that shows; 0 when the file is not there.
    shows: fn(&Node) -> u32,
    /// A content that cannot be applied.
    broken: Option<&'static str>,
}

fn number_in(text: &str, before: &str) -> u32 {
    let rest = text.split(before).nth(1).unwrap_or_default();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

/// Of the module's configuration: a key that no variable of a plugin has.
fn in_shown_config(node: &Node) -> u32 {
    let shown = fs::read_to_string(node.path("tmp/config_auto/config.ini")).unwrap();
    number_in(&shown, "\n_seen = ")
}

fn workers_beyond_one(node: &Node) -> u32 {
    let status = node.try_status().unwrap();
    let main = status.watchers.iter().find(|it| it.name.as_str() == "app.changing.main").unwrap();
    if main.ready == main.wanted { main.wanted - 1 } else { u32::MAX }
}

fn minute_of_job(node: &Node) -> u32 {
    let jobs = node.mfserv(&["jobs", "--json"]).stdout;
    let jobs: serde_json::Value = serde_json::from_str(&jobs).unwrap();
    jobs[0]["schedule"].as_str().map_or(0, |schedule| number_in(schedule, ""))
}

fn in_environment(node: &Node) -> u32 {
    number_in(&node.get("/changing/env").text(), "\"SEEN\": \"")
}

fn count(n: u32) -> String {
    format!("[app_main]\nnumprocesses={}\n", n + 1)
}

fn plugin() -> Plugin {
    Plugin::python("changing", programs::SERVES)
}

fn watched(node: &Node) -> Vec<Watched> {
    let site = node.path("site/mfserv");
    // As messages name it.
    let plugin_dir = node.path("var/plugins/changing");
    let module: fn(u32) -> String = |n| format!("[mine]\n_seen = {n}\n");
    let of_plugin =
        |n: u32| plugin().key("app_main", "numprocesses", &(n + 1).to_string()).config_text();
    let broken_key = Some("[app_main]\nnumprocesses=1\nno_such_key=1\n");
    vec![
        Watched {
            file: site.join("config.ini"),
            text: module,
            shows: in_shown_config,
            broken: Some("[nginx]\nport=eighty\n"),
        },
        Watched {
            file: plugin_dir.join(".layerapi2_extra_env"),
            text: |n| format!("SEEN={n}\n"),
            shows: in_environment,
            broken: None,
        },
        Watched {
            file: plugin_dir.join("crontab"),
            text: |n| format!("{n} 4 1 1 * true\n"),
            shows: minute_of_job,
            broken: Some("61 4 1 1 * true\n"),
        },
        Watched {
            file: plugin_dir.join("config.ini"),
            text: of_plugin,
            shows: workers_beyond_one,
            broken: Some("this is no configuration\n"),
        },
        Watched {
            file: node.path("config/plugins/changing.ini"),
            text: count,
            shows: workers_beyond_one,
            broken: broken_key,
        },
        Watched {
            file: site.join("plugins/changing.ini"),
            text: count,
            shows: workers_beyond_one,
            broken: broken_key,
        },
    ]
}

/// Makes a change, and waits until it shows. Returns how long it took until it was applied,
/// milliseconds.
#[track_caller]
fn applied(node: &Node, of: &Watched, what: &str, shown: u32, change: impl FnOnce()) -> u64 {
    let began_ms = now_ms();
    change();
    let file = of.file.display();
    until(&format!("{file}, {what}, is applied"), PATIENCE, || (of.shows)(node) == shown);
    let is_it = |fact: &Fact| matches!(fact, Fact::Note { text } if text.starts_with("changed configuration: "));
    let events = node.events();
    let event = events.iter().find(|event| event.at_ms >= began_ms && is_it(&event.fact));
    // Values on which no plan depends are applied without an event.
    event.map_or(0, |event| event.at_ms - began_ms)
}

#[test]
fn each_file_is_applied_soon_whichever_way_it_changes_and_other_plugins_are_left_alone() {
    let _turn = Turn::alone();
    let node = node();
    node.set("autorestart.configuration", "1");
    node.add(&plugin());
    node.add(&Plugin::python("quiet", programs::SERVES));
    fs::remove_dir_all(node.path("site")).ok();
    node.start();
    let quiet = node.pids("app.quiet.main");
    let load = Load::new(node.address(), "/quiet").also("/changing").connections(2).start();
    load.answers(20);
    let mut slowest = (0, String::new());
    for of in watched(&node) {
        let original = fs::read_to_string(&of.file).ok();
        let text = of.text;
        let mut took = |what: &str, shown: u32, change: &dyn Fn(&Path)| {
            let ms = applied(&node, &of, what, shown, || change(&of.file));
            slowest = std::cmp::max(slowest.clone(), (ms, format!("{what} {}", of.file.display())));
        };
        took("created or edited in place", 1, &|file| write(How::InPlace, file, &text(1)));
        took("renamed over", 2, &|file| write(How::RenameOver, file, &text(2)));
        if let Some(broken) = of.broken {
            write(How::RenameOver, &of.file, broken);
            let name = of.file.display().to_string();
            until(&format!("{name} is told of"), PATIENCE, || {
                node.mfserv(&["status"]).stderr.contains(&name)
            });
            // (A line of a crontab is left out alone.)
            let goes_on = if name.ends_with("crontab") { 0 } else { 2 };
            assert_eq!((of.shows)(&node), goes_on, "{name}");
        }
        took("mended in place", 3, &|file| write(How::InPlace, file, &text(3)));
        match &original {
            Some(original) => took("as it was", 0, &|file| write(How::InPlace, file, original)),
            None => took("deleted", 0, &|file| fs::remove_file(file).unwrap()),
        }
        assert_eq!(node.mfserv(&["status"]).code, 0, "{}", of.file.display());
        assert_eq!(node.pids("app.quiet.main"), quiet, "{}", of.file.display());
    }
    load.stop().assert_nothing_failed();
    assert!(slowest.0 > 0 && slowest.0 < SOON_MS, "{slowest:?}");
    node.stop();
}
