//! Installing, replacing, linking and removing plugins.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mfserv_core::Kind;
use mfserv_plugin::Silent;
use mfserv_plugin::archive::{pack, read, read_installed};
use mfserv_plugin::store::{self, KEPT, Origin, Owner, install, releases, stage};
use mfserv_plugin::templates::materialise_welcome;

use crate::{Node, claim, dev_link, options, spec_of, tree, uninstall};

fn packed(node: &Node, dir: &Path) -> PathBuf {
    pack(dir, &spec_of(dir).general, &node.work(), &mut Silent).unwrap()
}

fn hook(dir: &Path, text: &str) {
    let file = dir.join("postinstall");
    fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_package_becomes_a_numbered_release_and_a_link_and_leaves_nothing_when_uninstalled() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    let file = packed(&node, &dir);
    let (installed, warnings) = install(&node.home, &file, &options(false), &mut Silent).unwrap();
    assert_eq!((installed.origin, installed.version.as_str()), (Origin::Packed(1), "0.0.1"));
    assert!(warnings.is_empty());
    assert_eq!(fs::read_link(node.home.link("foo")).unwrap(), Path::new("../releases/foo/1"));
    assert!(node.home.link("foo").join("main/index.html").is_file());
    assert_eq!(read_installed(&installed.dir).unwrap(), read(&file).unwrap());
    assert!(read_installed(&dir).is_err());
    let overrides = fs::read_to_string(node.home.override_file("foo")).unwrap();
    assert!(overrides.contains("# prefix_based_routing_extra_routes=null"), "{overrides}");
    assert_eq!(store::list(&node.home).unwrap(), [installed]);
    assert!(uninstall(&node.home, "foo", false).unwrap().1.is_empty());
    assert!(
        !tree(node.home.root()).iter().any(|path| path.contains("foo")),
        "{:?}",
        tree(node.home.root())
    );
    assert_eq!(uninstall(&node.home, "foo", false).unwrap_err().kind, Kind::Usage);
}

#[test]
fn an_installed_plugin_is_replaced_only_when_asked_and_the_last_releases_are_kept() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    let file = packed(&node, &dir);
    install(&node.home, &file, &options(false), &mut Silent).unwrap();
    assert_eq!(
        install(&node.home, &file, &options(false), &mut Silent).unwrap_err().kind,
        Kind::Refused
    );
    for _ in 0..KEPT + 2 {
        install(&node.home, &file, &options(true), &mut Silent).unwrap();
    }
    let numbers: Vec<u32> =
        releases(&node.home, "foo").iter().map(|release| release.number).collect();
    assert_eq!(numbers, [4, 5, 6, 7, 8]);
    assert_eq!(store::current(&node.home, "foo").unwrap().origin, Origin::Packed(8));
}

#[test]
fn an_override_that_the_administrator_has_changed_is_kept() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    let file = packed(&node, &dir);
    install(&node.home, &file, &options(false), &mut Silent).unwrap();
    let overrides = node.home.override_file("foo");
    fs::write(&overrides, "[custom]\nmine=1\n").unwrap();
    let (_, warnings) = install(&node.home, &file, &options(true), &mut Silent).unwrap();
    assert!(warnings[0].what.contains("is kept as it is"));
    assert!(overrides.with_extension("ini.new").is_file());
    uninstall(&node.home, "foo", false).unwrap();
    assert_eq!(fs::read_to_string(&overrides).unwrap(), "[custom]\nmine=1\n");
}

#[test]
fn a_failed_postinstall_is_shown_and_leaves_the_old_release_as_it_was() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    install(&node.home, &packed(&node, &dir), &options(false), &mut Silent).unwrap();
    let before = tree(node.home.root());
    hook(&dir, "echo the disk is full of eels; exit 3");
    let error = install(&node.home, &packed(&node, &dir), &options(true), &mut Silent).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("the postinstall hook failed")
            && text.contains("full of eels")
            && text.contains("exit code 3"),
        "{text}"
    );
    let tmp = |path: &String| path.starts_with("tmp") || path.starts_with("var/data");
    let after: Vec<String> = tree(node.home.root()).into_iter().filter(|path| !tmp(path)).collect();
    assert_eq!(after, before.into_iter().filter(|path| !tmp(path)).collect::<Vec<_>>());
}

