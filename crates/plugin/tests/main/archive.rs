//! Packages: what goes in, what comes out, and what is refused.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use mfserv_plugin::Silent;
use mfserv_plugin::archive::{Limits, pack, read, unpack};

use crate::{Node, spec_of, tree};

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

/// A tar stream written entry by entry, hostile if asked.
struct Tape(Vec<u8>);

impl Tape {
    /// What every package of the predecessor has.
    fn of_the_predecessor() -> Self {
        let mut tape = Self(Vec::new());
        tape.file("metwork_plugin/.layerapi2_label", b"plugin_foo@mfserv\n");
        tape.file(
            "metwork_plugin/.metadata.json",
            br#"{"version": "1.0", "release": "1", "size": "3"}"#,
        );
        tape.file("metwork_plugin/.files.json", br#"["metwork_plugin/main/index.html"]"#);
        tape
    }

    fn entry(&mut self, path: &str, kind: tar::EntryType, link: &str, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        // written as they are: the tar library itself would refuse most of them
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o6777);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, tar::EntryType::Regular, "", content);
    }

    fn gzip(&self, file: &Path) {
        let mut packer = flate2::write::GzEncoder::new(
            fs::File::create(file).unwrap(),
            flate2::Compression::fast(),
        );
        packer.write_all(&self.0).unwrap();
        packer.write_all(&[0; 1024]).unwrap();
        packer.finish().unwrap();
    }
}

#[test]
fn a_gzip_package_of_the_predecessor_is_read_and_unpacked() {
    let node = Node::new();
    let file = node.work().join("foo.plugin");
    let mut tape = Tape::of_the_predecessor();
    tape.file("metwork_plugin/main/index.html", b"hi\n");
    tape.gzip(&file);
    let package = read(&file).unwrap();
    assert_eq!(
        (package.name.as_str(), package.files.as_slice()),
        ("foo", &["main/index.html".to_string()][..])
    );
    let into = node.work().join("out");
    unpack(&file, &into, Limits::default()).unwrap();
    assert_eq!(fs::read_to_string(into.join("main/index.html")).unwrap(), "hi\n");
    let mode = fs::metadata(into.join("main/index.html")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755, "no setuid, not writable by others");
}

#[test]
fn a_package_made_by_pythons_tarfile_with_long_names_is_unpacked() {
    let node = Node::new();
    let file = node.work().join("foo.plugin");
    let tape = Tape::of_the_predecessor();
    tape.gzip(&file);
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
fn a_hostile_package_is_refused_and_touches_nothing() {
    use tar::EntryType::{Block, Char, Directory, Fifo, Link, Regular, Symlink};
    let cases: &[(&str, tar::EntryType, &str)] = &[
        ("/tmp/mfserv-hostile", Regular, ""),
        ("metwork_plugin/../hostile", Regular, ""),
        ("../hostile", Regular, ""),
        ("hostile", Regular, ""),
        ("metwork_plugin/a/../../hostile", Regular, ""),
        ("metwork_plugin/a\nb", Regular, ""),
        ("metwork_plugin/link", Symlink, "/etc/passwd"),
        ("metwork_plugin/link", Symlink, "../hostile"),
        ("metwork_plugin/link", Symlink, "a/../../hostile"),
        ("metwork_plugin/hard", Link, "metwork_plugin/.layerapi2_label"),
        ("metwork_plugin/hard", Link, "/etc/passwd"),
        ("metwork_plugin/fifo", Fifo, ""),
        ("metwork_plugin/block", Block, ""),
        ("metwork_plugin/char", Char, ""),
        ("metwork_plugin/.layerapi2_label", Regular, ""),
        ("metwork_plugin/.layerapi2_label", Directory, ""),
        ("metwork_plugin/.metadata.json/x", Regular, ""),
    ];
    for (path, kind, link) in cases {
        let node = Node::new();
        let file = node.work().join("foo.plugin");
        let mut tape = Tape::of_the_predecessor();
        tape.entry(path, *kind, link, b"");
        tape.gzip(&file);
        let error = unpack(&file, &node.work().join("out"), Limits::default()).unwrap_err();
        assert!(error.what.contains("bad plugin file"), "{path}: {error}");
        assert_eq!(tree(node.folder.path()), ["work", "work/foo.plugin"], "{path}");
        assert!(!Path::new("/tmp/mfserv-hostile").exists());
    }
}

#[test]
fn nothing_is_written_through_a_link_of_the_package() {
    let node = Node::new();
    let file = node.work().join("foo.plugin");
    let mut tape = Tape::of_the_predecessor();
    tape.entry("metwork_plugin/here", tar::EntryType::Symlink, ".", b"");
    tape.file("metwork_plugin/here/x", b"x");
    tape.gzip(&file);
    assert!(unpack(&file, &node.work().join("out"), Limits::default()).is_err());
    assert_eq!(tree(node.folder.path()), ["work", "work/foo.plugin"]);
}

#[test]
fn a_package_larger_than_allowed_or_cut_off_is_refused() {
    let node = Node::new();
    let file = node.work().join("foo.plugin");
    let mut tape = Tape::of_the_predecessor();
    tape.file("metwork_plugin/zeros", &vec![0; 1 << 20]);
    tape.gzip(&file);
    let out = node.work().join("out");
    let small = Limits { bytes: 1 << 19, ..Limits::default() };
    assert!(unpack(&file, &out, small).unwrap_err().because[0].contains("unpacks to more than"));
    assert!(unpack(&file, &out, Limits { members: 3, ..Limits::default() }).is_err());
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    assert!(unpack(&file, &out, Limits::default()).is_err());
    assert!(!out.exists());
}

#[test]
fn a_package_that_is_not_as_its_manifest_says_is_refused() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    let file = packed(&node, &dir);
    let tar = zstd::decode_all(fs::File::open(&file).unwrap()).unwrap();
    let from = b"default home page</h1>";
    let at = tar.windows(from.len()).position(|window| window == from).unwrap();
    let mut changed = tar.clone();
    changed[at] = b'D';
    let hostile = node.work().join("changed.plugin");
    fs::write(&hostile, zstd::encode_all(changed.as_slice(), 1).unwrap()).unwrap();
    let error = unpack(&hostile, &node.work().join("out"), Limits::default()).unwrap_err();
    assert!(error.because[0].contains("main/index.html is not as the manifest says"), "{error}");
    // and one that stops before the end
    let mut short = tar;
    short.truncate(at / 512 * 512 - 512);
    short.extend_from_slice(&[0; 1024]);
    fs::write(&hostile, zstd::encode_all(short.as_slice(), 1).unwrap()).unwrap();
    let error = unpack(&hostile, &node.work().join("out"), Limits::default()).unwrap_err();
    assert!(error.because[0].contains("is missing"), "{error}");
}
