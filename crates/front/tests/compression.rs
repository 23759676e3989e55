//! Static files are compressed for the clients that accept it, and nothing else is.

mod memory;

use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

use flate2::read::GzDecoder;
use mfserv_core::route::{AppFragments, Fragment, Fragments, RouteTable, Slots, Target};

use crate::files::asking;
use crate::fragments::said;
use crate::world::*;

fn text(length: usize) -> String {
    "some text that is short when it is compressed\n".chars().cycle().take(length).collect()
}

/// Bytes that do not become shorter.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

fn table_of_files(world: &World) -> RouteTable {
    let mut table = table(Slots::Unlimited, true);
    table.routes.push(route("/s", Target::Static { root: world.path("site") }));
    table
}

fn serving(world: &World) -> Front {
    let root = world.path("site");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("page.html"), text(200_000)).unwrap();
    std::fs::write(root.join("short.txt"), text(1000)).unwrap();
    std::fs::write(root.join("long.txt"), text(5_000_000)).unwrap();
    std::fs::write(root.join("picture.png"), text(200_000)).unwrap();
    std::fs::write(root.join("noise.txt"), noise(200_000)).unwrap();
    std::fs::write(root.join("beside.js"), text(200_000)).unwrap();
    std::fs::write(root.join("beside.js.gz"), "made before").unwrap();
    world.serving(table_of_files(world), &[])
}

fn asked(front: &Front, path: &str, fields: &str) -> Answer {
    ask(front.address, asking(path, fields))
}

/// The answer once the file has been left alone for long enough.
fn compressed(front: &Front, path: &str) -> Answer {
    compressed_for(front, path, "gzip", "gzip")
}

/// The answer for this Accept-Encoding, once it has this coding.
fn compressed_for(front: &Front, path: &str, accept: &str, coding: &str) -> Answer {
    let (fields, began) = (format!("Accept-Encoding: {accept}"), Instant::now());
    loop {
        let asked_at = Instant::now();
        let answer = asked(front, path, &fields);
        if answer.field("content-encoding") == [coding] {
            return answer;
        }
        assert!(began.elapsed() < 3 * PATIENCE, "{path} is not compressed");
        // The thread that compresses has a low priority: who asks without a pause takes the processor from it.
        std::thread::sleep(4 * asked_at.elapsed());
    }
}