#[test]
fn the_postinstall_hook_runs_in_the_environment_of_the_plugin() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    fs::write(
        dir.join(".layerapi2_extra_env"),
        "# mine\nGREETING=hello {MFSERV_CURRENT_PLUGIN_NAME}\n",
    )
    .unwrap();
    hook(&dir, "pwd > out; env >> out");
    let (installed, _) =
        install(&node.home, &packed(&node, &dir), &options(false), &mut Silent).unwrap();
    let out = fs::read_to_string(installed.dir.join("out")).unwrap();
    let release = fs::canonicalize(node.home.release("foo", 1)).unwrap();
    for line in [
        release.display().to_string(),
        "GREETING=hello foo".into(),
        format!("MFSERV_CURRENT_PLUGIN_DIR={}", node.home.release("foo", 1).display()),
        "MFSERV_CURRENT_PLUGIN_LABEL=plugin_foo@mfserv".into(),
        format!("MFSERV_CURRENT_PLUGIN_DATA_DIR={}", node.home.plugin_data("foo").display()),
        format!("TMPDIR={}", node.home.tmp_of("foo").display()),
        "MFMODULE=MFSERV".into(),
        "PYTHONUNBUFFERED=x".into(),
    ] {
        assert!(out.lines().any(|found| found == line), "{line}\n{out}");
    }
    assert!(!out.contains("CARGO"), "our own variables do not pass");
}

#[test]
fn a_release_that_was_staged_and_not_committed_is_forgotten() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    let file = packed(&node, &dir);
    let staged = stage(&node.home, &file, &options(false), &mut Silent).unwrap();
    assert!(staged.dir.is_dir() && !node.home.link("foo").exists());
    // meanwhile no other operation changes the plugin, and another plugin may be changed
    let error = install(&node.home, &file, &of_another(), &mut Silent).unwrap_err();
    assert_eq!(error.kind, Kind::Refused, "{error}");
    assert!(error.because[0].contains(&std::process::id().to_string()));
    let other = store::InstallOptions { new_name: Some("bar".into()), ..of_another() };
    install(&node.home, &file, &other, &mut Silent).unwrap();
    drop(staged);
    assert!(releases(&node.home, "foo").is_empty());
    install(&node.home, &file, &options(false), &mut Silent).unwrap();
}

/// The options of another operation.
fn of_another() -> store::InstallOptions<'static> {
    store::InstallOptions { owner: Owner::this_process("another"), ..options(false) }
}

#[test]
fn another_process_can_commit_what_was_staged_and_an_adopted_release_outlives_its_stager() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    let file = packed(&node, &dir);
    let staged = stage(&node.home, &file, &options(false), &mut Silent).unwrap();
    assert_eq!(store::staged_by(&node.home, "test"), Some(("foo".into(), 1)));
    store::adopt(&node.home, "foo", 1, "test").unwrap();
    assert_eq!(
        store::adopt(&node.home, "foo", 1, "another").unwrap_err().kind,
        Kind::Refused,
        "it belongs to an operation already"
    );
    // its stager goes away
    drop(staged);
    store::recover(&node.home);
    let claim = claim(&node.home, "foo");
    assert_eq!(claim.staged(1).unwrap().dir, node.home.release("foo", 1));
    claim.commit(1).unwrap();
    assert_eq!(store::current_release(&node.home, "foo"), Some(1));
    assert_eq!(claim.staged(1).unwrap_err().kind, Kind::Refused, "it is not staged any more");
    // once more, as a daemon does that does not know how far the one before it came
    claim.commit(1).unwrap();
    assert_eq!(store::current_release(&node.home, "foo"), Some(1));
}

#[test]
fn a_staged_release_whose_stager_has_died_is_removed_unless_an_operation_has_adopted_it() {
    let node = Node::new();
    let file = packed(&node, &node.plugin("static", "foo"));
    for adopted in [true, false] {
        let staged = stage(&node.home, &file, &options(false), &mut Silent).unwrap();
        let mark = staged.dir.join(".mfserv-staged.json");
        let text = fs::read_to_string(&mark).unwrap();
        let mut said: serde_json::Value = serde_json::from_str(&text).unwrap();
        said["owner"]["pid"] = 4_999_999.into();
        said["adopted"] = adopted.into();
        fs::write(&mark, said.to_string()).unwrap();
        std::mem::forget(staged);
        store::recover(&node.home);
        assert_eq!(node.home.release("foo", 1).exists(), adopted);
        store::give_up(&node.home, "foo", 1);
        assert!(!node.home.releases_of("foo").exists());
    }
}

