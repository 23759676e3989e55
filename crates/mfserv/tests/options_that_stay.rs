//! Host names and paths that `mfserv deploy` and `mfserv dev` are told once, and how they are taken back;
//! and what these commands say of what they did.

use std::path::Path;

use mfserv_testkit::{Client, Method, Node, get, until};

use crate::dev::link::OwnNode;
use crate::newcomer::app;
use crate::{PATIENCE, Turn, node};

/// Runs a command on a directory; returns what it says.
#[track_caller]
fn said(node: &Node, command: &str, dir: &Path, more: &str) -> String {
    let words = [command, dir.to_str().unwrap()].into_iter().chain(more.split_whitespace());
    let ran = node.mfserv(&words.collect::<Vec<_>>()).code(0);
    format!("{}{}", ran.stdout, ran.stderr)
}

/// What `/` of a host answers.
fn at_host(node: &Node, host: &str) -> String {
    let mut client = Client::new(node.address());
    client.ask(Method::Get, "/", &[("Host", host)], b"").unwrap().text()
}

/// Counts its own files in a directory of its own; `/add` makes one.
const WRITER: &str = "\
import os, tempfile

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'uploads')

def app(environ, start_response):
    os.makedirs(HERE, exist_ok=True)
    if environ['PATH_INFO'] == '/add':
        tempfile.mkstemp(dir=HERE)
    start_response('200 OK', [])
    return [str(len(os.listdir(HERE))).encode()]
";

#[test]
fn a_path_and_a_host_name_of_earlier_deployments_are_taken_back_one_by_one() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    app(&node, "first", &[("index.html", "first")]);
    said(&node, "deploy", &node.path("apps/first"), "");
    let dir = app(&node, "writer", &[("app.py", WRITER)]);
    let hosts = "--host a.example.org --host b.example.org";
    said(&node, "deploy", &dir, &format!("{hosts} --persist uploads --persist more"));
    assert_eq!(node.get("/writer/add").text(), "1");

    // What a deployment that fails was told holds for no other one.
    std::fs::write(dir.join("Procfile"), "release: false\n").unwrap();
    let path = dir.to_str().unwrap();
    let ran = node.mfserv(&["deploy", path, "--no-persist", "uploads", "--host", "c.example.org"]);
    assert!(ran.code != 0 && ran.stderr.contains("the release step"), "{ran:?}");
    std::fs::remove_file(dir.join("Procfile")).unwrap();

    let text = said(&node, "deploy", &dir, "--no-persist uploads --no-host a.example.org");
    assert!(text.contains("taken back: writer does not answer at a.example.org"), "{text}");
    assert!(text.contains("stays in var/data/writer"), "{text}");
    assert_eq!(at_host(&node, "a.example.org"), "first");
    assert_eq!(at_host(&node, "b.example.org"), "0", "a release has files of its own there");
    let kept = node.path("var/data/writer/main/uploads");
    assert_eq!(std::fs::read_dir(kept).unwrap().count(), 1, "nothing is lost");
    assert!(node.path("var/data/writer/main/more").exists());
    for (more, says) in [
        (["--no-host", "a.example.org"], "there are b.example.org"),
        (["--no-persist", "uploads"], "there are more"),
    ] {
        let ran = node.mfserv(&[&["deploy", path][..], &more].concat()).code(2);
        assert!(ran.stderr.contains("takes nothing back") && ran.stderr.contains(says), "{ran:?}");
    }
    node.stop();
}

#[test]
fn a_directory_that_is_worked_on_answers_at_the_host_names_that_dev_is_told() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    app(&node, "first", &[("index.html", "first")]);
    said(&node, "deploy", &node.path("apps/first"), "");
    let dir = app(&node, "site", &[("index.html", "one")]);
    let text = said(&node, "dev", &dir, "--detach --host shop.example.org");
    assert!(text.contains("http://shop.example.org"), "{text}");
    assert_eq!(at_host(&node, "shop.example.org"), "one");
    said(&node, "dev", &dir, "--detach");
    assert_eq!(at_host(&node, "shop.example.org"), "one", "it stays");
    let text = said(&node, "dev", &dir, "--detach --no-host shop.example.org");
    assert!(text.contains("taken back: site does not answer at shop.example.org"), "{text}");
    assert_eq!(at_host(&node, "shop.example.org"), "first");
    let plugin = app(&node, "plugin", &[("public/index.html", "plugin")]);
    said(&node, "init", &plugin, "");
    let ran = node.mfserv(&["dev", plugin.to_str().unwrap(), "--host", "a.example.org"]).code(2);
    assert!(ran.stderr.contains("_hosts="), "{ran:?}");
    node.stop();
}

#[test]
fn a_directory_beside_a_deployed_app_leaves_the_port_of_a_node_that_is_stopped() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = app(&node, "site", &[("index.html", "one")]);
    said(&node, "deploy", &dir, "");
    // As where both have the port that mfserv has without a configuration.
    let config = std::fs::read(node.path("config/config.ini")).unwrap();
    std::fs::create_dir_all(node.path("var/dev-node/config")).unwrap();
    std::fs::write(node.path("var/dev-node/config/config.ini"), config).unwrap();
    let own = OwnNode(&node);
    let text = said(&node, "dev", &dir, "--detach");
    let port = own.address().port();
    assert!(text.contains(&format!("it listens on port {port}: ")), "{text}");
    assert!(text.contains(&format!("{} is for `mfserv start`", node.address().port())), "{text}");
    node.start();
    assert_eq!(node.get("/").text(), "one");
    assert_eq!(get(own.address(), "/").unwrap().text(), "one");
    own.run(&["stop"]).code(0);
    node.stop();
}

