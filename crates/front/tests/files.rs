//! Static files: what is served, and that nothing else is.

use std::os::unix::fs::symlink;

use mfserv_core::route::{RealIp, RouteTable, Slots, Target};

use crate::descriptors::descriptors;
use crate::suite::threads;
use crate::world::*;

fn serving_files(world: &World) -> Front {
    let root = world.path("site");
    std::fs::create_dir_all(root.join("sub/empty")).unwrap();
    std::fs::create_dir_all(root.join(".git")).unwrap();
    std::fs::write(root.join("index.html"), "<p>front page</p>").unwrap();
    std::fs::write(root.join("sub/index.html"), "sub page").unwrap();
    std::fs::write(root.join("a b.css"), "body{}").unwrap();
    std::fs::write(root.join("data.bin"), vec![7; 1_000_000]).unwrap();
    std::fs::write(root.join("digits"), "0123456789").unwrap();
    std::fs::write(root.join(".hidden"), "secret").unwrap();
    std::fs::write(root.join(".git/config"), "secret").unwrap();
    std::fs::write(world.path("outside"), "secret").unwrap();
    std::fs::create_dir(world.path("site2")).unwrap();
    std::fs::write(world.path("site2/file"), "secret").unwrap();
    symlink(root.join("digits"), root.join("link")).unwrap();
    world.serving(table_of_files(world), &[])
}

fn table_of_files(world: &World) -> RouteTable {
    let mut table = table(Slots::Unlimited, true);
    table.routes = vec![route("/s", Target::Static { root: world.path("site") })];
    table
}

#[test]
fn files_are_served_with_their_type_and_directories_by_their_index() {
    let world = World::new();
    let front = serving_files(&world);
    for (path, kind, body) in [
        ("/s/", "text/html", "<p>front page</p>"),
        ("/s/index.html", "text/html", "<p>front page</p>"),
        ("/s/sub/", "text/html", "sub page"),
        ("/s//sub/./index.html?q", "text/html", "sub page"),
        ("/s/a%20b.css", "text/css", "body{}"),
        ("/s/digits", "text/plain", "0123456789"),
        ("/s/link", "text/plain", "0123456789"),
    ] {
        let answer = front.get(path);
        assert_eq!((answer.status, answer.text().as_str()), (200, body), "{path}");
        assert_eq!(answer.field("content-type"), [kind], "{path}");
        assert_eq!(answer.field("x-request-id").len(), 1);
    }
    assert_eq!(front.get("/s/data.bin").body, vec![7; 1_000_000]);
    assert_eq!(front.get("/s/sub/empty/").status, 403);
    assert_eq!(front.get("/s/none").status, 404);
    assert_eq!(front.get("/s/digits/").status, 404);
    assert_eq!(front.get("/s/digits/x").status, 404);
}

#[test]
fn a_directory_without_slash_is_redirected() {
    let world = World::new();
    let front = serving_files(&world);
    let port = front.address.port();
    for (host, path, location) in [
        (format!("h:{port}"), "/s", format!("http://h:{port}/s/")),
        ("h".into(), "/s/sub?x=y", "http://h/s/sub/?x=y".into()),
        (format!("H:{port}"), "/s/sub/%65mpty", format!("http://H:{port}/s/sub/empty/")),
        (
            "h".into(),
            "//s//sub?//evil&a=%0d%0a<>\"",
            "http://h/s/sub/?//evil&a=%0d%0a%3C%3E%22".into(),
        ),
        ("[::1]:81".into(), "/s/sub", "http://[::1]:81/s/sub/".into()),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = ask(front.address, request);
        assert_eq!((answer.status, answer.field("location")), (301, vec![location]));
    }
}

