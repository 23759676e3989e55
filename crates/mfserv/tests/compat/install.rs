//! Plugins installed, replaced and uninstalled with the old names.

use mfserv_testkit::{Load, until};

use super::{OldNames, case, check};
use crate::install::edit;
use crate::{PATIENCE, Turn, node};

#[test]
fn plugins_are_installed_replaced_and_uninstalled_with_the_old_names() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    let package = old.package("static", "foo");
    std::fs::rename(&package, old.work().join("foo.plugin")).unwrap();
    old.run(&["mfserv.start"]).code(0);
    check(
        &old,
        &[
            case(
                "plugins.install foo.plugin",
                0,
                &["- Checking plugin file... [ OK ] ", "- Installing plugin foo... [ OK ] "],
            ),
            case(
                "plugins.install foo.plugin",
                1,
                &["- Installing plugin foo... [ ERROR ] already installed"],
            ),
            case(
                "plugins.install --force foo.plugin",
                0,
                &[
                    "…plugin foo... [ OK ] (it serves until the new one is ready)",
                    "- Installing plugin foo... [ OK ] ",
                ],
            ),
            case(
                "plugins.install --new-name bar foo.plugin",
                0,
                &["- Installing plugin foo as bar... [ OK ] "],
            ),
            case(
                "plugins.hotswap --wait-after-circus-reload 1 foo.plugin",
                0,
                &["- Hotswapping plugin foo... [ OK ] "],
            ),
            case(
                "plugins.list --raw",
                0,
                &[
                    "foo~~~0.0.1~~~1~~~HOME/var/plugins/foo",
                    "bar~~~0.0.1~~~1~~~HOME/var/plugins/bar",
                ],
            ),
            case(
                "plugins.list",
                0,
                &["…║ foo     ║ 0.0.1   ║ 1       ║ HOME/var/plugins/foo     ║"],
            ),
            case("plugins.list --plugins-base-dir /nowhere --json", 0, &["[]"]),
            case(
                "plugins.uninstall --plugins-base-dir /nowhere foo",
                1,
                &["error: /nowhere is not the plugins directory of this node"],
            ),
            case(
                "plugins.repackage foo",
                0,
                &["- Repackaging plugin foo... [ OK ] ", "…work/foo-0.0.1-1.metwork.mfserv.plugin"],
            ),
            case(
                "plugins.check --plugins-base-dir HOME/var/plugins foo",
                0,
                &["- Checking plugin... [ OK ] "],
            ),
            case("is_layer_installed plugin_foo@mfserv", 0, &["1"]),
            case("plugin_wrapper foo -- sh -c exit${IFS}9", 9, &[]),
            case("plugin_wrapper foo -- printf %s_ a -- --cwd b", 0, &["a_--_--cwd_b_"]),
            case("plugin_wrapper foo printf %s_ a -- --cwd b", 0, &["a_--_--cwd_b_"]),
            case("plugin_wrapper --cwd foo -- cat .layerapi2_label", 0, &["plugin_foo@mfserv"]),
            case(
                "plugin_wrapper --empty --bash-cmds foo ls",
                0,
                &["export MFSERV_CURRENT_PLUGIN_NAME='foo'"],
            ),
            case("plugin_wrapper ./foo printenv MFSERV_CURRENT_PLUGIN_DIR", 0, &["…work/foo"]),
            // Inside the environment of a plugin, nothing may be changed.
            case(
                "plugin_wrapper foo -- HOME/prefix/bin/plugins.uninstall foo",
                1,
                &["ERROR: Don't use plugins.install/uninstall inside a plugin_env"],
            ),
            case(
                "mfserv_wrapper plugin_wrapper foo printenv MFSERV_CURRENT_PLUGIN_LABEL",
                0,
                &["plugin_foo@mfserv"],
            ),
            case("plugins.uninstall some/where/bar", 0, &["- Uninstalling plugin bar... [ OK ] "]),
        ],
    );
    let just = |name: &str| old.run(&["plugins.hash", name]).code(0).stdout;
    assert_eq!(just("foo"), just("foo.plugin"));
    assert_eq!(just("foo").trim().len(), 32);
    // --clean is what was documented: overrides go too.
    let overrides = node.path("config/plugins/foo.ini");
    std::fs::write(&overrides, "[custom]\na=b\n").unwrap();
    check(&old, &[case("plugins.uninstall foo", 0, &["- Uninstalling plugin foo... [ OK ] "])]);
    assert!(overrides.exists());
    check(
        &old,
        &[
            case("plugins.install foo.plugin", 0, &["…plugin foo... [ WARNING ] "]),
            case("plugins.uninstall --clean foo", 0, &["- Uninstalling plugin foo... [ OK ] "]),
        ],
    );
    assert!(!overrides.exists());
    old.run(&["mfserv.stop"]).code(0);
}

