//! Hostile packages: refused by the installation with the entry named, nothing
//! outside the stage touched, nothing left.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use mfserv_plugin::archive::{Limits, pack, read, unpack};
use mfserv_plugin::store::{InstallOptions, install};
use mfserv_plugin::{Home, Silent};
use serde_json::json;

use crate::tar_stream::{TarStream, WRAPS, Wrap};
use crate::{Node, options, spec_of, tree};

const TOP: &str = "metwork_plugin";
const LABEL: (&str, &[u8]) = (".layerapi2_label", b"plugin_foo@mfserv\n");

/// Small, so that what is too large need not be large.
const LIMITS: Limits = Limits { bytes: 4 << 20, members: 100 };

/// A stream and what its refusal says.
struct Case {
    tar: Vec<u8>,
    says: Vec<String>,
}

/// Hostile streams, whatever they are compressed with.
#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(&mut self, bytes: Vec<u8>, says: &[&str]) {
        self.0.push(Case { tar: bytes, says: says.iter().map(|text| text.to_string()).collect() });
    }

    /// A package of MFSERV with something more.
    fn more(&mut self, says: &[&str], add: impl FnOnce(&mut TarStream)) {
        let mut tar = TarStream::of_mfserv();
        add(&mut tar);
        self.add(tar.ended(), says);
    }

    /// The same with one entry.
    fn entry(&mut self, path: &[u8], kind: u8, mode: u32, link: &str, says: &[&str]) {
        let shown = String::from_utf8_lossy(path).into_owned();
        let mut all = vec![];
        // the error names the entry, as far as it can be shown
        let plain = !shown.is_empty() && shown.chars().all(|c| c.is_ascii_graphic() || c == ' ');
        if plain && shown.len() < 100 {
            all.push(shown.as_str());
        }
        all.extend(says);
        self.more(&all, |tar| tar.entry(path, kind, mode, link.as_bytes(), b""));
    }
}

fn names(cases: &mut Cases) {
    for path in
        ["/etc/mfserv-hostile", "/metwork_plugin/x", "//x", "hostile", "../hostile", "other/x"]
    {
        cases.entry(path.as_bytes(), b'0', 0o644, "", &["not below metwork_plugin/"]);
    }
    let relative = "a path is relative, without . and ..";
    for path in ["..", "../../hostile", "a/../b", "a/..", "./x", ".", "a/.", "a//b", "/x", "x/"] {
        cases.entry(format!("{TOP}/{path}").as_bytes(), b'0', 0o644, "", &[relative]);
    }
    for path in ["../hostile", "a/./", "a//"] {
        cases.entry(format!("{TOP}/{path}").as_bytes(), b'5', 0o755, "", &[relative]);
    }
    cases.entry(b"metwork_plugin/", b'0', 0o644, "", &["bytes"]);
    cases.entry(b"", b'0', 0o644, "", &["not below"]);
    cases.entry(b"", b'5', 0o755, "", &["not below"]);
    cases.entry(b"metwork_plugin/\xff\xfe", b'0', 0o644, "", &["not UTF-8"]);
    for path in ["a\nb", "a\tb", "a\x1b[2Jb", "a\x7fb", "\u{85}", "a\u{202e}b"] {
        cases.entry(format!("{TOP}/{path}").as_bytes(), b'0', 0o644, "", &["control characters"]);
    }
}

