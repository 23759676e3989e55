//! Plugins of the template `openresty`: Lua that nginx runs, with MFSERV's commands.

use std::path::Path;
use std::time::Duration;

use mfserv_testkit::{Node, get, nginx_with_lua, until};

use super::{target, use_nginx};
use crate::compat::OldNames;
use crate::{Turn, node};

/// How long MFSERV's tests wait for an answer.
const BUDGET: Duration = Duration::from_secs(30);

fn release_and(install: &str, old: &OldNames, dir: &Path) {
    let script = format!("rm -f *.plugin; make release; {install} \"$(ls *.plugin)\"");
    old.run_in(dir, &["sh", "-ec", &script]).code(0);
}

fn answers(node: &Node, path: &str, text: &str) {
    until(text, BUDGET, || {
        let page = get(node.address(), path);
        page.is_ok_and(|page| page.status == 200 && page.text().contains(text))
    });
}

#[test]
fn a_plugin_of_lua_is_made_released_installed_and_replaced_as_with_mfserv() {
    let _turn = Turn::heavy();
    let Some(nginx) = nginx_with_lua(target()) else { return };
    let node = node();
    use_nginx(&node, &nginx);
    let old = OldNames::new(&node);
    old.run(&["mfserv.start"]).code(0);
    let dir = old.create("openresty", "foobar");
    release_and("plugins.install", &old, &dir);
    answers(&node, "/foobar", "Hello World");
    let page = node.get("/foobar/any/thing");
    let id = page.field("x-request-id").unwrap().to_string();
    assert_eq!(page.text(), format!("Hello World, this is request_id: {id}\n"));
    assert_eq!(page.field("content-type"), Some("text/plain"));
    assert_eq!(node.get("/foobarista").status, 404, "the path of another plugin");

    // nginx keeps compiled Lua: what a new release has is read all the same.
    let lua = dir.join("content_by_lua.lua");
    let text = std::fs::read_to_string(&lua).unwrap().replace("Hello World", "Good morning");
    std::fs::write(&lua, text).unwrap();
    release_and("plugins.hotswap", &old, &dir);
    answers(&node, "/foobar", "Good morning");
    old.run(&["mfserv", "rollback", "foobar"]).code(0);
    answers(&node, "/foobar", "Hello World");

    // Under another name it is another plugin, with modules of its own.
    let script = "mfserv install --new-name other \"$(ls *.plugin)\"";
    old.run_in(&dir, &["sh", "-ec", script]).code(0);
    answers(&node, "/other", "Good morning");
    answers(&node, "/foobar", "Hello World");

    // A developed directory is the same plugin.
    old.run(&["plugins.uninstall", "foobar"]).code(0);
    until("nginx has no such location", BUDGET, || node.get("/foobar").status == 404);
    old.run_in(&dir, &["make", "develop"]).code(0);
    answers(&node, "/foobar", "Good morning");
    old.run(&["plugins.uninstall", "foobar"]).code(0);
    until("nginx has no such location", BUDGET, || node.get("/foobar").status == 404);
    answers(&node, "/other", "Good morning");
    old.run(&["mfserv.stop"]).code(0);
}

#[test]
fn a_node_without_nginx_makes_no_plugin_of_lua_and_says_what_one_that_is_brought_lacks() {
    let _turn = Turn::cheap();
    let node = node();
    node.set("front.kind", "embedded");
    let old = OldNames::new(&node);
    let words = ["it is Lua for nginx, and the front of this node is embedded", "kind=nginx in "];
    for (command, code) in [
        (&["mfserv", "new", "--no-input", "--template", "openresty", "foobar"][..], 5),
        (&["bootstrap_plugin.py", "create", "--no-input", "--template=openresty", "foobar"], 1),
    ] {
        let ran = old.run(command).code(code);
        assert!(words.iter().all(|words| ran.stderr.contains(words)), "{ran:?}");
        assert!(!old.work().join("foobar").exists());
    }
    // One that was made elsewhere.
    node.set("front.kind", "nginx");
    let dir = old.create("openresty", "foobar");
    node.set("front.kind", "embedded");
    let ran = node.mfserv(&["check", &dir.display().to_string()]);
    for file in ["init_worker_by_lua.lua", "nginx_extra_server.conf have no effect"] {
        assert!(ran.stdout.contains(file) || ran.stderr.contains(file), "{file}: {ran:?}");
    }
}
