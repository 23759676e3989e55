//! Each template, with MFSERV's commands only: made, developed, released, and
//! installed on a machine whose network is unplugged.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mfserv_testkit::{Node, get, offline, until};

use super::OldNames;
use crate::install::traces;
use crate::{PATIENCE, Turn, node};

/// What a fresh plugin answers, and how long after its installation at most.
struct Answer {
    /// The path asked for.
    path: &'static str,
    /// What the page has in it.
    page: &'static str,
    within: Duration,
}

const SOON: Duration = Duration::from_secs(10);

/// Makes and packs a plugin on a machine with a network, where its directory serves.
fn develop_and_release(
    node: &Node,
    old: &OldNames,
    template: &str,
    answer: Option<&Answer>,
) -> PathBuf {
    old.run(&["mfserv.start"]).code(0);
    let template = format!("--template={template}");
    old.run(&["bootstrap_plugin.py", "create", &template, "--no-input", "journey"]).code(0);
    let dir = old.work().join("journey");
    old.run_in(&dir, &["make", "develop"]).code(0);
    if let Some(answer) = answer {
        until("the directory serves", PATIENCE, || answers(node, answer));
    }
    old.run_in(&dir, &["make", "release"]).code(0);
    old.run(&["plugins.uninstall", "journey"]).code(0);
    assert_eq!(node.get("/journey").status, 404);
    assert!(dir.join("config.ini").is_file(), "the developer's directory stays");
    old.run(&["mfserv.stop"]).code(0);
    let files = std::fs::read_dir(&dir).unwrap().flatten().map(|entry| entry.path());
    let packages: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|end| end == "plugin")).collect();
    assert_eq!(packages.len(), 1, "{packages:?}");
    packages[0].clone()
}

/// Redirects of the app followed, as any client would.
fn answers(node: &Node, answer: &Answer) -> bool {
    let mut path = answer.path.to_string();
    for _ in 0..3 {
        let Ok(page) = get(node.address(), &path) else { return false };
        match page.field("location") {
            Some(to) if page.status / 100 == 3 => {
                let host = format!("http://{}", node.address());
                path = to.strip_prefix(&host).unwrap_or(to).to_string();
            }
            _ => return page.status == 200 && page.text().contains(answer.page),
        }
    }
    false
}

/// Installs the package, looks at it, and uninstalls it without a trace.
fn install_and_uninstall(node: &Node, old: &OldNames, package: &Path, answer: Option<&Answer>) {
    old.run(&["mfserv.start"]).code(0);
    let began = Instant::now();
    old.run(&["plugins.install", &package.to_string_lossy()]).code(0);
    let installed = began.elapsed();
    if let Some(answer) = answer {
        until("the expected answer", answer.within, || answers(node, answer));
        println!("installed in {installed:?}, answered after {:?}", began.elapsed());
    }
    old.run(&["plugins.status", "journey"]).code(0);
    let listed = old.run(&["plugins.list", "--raw"]).code(0).stdout;
    assert!(listed.contains("journey~~~0.0.1~~~1~~~"), "{listed}");

    let workers = node.worker_pids();
    assert_eq!(workers.is_empty(), answer.is_none_or(|a| a.page.contains("default home page")));
    old.run(&["plugins.uninstall", "--clean", "journey"]).code(0);
    assert_eq!(node.get("/journey").status, 404);
    let alive = workers.into_iter().filter_map(mfserv_testkit::process).collect::<Vec<_>>();
    assert!(alive.is_empty(), "workers are left: {alive:?}");
    assert_eq!(traces(node, "journey"), Vec::<PathBuf>::new());
    old.run(&["mfserv.stop"]).code(0);
    node.assert_nothing_left(None);
}

fn journey(template: &str, answer: Option<Answer>) {
    let _turn = Turn::heavy();
    journey_on(&node(), template, answer);
}

fn journey_on(node: &Node, template: &str, answer: Option<Answer>) {
    let mut old = OldNames::new(node);
    let package = develop_and_release(node, &old, template, answer.as_ref());
    let unplugged = offline(|| {
        let outside = TcpStream::connect_timeout(&([192, 0, 2, 1], 80).into(), SOON);
        assert!(outside.is_err_and(|e| e.raw_os_error() == Some(101)), "the network is there");
        install_and_uninstall(node, &old, &package, answer.as_ref());
    });
    if !unplugged {
        println!("no network of its own is allowed here: its indexes are made unreachable");
        old.cut_off();
        install_and_uninstall(node, &old, &package, answer.as_ref());
    }
}

fn page(path: &'static str, page: &'static str) -> Option<Answer> {
    Some(Answer { path, page, within: SOON })
}

#[test]
fn the_static_template_makes_its_whole_journey() {
    journey("static", page("/journey", "default home page"));
}

#[test]
fn the_node_template_makes_its_whole_journey() {
    journey("node", page("/journey", "Hello World from journey!"));
}

#[test]
fn the_node_template_without_web_makes_its_whole_journey() {
    journey("node_noweb", None);
}

#[test]
fn the_default_template_makes_its_whole_journey() {
    journey("default", page("/journey", "Hello World !"));
}

#[test]
fn the_flask_template_makes_its_whole_journey() {
    journey("python3_flask", page("/journey", "Hello World !"));
}

/// With the server of mfserv behind `bjoern_wrapper.py`; the template of Flask has waitress there.
#[test]
fn the_raw_wsgi_template_makes_its_whole_journey() {
    let _turn = Turn::heavy();
    let node = node();
    node.set("python.server", "mfserv");
    journey_on(&node, "python3_raw_wsgi", page("/journey", "Hello World!"));
}

#[test]
fn the_raw_asgi_template_makes_its_whole_journey() {
    journey("python3_raw_asgi", page("/journey", "Hello, world!"));
}

#[test]
fn the_fastapi_template_makes_its_whole_journey() {
    journey("python3_fastapi", page("/journey", "Hello World from journey!"));
}

#[test]
fn the_aiohttp_template_makes_its_whole_journey() {
    journey("python3_aiohttp", page("/journey", "Hello World from aiohttp app"));
}

#[test]
fn the_tornado_template_makes_its_whole_journey() {
    journey("python3_tornado", page("/journey", "Hello, world"));
}

#[test]
fn the_python_template_without_web_makes_its_whole_journey() {
    journey("python3_noweb", None);
}

#[test]
fn the_django_template_makes_its_whole_journey() {
    let page = "Hello World from django main app";
    journey(
        "python3_django",
        Some(Answer { path: "/journey", page, within: Duration::from_secs(30) }),
    );
}