#[test]
fn a_redirect_keeps_the_scheme_that_a_trusted_proxy_tells() {
    let world = World::new();
    let mut front = serving_files(&world);
    let location = |front: &Front, proto: &str| {
        let request = asking("/s/sub", &format!("X-Forwarded-Proto: {proto}"));
        ask(front.address, request.replace("Host: h", "Host: h:443")).field("location")
    };
    assert_eq!(location(&front, "https"), ["http://h:443/s/sub/"], "nobody is trusted");
    for (generation, proxies, proto, expected) in [
        (2, "127.0.0.0/8", "https", "https://h/s/sub/"),
        (3, "127.0.0.0/8", "http", "http://h:443/s/sub/"),
        (4, "127.0.0.0/8", "javascript", "http://h:443/s/sub/"),
        (5, "10.0.0.0/8", "https", "http://h:443/s/sub/"),
    ] {
        let mut table = table_of_files(&world);
        let header = "X-Forwarded-For".into();
        let real_ip = RealIp { header, recursive: false, proxies: vec![proxies.into()] };
        table.server.real_ip = Some(real_ip);
        front.daemon.publish(generation, table, &[]);
        assert_eq!(location(&front, proto), [expected], "{proxies} {proto}");
    }
}

#[test]
fn only_get_and_head_are_allowed() {
    let world = World::new();
    let front = serving_files(&world);
    let mut client = Client::connect(front.address);
    client.send("HEAD /s/data.bin HTTP/1.1\r\nHost: h\r\n\r\n");
    let head = client.receive_to(true).unwrap();
    assert_eq!((head.status, head.field("content-length")), (200, vec!["1000000".into()]));
    let request = "POST /s/digits HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx";
    client.send(request);
    let answer = client.receive().unwrap();
    assert_eq!((answer.status, answer.field("allow")), (405, vec!["GET, HEAD".into()]));
    client = Client::connect(front.address);
    client.send("DELETE /s/digits HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(client.receive().unwrap().status, 405);
    assert_eq!(client.get("/s/digits").status, 200);
}

pub fn asking(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{fields}\r\n\r\n")
}

#[test]
fn conditions_are_judged_in_the_order_of_rfc_9110() {
    let Some(world) = World::where_holds("own_refusals") else { return };
    let front = serving_files(&world);
    age(&world.path("site/digits"), 1_000_000_000);
    let first = front.get("/s/digits");
    let tag = first.field("etag").remove(0);
    let modified = first.field("last-modified").remove(0);
    assert_eq!(
        (tag.as_str(), modified.as_str()),
        ("\"3b9aca00-a\"", "Sun, 09 Sep 2001 01:46:40 GMT")
    );
    let (early, late) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-22 08:49:37 GMT");
    for (fields, status) in [
        (format!("If-None-Match: {tag}"), 304),
        (format!("If-None-Match: \"x\", W/{tag}"), 304),
        (format!("If-None-Match: \"x\"\r\nIf-None-Match: {tag}"), 304),
        ("If-None-Match: *".into(), 304),
        ("If-None-Match: \"x\"".into(), 200),
        (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {modified}"), 200),
        (format!("If-Modified-Since: {modified}"), 304),
        (format!("If-Modified-Since: {late}"), 304),
        ("If-Modified-Since: Sun Sep  9 01:46:40 2001".into(), 304),
        (format!("If-Modified-Since: {early}"), 200),
        ("If-Modified-Since: nonsense".into(), 200),
        (format!("If-Match: {tag}"), 200),
        (format!("If-Match: \"x\", {tag}"), 200),
        ("If-Match: *".into(), 200),
        (format!("If-Match: W/{tag}"), 412),
        ("If-Match: \"x\"".into(), 412),
        (format!("If-Unmodified-Since: {modified}"), 200),
        (format!("If-Unmodified-Since: {late}"), 200),
        (format!("If-Unmodified-Since: {early}"), 412),
        ("If-Unmodified-Since: nonsense".into(), 200),
        (format!("If-Match: {tag}\r\nIf-Unmodified-Since: {early}"), 200),
        (format!("If-Match: \"x\"\r\nIf-None-Match: {tag}"), 412),
        (format!("If-Match: {tag}\r\nIf-None-Match: {tag}"), 304),
        (format!("If-None-Match: {tag}\r\nRange: bytes=0-0"), 304),
        ("If-Match: \"x\"\r\nRange: bytes=0-0".into(), 412),
    ] {
        let answer = ask(front.address, asking("/s/digits", &fields));
        assert_eq!(answer.status, status, "{fields}");
        match status {
            412 => assert_eq!(answer.field("x-mfserv-cause"), ["precondition"]),
            304 => {
                assert_eq!((answer.field("etag"), answer.text()), (vec![tag.clone()], "".into()))
            }
            _ => assert_eq!(answer.text(), "0123456789"),
        }
    }
}

#[test]
fn a_range_is_served_alone() {
    let world = World::new();
    let front = serving_files(&world);
    age(&world.path("site/digits"), 1_000_000_000);
    let tag = front.get("/s/digits").field("etag").remove(0);
    let whole = ("0123456789", "");
    for (fields, status, (body, range)) in [
        ("Range: bytes=2-4".to_string(), 206, ("234", "bytes 2-4/10")),
        ("Range: bytes=7-".into(), 206, ("789", "bytes 7-9/10")),
        ("Range: bytes=-2".into(), 206, ("89", "bytes 8-9/10")),
        ("Range: bytes=0-3,20-30".into(), 206, ("0123", "bytes 0-3/10")),
        ("Range: bytes=0-6,3-9".into(), 200, whole),
        ("Range: bytes=0-0\r\nRange: bytes=2-2".into(), 200, whole),
        ("Range: bytes=5-2".into(), 200, whole),
        ("Range: lines=1-2".into(), 200, whole),
        (format!("Range: bytes=0-0\r\nIf-Range: {tag}"), 206, ("0", "bytes 0-0/10")),
        (format!("Range: bytes=0-0\r\nIf-Range: W/{tag}"), 200, whole),
        ("Range: bytes=0-0\r\nIf-Range: \"old\"".into(), 200, whole),
        (
            "Range: bytes=0-0\r\nIf-Range: Sun, 09 Sep 2001 01:46:40 GMT".into(),
            206,
            ("0", "bytes 0-0/10"),
        ),
        ("Range: bytes=0-0\r\nIf-Range: Sun, 09 Sep 2001 01:46:41 GMT".into(), 200, whole),
    ] {
        let answer = ask(front.address, asking("/s/digits", &fields));
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{fields}");
        assert_eq!(answer.field("content-range").join(""), range, "{fields}");
    }
    let answer = ask(front.address, asking("/s/digits", "Range: bytes=10-"));
    assert_eq!((answer.status, answer.field("content-range")), (416, vec!["bytes */10".into()]));
    let answer = ask(front.address, asking("/s/data.bin", "Range: bytes=500000-899999"));
    assert_eq!(answer.body.len(), 400_000);
    let request =
        "HEAD /s/digits HTTP/1.1\r\nHost: h\r\nConnection: close\r\nRange: bytes=0-0\r\n\r\n";
    let mut client = Client::connect(front.address);
    client.send(request);
    assert_eq!(client.receive_to(true).unwrap().status, 200);
}

#[test]
fn several_ranges_are_served_as_parts_of_one_body() {
    let world = World::new();
    let front = serving_files(&world);
    let content: Vec<u8> = (0..1_000_000u32).map(|at| (at * 7 / 5) as u8).collect();
    std::fs::write(world.path("site/data.bin"), &content).unwrap();
    let ranges = [(5usize, 6usize), (100_000, 400_000), (999_990, 1_000_000)];
    let text: Vec<String> = ranges.iter().map(|(a, b)| format!("{a}-{}", b - 1)).collect();
    let fields = format!("Range: bytes={}", text.join(", "));
    let answer = ask(front.address, asking("/s/data.bin", &fields));
    assert_eq!((answer.status, answer.whole), (206, true));
    let kind = answer.field("content-type").remove(0);
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let mut expected = Vec::new();
    for ((start, end), text) in ranges.into_iter().zip(text) {
        let head = format!(
            "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n\
             Content-Range: bytes {text}/1000000\r\n\r\n"
        );
        expected.extend_from_slice(head.as_bytes());
        expected.extend_from_slice(&content[start..end]);
    }
    expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert!(answer.body == expected);
    let many = format!("Range: bytes={}", "1-1,".repeat(33));
    assert_eq!(ask(front.address, asking("/s/data.bin", &many)).status, 200);
}

/// Sets the time of a file.
fn age(path: &std::path::Path, unix_seconds: u64) {
    let when = std::time::UNIX_EPOCH + std::time::Duration::from_secs(unix_seconds);
    std::fs::File::options().write(true).open(path).unwrap().set_modified(when).unwrap();
}

#[test]
fn compressed_copies_are_served_to_those_who_take_them() {
    let world = World::new();
    let front = serving_files(&world);
    for (name, content, time) in [
        ("a.js", "plain", 1_000_000_000),
        ("a.js.gz", "gzipped", 1_000_000_000),
        ("a.js.br", "brotli", 1_000_000_001),
        ("a.js.zst", "too old", 999_999_999),
        ("only.css.gz", "gzipped", 1_000_000_000),
    ] {
        std::fs::write(world.path("site").join(name), content).unwrap();
        age(&world.path("site").join(name), time);
    }
    for (accept, body, coding) in [
        ("", "plain", ""),
        ("gzip", "gzipped", "gzip"),
        ("gzip, br, zstd", "brotli", "br"),
        ("gzip, br;q=0.5", "gzipped", "gzip"),
        ("zstd", "plain", ""),
        ("*;q=0.1", "gzipped", "gzip"),
        ("br;q=0, gzip;q=0", "plain", ""),
    ] {
        let answer = ask(front.address, asking("/s/a.js", &format!("Accept-Encoding: {accept}")));
        assert_eq!((answer.status, answer.text().as_str()), (200, body), "{accept}");
        assert_eq!(answer.field("content-encoding").join(","), coding, "{accept}");
        assert_eq!(answer.field("vary"), ["Accept-Encoding"]);
        assert_eq!(answer.field("content-type"), ["application/javascript"]);
        let fields = format!("If-None-Match: {}", answer.field("etag")[0]);
        let accept = format!("Accept-Encoding: {accept}\r\n{fields}");
        let again = ask(front.address, asking("/s/a.js", &accept));
        assert_eq!((again.status, again.field("vary")), (304, vec!["Accept-Encoding".into()]));
    }
    let tags: std::collections::BTreeSet<String> = ["", "gzip", "br"]
        .iter()
        .map(|one| ask(front.address, asking("/s/a.js", &format!("Accept-Encoding: {one}"))))
        .map(|answer| answer.field("etag").remove(0))
        .collect();
    assert_eq!(tags.len(), 3);
    let itself = ask(front.address, asking("/s/a.js.gz", "Accept-Encoding: gzip"));
    assert_eq!((itself.text().as_str(), itself.field("vary").len()), ("gzipped", 0));
    assert_eq!(ask(front.address, asking("/s/only.css", "Accept-Encoding: gzip")).status, 404);
    std::fs::write(world.path("site/a.js.br"), "another").unwrap();
    let answer = ask(front.address, asking("/s/a.js", "Accept-Encoding: br"));
    assert_eq!(answer.text(), "another");
    std::fs::remove_file(world.path("site/a.js.br")).unwrap();
    let answer = ask(front.address, asking("/s/a.js", "Accept-Encoding: br"));
    assert_eq!((answer.text().as_str(), answer.field("content-encoding").len()), ("plain", 0));
}

#[test]
fn changed_files_are_seen_at_once_and_new_ones_soon() {
    let world = World::new();
    let front = serving_files(&world);
    let path = world.path("site/changing");
    let mut client = Client::connect(front.address);
    assert_eq!(client.get("/s/changing").status, 404);
    std::fs::write(&path, "one").unwrap();
    until("the new file is seen", || client.get("/s/changing").status == 200);
    let mut last = client.get("/s/changing");
    for round in 0..20u32 {
        let content = "x".repeat(round as usize * 1000);
        match round % 4 {
            0 => std::fs::write(&path, &content).unwrap(),
            1 => {
                std::fs::write(world.path("site/new"), &content).unwrap();
                std::fs::rename(world.path("site/new"), &path).unwrap();
            }
            2 => {
                std::fs::remove_file(&path).unwrap();
                until("it is missing", || client.get("/s/changing").status == 404);
                std::fs::write(&path, &content).unwrap();
                until("it is back", || client.get("/s/changing").status == 200);
            }
            _ => {
                let file = std::fs::File::options().write(true).open(&path).unwrap();
                file.set_len(content.len() as u64 / 2).unwrap();
            }
        }
        let now = client.get("/s/changing");
        let expected = std::fs::read(&path).unwrap();
        assert_eq!((now.status, now.body == expected), (200, true), "round {round}");
        assert_ne!(now.field("etag"), last.field("etag"));
        last = now;
    }
    let (target, other) = (world.path("site/target"), world.path("site/other"));
    std::fs::create_dir_all(&target).unwrap();
    std::fs::create_dir_all(&other).unwrap();
    std::fs::write(target.join("f"), "old release").unwrap();
    std::fs::write(other.join("f"), "new release").unwrap();
    symlink(&target, world.path("site/current")).unwrap();
    assert_eq!(client.get("/s/current/f").text(), "old release");
    symlink(&other, world.path("site/next")).unwrap();
    std::fs::rename(world.path("site/next"), world.path("site/current")).unwrap();
    let switched = std::time::Instant::now();
    until("the new release is seen", || client.get("/s/current/f").text() == "new release");
    assert!(switched.elapsed() < std::time::Duration::from_secs(10));
}

#[test]
fn a_file_that_is_cut_under_a_download_ends_it() {
    let world = World::new();
    let front = serving_files(&world);
    let path = world.path("site/shrinking");
    std::fs::File::create(&path).unwrap().set_len(1 << 30).unwrap();
    let mut client = Client::connect(front.address);
    client.send("GET /s/shrinking HTTP/1.1\r\nHost: h\r\n\r\n");
    client.read_until(b"\r\n\r\n");
    std::fs::File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
    let (mut room, mut got) = (vec![0; 1 << 20], 0);
    loop {
        match std::io::Read::read(&mut client.stream, &mut room) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(why) => {
                assert_eq!(why.kind(), std::io::ErrorKind::ConnectionReset);
                break;
            }
        }
    }
    assert!(got < 1 << 30);
    assert_eq!(front.get("/s/shrinking").body.len(), 1 << 20);
    assert_eq!(front.get("/s/digits").status, 200);
}

/// A value of /proc/PID/status, kB.
fn memory(front: &Front, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", front.pid())).unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_gigabyte_is_downloaded_in_flat_memory_and_others_are_not_held_up() {
    const LENGTH: u64 = 1 << 30;
    let world = World::new();
    let front = serving_files(&world);
    let file = std::fs::File::create(world.path("site/large")).unwrap();
    file.set_len(LENGTH).unwrap();
    let marks: Vec<u64> = (0..64).map(|n| n * (LENGTH / 64) + n * 4099).collect();
    for mark in &marks {
        std::os::unix::fs::FileExt::write_all_at(&file, &mark.to_be_bytes(), *mark).unwrap();
    }
    front.get("/s/digits");
    let before = memory(&front, "VmHWM");
    let address = front.address;
    let download = std::thread::spawn(move || {
        let mut client = Client::connect(address);
        client.send("GET /s/large HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        let head = client.read_until(b"\r\n\r\n");
        assert!(find(&head, format!("Content-Length: {LENGTH}").as_bytes()).is_some());
        let (mut sum, mut at) = (0u64, 0u64);
        let mut add = |bytes: &[u8]| {
            for byte in bytes.iter() {
                if *byte != 0 {
                    sum = sum.wrapping_add(at.wrapping_mul(u64::from(*byte)));
                }
                at += 1;
            }
        };
        add(&client.rest());
        let mut room = vec![0; 1 << 20];
        loop {
            match std::io::Read::read(&mut client.stream, &mut room).unwrap() {
                0 => return (at, sum),
                count => add(&room[..count]),
            }
        }
    });
    let (mut others, mut client) = (0, Client::connect(front.address));
    while !download.is_finished() {
        assert_eq!(client.get("/s/digits").status, 200);
        others += 1;
    }
    let expected = marks.iter().fold(0u64, |sum, mark| {
        let bytes = mark.to_be_bytes();
        bytes
            .iter()
            .zip(*mark..)
            .fold(sum, |sum, (byte, at)| sum.wrapping_add(at.wrapping_mul(u64::from(*byte))))
    });
    assert_eq!(download.join().unwrap(), (LENGTH, expected));
    assert!(others > 100, "{others}");
    let after = memory(&front, "VmHWM");
    assert!(after < before + 4096, "{before} kB, then {after} kB");
}

#[test]
fn open_files_are_bounded_and_put_away() {
    let world = World::new();
    let front = serving_files(&world);
    for number in 0..1500 {
        std::fs::write(world.path(&format!("site/f{number}")), "x").unwrap();
    }
    front.get("/s/none");
    world.access_log(1);
    let before = descriptors(&front);
    let mut client = Client::connect(front.address);
    for number in 0..3000 {
        let path = format!("/s/f{number}");
        assert_eq!(client.get(&path).status, if number < 1500 { 200 } else { 404 });
        client.send(asking(&path, "Range: bytes=0-0").replace("close", "keep-alive"));
        client.receive().unwrap();
    }
    let lanes = threads() as usize;
    assert!(descriptors(&front) < before + 600 * lanes, "{}", descriptors(&front));
    drop(client);
    let started = std::time::Instant::now();
    until("what nobody asks for is closed", || descriptors(&front) <= before + 2);
    assert!(started.elapsed() < PATIENCE);
}

#[test]
fn special_files_are_never_opened() {
    let world = World::new();
    let front = serving_files(&world);
    let root = world.path("site");
    let fifo = root.join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o644.into(), 0)
        .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    symlink("/dev/tty", root.join("device")).unwrap();
    symlink("/proc/self/exe", root.join("magic")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    std::fs::create_dir(root.join("index.html.d")).unwrap();
    let mut client = Client::connect(front.address);
    for (path, status) in [
        ("/s/fifo", 403),
        ("/s/socket", 403),
        ("/s/device", 403),
        ("/s/magic", 404),
        ("/s/loop", 404),
        ("/s/fifo/x", 404),
        ("/s/index.html.d/", 403),
        ("/s/digits", 200),
    ] {
        assert_eq!(client.get(path).status, status, "{path}");
    }
    let long = format!("/s/{}", "long/".repeat(1500));
    assert_eq!(client.get(&long).status, 404);
    // A reader would let this writer in.
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
    let opened = rustix::fs::open(&fifo, flags, rustix::fs::Mode::empty());
    assert_eq!(opened.err(), Some(rustix::io::Errno::NXIO));
}

#[test]
fn links_are_followed_as_configured() {
    let world = World::new();
    let mut front = serving_files(&world);
    let root = world.path("site");
    symlink(world.path("outside"), root.join("absolute")).unwrap();
    symlink("../outside", root.join("up")).unwrap();
    symlink("../site2", root.join("aside")).unwrap();
    symlink("../digits", root.join("sub/within")).unwrap();
    symlink("sub", root.join("folder")).unwrap();
    let cases = [
        ("/s/absolute", 200, 403),
        ("/s/up", 200, 403),
        ("/s/aside/file", 200, 403),
        ("/s/aside", 301, 403),
        ("/s/sub/within", 200, 200),
        ("/s/folder/within", 200, 200),
        ("/s/folder", 301, 301),
        ("/s/", 200, 200),
        ("/s", 301, 301),
        ("/s/none", 404, 404),
        ("/s/link", 200, 403),
    ];
    for (path, follow, _) in cases {
        assert_eq!(front.get(path).status, follow, "{path}");
    }
    let mut table = table(Slots::Unlimited, true);
    table.server.static_symlinks = mfserv_core::route::Symlinks::Beneath;
    table.routes = vec![route("/s", Target::Static { root })];
    front.daemon.publish(2, table, &[]);
    for (path, _, beneath) in cases {
        let answer = front.get(path);
        assert_eq!(answer.status, beneath, "{path}");
        assert!(!answer.text().contains("secret"));
    }
}

#[test]
fn hidden_files_are_served_only_where_asked_for() {
    let world = World::new();
    let mut front = serving_files(&world);
    let root = world.path("site");
    std::fs::create_dir(root.join(".well-known")).unwrap();
    std::fs::write(root.join(".well-known/security.txt"), "public").unwrap();
    let cases = [
        ("/s/.hidden", 404, 200),
        ("/s/.git/config", 404, 200),
        ("/s/.git", 404, 301),
        ("/s/.well-known/security.txt", 200, 200),
        ("/s/.well-known/../.hidden", 404, 200),
        ("/s/...", 404, 404),
    ];
    for (path, hidden, _) in cases {
        assert_eq!(front.get(path).status, hidden, "{path}");
    }
    let mut table = table(Slots::Unlimited, true);
    table.server.static_dotfiles = true;
    table.routes = vec![route("/s", Target::Static { root })];
    front.daemon.publish(2, table, &[]);
    for (path, _, shown) in cases {
        assert_eq!(front.get(path).status, shown, "{path}");
    }
}

#[test]
fn no_spelling_leads_out_of_the_root() {
    let Some(world) = World::where_holds("own_refusals") else { return };
    let mut front = serving_files(&world);
    let ups = [
        "..",
        "%2e%2e",
        "%2E.",
        ".%2e",
        "%252e%252e",
        "..%00",
        "..%2f",
        "%2e%2e%2f",
        "..\\",
        "..%5c",
        "%c0%ae%c0%ae",
        "%e0%80%ae%e0%80%ae",
        "%uff0e%uff0e",
        "...",
        "....//",
        "..;",
        ".%00.",
    ];
    let mut paths = Vec::new();
    for up in ups {
        for rest in ["outside", "site2/file", "%6futside"] {
            paths.push(format!("/s/{up}/{rest}"));
            paths.push(format!("/s/sub/{up}/{up}/{rest}"));
            paths.push(format!("/s/{up}{rest}"));
            paths.push(format!("/s//{up}//{rest}"));
        }
    }
    let absolute = world.path("outside").display().to_string();
    paths.extend([
        format!("/s/{absolute}"),
        format!("/s/%2f{}", &absolute[1..]),
        "/s/.hidden".into(),
        "/s/%2ehidden".into(),
        "/s/.git/config".into(),
        "/s/sub/../.git/config".into(),
        "/s2/file".into(),
        "/s%00/../outside".into(),
    ]);
    assert!(paths.len() > 200);
    let mut client = Client::connect(front.address);
    for path in &paths {
        let answer = client.get(path);
        assert!(matches!(answer.status, 400 | 404), "{} for {path}", answer.status);
        assert!(!answer.text().contains("secret"), "{path}");
    }
    let mut table = table(Slots::Unlimited, true);
    table.server.static_dotfiles = true;
    table.server.static_symlinks = mfserv_core::route::Symlinks::Beneath;
    table.routes = vec![route("/s", Target::Static { root: world.path("site") })];
    front.daemon.publish(2, table, &[]);
    for path in paths.iter().filter(|path| !path.contains("hidden") && !path.contains("git")) {
        let answer = client.get(path);
        assert!(matches!(answer.status, 400 | 404), "{} for {path}", answer.status);
        assert!(!answer.text().contains("secret"), "{path}");
    }
}