fn long_names(cases: &mut Cases) {
    let long = format!("{TOP}/{}", "x".repeat(256));
    let deep = format!("{TOP}/{}", "x/".repeat(600));
    for path in [&long, &deep] {
        cases.more(&["bytes"], |tar| {
            tar.entry(b"././@LongLink", b'L', 0o644, b"", path.as_bytes());
            tar.file("metwork_plugin/x", b"");
        });
        cases.more(&["bytes"], |tar| {
            tar.pax(b'x', &[("path", path.as_bytes())]);
            tar.file("metwork_plugin/x", b"");
        });
    }
    let huge = vec![b'a'; 100_000];
    cases.more(&["a name is too long"], |tar| {
        tar.entry(b"././@LongLink", b'L', 0o644, b"", &huge);
    });
    cases.more(&["a name is too long"], |tar| tar.pax(b'x', &[("comment", &huge)]));
    cases.more(&["two long names for one entry"], |tar| {
        tar.entry(b"././@LongLink", b'L', 0o644, b"", b"metwork_plugin/a\0");
        tar.entry(b"././@LongLink", b'L', 0o644, b"", b"metwork_plugin/b\0");
        tar.file("metwork_plugin/x", b"");
    });
    cases.more(&["extended header without its entry"], |tar| {
        tar.entry(b"././@LongLink", b'L', 0o644, b"", b"metwork_plugin/a\0");
    });
    cases.more(&["not below"], |tar| {
        tar.entry(b"././@LongLink", b'L', 0o644, b"", b"/etc/mfserv-hostile\0");
        tar.file("metwork_plugin/x", b"");
    });
    cases.more(&["control characters"], |tar| {
        tar.entry(b"././@LongLink", b'L', 0o644, b"", b"metwork_plugin/a\0b");
        tar.file("metwork_plugin/x", b"");
    });
    cases.more(&["points out of the plugin", "metwork_plugin/x"], |tar| {
        tar.entry(b"././@LongLink", b'K', 0o644, b"", b"/etc/passwd\0");
        tar.entry(b"metwork_plugin/x", b'2', 0o777, b"here", b"");
    });
    cases.more(&["extended headers for one entry"], |tar| {
        (0..50).for_each(|_| tar.pax(b'x', &[("comment", b"x")]));
        tar.file("metwork_plugin/x", b"");
    });
}

fn pax_overrides(cases: &mut Cases) {
    let file = |tar: &mut TarStream| tar.file("metwork_plugin/x", b"x");
    for (key, value, says) in [
        ("path", "/etc/mfserv-hostile", "not below"),
        ("path", "metwork_plugin/../../hostile", "a path is relative"),
        ("size", "99999999999", "a file is too large"),
        ("size", "0", "a file is too large"),
        ("GNU.sparse.name", "metwork_plugin/y", "a sparse file"),
        ("GNU.sparse.realsize", "999999999", "a sparse file"),
    ] {
        cases.more(&[says], |tar| {
            tar.pax(b'x', &[(key, value.as_bytes())]);
            file(tar);
        });
    }
    cases.more(&["points out of the plugin"], |tar| {
        tar.pax(b'x', &[("linkpath", b"../../hostile")]);
        tar.entry(b"metwork_plugin/x", b'2', 0o777, b"here", b"");
    });
    cases.more(&["a name for all entries"], |tar| {
        tar.pax(b'g', &[("path", b"metwork_plugin/x")]);
        file(tar);
    });
    cases.more(&["a bad pax header"], |tar| {
        tar.entry(b"pax", b'x', 0o644, b"", b"9999 path=x\n");
        file(tar);
    });
    cases.more(&["not UTF-8"], |tar| {
        tar.pax(b'x', &[("path", b"metwork_plugin/\xff")]);
        file(tar);
    });
}

