//! A module that nothing provides is said before its worker fails to start.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use mfserv_testkit::{Node, Plugin, Ran, programs};

use crate::compat::OldNames;
use crate::{Turn, node};

#[test]
fn a_module_that_nothing_provides_is_named_by_build_check_and_install_with_the_line_to_add() {
    let _turn = Turn::cheap();
    let node = node();
    let lacks = Plugin::new("lacks")
        .file("main.py", "import yaml\nimport requests\napplication = None\n")
        .app("main", "bjoern_wrapper.py --timeout={timeout} main:application {unix_socket_path}");
    let dir = lacks.write(&node.path("work"));
    let path = dir.to_string_lossy().into_owned();
    let said = "main.py imports yaml, which nothing provides";
    let line = "add `PyYAML` to";
    for words in [&["build", path.as_str()][..], &["check", &path]] {
        let ran = node.mfserv(words).code(0);
        assert!(ran.stderr.contains(said) && ran.stderr.contains(line), "{ran:?}");
        assert!(!ran.stderr.contains("requests"), "the base environment has it: {ran:?}");
    }
    assert!(node.mfserv(&["check", "--strict", &path]).code != 0);
    check_runs_nothing(&node, &dir);
    node.start();
    node.mfserv(&["release", &path, "--output", &node.path("work").to_string_lossy()]).code(0);
    let files = fs::read_dir(node.path("work")).unwrap().flatten().map(|file| file.path());
    let package = files.into_iter().find(|file| file.extension().is_some_and(|e| e == "plugin"));
    let ran = node.mfserv(&["install", &package.unwrap().to_string_lossy()]);
    assert!(ran.code != 0 && ran.stderr.contains(said), "{ran:?}");
    let refusal = ran.stderr.split_once("does not start").expect("it is refused").1;
    assert!(refusal.contains("No module named 'yaml'") && refusal.contains(line), "{ran:?}");
    // Nothing of it is installed, and its name is free.
    let listed = node.mfserv(&["list"]).code(0).stdout;
    assert!(!listed.contains("lacks") && !node.path("var/plugins/lacks").exists(), "{listed}");
    let other = Plugin::python("lacks", programs::SERVES).write(&node.path("other"));
    let file = crate::install::release(&node, &other);
    node.mfserv(&["install", &file.to_string_lossy()]).code(0);
    assert_eq!(node.get("/lacks").status, 200);
    node.stop();

    // What MFSERV's layers had is there for those who ask for it.
    node.set("python.legacy_layers", "1");
    let ran = node.mfserv(&["build", &path]).code(0);
    assert!(!ran.stderr.contains("which nothing provides"), "{ran:?}");
    let all = "import yaml, redis, lxml.etree, PIL.Image, cachetools, pydantic, httpx, jsonschema, \
               paramiko, bs4; print(yaml.__file__)";
    let ran = OldNames::new(&node).run(&["plugin_wrapper", &path, "--", "python", "-c", all]);
    assert!(ran.code(0).stdout.contains("/.layers-python3"));
}

/// A check from the directory of the plugin, where modules and programs with the names of those of
/// Python are.
fn check_runs_nothing(node: &Node, dir: &Path) {
    let ran = node.path("ran");
    let code = format!("import os; os.mkdir({:?})\n", ran.display().to_string());
    fs::create_dir_all(dir.join("bin")).unwrap();
    let modules = ["ast.py", "json.py", "imp.py", "sitecustomize.py"].map(|name| dir.join(name));
    modules.iter().for_each(|file| fs::write(file, &code).unwrap());
    let python = dir.join("bin/python");
    fs::write(&python, format!("#!/bin/sh\nmkdir {}\n", ran.display())).unwrap();
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = node.command(&["check", "."]);
    command.current_dir(dir);
    let said = Ran::of(command).stderr;
    assert!(said.contains("main.py imports yaml, which nothing provides"), "{said}");
    assert!(!ran.exists());
    modules.iter().chain([&python]).for_each(|file| fs::remove_file(file).unwrap());
}
