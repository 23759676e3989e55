//! `make` in a plugin directory, with the Makefile of every plugin: it includes plugin.mk.

use std::path::Path;

use super::OldNames;
use crate::install::edit;
use crate::{Turn, node};

/// Adds lines to a file.
fn append(file: &Path, lines: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, text + lines).unwrap();
}

#[test]
fn the_hooks_of_a_makefile_run_before_and_after_the_build_and_several_of_each_do() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    let dir = old.create("static", "foo");
    let hooks = "
precustom::
\t@echo precustom >> order
precustom::
\t@echo precustom too >> order
custom::
\t@echo custom $(NAME) $(VERSION) $(RELEASE) >> order
";
    append(&dir.join("Makefile"), hooks);
    let order = || {
        let text = std::fs::read_to_string(dir.join("order")).unwrap();
        std::fs::remove_file(dir.join("order")).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    old.run_in(&dir, &["make"]).code(0);
    let once = ["precustom", "precustom too"];
    assert_eq!(order(), [&once[..], &["custom foo 0.0.1 1"]].concat());
    old.run_in(&dir, &["make", "release"]).code(0);
    let release = [&once[..], &once, &["custom foo 0.0.1 1"], &once].concat();
    assert_eq!(order(), release);
    append(&dir.join("Makefile"), "custom::\n\tfalse\n");
    old.run_in(&dir, &["make"]).code(2);
}

#[test]
fn make_refuses_what_the_check_refuses_and_cleans_what_it_has_made() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    let dir = old.create("static", "foo");
    let ran = old.run_in(&dir, &["make", "release"]).code(0);
    let said = "plugin file is ready at ";
    assert!(ran.stdout.contains(&format!("- Building plugin... [ OK ] \n{said}")), "{ran:?}");
    let package = dir.join("foo-0.0.1-1.metwork.mfserv.plugin");
    assert!(package.is_file());
    // A second version replaces the first: one package is left.
    edit(&dir.join("config.ini"), "_version=0.0.1", "_version=0.0.2");
    let ran = old.run_in(&dir, &["make", "-j4", "release"]).code(0);
    assert!(!ran.stderr.contains("jobserver"), "{ran:?}");
    assert!(!package.exists() && dir.join("foo-0.0.2-1.metwork.mfserv.plugin").is_file());
    std::fs::write(dir.join("package-lock.json"), "{}").unwrap();
    old.run_in(&dir, &["make", "clean"]).code(0);
    assert!(!dir.join("foo-0.0.2-1.metwork.mfserv.plugin").exists());
    assert!(dir.join("package-lock.json").exists());
    old.run_in(&dir, &["make", "superclean"]).code(0);
    assert!(!dir.join("package-lock.json").exists());

    std::fs::remove_file(dir.join(".plugin_format_version")).unwrap();
    for goal in ["all", "check", "release", "develop"] {
        let ran = old.run_in(&dir, &["make", goal]).code(2);
        assert!(ran.stdout.contains("- Checking plugin... [ ERROR ]"), "{ran:?}");
        assert!(ran.stderr.contains(".plugin_format_version is missing"), "{ran:?}");
    }
}

#[test]
fn a_plugin_is_made_released_installed_and_its_directory_removed_by_one_command() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    old.run(&["mfserv.start"]).code(0);
    let all = "--template=static --no-input --make --install --delete foo";
    let words: Vec<&str> =
        ["bootstrap_plugin.py", "create"].into_iter().chain(all.split(' ')).collect();
    let ran = old.run(&words).code(0);
    assert!(ran.stdout.contains("Plugin foo successfully created on directory"), "{ran:?}");
    assert!(!old.work().join("foo").exists());
    assert!(old.work().join("foo-0.0.1-1.metwork.mfserv.plugin").is_file());
    assert!(node.get("/foo/").text().contains("default home page"));
    // It is installed already: the next one is made, and not installed.
    let ran = old.run(&words).code(1);
    assert!(ran.stderr.contains("but PLUGIN INSTALL ERROR"), "{ran:?}");
    old.run(&["mfserv.stop"]).code(0);
}

#[test]
fn a_release_made_while_its_directory_serves_takes_nothing_from_its_workers() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    let dir = old.create("python3_raw_wsgi", "foo");
    old.run(&["mfserv.start"]).code(0);
    old.run_in(&dir, &["make", "develop"]).code(0);
    node.settled("app.foo.main");
    let ran = old.run_in(&dir, &["make", "release"]).code(0);
    assert!(ran.stdout.contains("devlinked"), "{ran:?}");
    assert_eq!(node.get("/foo").text(), "Hello World!");
    // The package has its own version, not dev_link.
    assert!(dir.join("foo-0.0.1-1.metwork.mfserv.plugin").is_file());
    let ran = old.run_in(&dir, &["make", "develop"]).code(0);
    assert!(ran.stdout.contains("- Devlinking plugin foo... [ WARNING ] (already installed)"));
    old.run(&["mfserv.stop"]).code(0);
}
