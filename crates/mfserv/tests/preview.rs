//! `mfserv info FILE` says what an installation would do, and does nothing.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use mfserv_testkit::{Node, Plugin, programs};
use serde_json::Value;

use crate::install::{install, release};
use crate::{Turn, node, samples, tree};

/// A plugin with everything that a preview speaks of.
fn rich() -> Plugin {
    Plugin::python("rich", programs::SERVES)
        .key("general", "_persistent_paths", "db.sqlite3")
        .key("app_main", "numprocesses", "3")
        .app("more", "python3 {plugin_dir}/main.py {unix_socket_path}")
        .key("app_more", "debug", "1")
        .key("app_main", "prefix_based_routing_extra_routes", "/shared")
        .key("extra_daemon_queue", "_cmd_and_args", "python3 {plugin_dir}/main.py --port 7777")
        .key("extra_daemon_queue", "numprocesses", "1")
        .file(
            "crontab",
            "# jobs\n0 3 * * * {{MFSERV_CURRENT_PLUGIN_DIR}}/bin/clean\n61 3 * * * x\n",
        )
        .file(
            "postinstall",
            "#!/bin/sh\necho a word of the hook >&2\necho ran > \"$MFMODULE_RUNTIME_HOME/ran\"\n",
        )
}

/// Every path of the home with its kind and the time of its last change.
fn state(node: &Node) -> Vec<(PathBuf, SystemTime)> {
    let changed = |path: &PathBuf| std::fs::symlink_metadata(path).unwrap().modified().unwrap();
    tree(node.home()).into_iter().map(|path| (path.clone(), changed(&path))).collect()
}

fn packed(node: &Node, plugin: &Plugin) -> String {
    release(node, &plugin.write(&node.path("work"))).to_string_lossy().into_owned()
}

#[test]
fn what_a_package_would_do_is_said_and_nothing_of_it_is_done() {
    let _turn = Turn::cheap();
    let node = node();
    let file = packed(&node, &rich());
    let before = state(&node);
    let said = node.mfserv(&["info", &file, "--json"]).code(0).stdout;
    let shown = node.mfserv(&["info", &file]).code(0);
    assert_eq!(state(&node), before, "something was written");

    let said: Value = serde_json::from_str(&said).unwrap();
    let app = &said["apps"][0];
    assert_eq!((app["workers"].as_u64(), app["name"].as_str()), (Some(3), Some("main")));
    assert!(app["command"].as_str().unwrap().contains("main.py"), "{app}");
    for route in ["/rich", "/rich/main", "/shared"] {
        assert!(app["routes"].as_array().unwrap().contains(&route.into()), "{route}: {app}");
    }
    assert_eq!(said["extra_daemons"][0]["workers"], 1);
    assert_eq!(said["jobs"].as_array().unwrap().len(), 2);
    assert_eq!(said["ports"], serde_json::json!([7777]));
    assert_eq!(said["persistent_paths"], serde_json::json!(["db.sqlite3"]));
    assert_eq!((&said["postinstall"], &said["replaces"]), (&true.into(), &Value::Null));
    assert_eq!(said["number"], 1);
    assert_eq!(said["dangers"].as_array().unwrap().len(), 2, "{said}");
    let packed = std::fs::metadata(&file).unwrap().len();
    assert_eq!(said["sizes"]["packed_bytes"], packed);
    assert!(said["sizes"]["unpacked_bytes"].as_u64().unwrap() > 0);
    assert!(said["sizes"]["free_bytes"].as_u64().unwrap() > 0);
    assert_eq!(said["served_at"], node.address().to_string());
    for text in ["3 workers of `", "extra daemon queue: 1 worker", "7777", "postinstall", "danger:"]
    {
        assert!(shown.stdout.contains(text), "{text}: {shown:?}");
    }

    // and it is what is done
    let ran = node.mfserv(&["install", &file]).code(0);
    assert!(ran.stderr.contains("warning: this plugin has a debug == 1"), "{ran:?}");
    for said in [&ran, &shown, &node.mfserv(&["check"])] {
        assert!(said.stderr.contains("the crontab of plugin rich has no effect"), "{said:?}");
        assert!(said.stderr.contains("rich/1/crontab:3"), "{said:?}");
    }
    assert!(ran.stderr.contains("because: a word of the hook"), "{ran:?}");
    assert!(node.path("ran").is_file());
    let installed = node.path("var/plugins/rich").canonicalize().unwrap();
    assert_eq!(said["dir"], installed.to_string_lossy().as_ref());
}

