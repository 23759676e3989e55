//! Installing, replacing, linking and removing plugins.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mfserv_core::Kind;
use mfserv_plugin::Silent;
use mfserv_plugin::archive::{pack, read, read_installed};
use mfserv_plugin::store::{self, KEPT, Origin, dev_link, install, releases, stage, uninstall};
use mfserv_plugin::templates::materialise_welcome;

use crate::{Node, options, spec_of, tree};

fn packed(node: &Node, dir: &Path) -> PathBuf {
    pack(dir, &spec_of(dir).general, &node.work(), &mut Silent).unwrap()
}

fn hook(dir: &Path, text: &str) {
    let file = dir.join("postinstall");
    fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_package_becomes_a_numbered_release_and_a_link_and_leaves_nothing_when_uninstalled() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    let file = packed(&node, &dir);
    let (installed, warnings) = install(&node.home, &file, &options(false), &mut Silent).unwrap();
    assert_eq!((installed.origin, installed.version.as_str()), (Origin::Packed(1), "0.0.1"));
    assert!(warnings.is_empty());
    assert_eq!(fs::read_link(node.home.link("foo")).unwrap(), Path::new("../releases/foo/1"));
    assert!(node.home.link("foo").join("main/index.html").is_file());
    assert_eq!(read_installed(&installed.dir).unwrap(), read(&file).unwrap());
    assert!(read_installed(&dir).is_err());
    let overrides = fs::read_to_string(node.home.override_file("foo")).unwrap();
    assert!(overrides.contains("# prefix_based_routing_extra_routes=null"), "{overrides}");
    assert_eq!(store::list(&node.home), [installed]);
    uninstall(&node.home, "foo", false).unwrap();
    assert!(
        !tree(node.home.root()).iter().any(|path| path.contains("foo")),
        "{:?}",
        tree(node.home.root())
    );
    assert_eq!(uninstall(&node.home, "foo", false).unwrap_err().kind, Kind::Failed);
}

#[test]
fn an_installed_plugin_is_replaced_only_when_asked_and_the_last_releases_are_kept() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    let file = packed(&node, &dir);
    install(&node.home, &file, &options(false), &mut Silent).unwrap();
    assert_eq!(
        install(&node.home, &file, &options(false), &mut Silent).unwrap_err().kind,
        Kind::Refused
    );
    for _ in 0..KEPT + 2 {
        install(&node.home, &file, &options(true), &mut Silent).unwrap();
    }
    let numbers: Vec<u32> =
        releases(&node.home, "foo").iter().map(|release| release.number).collect();
    assert_eq!(numbers, [4, 5, 6, 7, 8]);
    assert_eq!(store::current(&node.home, "foo").unwrap().origin, Origin::Packed(8));
}

#[test]
fn an_override_that_the_administrator_has_changed_is_kept() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    let file = packed(&node, &dir);
    install(&node.home, &file, &options(false), &mut Silent).unwrap();
    let overrides = node.home.override_file("foo");
    fs::write(&overrides, "[custom]\nmine=1\n").unwrap();
    let (_, warnings) = install(&node.home, &file, &options(true), &mut Silent).unwrap();
    assert!(warnings[0].what.contains("is kept as it is"));
    assert!(overrides.with_extension("ini.new").is_file());
    uninstall(&node.home, "foo", false).unwrap();
    assert_eq!(fs::read_to_string(&overrides).unwrap(), "[custom]\nmine=1\n");
}

#[test]
fn a_failed_postinstall_is_shown_and_leaves_the_old_release_as_it_was() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    install(&node.home, &packed(&node, &dir), &options(false), &mut Silent).unwrap();
    let before = tree(node.home.root());
    hook(&dir, "echo the disk is full of eels; exit 3");
    let error = install(&node.home, &packed(&node, &dir), &options(true), &mut Silent).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("the postinstall hook failed")
            && text.contains("full of eels")
            && text.contains("exit code 3"),
        "{text}"
    );
    let tmp = |path: &String| path.starts_with("tmp") || path.starts_with("var/data");
    let after: Vec<String> = tree(node.home.root()).into_iter().filter(|path| !tmp(path)).collect();
    assert_eq!(after, before.into_iter().filter(|path| !tmp(path)).collect::<Vec<_>>());
}

