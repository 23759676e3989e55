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
