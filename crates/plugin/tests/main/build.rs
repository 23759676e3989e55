//! Builds that need no package of the network, and builds that fail.

use std::fs;
use std::time::Duration;

use mfserv_core::Kind;
use mfserv_plugin::build::{BuildOptions, build, clean};
use mfserv_plugin::{Cancel, Home, Silent};

use crate::{Node, Reported, tree, until};

#[test]
fn a_plugin_without_packages_has_nothing_to_build() {
    let node = Node::new();
    let options = BuildOptions::new(node.home.clone());
    let report = build(&node.plugin("static", "foo"), &options, &mut Silent).unwrap();
    assert_eq!((report.plugin.as_str(), report.python, report.node), ("foo", None, None));
    let raw = node.plugin("python3_raw_wsgi", "bar");
    let report = build(&raw, &options, &mut Silent).unwrap();
    assert_eq!(report.python.unwrap().packages, 0);
    assert!(!raw.join("local").exists());
    assert!(raw.join("python3_virtualenv_sources/requirements3.txt").is_file());
}

#[test]
fn a_directory_that_is_no_plugin_is_refused() {
    let node = Node::new();
    let error =
        build(&node.work(), &BuildOptions::new(node.home.clone()), &mut Silent).unwrap_err();
    assert_eq!(error.kind, Kind::BadConfiguration);
}

#[test]
fn a_missing_interpreter_is_named() {
    let node = Node::new();
    let dir = node.plugin("python3_flask", "foo");
    let options =
        BuildOptions { python: Some("python3.99".into()), ..BuildOptions::new(node.home.clone()) };
    let error = build(&dir, &options, &mut Silent).unwrap_err();
    assert!(error.to_string().contains("apt-get install python3.99"), "{error}");
}

#[test]
fn a_broken_package_json_is_refused_with_its_line() {
    let node = Node::new();
    let dir = node.plugin("node", "foo");
    fs::write(dir.join("package.json"), "{\n  \"name\": \n}").unwrap();
    let error = build(&dir, &BuildOptions::new(node.home.clone()), &mut Silent).unwrap_err();
    assert_eq!(error.at.unwrap().line, 3);
}

#[test]
fn the_error_of_npm_is_shown_and_what_was_there_stays() {
    let node = Node::new();
    let dir = node.plugin("node", "foo");
    fs::create_dir(dir.join("node_modules")).unwrap();
    fs::write(dir.join("node_modules/mine"), "x").unwrap();
    let package = r#"{"name": "foo", "version": "1.0.0", "scripts": {"preinstall": "echo eels in the disk >&2; exit 9"}}"#;
    fs::write(dir.join("package.json"), package).unwrap();
    let before = tree(&dir);
    let error = build(&dir, &BuildOptions::new(node.home.clone()), &mut Silent).unwrap_err();
    assert!(error.to_string().contains("eels in the disk"), "{error}");
    assert_eq!(tree(&dir), before);
}

#[test]
fn a_shrinkwrap_is_the_lock_and_another_registry_is_a_change() {
    let node = Node::new();
    let dir = node.plugin("node", "foo");
    fs::write(dir.join("package.json"), r#"{"name": "foo", "version": "1.0.0"}"#).unwrap();
    let lock = r#"{"name": "foo", "version": "1.0.0", "lockfileVersion": 3, "requires": true,
                   "packages": {"": {"name": "foo", "version": "1.0.0"}}}"#;
    fs::write(dir.join("npm-shrinkwrap.json"), lock).unwrap();
    let options = BuildOptions::new(node.home.clone());
    let built = || !build(&dir, &options, &mut Silent).unwrap().node.unwrap().unchanged;
    assert!(built() && !built());
    assert!(!dir.join("package-lock.json").exists());
    fs::write(dir.join(".npmrc"), "save-exact=true\n").unwrap();
    assert!(built() && !built());
}

#[test]
fn locks_of_other_tools_are_said_to_be_no_locks_here() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    for name in ["yarn.lock", "pnpm-lock.yaml"] {
        fs::write(dir.join(name), "").unwrap();
    }
    let mut told = Reported::default();
    build(&dir, &BuildOptions::new(node.home.clone()), &mut told).unwrap();
    assert_eq!(told.1, ["yarn.lock is not read", "pnpm-lock.yaml is not read"]);
}