#[test]
fn a_release_that_is_given_up_while_another_operation_has_its_plugin_is_removed_by_the_next_one() {
    let node = Node::new();
    let file = packed(&node, &node.plugin("static", "foo"));
    let staged = stage(&node.home, &file, &options(false), &mut Silent).unwrap();
    store::adopt(&node.home, "foo", 1, "test").unwrap();
    std::mem::forget(staged);
    let held = claim(&node.home, "foo");
    store::give_up(&node.home, "foo", 1);
    assert!(node.home.release("foo", 1).exists());
    drop(held);
    store::claim(&node.home, "foo", &Owner::this_process("another")).unwrap();
    assert!(!node.home.releases_of("foo").exists());
}

#[test]
fn what_an_operation_that_died_has_left_is_swept_by_the_next_one() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    fs::create_dir_all(node.home.release("bar", 3).join("half")).unwrap();
    fs::create_dir_all(node.home.release("foo", 1)).unwrap();
    install(&node.home, &packed(&node, &dir), &options(false), &mut Silent).unwrap();
    assert!(!node.home.releases_of("bar").exists());
    assert_eq!(releases(&node.home, "foo").len(), 1);
}

#[test]
fn of_two_installations_at_once_one_wins_and_the_other_is_told() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    hook(&dir, "sleep 1");
    let file = packed(&node, &dir);
    let results: Vec<_> = std::thread::scope(|scope| {
        let run = || install(&node.home, &file, &options(false), &mut Silent).map(drop);
        let threads = [scope.spawn(run), scope.spawn(run)];
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    let told = results.iter().find_map(|result| result.as_ref().err()).unwrap();
    assert_eq!(told.kind, Kind::Refused);
    assert_eq!(releases(&node.home, "foo").len(), 1);
}

#[test]
fn a_developers_directory_is_linked_and_never_removed() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    let installed = dev_link(&node.home, &dir).unwrap();
    assert_eq!((installed.origin, installed.version.as_str()), (Origin::Dev, "dev_link"));
    assert_eq!(dev_link(&node.home, &dir).unwrap(), installed);
    let file = packed(&node, &dir);
    assert_eq!(
        install(&node.home, &file, &options(true), &mut Silent).unwrap_err().kind,
        Kind::Refused
    );
    uninstall(&node.home, "foo", true).unwrap();
    assert!(dir.join("config.ini").is_file());
    install(&node.home, &file, &options(false), &mut Silent).unwrap();
    assert_eq!(dev_link(&node.home, &dir).unwrap_err().kind, Kind::Refused);
}

#[test]
fn the_list_has_internal_and_broken_plugins_too() {
    let node = Node::new();
    let welcome = materialise_welcome(&node.home).unwrap();
    dev_link(&node.home, &welcome).unwrap();
    std::os::unix::fs::symlink("/nowhere", node.home.link("gone")).unwrap();
    let list = store::list(&node.home).unwrap();
    let names: Vec<&str> = list.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["gone", "welcome"]);
    assert!(list[0].problem.is_some() && list[0].version == "error");
    assert_eq!((list[1].origin, &list[1].problem), (Origin::Internal, &None));
    assert_eq!(spec_of(&welcome).apps[0].static_url_prefix, "");
    uninstall(&node.home, "gone", false).unwrap();
}

#[test]
fn compiled_packages_of_another_python_are_refused_by_its_name() {
    let node = Node::new();
    let dir = node.plugin("python3_flask", "foo");
    let sources = dir.join("python3_virtualenv_sources");
    fs::create_dir(sources.join("src")).unwrap();
    fs::write(sources.join("requirements3.txt"), "eels==1.0\n").unwrap();
    fs::write(sources.join("src/eels-1.0-cp27-cp27mu-linux_x86_64.whl"), "").unwrap();
    let mark = r#"{"format": 1, "requirements": "", "python": "2.7", "abi": "cpython-27mu"}"#;
    fs::write(sources.join("src/.mfserv-wheels.json"), mark).unwrap();
    let error =
        install(&node.home, &packed(&node, &dir), &options(false), &mut Silent).unwrap_err();
    assert!(error.what.contains("2.7") && error.kind == Kind::Refused, "{error}");
    assert!(!node.home.releases_of("foo").exists());
}