fn links(cases: &mut Cases) {
    for target in
        ["/etc/passwd", "/", "..", "../hostile", "a/../../hostile", "./../hostile", "a/..", ""]
    {
        cases.entry(b"metwork_plugin/link", b'2', 0o777, target, &["points out of the plugin"]);
    }
    cases.entry(
        b"metwork_plugin/a/b/link",
        b'2',
        0o777,
        "../../../x",
        &["points out of the plugin"],
    );
    cases.entry(b"metwork_plugin/link", b'2', 0o777, "a\nb", &["points out of the plugin"]);
    cases.more(&["not UTF-8", "metwork_plugin/link"], |tar| {
        tar.entry(b"metwork_plugin/link", b'2', 0o777, b"\xff", b"");
    });
    cases.more(&["a directory or link with a content"], |tar| {
        tar.entry(b"metwork_plugin/link", b'2', 0o777, b"x", b"content");
    });
    for target in ["metwork_plugin/.layerapi2_label", "/etc/passwd", "../../x"] {
        cases.entry(b"metwork_plugin/hard", b'1', 0o644, target, &["a hard link"]);
    }
    // over a link of the package itself
    cases.more(&["metwork_plugin/here/x", "here is not a directory"], |tar| {
        tar.entry(b"metwork_plugin/here", b'2', 0o777, b".", b"");
        tar.file("metwork_plugin/here/x", b"x");
    });
    cases.more(&["twice"], |tar| {
        tar.entry(b"metwork_plugin/d", b'2', 0o777, b".", b"");
        tar.entry(b"metwork_plugin/d/", b'5', 0o755, b"", b"");
    });
    cases.more(&["the link leads to itself"], |tar| {
        tar.entry(b"metwork_plugin/a", b'2', 0o777, b"b", b"");
        tar.entry(b"metwork_plugin/b", b'2', 0o777, b"a", b"");
    });
    // a chain whose steps are inside, each of them, and whose end is not
    cases.more(&["points out of the plugin", "metwork_plugin/d/e/up"], |tar| {
        tar.entry(b"metwork_plugin/down", b'2', 0o777, b"d/e", b"");
        tar.entry(b"metwork_plugin/d/e/up", b'2', 0o777, b"../../down/../../../x", b"");
    });
}

fn kinds_and_modes(cases: &mut Cases) {
    for (kind, says) in [
        (b'3', "a device"),
        (b'4', "a device"),
        (b'6', "a FIFO"),
        (b'S', "a sparse file"),
        (b'M', "neither"),
        (b'V', "neither"),
        (b'Z', "neither"),
    ] {
        cases.entry(b"metwork_plugin/thing", kind, 0o644, "", &[says]);
    }
    for mode in [0o4755, 0o2755, 0o6755, 0o4644] {
        cases.entry(b"metwork_plugin/tool", b'0', mode, "", &["setuid or setgid"]);
    }
    cases.entry(b"metwork_plugin/dir", b'5', 0o4755, "", &["setuid or setgid"]);
    for mode in [0o666, 0o777, 0o602] {
        cases.entry(b"metwork_plugin/open", b'0', mode, "", &["everybody may write it"]);
    }
    cases.entry(b"metwork_plugin/dir", b'5', 0o777, "", &["everybody may write it"]);
    cases.entry(b"metwork_plugin/dir", b'5', 0o1777, "", &["everybody may write it"]);
}

fn twins(cases: &mut Cases) {
    cases.entry(b"metwork_plugin/.layerapi2_label", b'0', 0o644, "", &["twice"]);
    cases.entry(b"metwork_plugin/.layerapi2_label", b'5', 0o755, "", &["twice"]);
    cases.entry(b"metwork_plugin/.metadata.json", b'0', 0o644, "", &["twice"]);
    cases.entry(b"metwork_plugin/.metadata.json/x", b'0', 0o644, "", &["is not a directory"]);
    cases.more(&["metwork_plugin/a", "twice"], |tar| {
        tar.file("metwork_plugin/a/b", b"");
        tar.file("metwork_plugin/a", b"");
    });
    let case = "only in upper and lower case";
    cases.entry(b"metwork_plugin/.LayerAPI2_label", b'0', 0o644, "", &[case]);
    for (one, two) in [("a/x", "A/y"), ("é", "É"), ("main/index.html", "main/INDEX.html")] {
        cases.more(&[case], |tar| {
            tar.file(&format!("{TOP}/{one}"), b"");
            tar.file(&format!("{TOP}/{two}"), b"");
        });
    }
    for path in [".committed", ".mfserv-files.json"] {
        cases.entry(format!("{TOP}/{path}").as_bytes(), b'0', 0o644, "", &["mfserv itself writes"]);
    }
}