#[test]
fn a_deployment_and_dev_say_what_the_tools_of_node_have_built() {
    let _turn = Turn::cheap();
    let node = node();
    let package = r#"{"name": "a", "dependencies": {"b": "file:./b"},
        "scripts": {"build": "mkdir -p dist && echo one > dist/index.html"}}"#;
    let files = [
        ("package.json", package),
        ("b/package.json", r#"{"name": "b", "version": "1.0.0"}"#),
        ("b/index.js", ""),
    ];
    let dir = app(&node, "built", &files);
    let text = said(&node, "deploy", &dir, "");
    assert!(text.contains("with npm: built (2 packages), build command: done in "), "{text}");
    let text = said(&node, "deploy", &dir, "--json");
    assert!(!text.contains("nothing to build"), "{text}");
    let text = said(&node, "dev", &app(&node, "site", &[("index.html", "x")]), "--no-wait");
    assert!(text.contains("site: nothing to build\n"), "{text}");
    node.stop();
}

const SIGNS: &str = "\
import itsdangerous

def app(environ, start_response):
    start_response('200 OK', [])
    return [itsdangerous.__name__.encode()]
";

#[test]
fn the_list_of_packages_for_servers_is_found_in_a_directory_of_lists() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let files = [
        ("app.py", SIGNS),
        ("requirements/base.txt", "itsdangerous==2.2.0\n"),
        ("requirements/production.txt", "-r base.txt\n"),
        ("requirements/dev.txt", "-r base.txt\nno-such-package-of-anybody==99\n"),
    ];
    let dir = app(&node, "lists", &files);
    for command in ["dev", "deploy"] {
        said(&node, command, &dir, if command == "dev" { "--detach" } else { "" });
        until("it is served", PATIENCE, || node.get("/lists/").text() == "itsdangerous");
    }
    std::fs::write(dir.join("requirements/prod.txt"), "").unwrap();
    let ran = node.mfserv(&["deploy", dir.to_str().unwrap(), "--json"]).code(4);
    let text = format!("{}{}", ran.stdout, ran.stderr);
    assert!(text.contains("requirements/prod.txt, requirements/production.txt"), "{text}");
    node.stop();
}

/// Says who it is.
fn wsgi(name: &str) -> String {
    format!(
        "def application(environ, start_response):\n    start_response('200 OK', [])\n    \
         return [b'{name}']\n"
    )
}

#[test]
fn what_an_app_is_run_as_stays_until_another_way_is_named_or_it_is_not_there_any_more() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = app(&node, "two", &[("one.py", &wsgi("one")), ("other.py", &wsgi("other"))]);
    let path = dir.to_str().unwrap();
    let ran = node.mfserv(&["deploy", path]).code(2);
    assert!(ran.stderr.contains("--as one:application or --as other:application"), "{ran:?}");
    said(&node, "deploy", &dir, "--as other:application");
    std::fs::write(dir.join("notes.txt"), "second release").unwrap();
    let text = said(&node, "deploy", &dir, "");
    assert!(text.contains("run as other:application, as before (another --as changes"), "{text}");
    assert_eq!(node.get("/two").text(), "other");
    assert_eq!(node.mfserv(&["check", path]).code(0).code, 0);
    let text = said(&node, "deploy", &dir, "--as one:application");
    assert!(!text.contains("as before"), "{text}");
    assert_eq!(node.get("/two").text(), "one");
    // It was the only other one that is left.
    std::fs::remove_file(dir.join("one.py")).unwrap();
    let text = said(&node, "deploy", &dir, "");
    assert!(text.contains("it can't be run as one:application any more"), "{text}");
    assert_eq!(node.get("/two").text(), "other");
    // What is worked on has options of its own.
    std::fs::write(dir.join("one.py"), wsgi("one")).unwrap();
    node.mfserv(&["dev", path, "--detach"]).code(2);
    node.stop();
}

#[test]
fn what_a_deployment_warns_of_is_in_its_outcome_for_programs() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    said(&node, "deploy", &app(&node, "first", &[("index.html", "first")]), "");
    let files = [("app.py", WRITER), (".env", "SECRET=1\n")];
    let dir = app(&node, "second", &files);
    for nothing_to_do in [false, true] {
        let ran = node.mfserv(&["deploy", dir.to_str().unwrap(), "--json"]).code(0);
        let last = ran.stdout.lines().last().unwrap();
        let outcome: serde_json::Value = serde_json::from_str(last).unwrap();
        assert_eq!(outcome["nothing_to_do"] == true, nothing_to_do, "{outcome}");
        let warnings = outcome["warnings"].as_array().unwrap().iter();
        let whats: Vec<&str> = warnings.filter_map(|one| one["what"].as_str()).collect();
        for what in ["second is not served at /", "not deployed: .env"] {
            assert_eq!(whats.iter().filter(|it| **it == what).count(), 1, "{whats:?}");
        }
    }
    node.stop();
}
