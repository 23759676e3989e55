//! Packages: what goes in, what comes out, and what is refused.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use mfserv_plugin::Silent;
use mfserv_plugin::archive::{Limits, Metadata, inspect, pack, read, unpack};

use crate::tar_stream::TarStream;
use crate::{Node, Reported, spec_of, tree};

fn packed(node: &Node, dir: &Path) -> PathBuf {
    pack(dir, &spec_of(dir).general, &node.work(), &mut Silent).unwrap()
}

#[test]
fn a_package_unpacks_to_what_was_packed() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    fs::create_dir(dir.join("bin")).unwrap();
    fs::write(dir.join("bin/tool"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(dir.join("bin/tool"), fs::Permissions::from_mode(0o700)).unwrap();
    symlink("../main/index.html", dir.join("bin/page")).unwrap();
    fs::create_dir(dir.join("main/empty")).unwrap();
    let file = packed(&node, &dir);
    assert_eq!(file.file_name().unwrap(), "foo-0.0.1-1.metwork.mfserv.plugin");
    let package = read(&file).unwrap();
    assert_eq!((package.name.as_str(), package.metadata.version.as_str()), ("foo", "0.0.1"));
    assert!(package.files.contains(&"main/index.html".to_string()));
    assert!(!package.files.contains(&"Makefile".to_string()), "as .releaseignore says");
    let into = node.work().join("out");
    unpack(&file, &into, Limits::default()).unwrap();
    assert_eq!(fs::metadata(into.join("bin/tool")).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::read_link(into.join("bin/page")).unwrap(), Path::new("../main/index.html"));
    assert!(into.join("main/empty").is_dir() && into.join(".metadata.json").is_file());
    assert_eq!(
        fs::read(into.join("config.ini")).unwrap(),
        fs::read(dir.join("config.ini")).unwrap()
    );
}

#[test]
fn the_same_files_give_the_same_package_in_another_folder_at_another_time() {
    let node = Node::new();
    let one = node.plugin("static", "foo");
    let first = fs::read(packed(&node, &one)).unwrap();
    let other = Node::new();
    let two = other.plugin("static", "foo");
    fs::set_permissions(two.join("main/index.html"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(first == fs::read(packed(&other, &two)).unwrap());
}

#[test]
fn the_releaseignore_decides_with_its_exceptions_and_local_is_never_packed() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    fs::write(dir.join(".releaseignore"), "/docs\n!/docs/keep.txt\n*.tmp\n!/local\n").unwrap();
    for path in ["docs/keep.txt", "docs/drop.txt", "a.tmp", "local/lib/x", "docs/deep/drop.txt"] {
        fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
        fs::write(dir.join(path), "x").unwrap();
    }
    let files = read(&packed(&node, &dir)).unwrap().files;
    let has = |path: &str| files.iter().any(|file| file == path);
    assert!(has("docs/keep.txt"), "{files:?}");
    for path in ["docs/drop.txt", "docs/deep/drop.txt", "a.tmp", "local/lib/x"] {
        assert!(!has(path), "{path}");
    }
}

#[test]
fn what_would_not_be_the_same_elsewhere_can_not_be_packed() {
    for target in ["/etc/passwd", "../../outside"] {
        let node = Node::new();
        let dir = node.plugin("static", "foo");
        symlink(target, dir.join("main/link")).unwrap();
        let error = pack(&dir, &spec_of(&dir).general, &node.work(), &mut Silent).unwrap_err();
        assert!(error.because[0].contains("out of the plugin"), "{error}");
        assert!(
            !tree(&node.work()).iter().any(|path| path.contains(".metwork.")),
            "nothing is left"
        );
    }
}

#[test]
fn a_plugin_that_is_not_built_can_not_be_packed() {
    let node = Node::new();
    let dir = node.plugin("python3_flask", "foo");
    let error = pack(&dir, &spec_of(&dir).general, &node.work(), &mut Silent).unwrap_err();
    assert_eq!(error.what, "the plugin is not built");
}

#[test]
fn a_gzip_package_of_mfserv_is_read_and_unpacked() {
    let node = Node::new();
    let file = node.work().join("foo.plugin");
    let mut tar = TarStream::of_mfserv();
    tar.file("metwork_plugin/main/index.html", b"hi\n");
    tar.gzip(&file);
    let package = read(&file).unwrap();
    assert_eq!(
        (package.name.as_str(), package.files.as_slice()),
        ("foo", &["main/index.html".to_string()][..])
    );
    let into = node.work().join("out");
    unpack(&file, &into, Limits::default()).unwrap();
    assert_eq!(fs::read_to_string(into.join("main/index.html")).unwrap(), "hi\n");
    let mode = fs::metadata(into.join("main/index.html")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o644);
}

#[test]
fn a_package_made_by_pythons_tarfile_with_long_names_is_unpacked() {
    let node = Node::new();
    let file = node.work().join("foo.plugin");
    let tar = TarStream::of_mfserv();
    tar.gzip(&file);
    unpack(&file, &node.work().join("metwork_plugin"), Limits::default()).unwrap();
    let long = ["deep".repeat(40), "é".repeat(60), "file".repeat(20)].join("/");
    let place = node.work().join("metwork_plugin").join(&long);
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(&place, "x").unwrap();
    for format in ["PAX_FORMAT", "GNU_FORMAT"] {
        let script = format!(
            "import tarfile\nwith tarfile.open('foo.plugin', 'w:gz', format=tarfile.{format}) as t: t.add('metwork_plugin')"
        );
        let made = std::process::Command::new("python3")
            .args(["-c", &script])
            .current_dir(node.work())
            .status()
            .unwrap();
        assert!(made.success());
        let into = node.work().join(format);
        unpack(&file, &into, Limits::default()).unwrap();
        assert_eq!(fs::read_to_string(into.join(&long)).unwrap(), "x");
    }
}

#[test]
fn names_that_differ_only_in_their_case_can_not_be_packed() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    fs::write(dir.join("main/Index.html"), "x").unwrap();
    let error = pack(&dir, &spec_of(&dir).general, &node.work(), &mut Silent).unwrap_err();
    assert!(error.because[0].contains("only in upper and lower case"), "{error}");
}

#[test]
fn links_that_lead_to_each_other_can_not_be_packed() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    std::os::unix::fs::symlink("a", dir.join("b")).unwrap();
    std::os::unix::fs::symlink("b", dir.join("a")).unwrap();
    let error = pack(&dir, &spec_of(&dir).general, &node.work(), &mut Silent).unwrap_err();
    assert!(error.to_string().contains("leads to itself"), "{error}");
}