fn sizes(cases: &mut Cases) {
    cases.more(&["metwork_plugin/zeros", "more than"], |tar| {
        tar.file("metwork_plugin/zeros", &vec![0; 5 << 20]);
    });
    cases.more(&["more than"], |tar| {
        (0..6).for_each(|n| tar.file(&format!("{TOP}/zeros{n}"), &vec![0; 1 << 20]));
    });
    cases.more(&["more than 100 files"], |tar| {
        (0..200).for_each(|n| tar.file(&format!("{TOP}/{n}"), b""));
    });
    cases.more(&["more than 100 files"], |tar| {
        (0..10).for_each(|n| tar.file(&format!("{TOP}/{n}{}/x", "/d".repeat(40)), b""));
    });
    // says that it is large, and is not
    let mut tar = TarStream::of_mfserv();
    let mut header = tar::Header::new_gnu();
    header.set_path("metwork_plugin/liar").unwrap();
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    for size in [u64::MAX, 1 << 62, 5 << 30] {
        header.set_size(size);
        header.set_cksum();
        let mut tar = tar.clone();
        tar.raw(&header, b"");
        cases.add(tar.ended(), &["metwork_plugin/liar", "more than"]);
    }
    header.set_size(1 << 20);
    header.set_cksum();
    tar.raw(&header, b"short");
    cases.add(tar.ended(), &["metwork_plugin/liar", "cut off"]);
    let mut zeros = TarStream::of_mfserv().ended();
    zeros.resize(zeros.len() + (3 << 20), 0);
    cases.add(zeros, &["something after its end"]);
}

fn cut_off(cases: &mut Cases) {
    let mut tar = TarStream::of_mfserv();
    tar.file("metwork_plugin/main/index.html", &[b'x'; 2000]);
    let whole = tar.ended();
    let end = tar.0.len();
    for at in [100, 512, 600, 1024, end - 2048, end - 2000, end - 512, end - 1] {
        cases.add(whole[..at].to_vec(), &["cut off"]);
    }
    cases.add(tar.0.clone(), &["metwork_plugin/main/index.html", "cut off"]);
    cases.add(whole[..end + 512].to_vec(), &["cut off just before its end"]);
    let mut more = whole.clone();
    more.extend_from_slice(b"more");
    cases.add(more, &["something after its end"]);
    let mut twice = whole.clone();
    twice.extend_from_slice(&whole);
    cases.add(twice, &["something after its end"]);
    let mut damaged = whole.clone();
    damaged[end - 2560] ^= 1;
    cases.add(damaged, &["this is no tar header"]);
    cases.add(Vec::new(), &["cut off"]);
    cases.add(vec![0; 1024], &["can't read/find"]);
    cases.add(b"this is no archive".repeat(100), &["this is no tar header"]);
    for missing in [".metadata.json", ".files.json", ".layerapi2_label"] {
        let mut tar = TarStream::default();
        for name in [".metadata.json", ".files.json", ".layerapi2_label"] {
            if name != missing {
                tar.file(
                    &format!("{TOP}/{name}"),
                    if name == ".files.json" { b"[]" } else { b"{}" },
                );
            }
        }
        cases.add(tar.ended(), &["can't read/find", missing]);
    }
}

