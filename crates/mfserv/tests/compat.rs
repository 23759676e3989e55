//! The predecessor's commands: what they print, and how they exit.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mfserv_testkit::{Load, Node, Plugin, Ran, programs, until};

use crate::install::edit;
use crate::{PATIENCE, Turn, node};

/// The commands of a node under their old names, with the profile that an operator loads.
pub struct OldNames<'a> {
    node: &'a Node,
    prefix: PathBuf,
    more: Vec<(&'static str, &'static str)>,
}

impl<'a> OldNames<'a> {
    /// Puts them below the home.
    pub fn new(node: &'a Node) -> Self {
        let prefix = node.path("prefix");
        node.mfserv(&["setup", "--commands", &prefix.join("bin").to_string_lossy()]).code(0);
        let old = OldNames { node, prefix, more: Vec::new() };
        std::fs::create_dir_all(old.work()).unwrap();
        old
    }

    /// Where plugins are made.
    pub fn work(&self) -> PathBuf {
        self.node.path("work")
    }

    /// Nothing of the indexes of Python and Node can be reached from here on.
    pub fn cut_off(&mut self) {
        let nowhere = "http://127.0.0.1:9";
        for key in
            ["PIP_INDEX_URL", "UV_INDEX_URL", "npm_config_registry", "https_proxy", "http_proxy"]
        {
            self.more.push((key, nowhere));
        }
        self.more.push(("no_proxy", ""));
    }

    /// Runs a command where plugins are made.
    pub fn run(&self, words: &[&str]) -> Ran {
        self.run_in(&self.work(), words)
    }

    /// Runs a command in a directory.
    pub fn run_in(&self, dir: &Path, words: &[&str]) -> Ran {
        self.run_with(dir, words, &[])
    }

    /// Runs a command with more variables.
    pub fn run_with(&self, dir: &Path, words: &[&str], more: &[(&str, &str)]) -> Ran {
        let profile = self.prefix.join("share/profile");
        let script = format!("set -eu; . '{}'; exec \"$@\"", profile.display());
        let mut command = self.node.other(Path::new("sh"), &["-c", &script, "sh"]);
        command.args(words).current_dir(dir);
        command.envs(self.more.iter().chain(more).copied());
        Ran::of(command)
    }

    /// Makes a plugin.
    pub fn create(&self, template: &str, name: &str) -> PathBuf {
        let template = format!("--template={template}");
        self.run(&["bootstrap_plugin.py", "create", "--no-input", &template, name]).code(0);
        self.work().join(name)
    }

    /// Makes and packs a plugin without packages of its own.
    fn package(&self, template: &str, name: &str) -> PathBuf {
        let dir = self.create(template, name);
        self.run_in(&dir, &["_plugins.make"]).code(0);
        dir.join(format!("{name}-0.0.1-1.metwork.mfserv.plugin"))
    }
}

/// A command, its exit code, and lines that it prints (`…` stands for anything before).
struct Case {
    words: &'static str,
    code: i32,
    says: &'static [&'static str],
}