#[test]
fn a_package_is_inspected_whole_before_anything_is_done() {
    let node = Node::new();
    let dir = node.plugin("python3_raw_wsgi", "foo");
    fs::write(dir.join("python3_virtualenv_sources/requirements3.txt"), "# none\n").unwrap();
    let file = packed(&node, &dir);
    let found = inspect(&file, Limits::default(), &["config.ini", "crontab", "nope"]).unwrap();
    assert_eq!(found.package, read(&file).unwrap());
    assert!(
        String::from_utf8_lossy(&found.texts["config.ini"]).contains("[app_main]")
            && found.texts.len() == 2
    );
    assert!(found.bytes > 10_000 && found.files > 10, "{found:?}");
    let mut bytes = fs::read(&file).unwrap();
    bytes.truncate(bytes.len() - 10);
    fs::write(&file, bytes).unwrap();
    assert!(inspect(&file, Limits::default(), &[]).is_err());
}

#[test]
fn builds_of_another_content_have_another_hash_and_the_same_build_has_the_same() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    let page = dir.join("main/index.html");
    let text = fs::read_to_string(&page).unwrap();
    let build = || read(&packed(&node, &dir)).unwrap();
    let first = build();
    assert_eq!((build().hash(), build().is_same_build(&first)), (first.hash(), true));
    let differs = |what: &str| {
        let other = build();
        assert_eq!(other.metadata.size, first.metadata.size, "{what}");
        assert_ne!(other.hash(), first.hash(), "{what}");
        assert!(!other.is_same_build(&first), "{what}");
    };
    fs::write(&page, text.replacen('e', "o", 1)).unwrap();
    differs("a byte");
    fs::write(&page, &text).unwrap();
    fs::set_permissions(&page, fs::Permissions::from_mode(0o755)).unwrap();
    differs("a permission");
    fs::set_permissions(&page, fs::Permissions::from_mode(0o644)).unwrap();
    fs::rename(&page, page.with_file_name("inde2.html")).unwrap();
    differs("a name");
}

#[test]
fn the_hash_of_mfserv_is_that_of_its_formula() {
    let metadata = Metadata {
        version: "2.1".into(),
        release: "1".into(),
        build_host: "build.example.com".into(),
        build_date: "2023-04-05T06:07:08Z".into(),
        size: "1234".into(),
        ..Metadata::default()
    };
    let script = "import hashlib; print(hashlib.md5(b'build.example.com, 2023-04-05T06:07:08Z, 1234, 2.1, 1').hexdigest())";
    let said = std::process::Command::new("python3").args(["-c", script]).output().unwrap();
    assert_eq!(metadata.hash(), String::from_utf8(said.stdout).unwrap().trim());
}

