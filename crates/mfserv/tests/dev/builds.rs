//! Apps with a build script are built again at each edit, by the real tools; what was built before
//! serves until the new build is done, and goes on serving if it fails.

use mfserv_testkit::{Load, until};

use super::terminal::Session;
use super::{renewals, until_served};
use crate::apps::{built_script, edit, example, example_with_packages};
use crate::{PATIENCE, Turn, node};

#[test]
fn a_site_is_built_at_each_edit_and_a_build_that_fails_leaves_the_last_one() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = example_with_packages(&node, "spa");
    // As many tools do, it begins with nothing.
    edit(&dir, "package.json", "\"build\": \"", "\"build\": \"rm -rf dist && ");
    let session = Session::start(&node, &dir, &["--follow"]);
    session.until_said("what you save is built");
    let has = |text: &str| built_script(&node).contains(text);
    assert!(has("one"));
    let load = Load::new(node.address(), "/").connections(2).start();
    load.answers(20);
    edit(&dir, "src/routes.js", "one", "two");
    session.until_said("src/routes.js changed: building\n");
    session.until_said("build | ");
    session.until_said("built after");
    assert!(has("two"), "it is served as soon as it is built");

    edit(&dir, "src/routes.js", "const pages = {", "const pages = {{");
    session.until_said("npm run build failed: it ended with exit code 1; what was built before");
    assert!(session.said().contains("build | ") && session.said().contains("routes.js:"));
    assert!(has("two"), "what was built before");
    edit(&dir, "src/routes.js", "const pages = {{", "const pages = {");
    edit(&dir, "src/routes.js", "two", "three");
    until("it is mended", PATIENCE, || has("three"));
    load.stop().assert_nothing_failed();
    let said = session.interrupt();
    assert_eq!(said.matches("changed: building").count(), 3, "a build is no edit: {said}");
    assert!(has("three"), "it goes on without the terminal");
    // Detached, it is served from where anybody builds it.
    node.mfserv(&["dev", "--detach", dir.to_str().unwrap()]).code(0);
    edit(&dir, "src/routes.js", "three", "four");
    let mut by_hand = std::process::Command::new("npm");
    assert!(by_hand.args(["run", "build"]).current_dir(&dir).output().unwrap().status.success());
    assert!(has("four"));
    let session = Session::start(&node, &dir, &["--follow"]);
    session.until_said("what you save is built");
    assert!(has("four"));
    session.interrupt();
    node.stop();
}

#[test]
fn a_server_is_built_at_each_edit_and_its_workers_follow_the_build() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = example_with_packages(&node, "express");
    let text = "src/text.ts";
    let session = Session::start(&node, &dir, &["--follow"]);
    session.until_said("what you save is built");
    until("it serves", PATIENCE, || node.get("/express").text().contains("An Express app"));
    let load = Load::new(node.address(), "/express/version").connections(4).start();
    load.answers(20);
    let before = renewals(&node, "express");
    edit(&dir, text, "An Express app", "Another text");
    session.until_said(&format!("{text} changed: building"));
    session.until_said("serves the new code after");
    assert!(node.get("/express").text().contains("Another text"));
    assert_eq!(renewals(&node, "express"), before + 1, "the edit alone renews nobody");

    // It is built, and does not start: the old code serves, and the terminal shows why.
    edit(&dir, text, "export const", "throw new Error(\"no luck\");\nexport const");
    session.until_said("no luck");
    session.until_said("the old code goes on serving");
    assert!(node.get("/express").text().contains("Another text"));
    edit(&dir, text, "throw new Error(\"no luck\");\n", "");
    edit(&dir, text, "Another text", "A third text");
    until("it is mended", PATIENCE, || node.get("/express").text().contains("A third text"));
    load.stop().assert_nothing_failed();
    session.interrupt();
    // Without a session nothing is built: the node follows the files themselves.
    let before = renewals(&node, "express");
    edit(&dir, text, "A third text", "A fourth text");
    until("the workers are renewed", PATIENCE, || renewals(&node, "express") > before);
    node.stop();
}

#[test]
fn templates_styles_and_pages_of_a_site_are_served_as_they_are_saved() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let flask = example(&node, "flask");
    node.mfserv(&["dev", "--detach", flask.to_str().unwrap()]).code(0);
    std::fs::write(flask.join("static/style.css"), "p { color: teal }\n").unwrap();
    assert_eq!(node.get("/static/style.css").text(), "p { color: teal }\n");
    std::fs::write(flask.join("templates/index.html"), "<p>saved</p>\n").unwrap();
    until_served(&node, "flask/", "<p>saved</p>");

    let site = node.path("apps/site");
    std::fs::create_dir_all(&site).unwrap();
    std::fs::write(site.join("index.html"), "<p>one").unwrap();
    let session = Session::start(&node, &site, &["--follow"]);
    session.until_said("what you save is served at once");
    assert_eq!(node.get("/site/").text(), "<p>one");
    std::fs::write(site.join("index.html"), "<p>two").unwrap();
    assert_eq!(node.get("/site/").text(), "<p>two");
    session.interrupt();
    node.stop();
}