const fn case(words: &'static str, code: i32, says: &'static [&'static str]) -> Case {
    Case { words, code, says }
}

#[track_caller]
fn check(old: &OldNames, cases: &[Case]) {
    let places = [("HOME/", old.node.path("")), ("WORK", old.work())];
    let placed = |text: &str| {
        places.iter().fold(text.to_string(), |text, (name, path)| {
            text.replace(name, &path.to_string_lossy())
        })
    };
    for case in cases {
        let words = placed(case.words);
        let words: Vec<&str> = words.split(' ').collect();
        let ran = old.run(&words);
        assert_eq!(ran.code, case.code, "{}: {ran:#?}", case.words);
        let lines: Vec<&str> = ran.stdout.lines().chain(ran.stderr.lines()).collect();
        for said in case.says {
            let said = placed(said);
            let found = match said.strip_prefix('…') {
                Some(end) => lines.iter().any(|line| line.ends_with(end)),
                None => lines.contains(&said.as_str()),
            };
            assert!(found, "{}: {said:?} is not in {ran:#?}", case.words);
        }
        if case.says.is_empty() {
            assert_eq!(ran.stdout, "", "{} says nothing", case.words);
        }
    }
}

#[test]
fn commands_that_need_no_node_say_what_they_always_said() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    old.package("static", "foo");
    check(
        &old,
        &[
            case("bootstrap_plugin.py", 0, &["Make plugins from templates"]),
            case(
                "bootstrap_plugin.py list",
                0,
                &["List of available plugin templates:", "     * default", "     * python3_flask"],
            ),
            case(
                "bootstrap_plugin.py create --no-input foo",
                1,
                &["…ERROR : the subdirectory foo already exists in WORK"],
            ),
            case(
                "bootstrap_plugin.py create --no-input --template=nope bar",
                1,
                &["ERROR : this template [nope] does not exist"],
            ),
            case(
                "bootstrap_plugin.py create --no-input plugin_x",
                1,
                &[
                    "ERROR: the plugin name: plugin_x is not valid",
                    "Validation error: a plugin name cannot start with plugin_",
                ],
            ),
            case(
                "bootstrap_plugin.py create --no-input --template=python3_django main",
                1,
                &[
                    "ERROR: you cant use main as plugin name because we create a default app named main",
                ],
            ),
            case("bootstrap_plugin.py create", 2, &["…<NAME>"]),
            case("plugins_validate_name foo", 0, &["OK"]),
            case(
                "plugins_validate_name fo/o",
                1,
                &["ERROR: a plugin name is made of letters, digits, _ and - only"],
            ),
            case("plugins.check foo", 0, &["- Checking plugin... [ OK ] "]),
            case("plugins.check --debug foo", 0, &["- Checking plugin... [ OK ] ", "{"]),
            case(
                "plugins.check .",
                1,
                &[
                    "- Checking plugin... [ ERROR ] ",
                    "(note: use 'plugins.check --debug /plugin/path' for more details)",
                ],
            ),
            case("plugins.check", 2, &["…plugins.check <PATH>"]),
            case(
                "plugins.list --json --raw",
                1,
                &["ERROR: json and raw options are mutually exclusives"],
            ),
            case("plugins.list --raw", 0, &[]),
            case("plugins.list --json", 0, &["[]"]),
            case("plugins.info nope", 1, &[]),
            case("plugins.info --just-home foo/foo-0.0.1-1.metwork.mfserv.plugin", 0, &["None"]),
            case(
                "plugins.info foo/foo-0.0.1-1.metwork.mfserv.plugin",
                0,
                &["║ Name       ║ foo                          ║", "Files:", "- main/index.html"],
            ),
            case("plugins.info foo/config.ini", 1, &["error: bad plugin file: foo/config.ini"]),
            case("plugins.hash nope", 1, &[]),
            case("plugins.install nope.plugin", 1, &["- Checking plugin file... [ ERROR ] "]),
            case("plugins.install", 2, &["…plugins.install <FILE>"]),
            case(
                "plugins.install --new-name a/b foo/foo-0.0.1-1.metwork.mfserv.plugin",
                3,
                &["ERROR: bad plugin name for --new-name option"],
            ),
            case(
                "plugins.uninstall nope",
                1,
                &["- Uninstalling plugin nope... [ ERROR ] not installed"],
            ),
            case(
                "plugins.hotswap foo/foo-0.0.1-1.metwork.mfserv.plugin",
                1,
                &["…is not currently installed => use a regular plugins.install to install it"],
            ),
            case("plugins.repackage foo", 1, &["=> not installed plugin"]),
            case(
                "plugins.start",
                1,
                &[
                    "- Collecting infos about plugins... [ ERROR ] ",
                    "=> ERROR: can't connect to circus. Is the module started?",
                ],
            ),
            case(
                "plugins.stop",
                0,
                &["- Collecting infos about plugins... [ WARNING ] (circus stopped)"],
            ),
            case(
                "plugins.status",
                1,
                &["=> ERROR: can't connect to circus. Is the module started?"],
            ),
            case(
                "plugin_wrapper nope ls",
                1,
                &["ERROR: the plugin nope does not seem to be installed/available"],
            ),
            case("plugin_wrapper foo", 2, &["…plugin_wrapper <NAME_OR_HOME> <COMMAND>..."]),
            case(
                "plugin_env",
                1,
                &["usage: plugin_env PLUGIN_NAME or plugin_env (inside a plugin dir)"],
            ),
            case(
                "plugin_env nope",
                0,
                &["ERROR: the plugin nope does not seem to be installed/available"],
            ),
            case("circusctl list", 1, &["error"]),
            case("nginx.status", 1, &[]),
            case(
                "mfserv.status",
                1,
                &[
                    "*****     STATUS MFSERV     *****",
                    "- Checking circus status... [ ERROR ]",
                    "ERROR(S) DETECTED DURING MFSERV CHECK",
                ],
            ),
            case(
                "mfserv.stop",
                0,
                &[
                    "*****     STOPPING MFSERV     *****",
                    "- Stopping circus... [ WARNING ] (already stopped)",
                ],
            ),
            case("mfserv.start LOUD", 2, &["…[possible values: NOINIT]"]),
            case("mfserv_wrapper", 1, &["usage: mfserv_wrapper COMMAND [ARGS...]"]),
            case("echo_ok", 0, &["[ OK ]"]),
            case("echo_nok out of eels", 0, &["[ ERROR ] out of eels"]),
            case("echo_warning hm", 0, &["[ WARNING ] hm"]),
            case("echo_bold two words", 0, &["two words"]),
            case("echo_running", 0, &[]),
            case("is_layer_installed php@mfext", 0, &["0"]),
            case("is_layer_installed python3@mfext", 0, &["1"]),
            case("is_layer_installed plugin_foo@mfserv", 0, &["0"]),
            case("is_layer_loaded root@mfserv", 0, &["1"]),
            case("is_layer_loaded plugin_foo@mfserv", 0, &["0"]),
        ],
    );
}