#[test]
fn what_an_installation_would_replace_and_remove_is_said() {
    let _turn = Turn::cheap();
    let node = node();
    let dir = node.path("work/sample_static");
    samples().copy("sample_static", &dir);
    let file = release(&node, &dir);
    (0..5).for_each(|_| install(&node, &file));
    let said = node.mfserv(&["info", &file.to_string_lossy(), "--json"]).code(0).stdout;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["number"], &said["removes"]), (&6.into(), &serde_json::json!([1])));
    assert!(said["replaces"]["dir"].as_str().unwrap().ends_with("/5"), "{said}");
    install(&node, &file);
    assert!(!node.path("var/releases/sample_static/1").exists());
}

#[test]
fn why_a_package_would_be_refused_is_said_with_the_exit_code_of_the_installation() {
    let _turn = Turn::cheap();
    let node = node();
    let overrides = node.path("config/plugins/rich.ini");
    let file = packed(&node, &rich());
    std::fs::create_dir_all(overrides.parent().unwrap()).unwrap();
    std::fs::write(&overrides, "[app_main]\nnumproceses=2\n").unwrap();
    let ran = node.mfserv(&["info", &file]).code(4);
    assert!(ran.stderr.contains("numproceses") && ran.stderr.contains("numprocesses"), "{ran:?}");
    node.mfserv(&["install", &file]).code(4);
    std::fs::remove_file(&overrides).unwrap();

    let needy = Plugin::new("needy").file(".layerapi2_dependencies", "plugin_other@mfserv\n");
    let ran = node.mfserv(&["info", &packed(&node, &needy)]).code(4);
    assert!(ran.stderr.contains("other, which is not installed"), "{ran:?}");

    node.add(&Plugin::new("rich"));
    let ran = node.mfserv(&["info", &file]).code(5);
    assert!(ran.stderr.contains("it is a link to"), "{ran:?}");
    node.mfserv(&["install", &file]).code(5);
}

/// Packs a directory as it is, as MFSERV would: nothing is checked.
fn packed_unchecked(node: &Node, dir: &Path) -> String {
    let script = r#"
import json, sys, tarfile
home, out = sys.argv[1:]
open(home + "/.metadata.json", "w").write('{"version": "1", "release": "1"}')
open(home + "/.files.json", "w").write("[]")
with tarfile.open(out, "w:gz") as tar:
    tar.add(home, arcname="metwork_plugin")
"#;
    let file = node.path("odd.plugin").to_string_lossy().into_owned();
    let mut made = std::process::Command::new("python3");
    made.args(["-c", script]).arg(dir).arg(&file);
    assert!(made.status().unwrap().success());
    file
}

