//! The `build` script of an existing app runs when something has changed, and only then.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use mfserv_testkit::{Node, until};
use serde_json::Value;

use crate::{PATIENCE, Turn, node};

/// Writes `dist/server.js`, which answers with the text of `words.txt` and the time of this build.
const BUILD: &str = r#"
const fs = require('fs');
fs.mkdirSync('dist', {recursive: true});
const said = JSON.stringify(fs.readFileSync('words.txt', 'utf8') + ' ' + process.hrtime.bigint());
fs.writeFileSync('dist/server.js',
  `require('http').createServer((_, res) => res.end(${said})).listen(process.env.PORT);`);
"#;
const PACKAGE: &str =
    r#"{"name": "talker", "scripts": {"build": "node build.js", "start": "node dist/server.js"}}"#;

fn talker(node: &Node) -> PathBuf {
    let dir = node.path("sources/talker");
    fs::create_dir_all(&dir).unwrap();
    for (name, text) in [("package.json", PACKAGE), ("build.js", BUILD), ("words.txt", "hello")] {
        fs::write(dir.join(name), text).unwrap();
    }
    dir
}

/// Builds, and returns whether the script has run.
fn ran(node: &Node, dir: &Path, more: &[&str]) -> bool {
    let args = ["build", dir.to_str().unwrap(), "--json"];
    let said = node.mfserv(&[&args, more].concat()).code(0);
    let said: Value = serde_json::from_str(&said.stdout).unwrap();
    !said["command"]["unchanged"].as_bool().unwrap()
}

#[test]
fn a_script_runs_again_when_a_file_or_what_it_has_made_has_changed() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = talker(&node);
    let ran = |more: &[&str]| ran(&node, &dir, more);
    let made = node.path("var/build/talker/main/dist/server.js");
    assert!(ran(&[]) && !ran(&[]) && made.is_file());
    let first = fs::read(&made).unwrap();

    // The same content is the same, whenever it was written.
    fs::write(dir.join("words.txt"), "hello").unwrap();
    assert!(!ran(&[]) && fs::read(&made).unwrap() == first);
    assert!(ran(&["--no-cache"]) && !ran(&[]) && fs::read(&made).unwrap() != first);

    fs::write(dir.join("words.txt"), "other").unwrap();
    assert!(ran(&[]) && !ran(&[]));
    fs::write(dir.join("more.txt"), "").unwrap();
    assert!(ran(&[]) && !ran(&[]), "a new file");
    fs::remove_file(dir.join("more.txt")).unwrap();
    assert!(ran(&[]) && !ran(&[]), "a file that is gone");

    fs::create_dir(dir.join("cache")).unwrap();
    assert!(ran(&[]) && !ran(&[]), "an empty directory");
    assert!(node.path("var/build/talker/main/cache").is_dir());

    fs::remove_file(&made).unwrap();
    assert!(ran(&[]) && made.is_file() && !ran(&[]), "what was made is gone");
    fs::write(&made, "damaged").unwrap();
    assert!(ran(&[]) && fs::read(&made).unwrap() != b"damaged" && !ran(&[]));
}

#[test]
fn a_script_of_an_app_with_a_link_to_another_directory_runs_each_time() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = talker(&node);
    fs::create_dir(node.path("sources/pages")).unwrap();
    let link = dir.join("pages");
    symlink(node.path("sources/pages"), &link).unwrap();
    assert!(ran(&node, &dir, &[]) && ran(&node, &dir, &[]));
    // One that stays inside is as good as what it leads to.
    fs::remove_file(&link).unwrap();
    symlink("words.txt", &link).unwrap();
    assert!(ran(&node, &dir, &[]) && !ran(&node, &dir, &[]));
}

#[test]
fn after_a_script_that_fails_the_same_sources_as_before_it_are_built_again() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = talker(&node);
    assert!(ran(&node, &dir, &[]) && !ran(&node, &dir, &[]));
    fs::write(dir.join("build.js"), "throw new Error('half done')").unwrap();
    let failed = node.mfserv(&["build", dir.to_str().unwrap()]).code(1);
    assert!(failed.stderr.contains("half done"), "{failed:?}");
    fs::write(dir.join("build.js"), BUILD).unwrap();
    assert!(ran(&node, &dir, &[]) && !ran(&node, &dir, &[]));
}

#[test]
fn a_deployment_of_the_same_runs_no_script_and_what_is_served_is_what_was_built() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = talker(&node);
    let path = dir.to_str().unwrap();
    node.mfserv(&["start"]).code(0);
    node.mfserv(&["deploy", path]).code(0);
    let first = node.get("/talker/").text();
    assert!(first.starts_with("hello "), "{first}");
    node.mfserv(&["deploy", path, "--force"]).code(0);
    assert_eq!(node.get("/talker/").text(), first);
    fs::write(dir.join("words.txt"), "changed").unwrap();
    node.mfserv(&["deploy", path]).code(0);
    assert!(node.get("/talker/").text().starts_with("changed "));
    node.mfserv(&["uninstall", "talker"]).code(0);
    let left = || fs::read_dir(node.path("var/build")).unwrap().count();
    assert!(left() >= 2, "the next deployment has less to do");
    node.mfserv(&["deploy", path]).code(0);
    node.mfserv(&["uninstall", "talker"]).code(0);
    node.mfserv(&["uninstall", "talker", "--clean"]).code(0);
    assert_eq!(left(), 0);
    node.mfserv(&["uninstall", "talker", "--clean"]).code(2);
    node.mfserv(&["stop"]).code(0);
    node.assert_nothing_left(None);
}

#[test]
fn in_development_a_start_builds_only_what_has_changed_since_the_last_one() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = talker(&node);
    let path = dir.to_str().unwrap();
    fs::write(dir.join(".gitignore"), "*.local\n").unwrap();
    fs::write(dir.join("app.log"), "").unwrap();
    let said_with = |more: &[&str]| {
        node.mfserv(&[&["dev", "--detach", path], more].concat()).code(0);
        let mut said = String::new();
        until("it answers", PATIENCE, || {
            let answer = node.get("/talker/");
            said = answer.text();
            answer.status == 200
        });
        node.mfserv(&["stop"]).code(0);
        said
    };
    let said = || said_with(&[]);
    let first = said();
    // What an app writes beside its sources is none of them.
    fs::write(dir.join("requests.log"), "GET /").unwrap();
    fs::write(dir.join("app.log"), "it grows").unwrap();
    assert_eq!(said(), first);
    let again = said_with(&["--no-cache"]);
    assert!(again != first && said() == again);
    // Git ignores it, and the script may read it.
    fs::write(dir.join("words.local"), "").unwrap();
    assert_ne!(said(), again);
    fs::write(dir.join("words.txt"), "changed").unwrap();
    let second = said();
    assert!(second.starts_with("changed ") && said() == second);
    fs::remove_dir_all(dir.join("dist")).unwrap();
    assert!(said().starts_with("changed "));
    node.assert_nothing_left(None);
}
