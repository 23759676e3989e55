//! Plugins for Python 2 run with Python 2.7, and are refused where there is none.

use std::path::{Path, PathBuf};
use std::process::Command;

use mfserv_plugin::{Cancel, Home, Silent, base, python};
use mfserv_testkit::{Node, Plugin, Ran, get, programs, skipped, until};

use crate::compat::OldNames;
use crate::{PATIENCE, Turn, node};

/// PATH without the directories that have a Python 2.
fn path_without_python2() -> String {
    let path = std::env::var("PATH").unwrap();
    let dirs = path.split(':').filter(|dir| !Path::new(dir).join("python2.7").exists());
    dirs.collect::<Vec<_>>().join(":")
}

/// Runs a command where there is no Python 2.
fn without_python2(node: &Node, words: &[&str]) -> Ran {
    let mut command = node.command(words);
    command.env("PATH", path_without_python2());
    Ran::of(command)
}

/// Plugins that mean Python 2 in one way each, and what a refusal of each says.
fn plugins() -> Vec<(Plugin, &'static str)> {
    let plugin = |name: &str| Plugin::python(name, programs::SERVES);
    vec![
        (
            plugin("layer").file(".layerapi2_dependencies", "root@mfserv\npython2@mfext\n"),
            "it depends on the layer python2@mfext",
        ),
        (
            plugin("sources")
                .file("python2_virtualenv_sources/requirements-to-freeze.txt", "flask\n"),
            "it has packages for Python 2",
        ),
        (plugin("key").key("general", "_python", "python2.7"), "its interpreter is python2.7"),
        (
            plugin("command").key(
                "app_main",
                "_cmd_and_args",
                "signal_wrapper.py {unix_socket_path} -- /usr/bin/python2.7 {plugin_dir}/main.py",
            ),
            "the command of [app_main] is",
        ),
        (
            Plugin::new("extra")
                .key("extra_daemon_x", "_cmd_and_args", "python2 {plugin_dir}/x.py")
                .key("extra_daemon_x", "numprocesses", "1"),
            "the command of [extra_daemon_x] is",
        ),
    ]
}

/// The package that MFSERV makes of a directory.
pub fn old_package(dir: &Path) -> PathBuf {
    const MAKE: &str = r#"
import io, json, os, sys, tarfile
home = sys.argv[1]
files = [os.path.relpath(os.path.join(d, f), home) for d, _, fs in os.walk(home) for f in fs]
about = dict(version="1.0.0", release="1", build_host="h", build_date="2020-01-01T00:00:00Z", size="1",
             summary="", license="", packager="", vendor="", url="")
with tarfile.open(sys.argv[2], "w:gz") as tar:
    for name, value in ((".metadata.json", about), (".files.json", ["metwork_plugin/" + f for f in files])):
        entry = tarfile.TarInfo("metwork_plugin/" + name)
        text = json.dumps(value).encode()
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    for name in files:
        tar.add(os.path.join(home, name), "metwork_plugin/" + name)
"#;
    let file = dir.with_extension("plugin");
    let made = Command::new("python3").args(["-c", MAKE]).arg(dir).arg(&file).status();
    assert!(made.unwrap().success());
    file
}

#[test]
fn without_python2_its_plugins_are_refused_by_check_build_dev_and_install_with_the_reason() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    for (plugin, reason) in plugins() {
        let dir = plugin.write(&node.path("work"));
        let path = dir.to_string_lossy().into_owned();
        let package = old_package(&dir).to_string_lossy().into_owned();
        for words in [
            &["build", path.as_str()][..],
            &["check", &path],
            &["release", &path],
            &["dev", &path, "--detach"],
            &["install", &package],
            &["info", &package],
        ] {
            let ran = without_python2(&node, words);
            let said = ran.stdout.clone() + &ran.stderr;
            assert!(ran.code != 0 && said.contains(reason), "{words:?}: {ran:?}");
            assert!(said.contains("it is made for Python 2"), "{ran:?}");
            assert!(said.contains("python2.7 is not on PATH"), "{ran:?}");
        }
        let path_of = [("PATH", path_without_python2())];
        let path_of = path_of.each_ref().map(|(name, value)| (*name, value.as_str()));
        let ran = old.run_with(&old.work(), &["plugins.check", &path], &path_of).code(1);
        assert!(ran.stderr.contains(reason), "{ran:?}");
    }
    let names = plugins().into_iter().map(|(plugin, _)| plugin.name().to_string());
    for name in names {
        assert!(!node.path(&format!("var/releases/{name}")).exists());
        assert!(!node.path(&format!("var/plugins/{name}")).exists());
    }
    // Whoever asks for another interpreter asks for two things.
    let both = Plugin::python("two", programs::SERVES)
        .file(".layerapi2_dependencies", "python2@mfext\n")
        .key("general", "_python", "python3");
    let dir = both.write(&node.path("work"));
    let ran = node.mfserv(&["check", &dir.to_string_lossy()]);
    assert!(ran.code != 0 && ran.stderr.contains("its interpreter is python3"), "{ran:?}");
}