fn manifests(cases: &mut Cases) {
    let page: (&str, &[u8]) = ("page.html", b"hello");
    let files = [LABEL, page];
    let mut edited = |says: &[&str], edit: fn(&mut serde_json::Value)| {
        cases.add(TarStream::ours(&files, edit).ended(), says);
    };
    edited(&["page.html", "SHA-256"], |m| m["members"][1]["sha256"] = json!("0".repeat(64)));
    edited(&["page.html", "5 bytes", "6"], |m| {
        m["members"][1]["size"] = json!(6);
        m["total_size"] = json!(24);
    });
    edited(&["page.html", "mode"], |m| m["members"][1]["mode"] = json!(0o755));
    edited(&["page.html", "mode"], |m| m["members"][1]["mode"] = json!(0o600));
    edited(&["page.html", "not what the manifest says"], |m| {
        m["members"][1] = json!({"path": "page.html", "type": "directory"});
        m["total_size"] = json!(18);
    });
    edited(&["page.html", "does not name it"], |m| {
        m["members"].as_array_mut().unwrap().pop();
        m["total_size"] = json!(18);
    });
    edited(&["more.html is missing"], |m| {
        let more = json!({"path": "more.html", "type": "link", "target": "page.html"});
        m["members"].as_array_mut().unwrap().push(more);
    });
    edited(&[".manifest.json", "23 bytes", "24"], |m| m["total_size"] = json!(24));
    edited(&["are allowed"], |m| {
        m["members"][1]["size"] = json!(1u64 << 40);
        m["total_size"] = json!((1u64 << 40) + 18);
    });
    edited(&[".manifest.json", "page.html"], |m| {
        let again = m["members"][1].clone();
        m["members"].as_array_mut().unwrap().push(again);
    });
    edited(&[".manifest.json", "a bad path", "../page"], |m| {
        m["members"][1]["path"] = json!("../page")
    });
    edited(&["more than 100 files"], |m| {
        let many = (0..200).map(|n| json!({"path": n.to_string(), "type": "directory"}));
        m["members"] = many.collect();
    });
    edited(&["builder", "control characters"], |m| m["builder"] = json!("a\u{1b}[8m"));
    edited(&["version", "longer"], |m| m["version"] = json!("1".repeat(200)));
    edited(&["interpreters", "control"], |m| m["interpreters"] = json!({"python": "\u{9b}3m"}));
    edited(&["format 2"], |m| m["format"] = json!(2));
    edited(&["the plugin foo", "bar"], |m| m["name"] = json!("bar"));
    edited(&["plugin_../x@mfserv"], |m| m["name"] = json!("../x"));
    edited(&[".manifest.json"], |m| *m = json!([1, 2, 3]));
    edited(&[".manifest.json"], |m| m["members"] = json!("none"));
    // its content is not what was summed
    let good = TarStream::ours(&files, |_| {}).ended();
    let at = good.windows(5).rposition(|window| window == b"hello").unwrap();
    let mut changed = good.clone();
    changed[at] = b'H';
    cases.add(changed, &["page.html", "SHA-256"]);
    let mut late = TarStream::of_mfserv();
    late.file("metwork_plugin/.manifest.json", b"{\"format\":1,\"name\":\"foo\",\"version\":\"1\",\"release\":\"1\",\"total_size\":0,\"builder\":\"\",\"members\":[]}");
    cases.add(late.ended(), &[".manifest.json is not the first"]);
    cases.more(&["is it really a plugin"], |tar| {
        *tar = TarStream::default();
        tar.file("metwork_plugin/.layerapi2_label", b"something else");
        tar.file("metwork_plugin/.metadata.json", b"{}");
        tar.file("metwork_plugin/.files.json", b"[]");
    });
}