/// Its build says that it has begun, reads the source, and waits as long as `hold` is there. The
/// server writes into its own directory when it starts.
const BUILD: &str = r#"const fs = require("fs");
const text = fs.readFileSync("server.src.js");
fs.appendFileSync("../begun", "x");
while (fs.existsSync("../hold")) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
fs.mkdirSync("dist", { recursive: true });
fs.mkdirSync("lib", { recursive: true });
fs.writeFileSync(`lib/chunk-${Date.now()}.js`, "");
fs.writeFileSync("dist/server.js", text);
"#;
const SERVER: &str = r#"require("fs").appendFileSync("server.log", "started\n");
if (process.env.WRITES) require("fs").appendFileSync("visits.txt", "started\n");
require("http").createServer((_, answer) => answer.end("one")).listen(process.env.PORT);
"#;

pub(super) fn slow(node: &mfserv_testkit::Node) -> std::path::PathBuf {
    let dir = node.path("apps/slow");
    std::fs::create_dir_all(&dir).unwrap();
    let package = r#"{"name": "slow", "scripts": {"build": "node build.js", "start": "node dist/server.js"}}"#;
    for (file, text) in [("package.json", package), ("build.js", BUILD), ("server.src.js", SERVER)]
    {
        std::fs::write(dir.join(file), text).unwrap();
    }
    dir
}

#[test]
fn what_is_saved_during_builds_is_built_after_them_each_time_and_from_the_first_one_on() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = slow(&node);
    let hold = node.path("apps/hold");
    let begun = || std::fs::read(node.path("apps/begun")).map_or(0, |all| all.len());
    std::fs::write(&hold, "").unwrap();
    let session = Session::start(&node, &dir, &["--follow"]);
    until("the first build runs", PATIENCE, || begun() == 1);
    edit(&dir, "server.src.js", "\"one\"", "\"two\"");
    std::fs::remove_file(&hold).unwrap();
    until_served(&node, "slow", "two");
    for (saved, during) in [("three", "four"), ("five", "six"), ("seven", "eight")] {
        let before = begun();
        std::fs::write(&hold, "").unwrap();
        let text = std::fs::read_to_string(dir.join("server.src.js")).unwrap();
        let with = |what: &str| {
            let end = text.find("answer.end(").unwrap();
            format!("{}answer.end(\"{what}\")).listen(process.env.PORT);\n", &text[..end])
        };
        std::fs::write(dir.join("server.src.js"), with(saved)).unwrap();
        until("a build runs", PATIENCE, || begun() > before);
        std::fs::write(dir.join("server.src.js"), with(during)).unwrap();
        std::fs::remove_file(&hold).unwrap();
        until_served(&node, "slow", during);
    }
    let said = session.interrupt();
    assert_eq!(begun(), 8, "neither logs nor new names of a build are a reason: {said}");
    node.stop();
}

#[test]
fn a_file_that_the_app_writes_at_each_start_is_left_out_after_a_few_builds_and_said_once() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = slow(&node);
    std::fs::write(dir.join(".env"), "WRITES=1\n").unwrap();
    let session = Session::start(&node, &dir, &["--follow"]);
    until_served(&node, "slow", "one");
    edit(&dir, "server.src.js", "\"one\"", "\"two\"");
    session.until_said("visits.txt changes with each build: it is taken for a file that the build");
    edit(&dir, "server.src.js", "\"two\"", "\"three\"");
    until_served(&node, "slow", "three");
    let said = session.interrupt();
    assert!(said.matches("changed: building").count() < 8, "{said}");
    assert_eq!(said.matches("visits.txt changes with each build").count(), 1, "{said}");
    node.stop();
}

#[test]
fn a_node_that_is_started_after_a_session_follows_the_files_of_the_app_itself() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = slow(&node);
    let session = Session::start(&node, &dir, &["--follow"]);
    session.until_said("what you save is built");
    let said = session.interrupt();
    assert!(said.contains("it was started for this alone"), "{said}");
    node.start();
    until_served(&node, "slow", "one");
    edit(&dir, "dist/server.js", "\"one\"", "\"by hand\"");
    edit(&dir, "server.src.js", "\"one\"", "\"two\"");
    until_served(&node, "slow", "by hand");
    node.stop();
}

#[test]
fn as_long_as_a_session_builds_an_app_no_other_command_builds_it_and_the_reason_is_said() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = slow(&node);
    let session = Session::start(&node, &dir, &["--follow"]);
    session.until_said("what you save is built");
    for how in ["--detach", "--follow"] {
        let ran = node.mfserv(&["dev", how, dir.to_str().unwrap()]);
        assert!(ran.code != 0 && ran.stderr.contains("a `mfserv dev` builds it"), "{ran:?}");
    }
    edit(&dir, "server.src.js", "\"one\"", "\"two\"");
    until_served(&node, "slow", "two");
    session.interrupt();
    let ran = node.mfserv(&["dev", "--detach", dir.to_str().unwrap()]).code(0);
    assert!(ran.stdout.contains("its build does not run again at edits"), "{ran:?}");
    node.stop();
}
