//! A packed plugin: released, installed, replaced under load, uninstalled.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use mfserv_testkit::{Load, Node, Plugin, Ran, Signal, kill, programs, until};

use crate::{PATIENCE, PROGRAM, Turn, node, samples, tree};

/// The exit code of what took longer than it was given.
const TIMEOUT: i32 = 6;

/// Packs a plugin's directory and returns the file.
pub fn release(node: &Node, dir: &Path) -> PathBuf {
    let output = node.path("packages");
    std::fs::create_dir_all(&output).unwrap();
    let (dir, output) = (dir.to_string_lossy(), output.to_string_lossy());
    let ran = node.mfserv(&["release", &dir, "--output", &output]).code(0);
    let file = ran.stdout.lines().find_map(|line| line.strip_prefix("plugin file is ready at "));
    file.unwrap_or_else(|| panic!("{ran:?}")).into()
}

/// Installs a package.
pub fn install(node: &Node, file: &Path) {
    node.mfserv(&["install", "--force", &file.to_string_lossy()]).code(0);
}

/// Changes a text in a file.
pub fn edit(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

/// Everything in the home whose name speaks of the plugin, except logs and packages.
pub fn traces(node: &Node, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo: Vec<PathBuf> =
        ["config", "var", "tmp"].iter().map(|below| node.path(below)).collect();
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(name) {
                found.push(entry.path());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn the_packages_of_an_installation_are_not_kept_in_a_cache_that_never_finds_them_again() {
    let _turn = Turn::cheap();
    let node = node();
    let plugin = Plugin::python("cached", programs::SERVES)
        .file("python3_virtualenv_sources/requirements-to-freeze.txt", "itsdangerous\n");
    let file = release(&node, &plugin.write(&node.path("work")));
    assert!(node.path("var/base/bin/uv").exists(), "uv is what installs");
    let cache = node.path("cache");
    let mut install = node.command(&["install", &file.to_string_lossy()]);
    install.env("XDG_CACHE_HOME", &cache);
    Ran::of(install).code(0);
    let unpacked = std::fs::read_dir(cache.join("uv/archive-v0")).map_or(0, Iterator::count);
    assert_eq!(unpacked, 0);
    let files = tree(&std::fs::canonicalize(node.path("var/plugins/cached")).unwrap());
    assert!(files.iter().any(|file| file.ends_with("itsdangerous/__init__.py")), "{files:#?}");
    assert!(files.iter().all(|file| !file.ends_with(".unpacked")));
}

#[test]
fn a_static_plugin_is_installed_replaced_under_load_and_uninstalled_without_a_trace() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = node.path("work/sample_static");
    samples().copy("sample_static", &dir);
    let first = release(&node, &dir);
    install(&node, &first);
    assert!(node.get("/sample_static/").text().contains("default home page"));
    let list = node.mfserv(&["list"]).code(0).stdout;
    assert!(list.contains("sample_static") && list.contains("release 1"), "{list}");
    let info = node.mfserv(&["info", &first.to_string_lossy()]).code(0).stdout;
    assert!(info.contains("sample_static"), "{info}");

    edit(&dir.join("main/index.html"), "default home page", "second edition");
    edit(&dir.join("config.ini"), "_release=1", "_release=2");
    let second = release(&node, &dir);
    let load = Load::new(node.address(), "/sample_static/").connections(16).start();
    load.answers(200);
    install(&node, &second);
    load.answers(200);
    load.stop().assert_nothing_failed();
    assert!(node.get("/sample_static/").text().contains("second edition"));
    assert_eq!(std::fs::read_dir(node.path("var/releases/sample_static")).unwrap().count(), 2);

    node.mfserv(&["uninstall", "--clean", "sample_static"]).code(0);
    assert_eq!(node.get("/sample_static/").status, 404);
    assert_eq!(traces(&node, "sample_static"), Vec::<PathBuf>::new());
    node.mfserv(&["uninstall", "sample_static"]).code(2);
    node.stop();
}

#[test]
fn a_wsgi_plugin_is_replaced_by_a_new_release_under_load_without_a_failed_request() {
    let _turn = Turn::heavy();
    let node = node();
    node.start();
    let dir = node.path("work/sample_wsgi");
    samples().copy("sample_wsgi", &dir);
    edit(&dir.join("config.ini"), "{{MFHARDWARE_NUMBER_OF_CPU_CORES_MULTIPLIED_BY_2}}", "2");
    let first = release(&node, &dir);
    edit(&dir.join("main/wsgi.py"), "Hello World!", "Hello again!");
    edit(&dir.join("config.ini"), "_release=1", "_release=2");
    let second = release(&node, &dir);
    assert_ne!(first, second, "the second would overwrite the first");
    install(&node, &first);
    assert_eq!(node.get("/sample_wsgi").text(), "Hello World!");
    let old = node.pids("app.sample_wsgi.main");

    let load = Load::new(node.address(), "/sample_wsgi").connections(32).post_every(4).start();
    load.answers(200);
    install(&node, &second);
    assert_eq!(node.get("/sample_wsgi").text(), "Hello again!");
    let watcher = node.settled("app.sample_wsgi.main");
    assert!(watcher.workers.iter().all(|w| !old.contains(&w.pid.unwrap_or(0))), "{watcher:?}");
    load.answers(200);
    let report = load.stop();
    println!("{}", report.sentence());
    report.assert_nothing_failed();

    node.mfserv(&["uninstall", "--clean", "sample_wsgi"]).code(0);
    assert_eq!(node.get("/sample_wsgi").status, 404);
    assert_eq!(traces(&node, "sample_wsgi"), Vec::<PathBuf>::new());
    node.stop();
}

#[test]
fn a_release_that_does_not_get_ready_is_given_up_by_ctrl_c_and_by_the_timeout() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let plugin = Plugin::python("patient", programs::SERVES);
    install(&node, &release(&node, &plugin.write(&node.path("work"))));
    let old = node.pids("app.patient.main");
    let never = format!("import time\ntime.sleep(600)\n{}", programs::SERVES);
    let plugin = Plugin::python("patient", &never).key("general", "_release", "2");
    let file = release(&node, &plugin.write(&node.path("work")));
    let workers = || node.watcher("app.patient.main").workers.len();
    let nothing_has_changed = || {
        until("what was begun is given up", PATIENCE, || workers() == 1);
        assert_eq!(node.pids("app.patient.main"), old);
        assert_eq!(node.get("/patient").text(), "hello from patient");
        let releases = std::fs::read_dir(node.path("var/releases/patient")).unwrap();
        assert_eq!(releases.count(), 1, "the staged release is left");
    };

    let old_name = node.path("plugins.install");
    std::os::unix::fs::symlink(PROGRAM, &old_name).unwrap();
    let file_name = file.to_string_lossy();
    for (mut command, code) in [
        (node.command(&["install", "--force", &file_name]), 1),
        (node.other(&old_name, &["--force", &file_name]), 2),
    ] {
        let command = command.stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        until("the new release is being started", PATIENCE, || workers() == 2);
        kill(child.id(), Signal::INT);
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(code), "{said}");
        assert!(said.contains("interrupted: nothing has changed"), "{said}");
        nothing_has_changed();
    }

    let Ran { stderr, .. } =
        node.mfserv(&["install", "--force", &file_name, "--timeout", "1"]).code(TIMEOUT);
    assert!(stderr.contains("app.patient.main: 0 of 1 new workers are ready"), "{stderr}");
    assert!(stderr.contains("what served before goes on serving"), "{stderr}");
    nothing_has_changed();
    node.stop();
}
