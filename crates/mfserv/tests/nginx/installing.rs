//! Plugins with fragments are installed: nginx is asked before.

use mfserv_testkit::{Node, Plugin, nginx, programs};

use super::{target, use_nginx};
use crate::compat::OldNames;
use crate::install::release;
use crate::{Turn, node};

/// A node whose front is to be nginx, not started; `None` where nginx cannot be had.
fn to_have_nginx() -> Option<Node> {
    let nginx = nginx(target())?;
    let node = node();
    use_nginx(&node, &nginx);
    Some(node)
}

/// A plugin with a text inside the server.
fn with_server_text(name: &str, text: &str) -> Plugin {
    Plugin::python(name, programs::SERVES)
        .key("general", "_extra_nginx_server_conf_filename", "server.conf")
        .file("server.conf", text)
}

fn packed(node: &Node, plugin: &Plugin) -> String {
    release(node, &plugin.write(&node.path("work"))).to_string_lossy().into_owned()
}

const WRONG: &str = "# a comment\nno_such_directive on;\n";
const RIGHT: &str = "location = /shared { return 200 mine; }\n";

#[test]
fn a_plugin_whose_fragment_nginx_refuses_is_not_installed() {
    let _turn = Turn::heavy();
    let Some(node) = to_have_nginx() else { return };
    let hook = format!("#!/bin/sh\ntouch {}\n", node.path("hook-ran").display());
    let wrong = |text: &str| with_server_text("own", text).file("postinstall", &hook);
    let file = packed(&node, &wrong(WRONG));
    let is_refused = |words: &[&str]| {
        let ran = node.mfserv(&["install", &file]).code(4);
        for words in words.iter().chain(&["nginx refuses what plugin own has for it"]) {
            assert!(ran.stderr.contains(words), "{words}: {ran:?}");
        }
        assert_eq!(node.mfserv(&["releases", "own"]).stdout.lines().count(), 0);
        assert!(!node.path("hook-ran").exists(), "its postinstall did not run");
    };
    let says =
        ["server.conf (in the server): unknown directive \"no_such_directive\" (its line 2)"];
    // Without a node that runs, and with one.
    is_refused(&says);
    node.add(&with_server_text("zzz", RIGHT));
    node.start();
    is_refused(&says);
    let old = OldNames::new(&node);
    let ran = old.run(&["plugins.install", &file]).code(2);
    assert!(ran.stderr.contains("(its line 2)"), "{ran:?}");
    let dir = node.path("work/own").display().to_string();
    let ran = node.mfserv(&["deploy", &dir]).code(4);
    assert!(ran.stderr.contains("(its line 2)"), "{ran:?}");

    // What excludes a fragment in force is refused, not what is in force.
    packed(&node, &wrong(RIGHT));
    is_refused(&["duplicate location \"/shared\" (together with what plugin zzz has)"]);
    assert_eq!(node.get("/shared").text(), "mine");

    // A fragment whose plugin has none of the node's trust is none of nginx's.
    packed(&node, &wrong(WRONG));
    node.set("front.fragments", "zzz");
    node.mfserv(&["reload"]).code(0);
    node.mfserv(&["install", &file]).code(0);
    assert!(node.path("hook-ran").exists());
    assert_eq!((node.get("/own").status, node.get("/shared").status), (200, 200));
    node.stop();
}

#[test]
fn an_installation_does_not_answer_for_the_fragments_of_other_plugins() {
    let _turn = Turn::heavy();
    let Some(node) = to_have_nginx() else { return };
    node.add(&with_server_text("aaa", WRONG));
    // A variable that another plugin brings.
    let brings = Plugin::python("brings", programs::SERVES)
        .key("general", "_extra_nginx_http_conf_filename", "http.conf")
        .file("http.conf", "map $arg_x $brought { default none; one 1; }\n");
    let wants = with_server_text("wants", "location = /x { return 200 \"$brought\"; }\n");
    let file = packed(&node, &wants);
    node.start();
    let ran = node.mfserv(&["install", &file]).code(4);
    assert!(ran.stderr.contains("unknown \"brought\" variable"), "{ran:?}");
    let other = packed(&node, &brings);
    node.mfserv(&["install", &other]).code(0);
    let said = node.mfserv(&["install", &file]).code(0).stderr;
    assert_eq!(node.get("/x?x=one").text(), "1");
    // That one is left out, as it was.
    assert!(said.contains("plugin aaa: server.conf (in the server) is left out"), "{said}");

    // An nginx that cannot be asked is no reason to refuse.
    node.set("front.nginx_program", "/nowhere/nginx");
    let ran = node.mfserv(&["install", "--force", &file]);
    assert!(ran.stderr.contains("nginx could not be asked about fragments"), "{ran:?}");
    node.mfserv(&["stop"]);
}
