//! MFSERV's commands: what they print, and how they exit.

mod install;
mod journey;
mod make;
mod node;
mod standins;
mod styles;
mod upstream;

use std::path::{Path, PathBuf};

use mfserv_testkit::{Node, Plugin, Ran};

use crate::{Turn, node};

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
    pub fn package(&self, template: &str, name: &str) -> PathBuf {
        let dir = self.create(template, name);
        self.run_in(&dir, &["_plugins.make"]).code(0);
        dir.join(format!("{name}-0.0.1-1.metwork.mfserv.plugin"))
    }
}

/// A command, its exit code, and lines that it prints (`…` stands for anything before).
pub struct Case {
    words: &'static str,
    code: i32,
    says: &'static [&'static str],
}

pub const fn case(words: &'static str, code: i32, says: &'static [&'static str]) -> Case {
    Case { words, code, says }
}

#[track_caller]
pub fn check(old: &OldNames, cases: &[Case]) {
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
fn the_questions_of_a_template_are_answered_from_where_the_input_comes() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    let answers = "1.2.3\\n\\nmy words\\nnonsense\\n3\\n";
    let create = "bootstrap_plugin.py create --template=static foo";
    let ran = old.run(&["sh", "-c", &format!("printf '{answers}' | {create}")]).code(0);
    assert!(ran.stdout.contains("license is one of: Proprietary, BSD"), "{ran:?}");
    let config = std::fs::read_to_string(old.work().join("foo/config.ini")).unwrap();
    for line in
        ["_version=1.2.3", "_release=1", "_summary=my words", "_license=MIT", "_vendor=Vendor"]
    {
        assert!(config.lines().any(|found| found == line), "{line}: {config}");
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
            case(
                "signal_wrapper.py --signal 2 /tmp/s",
                1,
                &["ERROR: you have to provide a command to execute"],
            ),
            case("signal_wrapper.py --timeout 9 /tmp/s -- echo here -- I am", 0, &["here -- I am"]),
            case("signal_wrapper.py /tmp/s -- false", 1, &[]),
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
