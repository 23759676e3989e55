//! `[build] cmd` of a plugin and `_redirects` of a site, from the directory to the client.

use std::path::PathBuf;

use mfserv_core::event::Fact;
use mfserv_testkit::{Node, Plugin, until};

use super::terminal::Session;
use super::{edition, save, until_served};
use crate::{PATIENCE, Turn, node};

/// A static site whose pages a command makes.
fn site(node: &Node, name: &str) -> PathBuf {
    let plugin = Plugin::new(name)
        .key("app_public", "_static_url_prefix", "")
        .key("app_public", "_static_directory", "/out")
        .key("app_public", "_error_pages", "404:/lost.html 500-599:/oops.html")
        .key(
            "build",
            "cmd",
            "mkdir -p public/out; cat pages/* > public/out/index.html; cp lost.html public/out",
        )
        .key("build", "out", "public/out")
        .file("pages/a", "first page")
        .file("lost.html", "lost");
    plugin.write(&node.path("work"))
}

#[test]
fn a_build_command_runs_for_what_has_changed_and_again_at_each_edit_of_a_session() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = site(&node, "paper");
    let place = dir.to_str().unwrap();
    let build = || node.mfserv(&["build", place]).code(0).stdout;
    assert!(build().contains("paper: build command: done in "));
    assert!(build().contains("paper: build command: unchanged in "));
    let session = Session::start(&node, &dir, &["--follow"]);
    session.until_said("what you save is built");
    until_served(&node, "paper/", "first page");
    save(&dir.join("pages/a"), "second page");
    session.until_said("pages/a changed: building\n");
    session.until_said("built after");
    until_served(&node, "paper/", "second page");
    std::fs::rename(dir.join("lost.html"), dir.join("away")).unwrap();
    session.until_said("the build command (mkdir -p public/out; cat");
    session.until_said("what was built before goes on serving");
    std::fs::rename(dir.join("away"), dir.join("lost.html")).unwrap();
    until("it is mended", PATIENCE, || session.said().matches("built after").count() == 2);
    session.interrupt();
    std::fs::remove_dir_all(dir.join("public/out")).unwrap();
    let work = node.path("work");
    node.mfserv(&["release", place, "--output", work.to_str().unwrap()]).code(0);
    let mut packed = std::fs::read_dir(&work).unwrap().flatten().map(|entry| entry.path());
    let packed = packed.find(|path| path.extension().is_some_and(|end| end == "plugin")).unwrap();
    std::fs::remove_dir_all(dir.join("public/out")).unwrap();
    node.mfserv(&["uninstall", "paper"]).code(0);
    node.mfserv(&["install", packed.to_str().unwrap()]).code(0);
    until_served(&node, "paper/", "second page");
    assert_eq!(node.get("/paper/none").text(), "lost");
    node.stop();
}

/// How often new workers of a plugin were asked for.
fn restarts(node: &Node, plugin: &str) -> usize {
    let wanted = format!("restart {plugin}");
    let is_it = |fact: &Fact| matches!(fact, Fact::OperationEnded { what, .. } if *what == wanted);
    node.events().iter().filter(|event| is_it(&event.fact)).count()
}

#[test]
fn a_session_renews_workers_for_what_was_built_alone_and_ends_the_command_with_itself() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let began = node.path("began");
    let command = format!(
        "mkdir -p made; cp part made; test ! -e slow || {{ echo $$ > {0}; exec sleep 600; }}",
        began.display()
    );
    let plugin = Plugin::python("pot", &edition("served"))
        .key("build", "cmd", &command)
        .key("build", "out", "made")
        .file("part", "one");
    let dir = plugin.write(&node.path("work"));
    let session = Session::start(&node, &dir, &["--follow"]);
    session.until_said("what you save is built");
    until_served(&node, "pot", "served");
    save(&dir.join("part"), "one");
    session.until_said("nothing to build after");
    save(&dir.join("part"), "two");
    session.until_said("built after");
    until("new workers are asked for", PATIENCE, || restarts(&node, "pot") >= 1);
    save(&dir.join("slow"), "");
    let pid = || std::fs::read_to_string(&began).ok().and_then(|text| text.trim().parse().ok());
    until("the command runs", PATIENCE, || pid().is_some());
    // The session asks before it builds again.
    assert_eq!(restarts(&node, "pot"), 1);
    // No signal comes: the node ends the session.
    node.mfserv(&["stop"]).code(0);
    session.ended();
    let pid: u32 = pid().unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "the command goes on");
}