#[test]
fn a_node_is_started_looked_at_and_stopped_with_the_old_names() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    node.add(&Plugin::python("hello", programs::SERVES));
    check(
        &old,
        &[
            case(
                "mfserv.start",
                0,
                &[
                    "*****     STARTING MFSERV     *****",
                    "- Starting circus... [ OK ]",
                    "- Waiting for circus daemon... [ OK ]",
                    "- Starting plugin: hello",
                    "    - Starting app.hello.main... [ OK ] ",
                    "OK !",
                ],
            ),
            case(
                "mfserv.start",
                0,
                &[
                    "- Starting circus... [ WARNING ] (already started)",
                    "    - Starting app.hello.main... [ WARNING ] (already started)",
                    "OK !",
                ],
            ),
            case(
                "mfserv.status",
                0,
                &[
                    "- Checking circus status... [ OK ]",
                    "- Checking circus conf generation... [ OK ]",
                    "- Checking nginx... [ OK ]",
                    "- Checking nginx uuid... [ OK ]",
                    "- Checking plugin: hello (basic)... [ OK ] ",
                    "- Checking plugin: hello (processes)... [ OK ] ",
                    "OK !",
                ],
            ),
            case("mfserv.status QUIET", 0, &["- Checking nginx uuid... [ OK ]", "OK !"]),
            case("nginx.status", 0, &[]),
            case("plugins.list --raw", 0, &["…~~~dev_link~~~dev_link~~~HOME/var/plugins/hello"]),
            case("plugins.info --just-home hello", 0, &["HOME/var/plugins/hello"]),
            case(
                "plugins.stop h*",
                0,
                &[
                    "- Collecting infos about plugins... [ OK ] ",
                    "- Scheduling stop of plugin: hello",
                    "- Waiting for stop of plugin: hello",
                ],
            ),
            case(
                "plugins.status hello",
                1,
                &[
                    "- Checking plugin: hello (processes)... [ WARNING ] ",
                    "=> the status of the watcher: app.hello.main is stopped",
                ],
            ),
            case("plugins.status w*", 0, &["- Checking plugin: welcome (basic)... [ OK ] "]),
            // Plugins that are not well do not make the node unwell.
            case(
                "mfserv.status",
                0,
                &["WARNING: SOME ERRORS DETECTED DURING MFSERV PLUGINS CHECK", "OK !"],
            ),
        ],
    );
    assert_eq!(node.get("/hello").status, 503);
    check(
        &old,
        &[
            case(
                "plugins.start hello",
                0,
                &["- Starting plugin: hello", "    - Starting app.hello.main... [ OK ] "],
            ),
            case("plugins.status hello", 0, &["- Checking plugin: hello (processes)... [ OK ] "]),
            case("plugins.stop", 0, &["- Scheduling stop of plugin: welcome"]),
            case("mfserv.stop", 0, &["- Stopping circus... [ OK ]"]),
            // What was stopped comes back with the node.
            case("mfserv.start NOINIT", 0, &["    - Starting app.hello.main... [ OK ] "]),
        ],
    );
    until("the app answers again", PATIENCE, || node.get("/hello").status == 200);
    check(
        &old,
        &[case("mfserv.init", 0, &["- Removing plugins, logs and temporary files... [ OK ]"])],
    );
    node.assert_nothing_left(None);
    assert!(node.path("config/config.ini").is_file() && node.path("var/base").exists());
    assert!(!node.path("var/plugins/hello").exists() && !node.path("log/daemon.log").exists());
}

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
    std::thread::sleep(Duration::from_millis(300));
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