/// What would command the terminal of who looks at it, or fill it.
fn descriptions(cases: &mut Cases) {
    let long = "x".repeat(5000);
    for (key, text, says) in [
        ("version", "\u{1b}[31mred", "control characters"),
        ("url", "http://ok\u{1b}[8m", "control characters"),
        ("vendor", "a\u{202e}b", "control characters"),
        ("summary", "two\nlines", "control characters"),
        ("release", &long, "longer than"),
        ("summary", &long, "longer than"),
    ] {
        let mut tar = TarStream::default();
        tar.file("metwork_plugin/.layerapi2_label", LABEL.1);
        tar.file("metwork_plugin/.metadata.json", json!({ key: text }).to_string().as_bytes());
        tar.file("metwork_plugin/.files.json", b"[]");
        cases.add(tar.ended(), &[".metadata.json", key, says]);
    }
    let mut tar = TarStream::default();
    tar.file("metwork_plugin/.layerapi2_label", LABEL.1);
    tar.file("metwork_plugin/.metadata.json", b"{}");
    tar.file("metwork_plugin/.files.json", br#"["a\u001b[2J"]"#);
    cases.add(tar.ended(), &[".files.json", "control characters"]);
}

/// Compressed files that are damaged below the tar stream.
fn damaged() -> Vec<(Vec<u8>, &'static str)> {
    let mut tar = TarStream::of_mfserv();
    let noise: Vec<u8> =
        (0..50_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    tar.file("metwork_plugin/noise", &noise);
    let whole = tar.ended();
    let mut all = Vec::new();
    for wrap in [Wrap::Gzip, Wrap::Zstd] {
        let packed = wrap.wrap(&whole);
        for part in [5, 3, 2] {
            all.push((packed[..packed.len() / part].to_vec(), "cut off"));
        }
        // only its sum is missing
        all.push((packed[..packed.len() - 2].to_vec(), ""));
        let mut flipped = packed.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 0x55;
        all.push((flipped, ""));
        let mut sum = packed.clone();
        let last = sum.len() - if wrap == Wrap::Gzip { 6 } else { 1 };
        sum[last] ^= 1;
        all.push((sum, ""));
        let mut more = packed.clone();
        more.extend_from_slice(b"something more");
        all.push((more, ""));
        // two packages, one behind the other
        all.push(([packed.as_slice(), packed.as_slice()].concat(), "something after its end"));
        // a bomb: 64 MiB of zeros in some KiB
        let mut bomb = TarStream::of_mfserv();
        bomb.file("metwork_plugin/zeros", &vec![0; 64 << 20]);
        all.push((wrap.wrap(&bomb.ended()), "more than"));
        let mut bomb = TarStream::of_mfserv().ended();
        bomb.resize(bomb.len() + (64 << 20), 0);
        all.push((wrap.wrap(&bomb), "something after its end"));
    }
    all
}

/// Path, type, mode, content of all below a directory but locks: each plugin keeps one.
fn listing(dir: &Path) -> Vec<String> {
    let describe = |path: String| {
        let file = dir.join(&path);
        let found = fs::symlink_metadata(&file).unwrap();
        let content = match found.is_file() && !path.ends_with("hostile.plugin") {
            true => crate::digest(&fs::read(&file).unwrap()),
            false => fs::read_link(&file).map(|to| to.display().to_string()).unwrap_or_default(),
        };
        format!("{path} {:o} {} {content}", found.mode(), found.uid())
    };
    tree(dir).into_iter().filter(|path| !path.contains("/.locks/")).map(describe).collect()
}

#[test]
fn hostile_packages_are_refused_with_the_entry_named_and_leave_nothing() {
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    let good = pack(&dir, &spec_of(&dir).general, &node.work(), &mut Silent).unwrap();
    install(&node.home, &good, &options(false), &mut Silent).unwrap();
    let mut cases = Cases::default();
    for add in [
        names,
        long_names,
        pax_overrides,
        links,
        kinds_and_modes,
        twins,
        sizes,
        cut_off,
        manifests,
        descriptions,
    ] {
        add(&mut cases);
    }
    assert!(cases.0.len() >= 80, "{}", cases.0.len());
    let file = node.work().join("hostile.plugin");
    fs::write(&file, "").unwrap();
    let before = listing(node.folder.path());
    let refused = |bytes: &[u8], says: &[String], which: &str| {
        fs::write(&file, bytes).unwrap();
        let options = InstallOptions { limits: LIMITS, ..options(true) };
        let result = install(&node.home, &file, &options, &mut Silent);
        let Err(error) = result else { panic!("{which} {says:?}: accepted") };
        let text = error.to_string();
        assert!(error.what.contains("bad plugin file"), "{which} {says:?}: {text}");
        for part in says {
            assert!(text.contains(part), "{which}: {part:?} is not in: {text}");
        }
        assert_eq!(listing(node.folder.path()), before, "{which} {says:?}");
    };
    let mut count = 0;
    for (index, case) in cases.0.iter().enumerate() {
        for wrap in WRAPS {
            refused(&wrap.wrap(&case.tar), &case.says, &format!("case {index}, {wrap:?}"));
            count += 1;
        }
    }
    for (index, (bytes, says)) in damaged().iter().enumerate() {
        refused(bytes, &[says.to_string()], &format!("damaged {index}"));
        count += 1;
    }
    println!("{count} packages of {} kinds were refused", cases.0.len() + damaged().len());
    assert!(!Path::new("/etc/mfserv-hostile").exists());
}

#[test]
fn the_streams_that_hostile_packages_are_made_from_are_good_without_their_change() {
    let node = Node::new();
    let file = node.work().join("good.plugin");
    let mut old = TarStream::of_mfserv();
    old.entry(b"./metwork_plugin/main/", b'5', 0o2775, b"", b"");
    old.entry(b"metwork_plugin/main/index.html", b'0', 0o664, b"", b"hi\n");
    old.entry(b"metwork_plugin/main/link", b'2', 0o777, b"../.layerapi2_label", b"");
    old.entry(b"metwork_plugin/main/nowhere", b'2', 0o777, b"made/later", b"");
    let ours = TarStream::ours(&[LABEL, ("page.html", b"hello")], |_| {});
    for (index, tar) in [old, ours].iter().enumerate() {
        for wrap in WRAPS {
            fs::write(&file, wrap.wrap(&tar.ended())).unwrap();
            let into = node.work().join(format!("{index}-{wrap:?}"));
            let package = unpack(&file, &into, LIMITS).unwrap();
            assert_eq!((package.name.as_str(), read(&file).unwrap()), ("foo", package.clone()));
            assert!(tree(&into).len() >= 4);
        }
    }
}

#[test]
fn with_the_usual_limits_a_bomb_is_refused_before_anything_is_written() {
    let node = Node::new();
    let file = node.work().join("bomb.plugin");
    let mut tar = TarStream::of_mfserv();
    let mut header = tar::Header::new_gnu();
    header.set_path("metwork_plugin/zeros").unwrap();
    header.set_mode(0o644);
    header.set_size(5 << 30);
    header.set_cksum();
    tar.raw(&header, b"");
    for wrap in WRAPS {
        fs::write(&file, wrap.wrap(&tar.ended())).unwrap();
        let error = unpack(&file, &node.work().join("out"), Limits::default()).unwrap_err();
        assert!(error.to_string().contains("more than 4294967296 bytes"), "{error}");
    }
    assert_eq!(tree(&node.work()), ["bomb.plugin"]);
}

const FILE: &str = "MFSERV_TEST_FULL_FILE";
const DISK: &str = "MFSERV_TEST_FULL_DISK";

/// In a mount namespace, where the system lets us make one, with a disk of 48 MiB.
#[test]
fn a_package_that_does_not_fit_on_the_disk_is_refused_before_anything_is_written() {
    let unshare = ["unshare", "--map-root-user", "--mount"];
    let can =
        Command::new(unshare[0]).args(&unshare[1..]).arg("true").stderr(Stdio::null()).status();
    if !can.is_ok_and(|status| status.success()) {
        println!("not tested: this system makes no mount namespace");
        return;
    }
    let node = Node::new();
    let dir = node.plugin("static", "foo");
    fs::write(dir.join("main/large"), vec![7; 20 << 20]).unwrap();
    let file = pack(&dir, &spec_of(&dir).general, &node.work(), &mut Silent).unwrap();
    let disk = node.work().join("disk");
    fs::create_dir(&disk).unwrap();
    let script = "mount -t tmpfs -o size=48m tmpfs \"$0\" && exec \"$@\"";
    let mut command = Command::new(unshare[0]);
    command.args(&unshare[1..]).args(["sh", "-c", script]).arg(&disk);
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "hostile::installs_on_a_small_disk"]);
    let said = command.env(DISK, &disk).env(FILE, &file).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
}

#[test]
#[ignore = "it is a part of another test, run on a small disk"]
fn installs_on_a_small_disk() {
    let (Some(disk), Some(file)) = (std::env::var_os(DISK), std::env::var_os(FILE)) else { return };
    let home = Home::new(Path::new(&disk).join("home"));
    let error = install(&home, Path::new(&file), &options(false), &mut Silent).unwrap_err();
    assert_eq!(error.what, "not enough room on the disk");
    assert!(error.to_string().contains("47 MiB and"), "{error}");
    assert_eq!(tree(home.root())[..3], ["var", "var/releases", "var/releases/.locks"]);
    assert_eq!(tree(home.root()).len(), 4, "and one lock");
}