#[test]
fn one_that_is_installed_already_is_not_run_and_one_that_can_do_without_is() {
    let _turn = Turn::cheap();
    let node = node();
    node.add(
        &Plugin::python("old", programs::SERVES).file(".layerapi2_dependencies", "python2@mfext\n"),
    );
    node.add(
        &Plugin::python("both", programs::SERVES)
            .file(".layerapi2_dependencies", "python3@mfext\n-python2@mfext\n"),
    );
    without_python2(&node, &["start"]);
    let status = node.mfserv(&["status"]);
    let said = status.stdout + &status.stderr;
    assert!(said.contains("it is made for Python 2"), "{said}");
    let workers = node.mfserv(&["ps"]).code(0).stdout;
    assert!(workers.contains("both") && !workers.contains("old"), "{workers}");
    node.stop();
}

/// What the templates of MFSERV 1.x have in common; `{app}` is the callable.
fn of_1x(name: &str, callable: &str) -> Plugin {
    const LAYERS: &str = "python2@mfext\nroot@mfserv\n-python2_devtools@mfext\n-python2_vim@mfext\n\
                          -scientific_core@mfext\n-python2_scientific@mfext\n";
    let command = format!(
        "bjoern_wrapper.py {{debug_extra_options}} --timeout={{timeout}} \
         {{app_name}}.wsgi:{callable} \"{{unix_socket_path}}\""
    );
    let debug = "--debug --debug-evalex";
    Plugin::new(name)
        .file(".layerapi2_dependencies", LAYERS)
        .file("main/__init__.py", "")
        .app("main", &command)
        .key("app_main", "_debug_extra_options", debug)
        .key("app_main", "smart_stop_signal", "2")
}

const FLASK: &str = "
import sys
import mflog
from flask import Flask

app = Flask(__name__)
logger = mflog.get_logger(__name__)


@app.route('/flask2/')
def hello_world():
    logger.info('This is an info message')
    return 'Hello World ! %d' % sys.version_info[0]
";

const RAW: &str = "
import sys


def application(environ, start_response):
    print 'asked for', environ['PATH_INFO']
    if environ['PATH_INFO'].endswith('slow'):
        while True:
            pass
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [sys.version.split()[0]]
";

#[test]
fn plugins_of_the_templates_for_python2_are_built_packed_installed_and_served() {
    let Ok(python) = python::find(Some("python2.7")) else {
        return skipped("plugins of Python 2: python2.7 is not on PATH (`pyenv install 2.7.18`)");
    };
    let _turn = Turn::heavy();
    let node = node();
    // The first one makes it for all nodes of the tests, which share the directory: its programs
    // must not name the home of this node.
    let home = Home::new(node.home());
    base::ensure(&home, &python, None, &Cancel::default(), &mut Silent).unwrap();
    let wrapper = home.base().join("python2.7/bin/bjoern_wrapper.py");
    let first = std::fs::read_to_string(wrapper).unwrap();
    assert!(!first.contains(&*node.home().to_string_lossy()), "{first}");
    let old = OldNames::new(&node);
    old.run(&["mfserv.start"]).code(0);
    let flask = of_1x("flask2", "app")
        .file("main/wsgi.py", FLASK)
        .file("python2_virtualenv_sources/requirements-to-freeze.txt", "flask>=1.1,<1.2\n");
    let raw =
        of_1x("raw2", "application").file("main/wsgi.py", RAW).key("app_main", "timeout", "1");
    let daemon = "#!/usr/bin/env python\nimport sys, time\nprint sys.version\ntime.sleep(600)\n";
    let noweb = Plugin::new("noweb2")
        .file(".layerapi2_dependencies", "python2@mfext\n")
        .file("bin/says.py", daemon)
        .key("extra_daemon_x", "_cmd_and_args", "says.py")
        .key("extra_daemon_x", "numprocesses", "1");
    for plugin in [&flask, &raw, &noweb] {
        let dir = plugin.write(&old.work());
        std::fs::write(dir.join("Makefile"), "include $(MFEXT_HOME)/share/plugin.mk\n").unwrap();
        old.run_in(&dir, &["sh", "-c", "test ! -d bin || chmod +x bin/*"]).code(0);
        old.run(&["plugins.check", &dir.to_string_lossy()]).code(0);
        old.run_in(&dir, &["make", "release"]).code(0);
        old.run_in(&dir, &["sh", "-ec", "plugins.install \"$(ls *.plugin)\""]).code(0);
    }
    let page = |path: &str| get(node.address(), path).map_or(String::new(), |page| page.text());
    until("Flask answers", PATIENCE, || page("/flask2/") == "Hello World ! 2");
    until("the callable answers", PATIENCE, || page("/raw2/x") == python.version);
    assert_eq!(node.get("/raw2/slow").status, 504, "the soft timeout interrupts the app");
    let lines = || node.log_lines("extra_noweb2_x").join("\n");
    until("the daemon has spoken", PATIENCE, || lines().contains(&python.version));
    assert!(node.log_lines("app_raw2_main").iter().any(|line| line.contains("asked for")));
    let said = old.run(&[
        "plugin_wrapper",
        "flask2",
        "--",
        "python",
        "-c",
        "import flask, sys; print flask.__version__, sys.version_info[0]",
    ]);
    assert_eq!(said.code(0).stdout, "1.1.4 2\n");
    // One of Python 3 beside them has its own.
    let three = Plugin::python("three", programs::SERVES);
    let dir = three.write(&node.path("work"));
    node.mfserv(&["dev", &dir.to_string_lossy(), "--detach"]).code(0);
    assert_eq!(node.get("/three").status, 200);
    for name in ["flask2", "raw2", "noweb2"] {
        old.run(&["plugins.uninstall", name]).code(0);
    }
    old.run(&["mfserv.stop"]).code(0);
}