#[test]
fn an_installation_asks_no_network_and_takes_nothing_from_elsewhere() {
    let node = Node::new();
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let address = server.local_addr().unwrap();
    let dir = node.plugin("static", "foo");
    let sources = dir.join("python3_virtualenv_sources");
    fs::create_dir_all(sources.join("src")).unwrap();
    for line in [
        format!("evil @ http://{address}/x.whl"),
        format!("--find-links http://{address}/\neels==1.0"),
        format!("eels==1.0 --index-url http://{address}/"),
        "-e .".to_string(),
        "eels==1.0".to_string(),
    ] {
        fs::write(sources.join("requirements3.txt"), format!("{line}\n")).unwrap();
        let file = packed(&node, &dir);
        let error = install(&node.home, &file, &options(false), &mut Silent).unwrap_err();
        match line.as_str() {
            "eels==1.0" => assert!(error.to_string().contains("no file of eels"), "{error}"),
            _ => assert!(error.to_string().contains("requirements3.txt:1"), "{line}: {error}"),
        }
        assert!(!node.home.releases_of("foo").exists(), "{line}");
    }
    assert_eq!(server.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

/// The config.ini of a plugin directory with one more key in [general].
fn general(dir: &Path, line: &str) {
    let config = fs::read_to_string(dir.join("config.ini")).unwrap();
    fs::write(
        dir.join("config.ini"),
        config.replace("[general]\n", &format!("[general]\n{line}\n")),
    )
    .unwrap();
}

#[test]
fn a_declared_database_survives_ten_installations_and_a_move_of_a_live_one() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    let file = packed(&node, &dir);
    install(&node.home, &file, &options(false), &mut Silent).unwrap();
    // made by an app that keeps it open, in a release that did not declare it
    let old = node.home.release("foo", 1);
    fs::write(old.join("db.sqlite3"), "1\n").unwrap();
    let mut open = fs::OpenOptions::new().append(true).open(old.join("db.sqlite3")).unwrap();
    general(&dir, "_persistent_paths=db.sqlite3;media/;main/uploads");
    fs::create_dir(dir.join("media")).unwrap();
    fs::write(dir.join("media/logo"), "of the package").unwrap();
    let file = packed(&node, &dir);
    for number in 2..=11 {
        let (installed, warnings) =
            install(&node.home, &file, &options(true), &mut Silent).unwrap();
        assert_eq!((installed.origin, warnings), (Origin::Packed(number), vec![]));
        use std::io::Write;
        writeln!(open, "{number}").unwrap();
        let text = fs::read_to_string(installed.dir.join("db.sqlite3")).unwrap();
        assert_eq!(text.lines().count(), number as usize, "{text}");
        if number == 2 {
            assert_eq!(fs::read_to_string(old.join("db.sqlite3")).unwrap(), text);
            fs::write(installed.dir.join("media/logo"), "of a user").unwrap();
            fs::write(installed.dir.join("main/uploads/x"), "x").unwrap();
        }
    }
    let current = store::current(&node.home, "foo").unwrap().dir;
    assert_eq!(fs::read_to_string(current.join("media/logo")).unwrap(), "of a user");
    assert_eq!(
        fs::read_to_string(node.home.plugin_data("foo").join("main/uploads/x")).unwrap(),
        "x"
    );
    assert_eq!(releases(&node.home, "foo").len(), KEPT);
    uninstall(&node.home, "foo", false).unwrap();
    assert!(node.home.plugin_data("foo").join("db.sqlite3").is_file());
    install(&node.home, &file, &options(false), &mut Silent).unwrap();
    assert!(node.home.link("foo").join("db.sqlite3").is_file());
    uninstall(&node.home, "foo", true).unwrap();
    assert!(!node.home.plugin_data("foo").exists());
}

#[test]
fn an_undeclared_database_is_reported_and_its_release_is_only_removed_with_clean() {
    let node = Node::new();
    let file = packed(&node, &node.plugin("static", "foo"));
    install(&node.home, &file, &options(false), &mut Silent).unwrap();
    let release = node.home.release("foo", 1);
    fs::write(release.join("db.sqlite3"), "precious").unwrap();
    fs::write(release.join("main/index.html"), "changed by the app").unwrap();
    fs::create_dir(release.join("main/__pycache__")).unwrap();
    fs::write(release.join("main/__pycache__/wsgi.pyc"), "no data").unwrap();
    for number in 2..=11 {
        let (_, warnings) = install(&node.home, &file, &options(true), &mut Silent).unwrap();
        let said = warnings.iter().any(|one| {
            one.what.contains("release 1: db.sqlite3, main/index.html")
                && one.help.as_ref().unwrap().contains("_persistent_paths")
        });
        // when it stops being current, and when it should be collected
        assert_eq!(said, number == 2 || number > 5, "{number}: {warnings:?}");
    }
    assert_eq!(fs::read_to_string(release.join("db.sqlite3")).unwrap(), "precious");
    let (_, kept) = uninstall(&node.home, "foo", false).unwrap();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(releases(&node.home, "foo").iter().map(|one| one.number).collect::<Vec<_>>(), [1]);
    assert_eq!(fs::read_to_string(release.join("db.sqlite3")).unwrap(), "precious");
    // it is not swept, and with --clean it goes
    install(&node.home, &file, &options(false), &mut Silent).unwrap();
    assert_eq!(fs::read_to_string(release.join("db.sqlite3")).unwrap(), "precious");
    uninstall(&node.home, "foo", true).unwrap();
    assert!(!node.home.releases_of("foo").exists());
}

#[test]
fn with_clean_an_installation_collects_releases_with_files_of_the_app_too() {
    let node = Node::new();
    let file = packed(&node, &node.plugin("static", "foo"));
    install(&node.home, &file, &options(false), &mut Silent).unwrap();
    fs::write(node.home.release("foo", 1).join("x"), "x").unwrap();
    let clean = || store::InstallOptions { clean: true, ..options(true) };
    for _ in 0..KEPT {
        install(&node.home, &file, &clean(), &mut Silent).unwrap();
    }
    assert!(!node.home.release("foo", 1).exists());
}

#[test]
fn a_failed_first_installation_leaves_nothing_of_what_it_has_put_in_the_data_directory() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    general(&dir, "_persistent_paths=media;db.sqlite3");
    fs::write(dir.join("db.sqlite3"), "of the package").unwrap();
    hook(&dir, "exit 1");
    install(&node.home, &packed(&node, &dir), &options(false), &mut Silent).unwrap_err();
    assert!(
        !tree(node.home.root()).iter().any(|path| path.contains("foo")),
        "{:?}",
        tree(node.home.root())
    );
}