#[test]
fn circusctl_shows_and_changes_the_watchers_of_the_node() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    node.add(&Plugin::python("hello", programs::SERVES));
    old.run(&["mfserv.start"]).code(0);
    let before = node.pids("app.hello.main");
    check(
        &old,
        &[
            case("circusctl --endpoint ipc:///x --timeout=10 list", 0, &["app.hello.main,nginx"]),
            case("_circusctl status", 0, &["app.hello.main: active", "nginx: active"]),
            case("circusctl status App.Hello.Main", 0, &["active"]),
            case("circusctl status nope", 3, &["error: program nope not found"]),
            case("circusctl numprocesses app.hello.main", 0, &["1"]),
            case("circusctl numprocesses", 0, &["2"]),
            case("circusctl numwatchers", 0, &["2"]),
            case("circusctl incr app.hello.main 2", 0, &["3"]),
            case("circusctl decr app.hello.main", 0, &["2"]),
            case("circusctl restart --waiting app.hello.main", 0, &["ok"]),
            case("circusctl reload --sequential nginx --waiting", 0, &["ok"]),
            case("circusctl stop --match glob app.h* --waiting", 0, &["ok"]),
            case("circusctl status app.hello.main", 0, &["stopped"]),
            case("circusctl list app.hello.main", 0, &[""]),
            case("circusctl start --waiting", 0, &["ok"]),
            case("circusctl status app.hello.main", 0, &["active"]),
            case("circusctl stats app.hello.main", 0, &["app.hello.main:"]),
            case("circusctl signal app.hello.main 0x7", 3, &["error: 0x7 is not a signal"]),
            case(
                "circusctl signal app.hello.main 1 TERM",
                3,
                &["error: process 1 is not one of app.hello.main"],
            ),
            case("circusctl kill app.hello.main", 0, &["ok"]),
            case("circusctl reloadconfig", 0, &["ok"]),
            case(
                "circusctl stop nginx",
                3,
                &["…use mfserv.start and mfserv.stop, or circusctl restart nginx"],
            ),
            case(
                "circusctl set app.hello.main numprocesses 3",
                3,
                &[
                    "…set is not supported: the configuration is in files: mfserv config, mfserv env PLUGIN",
                ],
            ),
            case("circusctl quit", 3, &["error: quit is not supported: use mfserv.stop"]),
            case("circusctl --nope", 2, &["error: unexpected argument '--nope' found"]),
        ],
    );
    let after = node.settled("app.hello.main");
    assert!(after.workers.iter().all(|worker| worker.pid.is_none_or(|pid| !before.contains(&pid))));
    let worker = node.pids("app.hello.main")[0].to_string();
    old.run(&["circusctl", "signal", "app.hello.main", &worker, "SIGKILL"]).code(0);
    until("it is replaced", PATIENCE, || {
        !node.pids("app.hello.main").iter().any(|pid| pid.to_string() == worker)
    });
    old.run(&["mfserv.stop"]).code(0);
}

