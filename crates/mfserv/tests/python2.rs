//! Plugins for Python 2 are refused everywhere, and never run with Python 3.

use std::path::{Path, PathBuf};
use std::process::Command;

use mfserv_testkit::{Plugin, programs};

use crate::compat::OldNames;
use crate::{Turn, node};

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
fn old_package(dir: &Path) -> PathBuf {
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
fn a_plugin_for_python2_is_refused_by_check_build_dev_and_install_with_its_reason() {
    let _turn = Turn::cheap();
    let node = node();
    let old = OldNames::new(&node);
    for (plugin, reason) in plugins() {
        let dir = plugin.write(&node.path("work"));
        let path = dir.to_string_lossy().into_owned();
        let package = old_package(&dir).to_string_lossy().into_owned();
        for words in [
            &["build", path.as_str()][..],
            &["release", &path],
            &["dev", &path, "--detach"],
            &["install", &package],
        ] {
            let ran = node.mfserv(words);
            assert!(ran.code != 0 && ran.stderr.contains(reason), "{words:?}: {ran:?}");
            assert!(ran.stderr.contains("it is made for Python 2"), "{ran:?}");
        }
        let ran = old.run(&["plugins.check", &path]).code(1);
        assert!(ran.stderr.contains(reason), "{ran:?}");
        let ran = node.mfserv(&["info", &package]);
        assert!(ran.code != 0 && (ran.stdout + &ran.stderr).contains(reason));
    }
    let names = plugins().into_iter().map(|(plugin, _)| plugin.name().to_string());
    for name in names {
        assert!(!node.path(&format!("var/releases/{name}")).exists());
        assert!(!node.path(&format!("var/plugins/{name}")).exists());
    }
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
    node.start();
    let status = node.mfserv(&["status"]);
    let said = status.stdout + &status.stderr;
    assert!(said.contains("it is made for Python 2"), "{said}");
    let workers = node.mfserv(&["ps"]).code(0).stdout;
    assert!(workers.contains("both") && !workers.contains("old"), "{workers}");
    node.stop();
}