#[test]
fn a_preview_and_an_installation_judge_odd_packages_alike() {
    let _turn = Turn::cheap();
    let node = node();
    let plugin = || Plugin::new("odd");
    let link = |dir: &Path, to: &str, name: &str| {
        std::os::unix::fs::symlink(to, dir.join(name)).unwrap();
    };
    type Edit<'a> = &'a dyn Fn(&Path);
    let config = |dir: &Path, more: &[u8]| {
        let text = std::fs::read(dir.join("config.ini")).unwrap();
        std::fs::write(dir.join("config.ini"), [text.as_slice(), more].concat()).unwrap();
    };
    let own = plugin().file(".layerapi2_dependencies", "plugin_odd@mfserv\n");
    let lost = plugin().file("python3_virtualenv_sources/requirements3.txt", "eels==1.0\n");
    let kept = plugin().key("general", "_persistent_paths", "lnk/x").file("real/x", "");
    let cases: [(&str, Plugin, Edit, i32); 8] = [
        ("depends on itself", own, &|_| {}, 0),
        (
            "a crontab that is no text",
            plugin(),
            &|dir| {
                std::fs::write(dir.join("crontab"), b"# \xe9\n").unwrap();
            },
            0,
        ),
        ("a persistent path below a link", kept, &|dir| link(dir, "real", "lnk"), 4),
        ("packages that are not packed", lost, &|_| {}, 1),
        ("a configuration that is no text", plugin(), &|dir| config(dir, b"# \xe9\n"), 4),
        ("a large configuration", plugin(), &|dir| config(dir, &b"# xxxxx\n".repeat(1 << 17)), 4),
        (
            "links in a circle",
            plugin(),
            &|dir| {
                link(dir, "b", "a");
                link(dir, "a", "b");
            },
            1,
        ),
        ("a control character", plugin(), &|dir| config(dir, b"\n[custom]\nx=\x1b[8m\n"), 4),
    ];
    for (what, plugin, edit, code) in cases {
        let dir = plugin.write(&node.path("odd"));
        edit(&dir);
        let file = packed_unchecked(&node, &dir);
        for verb in ["info", "install"] {
            let ran = node.mfserv(&[verb, &file]);
            assert_eq!(ran.code, code, "{what}: {ran:?}");
            assert!(!ran.stdout.contains('\x1b') && !ran.stderr.contains('\x1b'), "{ran:?}");
        }
        if code == 0 {
            node.mfserv(&["uninstall", "odd", "--clean"]).code(0);
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

#[test]
fn a_route_that_another_plugin_has_already_is_said_before_it_is_installed() {
    let _turn = Turn::cheap();
    let node = node();
    let other = Plugin::python("other", programs::SERVES).key(
        "app_main",
        "prefix_based_routing_extra_routes",
        "/shared",
    );
    node.add(&other);
    let ran = node.mfserv(&["info", &packed(&node, &rich())]).code(5);
    assert!(ran.stderr.contains("requests of /shared go to other/main"), "{ran:?}");
}

/// The home, except for the store, which has its lock after the first attempt.
fn outside_the_store(node: &Node) -> Vec<PathBuf> {
    let store = node.path("var/releases");
    tree(node.home()).into_iter().filter(|path| !path.starts_with(&store)).collect()
}

#[test]
fn a_file_that_is_no_package_is_refused_in_words_and_nothing_is_left() {
    let _turn = Turn::cheap();
    let node = node();
    node.mfserv(&["list"]).code(0);
    let file = packed(&node, &rich());
    let whole = std::fs::read(&file).unwrap();
    let bad = node.path("bad.plugin");
    for (bytes, reason) in [
        (&whole[..whole.len() / 2], "bad plugin file"),
        (&b"not a package"[..], "bad plugin file"),
        (&[whole.as_slice(), b"more"].concat(), "bad plugin file"),
    ] {
        std::fs::write(&bad, bytes).unwrap();
        for verb in ["info", "install"] {
            let before = outside_the_store(&node);
            let ran = node.mfserv(&[verb, &bad.to_string_lossy()]).code(1);
            assert!(ran.stderr.contains(reason) && ran.stderr.contains("because: "), "{ran:?}");
            assert_eq!(outside_the_store(&node), before, "{verb}");
        }
    }
    // one that would write beside the plugin, made as an attacker would
    let script = r#"
import io, json, sys, tarfile
with tarfile.open(sys.argv[1], "w:gz") as tar:
    for path, text in [(".layerapi2_label", "plugin_evil@mfserv\n"), (".metadata.json", "{}"),
                       (".files.json", "[]"), ("../../../../evil", "x")]:
        entry = tarfile.TarInfo("metwork_plugin/" + path)
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text.encode()))
"#;
    let made = std::process::Command::new("python3").args(["-c", script]).arg(&bad).status();
    assert!(made.unwrap().success());
    for verb in ["info", "install"] {
        let ran = node.mfserv(&[verb, &bad.to_string_lossy()]).code(1);
        assert!(ran.stderr.contains("../../../../evil"), "{ran:?}");
    }
    node.mfserv(&["hotswap", &bad.to_string_lossy()]).code(5);
    assert!(!tree(node.home()).iter().any(|path| path.ends_with("evil")));
    let missing = node.mfserv(&["info", "./nothing.plugin"]).code(1);
    assert!(missing.stderr.contains("nothing.plugin"), "{missing:?}");
}