#[test]
fn the_http_test_and_the_own_test_of_a_plugin_are_asked_for_its_status() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    let plugin = |body: &str, own: &str| {
        Plugin::python("hello", programs::SERVES)
            .key("app_main", "_http_test_endpoint", "/hello/any")
            .key("app_main", "_http_test_expected_body", body)
            .key("app_main", "_http_test_timeout", "1")
            .file("bin/plugin.status", &format!("#!/bin/sh\n{own}\n"))
    };
    node.add(&plugin("ello", "test \"$MFSERV_CURRENT_PLUGIN_NAME\" = hello"));
    old.run(&["mfserv.start"]).code(0);
    check(
        &old,
        &[case(
            "plugins.status",
            0,
            &[
                "- Checking plugin: hello (http)... [ OK ] ",
                "- Checking plugin: hello (custom)... [ OK ] ",
            ],
        )],
    );
    node.add(&plugin("eels", "echo slippery; exit 4"));
    check(
        &old,
        &[case(
            "plugins.status hello",
            1,
            &[
                "- Checking plugin: hello (http)... [ WARNING ] ",
                "…/hello/any  is failing",
                "- Checking plugin: hello (custom)... [ WARNING ] ",
                "=> bad status code: 4 for plugin.status (see HOME/tmp/plugin.status.hello.log for details)",
            ],
        )],
    );
    let log = std::fs::read_to_string(node.path("tmp/plugin.status.hello.log")).unwrap();
    assert_eq!(log, "slippery\n");
    old.run(&["mfserv.stop"]).code(0);
}

#[test]
fn the_packages_of_the_site_are_installed_at_the_start_and_replaced_when_they_are_others() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    let package = old.package("static", "foo");
    let site = node.path("site/mfserv/plugins");
    std::fs::create_dir_all(&site).unwrap();
    std::fs::copy(&package, site.join("one.plugin")).unwrap();
    std::fs::write(site.join("broken.plugin"), "eels").unwrap();
    check(&old, &[case("mfserv.start NOINIT", 0, &["OK !"])]);
    assert_eq!(node.get("/foo/").status, 404);
    let ran = old.run(&["mfserv.start"]).code(0);
    assert!(ran.stdout.contains("- Installing external plugin: foo... [ OK ]\n"), "{ran:?}");
    assert!(ran.stderr.contains("broken.plugin"), "{ran:?}");
    until("it serves", PATIENCE, || node.get("/foo/").status == 200);
    let again = old.run(&["mfserv.start"]).code(0);
    assert!(!again.stdout.contains("external plugin"), "{again:?}");

    let overrides = node.path("config/plugins/foo.ini");
    std::fs::write(&overrides, "[custom]\na=b\n").unwrap();
    let page = old.work().join("foo/main/index.html");
    // As long as before: only what is in it differs.
    edit(&page, "default home page", "deFault home page");
    old.run_in(&old.work().join("foo"), &["_plugins.make"]).code(0);
    std::fs::copy(&package, site.join("one.plugin")).unwrap();
    let ran = old.run(&["mfserv.start"]).code(0);
    assert!(ran.stdout.contains("- Updating external plugin: foo..."), "{ran:?}");
    until("it serves", PATIENCE, || node.get("/foo/").text().contains("deFault home page"));
    assert!(std::fs::read_to_string(&overrides).unwrap().contains("a=b"));
    old.run(&["mfserv.stop"]).code(0);
}

