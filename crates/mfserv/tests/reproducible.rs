//! The same plugin gives the same package, wherever and however it is built.

use std::path::PathBuf;
use std::process::Command;

use mfserv_testkit::Node;

use crate::{Turn, node, samples};

/// Builds and packs a sample with nothing that another build has left: in a home and a
/// folder of its own, with this mask of modes and without the cache of pip.
fn packed(sample: &str, umask: &str, adapt: impl Fn(&Node, &PathBuf)) -> Vec<u8> {
    let node = node();
    let dir = node.path(&format!("folder{umask}/{sample}"));
    samples().copy(sample, &dir);
    adapt(&node, &dir);
    let release = node.command(&["release"]);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"]);
    command.arg(release.get_program()).args(release.get_args()).arg(&dir);
    for (name, value) in release.get_envs() {
        value.map(|value| command.env(name, value));
    }
    command.env("PIP_NO_CACHE_DIR", "1").current_dir(node.home());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let said = String::from_utf8_lossy(&output.stdout);
    let file = said.lines().find_map(|line| line.strip_prefix("plugin file is ready at ")).unwrap();
    std::fs::read(file).unwrap()
}

/// Not with `assert_eq`, which would print both.
#[track_caller]
fn assert_same(first: &[u8], second: &[u8]) {
    assert!(!first.is_empty());
    assert!(first == second, "{} and {} bytes, and not the same", first.len(), second.len());
}

#[test]
fn a_flask_plugin_with_a_package_that_is_compiled_gives_the_same_bytes_in_two_folders() {
    let _turn = Turn::heavy();
    let adapt = |_: &Node, dir: &PathBuf| {
        let sources = dir.join("python3_virtualenv_sources");
        std::fs::write(sources.join("requirements-to-freeze.txt"), "flask\nsimplejson\n").unwrap();
        // simplejson is not named, and so compiled here
        std::fs::write(sources.join("allow_binary_packages"), "flask\nblinker\nitsdangerous\n")
            .unwrap();
    };
    let first = packed("sample_flask", "022", |node, dir| {
        adapt(node, dir);
    });
    let second = packed("sample_flask", "077", |node, dir| {
        adapt(node, dir);
        // what was imported before a build is not packed
        std::fs::create_dir(dir.join("main/__pycache__")).unwrap();
        std::fs::write(dir.join("main/__pycache__/wsgi.cpython-311.pyc"), "compiled").unwrap();
    });
    assert_same(&first, &second);
}

#[test]
fn a_node_plugin_with_a_module_that_is_compiled_gives_the_same_bytes_in_two_folders() {
    let _turn = Turn::heavy();
    let adapt = |_: &Node, dir: &PathBuf| {
        let file = dir.join("package.json");
        let mut package: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        package["dependencies"]["diskusage"] = "1.2.0".into();
        std::fs::write(&file, package.to_string()).unwrap();
    };
    assert_same(&packed("sample_node", "022", adapt), &packed("sample_node", "077", adapt));
}
