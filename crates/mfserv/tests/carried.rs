//! An existing app is checked, built and packed as it is, and its package is carried to another server.

use std::path::{Path, PathBuf};

use mfserv_testkit::{Client, Method, Node, until};
use serde_json::Value;

use crate::apps::{example, files};
use crate::compat::OldNames;
use crate::standalone::{fresh, unplugged};
use crate::{PATIENCE, Turn, node};

/// Packs the app of a directory; returns the package.
fn released(node: &Node, dir: &Path, more: &[&str]) -> PathBuf {
    let out = node.path("packages");
    let args = ["release", dir.to_str().unwrap(), "--output", out.to_str().unwrap(), "--json"];
    let said = json(node, &[&args, more].concat());
    PathBuf::from(said["file"].as_str().unwrap())
}

/// What a command prints as JSON.
fn json(node: &Node, args: &[&str]) -> Value {
    serde_json::from_str(&node.mfserv(args).code(0).stdout).unwrap()
}

/// The directory of a page that says something.
fn site(node: &Node, name: &str, says: &str) -> PathBuf {
    let dir = node.path("sites").join(name);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("index.html"), says).unwrap();
    dir
}

#[test]
fn an_app_is_packed_as_it_is_and_served_by_a_server_without_a_network() {
    let _turn = Turn::heavy();
    let (here, there) = (node(), fresh());
    let dir = example(&here, "flask");
    let before = files(&dir);
    let path = dir.to_str().unwrap();
    let first = here.mfserv(&["build", path]).code(0);
    assert!(first.stdout.contains("flask: Python") && first.stdout.contains("built"), "{first:?}");
    let again = json(&here, &["build", path, "--json"]);
    assert_eq!(again["python"]["unchanged"], true, "{again}");
    let file = released(&here, &dir, &["--standalone", "--host", "carried.example"]);
    assert_eq!(files(&dir), before);
    assert!(!here.path("var/plugins/flask").exists(), "it is not installed here");

    let mut old = OldNames::new(&there);
    unplugged(&mut old, |old| {
        old.run(&["plugins.install", &file.to_string_lossy()]).code(0);
        old.run(&["mfserv.start"]).code(0);
        until("it serves at /", PATIENCE, || there.get("/").status == 200);
        assert_eq!(there.get("/flask/").status, 200);
        let host = [("Host", "carried.example")];
        let answer = Client::new(there.address()).ask(Method::Get, "/", &host, b"").unwrap();
        assert_eq!(answer.status, 200);
        old.run(&["mfserv.stop"]).code(0);
    });
    there.assert_nothing_left(None);
}

#[test]
fn a_second_package_takes_no_root_unless_that_is_asked_for_and_its_options_stay() {
    let _turn = Turn::cheap();
    let (here, there) = (node(), node());
    let shop = released(&here, &site(&here, "shop", "the shop"), &[]);
    let blog = site(&here, "blog", "the blog");
    let package = released(&here, &blog, &[]);
    there.start();
    there.mfserv(&["install", shop.to_str().unwrap()]).code(0);
    let refused = there.mfserv(&["install", package.to_str().unwrap()]);
    assert_ne!(refused.code, 0);
    for part in ["requests of / go to shop", "--take-route", "--no-root"] {
        assert!(refused.stderr.contains(part), "{part:?}: {}", refused.stderr);
    }
    // It is made once more without it; the next one does not take it either.
    released(&here, &blog, &["--no-root"]);
    let package = released(&here, &blog, &[]);
    there.mfserv(&["install", package.to_str().unwrap()]).code(0);
    assert_eq!(there.get("/blog/").text(), "the blog");
    assert_eq!(there.get("/").text(), "the shop");
    let package = released(&here, &blog, &["--root"]);
    there.mfserv(&["install", "--take-route", package.to_str().unwrap()]).code(0);
    assert_eq!(there.get("/").text(), "the blog");
}

#[test]
fn an_app_is_checked_as_it_is_and_nothing_is_changed() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = node.path("web");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("app.py"), "import flask\n\napp = flask.Flask(__name__)\n").unwrap();
    std::fs::write(dir.join("requirements.txt"), "flask\n").unwrap();
    let before = files(&dir);
    let path = dir.to_str().unwrap();
    let good = node.mfserv(&["check", path]).code(0);
    assert!(good.stderr.contains("Flask") && good.stdout.ends_with("ok\n"), "{good:?}");
    assert_eq!(node.mfserv(&["check", path, "--json"]).code(0).stdout.trim(), "[]");

    // What would not be as the app asks for is found, and no reason to refuse it.
    std::fs::write(dir.join(".python-version"), "3.2\n").unwrap();
    assert!(node.mfserv(&["check", path]).code(0).stderr.contains("3.2"));
    let found = json(&node, &["check", path, "--json"]);
    assert!(found[0].to_string().contains("3.2"), "{found}");
    node.mfserv(&["check", path, "--strict"]).code(4);
    std::fs::remove_file(dir.join(".python-version")).unwrap();
    let twice = node.mfserv(&["check", path, "--as", "procfile"]).code(2);
    assert!(twice.stderr.contains("app:app"), "{twice:?}");

    assert_eq!(files(&dir), before);
    for made in ["var/dev/web", "var/build/web"] {
        assert!(!node.path(made).exists(), "{made}");
    }
    let nothing = node.mfserv(&["check", "--name", "web"]).code(2);
    assert!(nothing.stderr.contains("mfserv check DIR"), "{nothing:?}");
}