#[test]
fn root_is_refused_unless_that_is_allowed() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    let root = rustix::process::geteuid().is_root();
    for name in ["mfserv.status", "mfserv.init", "mfserv.stop"] {
        let ran = old.run_with(&old.work(), &[name], &[("METWORK_ALLOW_USAGE_BY_ROOT", "0")]);
        assert_eq!(ran.stderr.starts_with("can't run this program as root"), root, "{ran:?}");
        assert!(!root || ran.code == 1, "{ran:?}");
    }
}

#[test]
fn on_a_terminal_the_status_stands_in_column_60_and_nointeractive_makes_it_plain() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    old.create("static", "foo");
    let on_terminal = |more: &[(&str, &str)]| {
        let pty = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";
        let words = ["python3", "-c", pty, "plugins.check", "foo"];
        old.run_with(&old.work(), &words, &[&[("TERM", "xterm")], more].concat()).code(0).stdout
    };
    let shown = on_terminal(&[]);
    let expected = "- Checking plugin...\x1b[60G[ \x1b[1;33mRUNNING\x1b[0m ]\x1b[60G\x1b[K[ \x1b[1;32mOK\x1b[0m ]";
    assert!(shown.starts_with(expected), "{shown:?}");
    assert_eq!(on_terminal(&[("NOINTERACTIVE", "1")]).trim_end(), "- Checking plugin... [ OK ]");
    assert!(!on_terminal(&[("NO_COLOR", "1")]).contains("\x1b[1;"));
}

#[test]
fn the_commands_are_put_where_they_belong_once_and_never_over_foreign_files() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    let bin = old.prefix.join("bin");
    let again = node.mfserv(&["setup", "--commands", &bin.to_string_lossy()]).code(0).stdout;
    assert_eq!(again.lines().count(), 1, "{again}");
    // The program is found by the link, whatever the case: its own name runs it as ever.
    assert!(old.run(&["mfserv", "--version"]).code(0).stdout.starts_with("mfserv "));
    std::fs::remove_file(bin.join("plugins.list")).unwrap();
    std::fs::write(bin.join("plugins.list"), "somebody's").unwrap();
    let ran = node.mfserv(&["setup", "--commands", &bin.to_string_lossy()]).code(5);
    assert!(ran.stderr.contains("plugins.list is not a file of mfserv"), "{ran:?}");
    assert_eq!(std::fs::read_to_string(bin.join("plugins.list")).unwrap(), "somebody's");
    node.mfserv(&["setup", "--commands", "/tmp/no bin here"]).code(2);
}

#[test]
fn a_shell_of_plugin_env_has_the_environment_of_the_plugin_and_pip_installs_into_it() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    let dir = node.add(&Plugin::new("hello"));
    let shell = |words: &str, dir: &Path| {
        let script = format!("echo 'echo $MFSERV_CURRENT_PLUGIN_NAME $PIP_PREFIX' | {words}");
        old.run_in(dir, &["sh", "-c", &script]).code(0).stdout
    };
    let link = node.path("var/plugins/hello");
    assert_eq!(shell("plugin_env hello", node.home()), format!("hello {}/local\n", link.display()));
    assert_eq!(shell("plugin_env", &dir), format!("hello {}/local\n", dir.display()));
}