#[test]
fn the_postinstall_hook_runs_in_the_environment_of_the_plugin() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    fs::write(
        dir.join(".layerapi2_extra_env"),
        "# mine\nGREETING=hello {MFSERV_CURRENT_PLUGIN_NAME}\n",
    )
    .unwrap();
    hook(&dir, "pwd > out; env >> out");
    let (installed, _) =
        install(&node.home, &packed(&node, &dir), &options(false), &mut Silent).unwrap();
    let out = fs::read_to_string(installed.dir.join("out")).unwrap();
    let release = fs::canonicalize(node.home.release("foo", 1)).unwrap();
    for line in [
        release.display().to_string(),
        "GREETING=hello foo".into(),
        format!("MFSERV_CURRENT_PLUGIN_DIR={}", node.home.release("foo", 1).display()),
        "MFSERV_CURRENT_PLUGIN_LABEL=plugin_foo@mfserv".into(),
        format!("MFSERV_CURRENT_PLUGIN_DATA_DIR={}", node.home.plugin_data("foo").display()),
        format!("TMPDIR={}", node.home.tmp_of("foo").display()),
        "MFMODULE=MFSERV".into(),
        "PYTHONUNBUFFERED=x".into(),
    ] {
        assert!(out.lines().any(|found| found == line), "{line}\n{out}");
    }
    assert!(!out.contains("CARGO"), "our own variables do not pass");
}

#[test]
fn a_release_that_was_staged_and_not_committed_is_forgotten() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    let file = packed(&node, &dir);
    let staged = stage(&node.home, &file, &options(false), &mut Silent).unwrap();
    assert!(staged.dir.is_dir() && !node.home.link("foo").exists());
    // meanwhile nobody else changes the store
    let error = install(&node.home, &file, &options(false), &mut Silent).unwrap_err();
    assert_eq!(error.kind, Kind::Refused, "{error}");
    assert!(error.because[0].contains(&std::process::id().to_string()));
    drop(staged);
    assert!(releases(&node.home, "foo").is_empty());
    install(&node.home, &file, &options(false), &mut Silent).unwrap();
}

#[test]
fn what_an_operation_that_died_has_left_is_swept_by_the_next_one() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    fs::create_dir_all(node.home.release("bar", 3).join("half")).unwrap();
    fs::create_dir_all(node.home.release("foo", 1)).unwrap();
    install(&node.home, &packed(&node, &dir), &options(false), &mut Silent).unwrap();
    assert!(!node.home.releases_of("bar").exists());
    assert_eq!(releases(&node.home, "foo").len(), 1);
}

#[test]
fn of_two_installations_at_once_one_wins_and_the_other_is_told() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    hook(&dir, "sleep 1");
    let file = packed(&node, &dir);
    let results: Vec<_> = std::thread::scope(|scope| {
        let run = || install(&node.home, &file, &options(false), &mut Silent).map(drop);
        let threads = [scope.spawn(run), scope.spawn(run)];
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    let told = results.iter().find_map(|result| result.as_ref().err()).unwrap();
    assert_eq!(told.kind, Kind::Refused);
    assert_eq!(releases(&node.home, "foo").len(), 1);
}

#[test]
fn a_developers_directory_is_linked_and_never_removed() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    let installed = dev_link(&node.home, &dir).unwrap();
    assert_eq!((installed.origin, installed.version.as_str()), (Origin::Dev, "dev_link"));
    assert_eq!(dev_link(&node.home, &dir).unwrap(), installed);
    let file = packed(&node, &dir);
    assert_eq!(
        install(&node.home, &file, &options(true), &mut Silent).unwrap_err().kind,
        Kind::Refused
    );
    uninstall(&node.home, "foo", true).unwrap();
    assert!(dir.join("config.ini").is_file());
    install(&node.home, &file, &options(false), &mut Silent).unwrap();
    assert_eq!(dev_link(&node.home, &dir).unwrap_err().kind, Kind::Refused);
}

#[test]
fn the_list_has_internal_and_broken_plugins_too() {
    let node = Node::new();
    let welcome = materialise_welcome(&node.home).unwrap();
    dev_link(&node.home, &welcome).unwrap();
    std::os::unix::fs::symlink("/nowhere", node.home.link("gone")).unwrap();
    let list = store::list(&node.home);
    let names: Vec<&str> = list.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["gone", "welcome"]);
    assert!(list[0].problem.is_some() && list[0].version == "error");
    assert_eq!((list[1].origin, &list[1].problem), (Origin::Internal, &None));
    assert_eq!(spec_of(&welcome).apps[0].static_url_prefix, "");
    uninstall(&node.home, "gone", false).unwrap();
}

#[test]
fn compiled_packages_of_another_python_are_refused_by_its_name() {
    let node = Node::new();
    let dir = node.plugin("python3_flask", "foo");
    let sources = dir.join("python3_virtualenv_sources");
    fs::create_dir(sources.join("src")).unwrap();
    fs::write(sources.join("requirements3.txt"), "eels==1.0\n").unwrap();
    fs::write(sources.join("src/eels-1.0-cp27-cp27mu-linux_x86_64.whl"), "").unwrap();
    let mark = r#"{"format": 1, "requirements": "", "python": "2.7", "abi": "cpython-27mu"}"#;
    fs::write(sources.join("src/.mfserv-wheels.json"), mark).unwrap();
    let error =
        install(&node.home, &packed(&node, &dir), &options(false), &mut Silent).unwrap_err();
    assert!(error.what.contains("2.7") && error.kind == Kind::Refused, "{error}");
    assert!(!node.home.releases_of("foo").exists());
}