/// What a package has and what was said, of the plugin in `dir`.
fn packed_with(node: &Node, dir: &Path) -> (Vec<String>, Reported) {
    let mut told = Reported::default();
    let file = pack(dir, &spec_of(dir).general, &node.work(), &mut told).unwrap();
    (read(&file).unwrap().files, told)
}

#[test]
fn environments_caches_repositories_and_secrets_are_left_out_and_that_is_said() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    let plain = packed_with(&node, &dir).0;
    for path in [
        ".env",
        ".env.production",
        ".idea/workspace.xml",
        ".venv/pyvenv.cfg",
        "my tools/env/pyvenv.cfg",
        ".mypy_cache/x.json",
        "main/.vscode/settings.json",
        ".hg/store/x",
        ".aws/credentials",
        "deploy/id_ed25519",
    ] {
        fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
        fs::write(dir.join(path), "x").unwrap();
    }
    std::os::unix::fs::symlink("/usr/bin/env", dir.join(".venv/python")).unwrap();
    let (files, Reported(steps, notices)) = packed_with(&node, &dir);
    assert_eq!(files, plain);
    let secrets = ".aws, .env, .env.production, deploy/id_ed25519";
    assert_eq!(notices, [format!("left out of the package: {secrets}")]);
    let line = steps.iter().find(|step| step.starts_with("left out of the package: ")).unwrap();
    for name in [".venv", "my tools/env", ".idea", ".mypy_cache", "main/.vscode", ".hg"] {
        assert!(line.contains(name), "{line}");
    }
    // Whoever wants one of them says so.
    let ignored = fs::read_to_string(dir.join(".releaseignore")).unwrap();
    fs::write(dir.join(".releaseignore"), ignored + "!.env\n!/main/.vscode\n").unwrap();
    let (files, told) = packed_with(&node, &dir);
    let more: Vec<&String> = files.iter().filter(|file| !plain.contains(file)).collect();
    assert_eq!(more, [".env", "main/.vscode/settings.json"]);
    assert!(!told.1[0].contains(".env,"), "{told:?}");
}

#[test]
fn sources_that_a_pattern_drops_are_said_and_the_usual_ones_drop_none() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    for path in ["src/shop/web.py", "doc/x.txt", "docs/index.html"] {
        fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
        fs::write(dir.join(path), "x").unwrap();
    }
    let (files, told) = packed_with(&node, &dir);
    assert!(files.contains(&"src/shop/web.py".into()) && files.contains(&"docs/index.html".into()));
    assert!(told.1.is_empty(), "{told:?}");
    // As the templates of MFSERV have it.
    fs::write(dir.join(".releaseignore"), "/local\n/src\n/doc\n/docs\n*.txt\n").unwrap();
    fs::write(dir.join("main/x.txt"), "").unwrap();
    let (files, told) = packed_with(&node, &dir);
    assert!(!files.iter().any(|file| file.starts_with("src") || file.starts_with("doc")));
    let said = "left out of the package: doc (/doc), docs (/docs), main/x.txt (*.txt), src (/src)";
    assert_eq!(told.1, [said]);
}

#[test]
fn caches_of_node_packages_are_left_out_and_what_the_packages_have_stays() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    for path in
        ["node_modules/.cache/babel/x", "node_modules/dotenv/.env", "node_modules/a/test/x.key"]
    {
        fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
        fs::write(dir.join(path), "x").unwrap();
    }
    let (files, told) = packed_with(&node, &dir);
    let modules: Vec<&String> = files.iter().filter(|file| file.starts_with("node_m")).collect();
    assert_eq!(modules, ["node_modules/a/test/x.key", "node_modules/dotenv/.env"]);
    assert!(told.1.is_empty(), "{told:?}");
}

#[test]
fn what_is_packed_and_looks_like_a_secret_is_said() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    fs::write(dir.join("main/tls.pem"), "-----BEGIN EC PRIVATE KEY-----\n").unwrap();
    fs::write(dir.join("secrets.yml"), "x: y\n").unwrap();
    fs::write(dir.join(".npmrc"), "//r.example.org/:_authToken=abc\n").unwrap();
    let told = packed_with(&node, &dir).1;
    assert_eq!(told.1.len(), 3, "{told:?}");
    for name in ["main/tls.pem", "secrets.yml", ".npmrc"] {
        assert!(told.1.iter().any(|said| said.starts_with(&format!("{name} is in"))), "{told:?}");
    }
}
