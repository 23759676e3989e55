//! A directory takes the place of nothing that is installed: it is served beside it.

use std::os::unix::fs::PermissionsExt;

use std::net::SocketAddr;

use mfserv_testkit::{Node, Ran, get, until};
use serde_json::Value;

use super::{edition, save, watched};
use crate::install::{install, release};
use crate::top::Terminal;
use crate::{PATIENCE, Turn, node, samples};

#[test]
fn the_directory_of_an_installed_plugin_leaves_its_data_and_its_release_alone() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = node.path("work/sample_static");
    samples().copy("sample_static", &dir);
    install(&node, &release(&node, &dir));
    let (hook, ran) = (dir.join("postinstall"), node.path("ran"));
    std::fs::write(
        &hook,
        format!("#!/bin/sh\necho $MFSERV_CURRENT_PLUGIN_DATA_DIR > {}\n", ran.display()),
    )
    .unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let words = ["dev", &dir.to_string_lossy(), "--no-wait"];
    let said = node.mfserv(&words).code(0).stdout;
    assert!(
        said.contains("sample_static is deployed here (release 1) and stays as it is"),
        "{said}"
    );
    let own = node.path("var/dev-node");
    let start = format!("it is served after `mfserv --home {} start`", own.display());
    assert!(said.contains(&start), "{said}");
    // The hook has run with the data of the other node.
    let data = std::fs::read_to_string(&ran).unwrap();
    assert_eq!(data.trim(), own.join("var/data/sample_static").to_string_lossy());
    std::fs::remove_file(&ran).unwrap();
    node.mfserv(&["uninstall", "sample_static"]).code(0);
    let words = ["dev", &dir.to_string_lossy(), "--json", "--no-wait"];
    let said = node.mfserv(&words).code(0).stdout;
    let said: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((&said["plugin"]["origin"], &said["applied"]), (&"dev".into(), &Value::Null));
    assert_eq!(said["build"]["plugin"], "sample_static");
    assert!(ran.exists(), "the hook of what is linked has not run");
    let said = node.mfserv(&["info", "sample_static", "--json"]).code(0).stdout;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&said["name"], &said["releases"]),
        (&"sample_static".into(), &Value::Array(vec![]))
    );
    node.mfserv(&["dev", &dir.to_string_lossy(), "--follow", "--json"]).code(2);
}

/// The home of the node of its own, which is stopped whatever happens.
pub struct OwnNode<'a>(pub &'a Node);

impl OwnNode<'_> {
    pub fn run(&self, args: &[&str]) -> Ran {
        let home = self.0.path("var/dev-node");
        self.0.mfserv(&[&["--home", home.to_str().unwrap()], args].concat())
    }

    pub fn address(&self) -> SocketAddr {
        let said = self.run(&["status", "--json"]);
        let status: Value = serde_json::from_str(&said.stdout).unwrap();
        status["address"].as_str().unwrap().strip_prefix("http://").unwrap().parse().unwrap()
    }
}

impl Drop for OwnNode<'_> {
    fn drop(&mut self) {
        self.run(&["stop", "--kill"]);
    }
}

#[test]
fn the_directory_of_a_deployed_plugin_is_served_beside_its_release_and_each_edit_of_it() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = watched("shop").write(&node.path("work"));
    install(&node, &release(&node, &dir));
    node.start();
    node.settled("app.shop.main");
    save(&dir.join("main.py"), &edition("second"));
    node.mfserv(&["dev", &dir.to_string_lossy(), "--detach"]).code(0);
    let own = OwnNode(&node);
    let serves = |what: &str| {
        get(own.address(), "/shop").is_ok_and(|answer| answer.text().starts_with(what))
    };
    assert!(serves("second edition"));
    save(&dir.join("main.py"), &edition("third"));
    until("the edit is served", PATIENCE, || serves("third edition"));
    assert!(node.get("/shop").text().starts_with("first edition"), "the release goes on");
    // Who stops the node is told of the other one.
    let stopped = node.mfserv(&["stop"]).code(0);
    assert!(stopped.stderr.contains("var/dev-node stop` stops it, too"), "{stopped:?}");
    node.start();
    own.run(&["stop"]).code(0);

    // In the foreground its node ends with it, and the other one goes on.
    let mut session = Terminal::of(&node, &["dev", &dir.to_string_lossy()], (150, 40), &[]);
    session.shows("that it serves", |text| text.contains("what you save is served"));
    assert!(serves("third edition"));
    session.press("\x03");
    assert!(session.end().success());
    assert!(!session.text().contains("uninstall"), "{}", session.text());
    own.run(&["status"]).code(3);
    let link = node.path("var/dev-node/var/plugins/shop");
    assert!(!link.is_symlink(), "the next session does not start it");
    assert!(node.get("/shop").text().starts_with("first edition"));
    node.stop();
}