#[test]
fn a_hot_swap_with_the_old_name_fails_no_request_and_a_broken_one_changes_nothing() {
    let _turn = Turn::heavy();
    let node = node();
    let old = OldNames::new(&node);
    let dir = old.create("python3_raw_wsgi", "foo");
    edit(&dir.join("config.ini"), "{{MFHARDWARE_NUMBER_OF_CPU_CORES_MULTIPLIED_BY_2}}", "2");
    let packed = |version: &str, from: &str, to: &str| {
        let text = std::fs::read_to_string(dir.join("config.ini")).unwrap();
        let lines = text.lines().map(|line| match line.starts_with("_version=") {
            true => format!("_version={version}\n"),
            false => format!("{line}\n"),
        });
        std::fs::write(dir.join("config.ini"), lines.collect::<String>()).unwrap();
        edit(&dir.join("main/wsgi.py"), from, to);
        old.run_in(&dir, &["_plugins.build"]).code(0);
        old.run_in(&dir, &["_plugins.make"]).code(0);
        dir.join(format!("foo-{version}-1.metwork.mfserv.plugin")).to_string_lossy().into_owned()
    };
    let first = packed("1", "Hello", "Hello");
    let second = packed("2", "Hello World!", "Hello again!");
    let broken = packed("3", "def application", "raise SystemExit('eels')\ndef application");
    old.run(&["mfserv.start"]).code(0);
    old.run(&["plugins.install", &first]).code(0);
    node.settled("app.foo.main");
    let load = Load::new(node.address(), "/foo").connections(8).start();
    load.answers(200);
    old.run(&["plugins.hotswap", &second]).code(0);
    assert_eq!(node.get("/foo").text(), "Hello again!");
    let ran = old.run(&["plugins.hotswap", &broken]).code(1);
    assert!(ran.stderr.contains("DIAGNOSTIC:") && ran.stderr.contains("eels"), "{ran:?}");
    let ran = old.run(&["plugins.install", "--force", &broken]).code(2);
    assert!(ran.stdout.contains("- Installing plugin foo... [ ERROR ]"), "{ran:?}");
    old.run(&["plugins.install", "--force", &first]).code(0);
    assert_eq!(node.get("/foo").text(), "Hello World!");
    load.stop().assert_nothing_failed();
    old.run(&["mfserv.stop"]).code(0);
}

#[test]
fn an_installation_waits_for_another_one_that_is_under_way() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    let dir = old.create("static", "slow");
    std::fs::write(dir.join("postinstall"), "#!/bin/sh\ntouch $TMPDIR/begun\nsleep 1\n").unwrap();
    old.run_in(&dir, &["chmod", "+x", "postinstall"]).code(0);
    old.run_in(&dir, &["_plugins.make"]).code(0);
    let quick = old.package("static", "quick").to_string_lossy().into_owned();
    let slow = dir.join("slow-0.0.1-1.metwork.mfserv.plugin").to_string_lossy().into_owned();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| old.run(&["plugins.install", &slow]).code(0));
        let begun = node.path("tmp/slow/begun");
        until("the first one is under way", PATIENCE, || begun.exists());
        old.run(&["plugins.install", &quick]).code(0);
        first.join().unwrap();
    });
    let listed = old.run(&["plugins.list", "--raw"]).code(0).stdout;
    assert_eq!(listed.lines().count(), 2, "{listed}");
}