fn unpacked(answer: &Answer) -> String {
    let (body, mut bytes) = (&mut &answer.body[..], Vec::new());
    match answer.field("content-encoding")[0].as_str() {
        "br" => brotli::BrotliDecompress(body, &mut bytes).unwrap(),
        "zstd" => bytes = zstd::stream::decode_all(body).unwrap(),
        _ => assert!(GzDecoder::new(body).read_to_end(&mut bytes).is_ok()),
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_file_of_text_is_compressed_for_those_who_accept_it_with_a_tag_of_its_own() {
    let world = World::new();
    let front = serving(&world);
    let path = "/s/page.html";
    let answer = compressed(&front, path);
    assert_eq!((answer.status, unpacked(&answer)), (200, text(200_000)));
    assert!(answer.body.len() < 20_000 && answer.field("accept-ranges").is_empty());
    assert_eq!(answer.field("vary"), ["Accept-Encoding"]);
    let plain = front.get(path);
    assert_eq!(
        (plain.text(), plain.field("vary")),
        (text(200_000), vec!["Accept-Encoding".into()])
    );
    let (weak, strong) = (answer.field("etag").remove(0), plain.field("etag").remove(0));
    assert_eq!(weak, format!("W/{strong}"));
    for accept in ["identity", "gzip;q=0", "deflate", "gzip;q=0.5, identity", "*;q=0"] {
        let plain = asked(&front, path, &format!("Accept-Encoding: {accept}"));
        assert_eq!(
            (plain.text(), plain.field("content-encoding").len()),
            (text(200_000), 0),
            "{accept}"
        );
    }
    for accept in ["gzip", "x-gzip", "deflate, gzip;q=0.1", "gzip, identity;q=0.5"] {
        let one = asked(&front, path, &format!("Accept-Encoding: {accept}"));
        assert_eq!(one.field("content-encoding"), ["gzip"], "{accept}");
    }
    let known = |fields: &str| asked(&front, path, &format!("Accept-Encoding: gzip\r\n{fields}"));
    for tag in [&weak, &strong] {
        assert_eq!(known(&format!("If-None-Match: {tag}")).status, 304);
    }
    assert_eq!(known(&format!("If-Match: {weak}")).status, 412, "it identifies no bytes");
    for tag in [&strong, "*"] {
        let same = known(&format!("If-Match: {tag}"));
        assert_eq!((same.status, same.field("etag")), (200, vec![strong.clone()]), "{tag}");
        assert!(same.field("content-encoding").is_empty() && same.text() == text(200_000));
    }
    let part = known("Range: bytes=5-8");
    assert_eq!((part.status, part.text()), (206, text(9)[5..].to_string()));
    assert!(part.field("content-encoding").is_empty() && part.field("etag") == [strong.clone()]);
    let changed = known(&format!("Range: bytes=5-8\r\nIf-Range: {weak}"));
    assert_eq!((changed.status, changed.text()), (200, text(200_000)), "it has no part of that");
    let mut client = Client::connect(front.address);
    client.send(asking(path, "Accept-Encoding: gzip").replacen("GET", "HEAD", 1));
    let head = client.receive_to(true).unwrap();
    assert_eq!(head.field("content-length"), [answer.body.len().to_string()]);
}

/// Asks for files that are not worth compressing often enough to have them compressed, waits until a file
/// that was asked for after them is (one thread does all in turn), and looks at what they are then.
fn nothing_else_is_compressed(front: &Front, world: &World, accept: &str, coding: &str) {
    let last = format!("/s/last-{coding}.txt");
    std::fs::write(world.path("site").join(&last[3..]), text(50_000)).unwrap();
    // It is compressed once it has been left alone; by then the others have been, too.
    compressed_for(front, &last, accept, coding);
    let names = ["short.txt", "long.txt", "picture.png", "noise.txt"];
    let asked =
        |name: &str| asked(front, &format!("/s/{name}"), &format!("Accept-Encoding: {accept}"));
    for name in names.into_iter().chain(names) {
        asked(name);
    }
    let next = format!("/s/next-{coding}.txt");
    std::fs::write(world.path("site").join(&next[3..]), text(60_000)).unwrap();
    compressed_for(front, &next, accept, coding);
    for name in names {
        let (answer, content) =
            (asked(name), std::fs::read(world.path("site").join(name)).unwrap());
        let is_plain = answer.field("content-encoding").is_empty() && answer.body == content;
        assert!(is_plain && !answer.field("etag")[0].starts_with("W/"), "{name} {coding}");
    }
}

#[test]
fn a_client_has_the_coding_that_it_prefers_and_brotli_before_zstd_before_gzip() {
    let world = World::new();
    let front = serving(&world);
    let path = "/s/page.html";
    let all = "gzip, deflate, br, zstd";
    for (accept, coding) in [
        (all, "br"),
        ("*", "gzip"),
        ("gzip, zstd", "zstd"),
        ("gzip, br;q=0", "gzip"),
        ("br;q=0.5, gzip;q=0.9, zstd;q=0.1", "gzip"),
        ("gzip;q=0.1, zstd;q=0.2, identity;q=0.2", "zstd"),
    ] {
        let answer = compressed_for(&front, path, accept, coding);
        assert_eq!((answer.status, unpacked(&answer)), (200, text(200_000)), "{accept}");
        assert!(answer.body.len() < 20_000 && answer.field("accept-ranges").is_empty());
        assert_eq!(answer.field("vary"), ["Accept-Encoding"]);
        // What has the same meaning has one tag, and the file itself a strong one.
        let strong = front.get(path).field("etag").remove(0);
        let tag = answer.field("etag").remove(0);
        assert_eq!(tag, format!("W/{strong}"));
        let known = |fields: &str| {
            asked(&front, path, &format!("Accept-Encoding: {accept}\r\n{fields}: {tag}"))
        };
        assert_eq!((known("If-None-Match").status, known("If-Match").status), (304, 412));
        let part = asked(&front, path, &format!("Accept-Encoding: {accept}\r\nRange: bytes=5-8"));
        assert_eq!((part.status, part.text()), (206, text(9)[5..].to_string()));
        assert!(part.field("content-encoding").is_empty());
    }
    let plain = asked(&front, path, "Accept-Encoding: br;q=0.5, identity");
    assert_eq!((plain.text(), plain.field("content-encoding").len()), (text(200_000), 0));
    nothing_else_is_compressed(&front, &world, all, "br");
    // What lies beside a file is sent first.
    let beside = asked(&front, "/s/beside.js", &format!("Accept-Encoding: {all}"));
    assert_eq!(beside.text(), "made before");
    let beside = compressed_for(&front, "/s/beside.js", "br", "br");
    assert_eq!(unpacked(&beside), text(200_000));
}

#[test]
fn what_gains_nothing_and_what_lies_compressed_beside_a_file_is_not_compressed() {
    let world = World::new();
    let mut front = serving(&world);
    // From now on all files have been left alone for long enough.
    compressed(&front, "/s/page.html");
    nothing_else_is_compressed(&front, &world, "gzip", "gzip");
    let beside = asked(&front, "/s/beside.js", "Accept-Encoding: gzip");
    assert_eq!((beside.text().as_str(), beside.field("accept-ranges").len()), ("made before", 1));
    // A client may have either form, and insist on it.
    let tag = |accept: &str| asked(&front, "/s/beside.js", accept).field("etag").remove(0);
    let forms = [
        (tag("Accept-Encoding: gzip"), "made before".to_string()),
        (tag("Accept: */*"), text(200_000)),
    ];
    for (tag, content) in forms {
        let fields = format!("Accept-Encoding: gzip\r\nIf-Match: {tag}");
        let same = asked(&front, "/s/beside.js", &fields);
        assert_eq!((same.status, same.text()), (200, content), "{tag}");
    }
    let mut off = table_of_files(&world);
    off.server.static_compression = false;
    front.daemon.publish(2, off, &[]);
    let answer = asked(&front, "/s/page.html", "Accept-Encoding: gzip");
    assert!(answer.field("content-encoding").is_empty() && answer.field("vary").is_empty());
}

#[test]
fn a_file_that_changes_is_never_answered_with_what_it_was() {
    let world = World::new();
    let front = serving(&world);
    let path = world.path("site/page.html");
    compressed(&front, "/s/page.html");
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    let other = text(200_000).to_uppercase();
    // In place, with the same length, and with the time that it had.
    let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all(other.as_bytes()).unwrap();
    file.set_modified(modified).unwrap();
    let now = asked(&front, "/s/page.html", "Accept-Encoding: gzip");
    assert!(now.field("content-encoding").is_empty() && now.text() == other);
    assert_eq!(unpacked(&compressed(&front, "/s/page.html")), other);
}

#[test]
fn clients_that_ask_while_a_file_is_compressed_have_it_as_it_is() {
    let world = World::new();
    let front = serving(&world);
    std::fs::write(world.path("site/large.txt"), text(4_000_000)).unwrap();
    let is_right = |answer: &Answer| match answer.field("content-encoding").is_empty() {
        true => answer.text() == text(4_000_000),
        false => unpacked(answer) == text(4_000_000),
    };
    until("some have it compressed", || {
        std::thread::scope(|scope| {
            let ask = || asked(&front, "/s/large.txt", "Accept-Encoding: gzip");
            let all: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            let all: Vec<Answer> = all.into_iter().map(|one| one.join().unwrap()).collect();
            assert!(all.iter().all(is_right));
            all.iter().any(|answer| !answer.field("content-encoding").is_empty())
        })
    });
}

/// Bytes of which hardly more than half remain.
fn digits(length: usize) -> String {
    noise(length)
        .iter()
        .map(|byte| char::from(b"0123456789abcdef"[usize::from(byte % 16)]))
        .collect()
}

/// How many compressed files live in a front.
fn made(front: &Front) -> usize {
    let open = std::fs::read_dir(format!("/proc/{}/fd", front.pid())).unwrap();
    let files = open.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    files.filter(|file| file.to_string_lossy().contains("mfserv-compressed")).count()
}

#[test]
fn the_first_clients_of_a_file_do_not_wait_and_a_thread_of_low_priority_compresses_it() {
    let world = World::new();
    let front = serving(&world);
    compressed(&front, "/s/page.html");
    for name in ["first.txt", "second.txt"] {
        std::fs::write(world.path("site").join(name), digits(2_000_000)).unwrap();
    }
    let path = "/s/first.txt";
    let nice = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", front.pid())).unwrap();
        let stats = tasks
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
        let of_thread = |stat: String| {
            let (_, fields) = stat.split_once("(mfserv-compress) ")?;
            fields.split(' ').nth(16).map(str::to_string)
        };
        stats.filter_map(of_thread).next()
    };
    let mut seen = None;
    until("it is compressed", || {
        let answer = asked(&front, path, "Accept-Encoding: gzip");
        seen = seen.take().or_else(nice);
        answer.field("content-encoding") == ["gzip"]
    });
    assert_eq!(seen.as_deref(), Some("10"));
    let second = asked(&front, "/s/second.txt", "Accept-Encoding: gzip");
    assert!(
        second.field("content-encoding").is_empty() && made(&front) == 2,
        "it is asked for once"
    );
}

#[test]
fn answers_of_apps_are_not_compressed() {
    let world = World::new();
    let worker = Worker::start(&world, 1, |stream, _| {
        let body = text(100_000);
        let head = format!("Content-Type: text/html\r\nContent-Length: {}", body.len());
        stream.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").as_bytes()).is_ok()
    });
    let front = world.serving(table_of_files(&world), &[&worker]);
    let answer = asked(&front, "/a", "Accept-Encoding: gzip");
    assert_eq!((answer.text(), answer.field("content-encoding").len()), (text(100_000), 0));
}

/// The files of the app have a fragment: they are nginx's own.
fn with_fragment(world: &World, words: &str) -> RouteTable {
    let mut table = table_of_files(world);
    let fragment = Fragment { file: "static.conf".into(), text: words.into() };
    let own = AppFragments { static_location: Some(fragment), ..AppFragments::default() };
    let apps = [("a".to_string(), own)].into();
    table.fragments.insert("p".into(), Fragments { apps, ..Fragments::default() });
    table
}

#[test]
fn files_that_are_nginxs_own_are_compressed_unless_their_fragment_decides() {
    let Some(world) = World::with_lua() else { return };
    let mut front = serving(&world);
    let is_compressed = |front: &Front, name: &str| {
        let answer = asked(front, &format!("/s/{name}"), "Accept-Encoding: gzip");
        assert_eq!(answer.field("x-own"), ["1"]);
        let content = std::fs::read(Path::new(&world.path("site")).join(name)).unwrap();
        match answer.field("content-encoding").is_empty() {
            true => assert!(answer.body == content),
            false => assert_eq!(unpacked(&answer).as_bytes(), content),
        }
        !answer.field("content-encoding").is_empty()
    };
    let own = "add_header X-Own 1;\n";
    for (generation, words, expected) in [
        (2, format!("# gzip is the front's; gzip off;\n{own}"), true),
        (3, format!("{own} gzip off;"), false),
    ] {
        front.daemon.publish(generation, with_fragment(&world, &words), &[]);
        assert_eq!(said(&mut front), "");
        assert_eq!(is_compressed(&front, "page.html"), expected, "{words}");
        // Clients of HTTP/1.0 and those behind proxies have it too.
        let request = asking("/s/page.html", "Accept-Encoding: gzip\r\nVia: 1.1 x");
        let old = ask(front.address, request.replace("HTTP/1.1", "HTTP/1.0"));
        assert_eq!(old.field("content-encoding").len(), usize::from(expected), "{}", old.head);
        let part = asked(&front, "/s/page.html", "Accept-Encoding: gzip\r\nRange: bytes=0-3");
        assert_eq!(part.status, if expected { 200 } else { 206 }, "docs/nginx.md says so");
        assert!(!is_compressed(&front, "short.txt") && !is_compressed(&front, "picture.png"));
    }
    let mut off = with_fragment(&world, own);
    off.server.static_compression = false;
    front.daemon.publish(4, off, &[]);
    assert_eq!(said(&mut front), "");
    assert!(!is_compressed(&front, "page.html"));
}