#[test]
fn a_package_is_installed_under_another_name_when_asked() {
    let node = Node::new();
    let file = packed(&node, &node.plugin("static", "foo"));
    install(&node.home, &file, &options(false), &mut Silent).unwrap();
    let named =
        |name: &str| store::InstallOptions { new_name: Some(name.into()), ..options(false) };
    let (installed, _) = install(&node.home, &file, &named("bar"), &mut Silent).unwrap();
    assert_eq!(installed.name, "bar");
    assert_eq!(read_installed(&installed.dir).unwrap().name, "bar");
    assert!(node.home.override_file("bar").is_file());
    let names: Vec<String> =
        store::list(&node.home).unwrap().into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["bar", "foo"]);
    for bad in ["plugin_x", "../x", "", "base"] {
        let error = install(&node.home, &file, &named(bad), &mut Silent).unwrap_err();
        assert_eq!(error.kind, Kind::Usage, "{bad}: {error}");
    }
    assert_eq!(
        install(&node.home, &file, &named("bar"), &mut Silent).unwrap_err().kind,
        Kind::Refused
    );
    uninstall(&node.home, "bar", false).unwrap();
    assert!(node.home.link("foo").exists());
}

/// How MFSERV makes a package, in Python: copy, list, describe, tar, gzip.
const MFSERV_BUILD: &str = r#"
import json, os, shutil, sys, tarfile, zipfile
home, out = sys.argv[1:]
wheels = os.path.join(home, "python3_virtualenv_sources", "src")
os.mkdir(wheels)
info = "eels-1.0.dist-info/"
parts = {
    "eels.py": ["DISK = 'full'"],
    info + "METADATA": ["Metadata-Version: 2.1", "Name: eels", "Version: 1.0"],
    info + "WHEEL": ["Wheel-Version: 1.0", "Generator: test", "Root-Is-Purelib: true", "Tag: py3-none-any"],
}
parts[info + "RECORD"] = [name + ",," for name in [*parts, info + "RECORD"]]
with zipfile.ZipFile(os.path.join(wheels, "eels-1.0-py3-none-any.whl"), "w") as wheel:
    for name, lines in parts.items():
        wheel.writestr(name, "".join(line + "\n" for line in lines))
with open(os.path.join(home, "python3_virtualenv_sources", "requirements3.txt"), "w") as f:
    f.write("eels==1.0\n")
copy = os.path.join(os.path.dirname(out), "metwork_plugin")
shutil.copytree(home, copy, symlinks=True)
files, size = [], 0
for root, dirs, names in os.walk(copy):
    for name in names:
        path = os.path.join(root, name)
        files.append(os.path.relpath(path, os.path.dirname(copy)))
        size += 0 if os.path.islink(path) else os.path.getsize(path)