#[test]
fn a_build_command_gets_the_proxy_which_is_no_reason_to_run_it_again() {
    let node = node();
    let plugin = Plugin::new("far")
        .key("build", "cmd", "mkdir -p made; env > made/env")
        .key("build", "out", "made");
    let dir = plugin.write(&node.path("work"));
    let place = dir.to_str().unwrap();
    let mut command = node.command(&["build", place]);
    command.env("https_proxy", "http://127.0.0.1:9").env("NO_PROXY", "localhost");
    assert!(command.output().unwrap().status.success());
    let made = std::fs::read_to_string(dir.join("made/env")).unwrap();
    assert!(made.contains("\nhttps_proxy=http://127.0.0.1:9\n"), "{made}");
    assert!(made.contains("\nNO_PROXY=localhost\n"), "{made}");
    let again = node.mfserv(&["build", place]).code(0).stdout;
    assert!(again.contains("build command: unchanged in "), "{again}");
}

#[test]
fn rules_of_a_site_are_obeyed_as_it_is_and_a_check_names_the_lines_that_are_not() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = node.path("work/leaflet");
    std::fs::create_dir_all(&dir).unwrap();
    for (file, text) in [
        ("index.html", "index"),
        ("404.html", "not here"),
        ("_redirects", "/old/* /new/:splat 302\n/app/* /index.html 200\n/fr /x Country=fr\n"),
    ] {
        std::fs::write(dir.join(file), text).unwrap();
    }
    node.mfserv(&["dev", "--detach", dir.to_str().unwrap()]).code(0);
    until_served(&node, "leaflet/", "index");
    let moved = node.get("/leaflet/old/a?x=1");
    assert_eq!((moved.status, moved.field("location")), (302, Some("/leaflet/new/a?x=1")));
    assert_eq!(node.get("/leaflet/app/users/7").text(), "index");
    let lost = node.get("/leaflet/new/a");
    assert_eq!((lost.status, lost.text().as_str()), (404, "not here"));
    assert_eq!(node.get("/leaflet/_redirects").status, 404);
    let checked = node.mfserv(&["check"]);
    let said = format!("{}{}", checked.stdout, checked.stderr);
    assert_ne!(checked.code, 0, "{said}");
    assert!(said.contains("leaflet/main: a line of _redirects is not obeyed"), "{said}");
    assert!(said.contains("_redirects:3") && said.contains("conditions (Country=fr)"), "{said}");
    let status = node.mfserv(&["status", "--all"]);
    assert!(status.stdout.contains("_redirects:3 is not obeyed"), "{}", status.stdout);

    let paper = site(&node, "journal");
    let checked = node.mfserv(&["check", paper.to_str().unwrap()]);
    let said = format!("{}{}", checked.stdout, checked.stderr);
    assert!(
        said.contains("journal/public: the page /oops.html of _error_pages is not there"),
        "{said}"
    );
    node.stop();
}

#[test]
fn init_writes_the_build_of_an_app_into_its_configuration_and_names_the_section_elsewhere() {
    let _turn = Turn::cheap();
    let node = node();
    let written = |name: &str, files: &[(&str, &str)]| {
        let dir = node.path("apps").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        for (file, text) in files {
            std::fs::write(dir.join(file), text).unwrap();
        }
        node.mfserv(&["init", dir.to_str().unwrap()]).code(0);
        std::fs::read_to_string(dir.join("config.ini")).unwrap()
    };
    let package = r#"{"scripts": {"build": "vite build"}, "devDependencies": {"vite": "5"}}"#;
    let vite = [("package.json", package), ("index.html", "<p>one")];
    let config = written("vite", &vite);
    assert!(config.ends_with("[build]\ncmd=npm run build\nout=dist\n"), "{config}");
    let config = written("pnpm", &[vite[0], vite[1], ("pnpm-lock.yaml", "")]);
    assert!(config.ends_with("[build]\ncmd=pnpm run build\nout=dist\n"), "{config}");
    let server = r#"{"scripts": {"build": "tsc", "start": "node dist/main.js"}}"#;
    let config = written("server", &[("package.json", server)]);
    assert!(config.ends_with("[build]\ncmd=npm run build\nout=dist\n"), "{config}");
    let next = r#"{"scripts": {"build": "next build", "start": "next start"}}"#;
    let config = written("next", &[("package.json", next)]);
    assert!(config.ends_with("[build]\ncmd=npm run build\nout=.next\n"), "{config}");
    let unknown = r#"{"scripts": {"build": "./make.sh", "start": "node main.js"}}"#;
    let config = written("unknown", &[("package.json", unknown)]);
    assert!(config.contains("[build]\ncmd=npm run build\n# What it makes is packed"), "{config}");
    assert!(config.ends_with("\n# out=DIRECTORY\n"), "{config}");
    let config = written("plain", &[("Procfile", "web: ./serve --port $PORT\n")]);
    assert!(config.contains("\n# [build]\n# cmd="), "{config}");
}