#[test]
fn a_cancelled_build_ends_at_once_and_leaves_nothing() {
    let node = Node::new();
    let dir = node.plugin("node", "foo");
    let mark = node.work().join("started");
    let package = format!(
        r#"{{"name": "foo", "version": "1.0.0", "scripts": {{"preinstall": "touch {}; sleep 1000"}}}}"#,
        mark.display()
    );
    fs::write(dir.join("package.json"), package).unwrap();
    let before = tree(&dir);
    let options = BuildOptions::new(node.home.clone());
    let cancel: Cancel = options.cancel.clone();
    let error = std::thread::scope(|scope| {
        let building = scope.spawn(|| build(&dir, &options, &mut Silent).unwrap_err());
        until("npm runs the script", || mark.exists());
        cancel.cancel();
        building.join().unwrap()
    });
    assert!(error.what.contains("interrupted"), "{error}");
    assert_eq!(tree(&dir), before);
}

#[test]
fn a_build_that_takes_too_long_is_ended() {
    let node = Node::new();
    let dir = node.plugin("node", "foo");
    let package = r#"{"name": "foo", "version": "1.0.0", "scripts": {"preinstall": "sleep 1000"}}"#;
    fs::write(dir.join("package.json"), package).unwrap();
    let options =
        BuildOptions { limit: Duration::from_secs(3), ..BuildOptions::new(node.home.clone()) };
    assert_eq!(build(&dir, &options, &mut Reported::default()).unwrap_err().kind, Kind::Timeout);
}

#[test]
fn a_requirement_that_does_not_exist_is_shown_as_the_tool_says_it() {
    let node = Node::new();
    let dir = node.plugin("python3_flask", "foo");
    let loose = dir.join("python3_virtualenv_sources/requirements-to-freeze.txt");
    fs::write(&loose, "flask==0.0.0.1\n").unwrap();
    let before = tree(&dir);
    let error = build(&dir, &BuildOptions::new(node.home.clone()), &mut Silent).unwrap_err();
    assert_eq!(error.what, "resolving the Python requirements failed");
    assert!(error.because.join("\n").contains("flask==0.0.0.1"), "{error}");
    assert_eq!(tree(&dir), before);
}

#[test]
fn a_build_that_is_interrupted_from_the_keyboard_ends_its_programs() {
    let node = Node::new();
    let dir = node.plugin("node", "foo");
    let mark = node.work().join("started");
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 1000", mark.display());
    let package =
        serde_json::json!({"name": "foo", "version": "1.0.0", "scripts": {"preinstall": script}});
    fs::write(dir.join("package.json"), package.to_string()).unwrap();
    let before = tree(&dir);
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "build::builds_until_a_signal"]);
    command.env("MFSERV_TEST_HOME", node.home.root()).env("MFSERV_TEST_DIR", &dir);
    let mut building =
        crate::wsgi::End(command.stdout(std::process::Stdio::null()).spawn().unwrap());
    until("npm runs the script", || mark.exists());
    let pid = fs::read_to_string(&mark).unwrap();
    building.signal("INT");
    assert!(building.0.wait().unwrap().success());
    let alive = || {
        fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
            .is_ok_and(|stat| !stat.contains(") Z "))
    };
    until("the script is gone", || !alive());
    assert_eq!(tree(&dir), before);
}

#[test]
#[ignore = "it is a part of another test"]
fn builds_until_a_signal() {
    let (Some(home), Some(dir)) =
        (std::env::var_os("MFSERV_TEST_HOME"), std::env::var_os("MFSERV_TEST_DIR"))
    else {
        return;
    };
    let options = BuildOptions {
        cancel: Cancel::by_signals().unwrap(),
        ..BuildOptions::new(Home::new(home))
    };
    assert!(build(dir.as_ref(), &options, &mut Silent).unwrap_err().what.contains("interrupted"));
}

#[test]
fn what_a_build_has_made_is_cleaned_and_the_rest_stays() {
    let node = Node::new();
    let dir = node.plugin("python3_flask", "foo");
    let before = tree(&dir);
    let made = [
        "local/bin",
        "node_modules/x",
        "python3_virtualenv_sources/src",
        "main/__pycache__",
        "tmp_build",
    ];
    for path in made {
        fs::create_dir_all(dir.join(path)).unwrap();
        fs::write(dir.join(path).join("file"), "x").unwrap();
    }
    for path in
        ["foo-1-1.metwork.mfserv.plugin", "x.tar.gz", "package-lock.json", ".configuration_cache"]
    {
        fs::write(dir.join(path), "x").unwrap();
    }
    fs::write(dir.join("python3_virtualenv_sources/requirements3.txt"), "flask==3\n").unwrap();
    clean(&dir, false).unwrap();
    let pinned =
        ["package-lock.json".to_string(), "python3_virtualenv_sources/requirements3.txt".into()];
    let mut expected = [before.clone(), pinned.to_vec()].concat();
    expected.sort();
    assert_eq!(tree(&dir), expected);
    clean(&dir, true).unwrap();
    assert_eq!(tree(&dir), before);
    assert!(clean(&node.work(), true).is_err(), "a directory that is no plugin is left alone");
}