metadata = {"version": "2.1", "release": "1", "build_host": "build.example.com", "build_date": "2023-04-05T06:07:08Z",
    "size": str(size), "summary": "old", "license": "BSD", "packager": "x", "vendor": "y", "url": "z"}
json.dump(metadata, open(os.path.join(copy, ".metadata.json"), "w"))
json.dump(files, open(os.path.join(copy, ".files.json"), "w"))
with tarfile.open(out, "w:gz") as tar:
    tar.add(copy, arcname="metwork_plugin")
"#;

#[test]
fn a_package_built_by_the_rules_of_mfserv_is_installed_with_its_environment() {
    let node = Node::new();
    let dir = node.plugin("python3_raw_wsgi", "foo");
    std::os::unix::fs::symlink("config.ini", dir.join("link")).unwrap();
    let file = node.work().join("foo-2.1-1.metwork.mfserv.plugin");
    let made = std::process::Command::new("python3")
        .args(["-c", MFSERV_BUILD])
        .arg(&dir)
        .arg(&file)
        .status();
    assert!(made.unwrap().success());
    let package = read(&file).unwrap();
    assert_eq!((package.metadata.version.as_str(), &package.manifest), ("2.1", &None));
    let (installed, warnings) = install(&node.home, &file, &options(false), &mut Silent).unwrap();
    assert_eq!((installed.version.as_str(), warnings.len()), ("2.1", 0));
    assert!(
        package.files.iter().all(|path| fs::symlink_metadata(installed.dir.join(path)).is_ok())
    );
    let python = installed.dir.join("local/bin/python");
    let said = std::process::Command::new(python)
        .args(["-c", "import eels; print(eels.DISK)"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "full");
    assert_eq!(read_installed(&installed.dir).unwrap(), package);
}

const HOME: &str = "MFSERV_TEST_CRASH_HOME";
const FILE: &str = "MFSERV_TEST_CRASH_FILE";
/// The system calls that make or move something in a file system.
const MAKES: &[&str] = &[
    "mkdir",
    "mkdirat",
    "rename",
    "renameat",
    "renameat2",
    "symlink",
    "symlinkat",
    "link",
    "linkat",
    "chmod",
    "fchmod",
    "fchmodat",
    "fsync",
    "fdatasync",
    "ftruncate",
];
/// Those that remove something.
const REMOVES: &[&str] = &["rmdir", "unlink", "unlinkat"];

/// Kills an installation at each of its changes of the file system, or lets the
/// change fail, one after the other, and checks what is left.
fn at_each_change(calls: &[&[&str]], inject: &str, check: impl Fn(&Node, &str)) {
    let can =
        std::process::Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    if !can.is_ok_and(|status| status.success()) {
        println!("not tested: there is no strace, or it may not trace");
        return;
    }
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    let first = node.work().join("first.plugin");
    fs::rename(packed(&node, &dir), &first).unwrap();
    general(&dir, "_persistent_paths=db.sqlite3;media");
    fs::write(dir.join("main/new.html"), "new").unwrap();
    hook(&dir, "echo made > made");
    let second = packed(&node, &dir);
    let mut count = 0;
    for call in calls.concat() {
        for number in 1.. {
            assert!(number < 200, "{call} never ends");
            let other = Node::new();
            install(&other.home, &first, &options(false), &mut Silent).unwrap();
            fs::write(other.home.release("foo", 1).join("db.sqlite3"), "precious").unwrap();
            if !was_injected(&other, &second, call, inject, number) {
                break;
            }
            count += 1;
            check(&other, &format!("{inject} at {call} {number}"));
        }
    }
    println!("{inject} at {count} changes");
    assert!(count > 25, "only {count} changes were found");
}

/// Installs in a process of its own; false when it had no such call.
fn was_injected(node: &Node, file: &Path, call: &str, inject: &str, number: u32) -> bool {
    let log = node.work().join("strace");
    let mut command = std::process::Command::new("strace");
    // each thread and each call is counted by itself
    command.args(["-f", "-qq", "-e", &format!("trace={call}"), "-o"]).arg(&log);
    command.arg(format!("--inject={call}:{inject}:when={number}"));
    command.arg(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "--ignored",
        "--test-threads=1",
        "store::installs_until_it_is_killed",
    ]);
    command.env(HOME, node.home.root()).env(FILE, file).env("RUST_BACKTRACE", "0");
    let said = command.output().unwrap();
    let log = fs::read_to_string(log).unwrap_or_default();
    let injected = log.contains("INJECTED") || (inject.contains("KILL") && !said.status.success());
    assert!(injected || said.status.success(), "{call}: {}", String::from_utf8_lossy(&said.stdout));
    injected
}

