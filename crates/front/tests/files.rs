//! Static files: what is served, and that nothing else is.

use std::os::unix::fs::symlink;

use mfserv_core::route::{Slots, Target};

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
    let mut table = table(Slots::Unlimited, true);
    table.routes = vec![route("/s", Target::Static { root })];
    world.serving(table, &[])
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
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let answer = ask(front.address, request);
        assert_eq!((answer.status, answer.field("location")), (301, vec![location]));
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

#[test]
fn unchanged_files_are_not_sent_again() {
    let world = World::new();
    let front = serving_files(&world);
    let first = front.get("/s/digits");
    let (tag, modified) = (&first.field("etag")[0], &first.field("last-modified")[0]);
    for (fields, status) in [
        (format!("If-None-Match: {tag}"), 304),
        (format!("If-None-Match: \"x\", W/{tag}"), 304),
        ("If-None-Match: *".into(), 304),
        ("If-None-Match: \"x\"".into(), 200),
        (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {modified}"), 200),
        (format!("If-Modified-Since: {modified}"), 304),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT".into(), 200),
        ("If-Modified-Since: nonsense".into(), 200),
    ] {
        let request =
            format!("GET /s/digits HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{fields}\r\n\r\n");
        let answer = ask(front.address, request);
        assert_eq!(answer.status, status, "{fields}");
        assert_eq!(answer.text(), if status == 200 { "0123456789" } else { "" });
    }
}

#[test]
fn a_range_is_served_alone() {
    let world = World::new();
    let front = serving_files(&world);
    let tag = front.get("/s/digits").field("etag").remove(0);
    for (fields, status, body, range) in [
        ("Range: bytes=2-4".to_string(), 206, "234", "bytes 2-4/10"),
        ("Range: bytes=7-".into(), 206, "789", "bytes 7-9/10"),
        ("Range: bytes=-2".into(), 206, "89", "bytes 8-9/10"),
        ("Range: bytes=0-1,4-5".into(), 200, "0123456789", ""),
        ("Range: bytes=5-2".into(), 200, "0123456789", ""),
        (format!("Range: bytes=0-0\r\nIf-Range: {tag}"), 206, "0", "bytes 0-0/10"),
        ("Range: bytes=0-0\r\nIf-Range: \"old\"".into(), 200, "0123456789", ""),
    ] {
        let request =
            format!("GET /s/digits HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{fields}\r\n\r\n");
        let answer = ask(front.address, request);
        assert_eq!((answer.status, answer.text().as_str()), (status, body), "{fields}");
        assert_eq!(answer.field("content-range").join(""), range, "{fields}");
    }
    let request =
        "GET /s/digits HTTP/1.1\r\nHost: h\r\nConnection: close\r\nRange: bytes=10-\r\n\r\n";
    let answer = ask(front.address, request);
    assert_eq!((answer.status, answer.field("content-range")), (416, vec!["bytes */10".into()]));
    let request = "GET /s/data.bin HTTP/1.1\r\nHost: h\r\nConnection: close\r\nRange: bytes=500000-899999\r\n\r\n";
    assert_eq!(ask(front.address, request).body.len(), 400_000);
}

#[test]
fn no_spelling_leads_out_of_the_root() {
    let world = World::new();
    let front = serving_files(&world);
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
    for path in paths {
        let answer = client.get(&path);
        assert!(matches!(answer.status, 400 | 404), "{} for {path}", answer.status);
        assert!(!answer.text().contains("secret"), "{path}");
    }
}