#[test]
#[ignore = "it is a part of another test, which kills it"]
fn installs_until_it_is_killed() {
    let (Some(home), Some(file)) = (std::env::var_os(HOME), std::env::var_os(FILE)) else { return };
    let home = mfserv_plugin::Home::new(home);
    let (_, warnings) = install(&home, Path::new(&file), &options(true), &mut Silent).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
}

/// The old release or the new one is installed, whole, the data is there, and
/// nothing is left over.
fn is_clean(node: &Node, when: &str) {
    let link = node.home.link("foo");
    let data = fs::read_to_string(link.join("db.sqlite3"));
    assert_eq!(data.as_deref().ok(), Some("precious"), "{when}: {data:?}");
    let current = store::current(&node.home, "foo").unwrap();
    assert_eq!(current.problem, None, "{when}");
    let numbers: Vec<u32> = releases(&node.home, "foo").iter().map(|one| one.number).collect();
    match current.origin {
        Origin::Packed(1) => assert_eq!(numbers, [1], "{when}"),
        Origin::Packed(2) => {
            assert_eq!(numbers, [1, 2], "{when}");
            assert!(link.join("made").is_file() && link.join("main/new.html").is_file(), "{when}");
            assert!(link.join(".committed").is_file(), "{when}");
        }
        other => panic!("{when}: {other:?}"),
    }
    let left: Vec<String> = tree(node.home.root())
        .into_iter()
        .filter(|path| path.contains(".new.") || path.contains(".old.") || path.contains("moving"))
        .collect();
    assert!(left.is_empty(), "{when}: {left:?}");
    let data = tree(&node.home.plugin_data("foo"));
    let known = [&[][..], &["db.sqlite3"], &["db.sqlite3", "media"]];
    assert!(
        known.contains(&data.iter().map(String::as_str).collect::<Vec<_>>().as_slice()),
        "{when}: {data:?}"
    );
}

#[test]
fn an_installation_that_is_killed_at_any_step_is_clean_at_the_next_start() {
    at_each_change(&[MAKES, REMOVES], "signal=KILL", |node, when| {
        // the data is there even before
        assert_eq!(
            fs::read_to_string(node.home.link("foo").join("db.sqlite3")).unwrap(),
            "precious",
            "{when}"
        );
        store::recover(&node.home);
        is_clean(node, when);
    });
}

#[test]
fn an_installation_that_fails_at_any_step_cleans_up_after_itself() {
    at_each_change(&[MAKES], "error=ENOSPC", |node, when| {
        if store::current(&node.home, "foo").unwrap().origin == Origin::Packed(2) {
            // it is current: what is left to do is said, and done at the next start
            store::recover(&node.home);
        }
        is_clean(node, when);
    });
}

/// The configuration of a directory with an override file.
fn overridden(dir: &Path, text: &str) -> mfserv_core::plugin_spec::PluginSpec {
    use mfserv_core::ini::{Dialect, parse};
    let own = fs::read_to_string(dir.join("config.ini")).unwrap();
    let own = parse(&own, "config.ini", Dialect::Plugin).unwrap();
    let overrides = [parse(text, "foo.ini", Dialect::Plugin).unwrap()];
    let is_file = |path: &str| dir.join(path).is_file();
    let environment = [
        ("MFHARDWARE_NUMBER_OF_CPU_CORES_MULTIPLIED_BY_2".to_string(), "4".to_string()),
        ("MFSERV_NGINX_TIMEOUT".to_string(), "60".to_string()),
    ];
    let environment = environment.into_iter().collect();
    mfserv_core::plugin_config::resolve("foo", &own, &overrides, &environment, "default", &is_file)
        .unwrap()
        .0
}

#[test]
fn an_installed_plugin_is_packed_again_with_what_the_administrator_has_changed() {
    let node = Node::new();
    let dir = node.plugin("python3_raw_wsgi", "foo");
    general(&dir, "_persistent_paths=media");
    fs::create_dir(dir.join("media")).unwrap();
    fs::write(dir.join("media/logo"), "x").unwrap();
    fs::write(dir.join("python3_virtualenv_sources/requirements3.txt"), "# none\n").unwrap();
    let first = packed(&node, &dir);
    let (installed, _) = install(&node.home, &first, &options(false), &mut Silent).unwrap();
    fs::write(installed.dir.join("made-by-the-app"), "x").unwrap();
    let own = spec_of(&installed.dir);
    let effective =
        overridden(&installed.dir, "[app_main]\ndebug=yes\nnumprocesses=7\n[custom]\nmine=1\n");
    let out = node.work().join("out");
    fs::create_dir(&out).unwrap();
    let made = store::repackage(&node.home, "foo", &own, &effective, &out, &mut Silent).unwrap();
    assert_eq!(
        made.changes,
        [
            "CHANGED [app_main]/numprocesses: 4 => 7",
            "CHANGED [app_main]/debug: 0 => 1",
            "NEW [custom]/mine = 1"
        ]
    );
    let files = read(&made.file).unwrap().files;
    assert!(files.contains(&"main/wsgi.py".to_string()), "{files:?}");
    assert!(
        !files.iter().any(|path| path.contains("media") || path.contains("made-by")),
        "{files:?}"
    );
    let other = Node::new();
    let (again, _) = install(&other.home, &made.file, &options(false), &mut Silent).unwrap();
    let config = fs::read_to_string(again.dir.join("config.ini")).unwrap();
    for line in
        ["debug=1", "numprocesses=7", "mine=1", "# Number of workers (0 = the app is not started)"]
    {
        assert!(config.lines().any(|found| found == line), "{line}\n{config}");
    }
    assert!(!tree(node.home.root()).iter().any(|path| path.contains("repackage")));
    // a directory is not packed again
    uninstall(&node.home, "foo", true).unwrap();
    dev_link(&node.home, &dir).unwrap();
    let error = store::repackage(&node.home, "foo", &own, &own, &out, &mut Silent).unwrap_err();
    assert_eq!(
        (error.what.as_str(), error.kind),
        ("can't repackage a devlinked plugin", Kind::Refused)
    );
}

#[test]
fn an_installed_plugin_is_described_and_hashed_as_mfserv_does() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    let file = packed(&node, &dir);
    let (installed, _) = install(&node.home, &file, &options(false), &mut Silent).unwrap();
    let general = spec_of(&dir).general;
    assert_eq!(store::describe(&installed, &general).unwrap(), read(&file).unwrap());
    assert_eq!(store::hash(&node.home, "foo").unwrap(), read(&file).unwrap().hash());
    uninstall(&node.home, "foo", false).unwrap();
    assert_eq!(store::hash(&node.home, "foo").unwrap_err().kind, Kind::Usage);
    let linked = dev_link(&node.home, &dir).unwrap();
    let package = store::describe(&linked, &general).unwrap();
    assert_eq!(
        (package.metadata.version.as_str(), package.metadata.size.as_str()),
        ("dev_link", "unknown")
    );
    assert_eq!(package.metadata.summary, "one line summary");
    let script = "import hashlib; print(hashlib.md5(b'unknown, unknown, unknown, dev_link, dev_link').hexdigest())";
    let said = std::process::Command::new("python3").args(["-c", script]).output().unwrap();
    assert_eq!(
        store::hash(&node.home, "foo").unwrap(),
        String::from_utf8(said.stdout).unwrap().trim()
    );
}

#[test]
fn what_a_plugin_could_break_is_said_in_the_words_of_mfserv() {
    let node = Node::new();
    let dir = node.plugin("python3_raw_wsgi", "foo");
    let said = |is_nginx| mfserv_plugin::dangers::dangers(&spec_of(&dir), is_nginx);
    let config = fs::read_to_string(dir.join("config.ini")).unwrap();
    assert!(said(true).is_empty());
    let key = "_extra_nginx_http_conf_filename";
    let config = config
        .replace("debug=0", "debug=1")
        .replace("extra_routes=null", "extra_routes=/;/x")
        .replace(&format!("{key}=null"), &format!("{key}=Makefile"));
    fs::write(dir.join("config.ini"), &config).unwrap();
    let all = [
        "WARNING: this plugin has a non empty _extra_nginx_http_conf_filename key",
        "WARNING: this plugin has a debug == 1 setting for the app: main",
        "WARNING: this plugin has a prefix_based_routing_extra_routes == /;/x (!= null) for the app: main",
    ];
    assert_eq!(
        (said(true), said(false)),
        (all.map(String::from).to_vec(), said(true)[1..].to_vec())
    );
}
