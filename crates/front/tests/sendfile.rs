//! Files that an app has the front send: with its head, from its directories, and nothing else.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use mfserv_core::route::{RouteTable, Sendfile, SendfileRoot, Slots, UnknownHost};

use crate::fastcgi::{STDOUT, ended, fastcgi, record, responder};
use crate::files::asking;
use crate::fragments::{brings, said};
use crate::pull::puller::{Act, Puller, pulling};
use crate::world::*;

const TEXT: &str = "0123456789";

/// Directories with files, and links that lead out of them.
fn files(world: &World) {
    let root = world.path("plugin/private");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    std::fs::create_dir_all(world.path("data")).unwrap();
    std::fs::write(root.join("digits.txt"), TEXT).unwrap();
    std::fs::write(root.join("a b%41.pdf"), "pdf").unwrap();
    std::fs::write(root.join(".dot"), "dot").unwrap();
    std::fs::write(root.join("large.bin"), vec![7; 3_000_000]).unwrap();
    std::fs::write(world.path("data/film"), "film").unwrap();
    std::fs::write(world.path("outside"), "secret").unwrap();
    std::fs::write(world.path("plugin/config.ini"), "secret").unwrap();
    symlink(world.path("outside"), root.join("absolute")).unwrap();
    symlink("../config.ini", root.join("upwards")).unwrap();
    symlink("digits.txt", root.join("inside")).unwrap();
    symlink(world.path("plugin"), world.path("current")).unwrap();
}

fn with_roots(mut table: RouteTable, world: &World) -> RouteTable {
    let data = world.path("data").display().to_string();
    let texts = ["/protected=private".to_string(), data];
    let roots = texts.iter().map(|text| SendfileRoot::parse(text).unwrap()).collect();
    let spec = table.upstreams.get_mut("p/a").unwrap();
    spec.sendfile = Some(Sendfile { home: world.path("plugin"), roots });
    table
}

/// What a client asks the app to answer: the text after `/a/?`, percent-encoded, with `|` between
/// the lines.
fn wanted(target: &str, dir: &str) -> String {
    let lines = target.split_once('?').unwrap().1;
    let lines = mfserv_core::route::percent_decode(lines.as_bytes()).unwrap();
    let lines = String::from_utf8(lines).unwrap().replace('|', "\r\n").replace("DIR", dir);
    format!("HTTP/1.1 {lines}")
}

fn serving(world: &World, table: RouteTable) -> (Front, Worker) {
    files(world);
    let dir = world.dir.path().display().to_string();
    let worker = Worker::start(world, 1, move |stream, received| {
        if received.target() == "/a/plain" {
            return say(stream, "plain");
        }
        let head = wanted(received.target(), &dir);
        let body = if head.contains("Content-Length: 2") { "ok" } else { "" };
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).is_ok()
    });
    let front = world.serving(with_roots(table, world), &[&worker]);
    (front, worker)
}

fn one_at_a_time() -> RouteTable {
    table(Slots::Finite { per_worker: 1 }, true)
}

const HEAD: &str = "/a/?200%20OK|Content-Length:%202|";

#[test]
fn the_file_that_an_app_names_is_sent_with_the_head_of_the_app() {
    let world = World::new();
    let (front, _worker) = serving(&world, one_at_a_time());
    for (field, body) in [
        ("X-Accel-Redirect:%20/protected/digits.txt", TEXT),
        ("x-accel-redirect:%20/protected//sub/../digits.txt?x", TEXT),
        ("X-Accel-Redirect:%20/protected/a%2520b%252541.pdf", "pdf"),
        ("X-Accel-Redirect:%20/protected/inside", TEXT),
        ("X-Accel-Redirect:%20/protected/.dot", "dot"),
        ("X-Sendfile:%20DIR/plugin/private/digits.txt", TEXT),
        ("X-Sendfile:%20DIR/current/private/digits.txt", TEXT),
        ("X-Sendfile:%20DIR/plugin/private/a%20b%2541.pdf", "pdf"),
        ("X-Sendfile:%20DIR/plugin/private/a%2520b%252541.pdf", "pdf"),
        ("X-Sendfile:%20DIR/data/film", "film"),
    ] {
        // What is true of the content of the app alone is no word on the file.
        let of_content = "Content-Encoding:%20gzip|Content-MD5:%20x|Digest:%20sha-256=x|\
                          Content-Digest:%20sha-256=:x:|Repr-Digest:%20sha-256=:x:|Vary:%20x";
        let own = "Set-Cookie:%20a=b|Set-Cookie:%20c=d|Content-Disposition:%20attachment|\
                   Cache-Control:%20private|Content-Type:%20x/y|X-Own:%20z|ETag:%20\"own\"|\
                   Last-Modified:%20Mon,%2001%20Jan%202001%2000:00:00%20GMT";
        let answer = front.get(&format!("{HEAD}{own}|{of_content}|{field}"));
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, body),
            "{field}: {}",
            answer.head
        );
        assert_eq!(answer.field("set-cookie"), ["a=b", "c=d"], "{}", answer.head);
        for (name, value) in [
            ("content-disposition", "attachment"),
            ("cache-control", "private"),
            ("content-type", "x/y"),
            ("x-own", "z"),
            ("accept-ranges", "bytes"),
            ("content-length", &body.len().to_string()),
        ] {
            assert_eq!(answer.field(name), [value], "{name}: {}", answer.head);
        }
        for name in ["content-encoding", "content-md5", "digest", "content-digest", "repr-digest"] {
            assert!(answer.field(name).is_empty(), "{name}: {}", answer.head);
        }
        assert_eq!((answer.field("etag").len(), answer.field("vary").len()), (1, 1));
        assert!(!answer.head.contains("own\""), "the tag is the file's: {}", answer.head);
        assert!(
            !answer.head.contains("2001")
                && !answer.head.contains(&*world.dir.path().to_string_lossy())
        );
        assert!(
            answer.field("x-accel-redirect").is_empty() && answer.field("x-sendfile").is_empty()
        );
    }
    let named = front.get(&format!("{HEAD}X-Accel-Redirect:%20/protected/digits.txt"));
    assert_eq!(named.field("content-type"), ["text/plain"], "the name of the file says it");
}

#[test]
fn ranges_conditions_and_head_are_those_of_the_file() {
    let world = World::new();
    let (front, _worker) = serving(&world, one_at_a_time());
    let path = format!("{HEAD}X-Own:%20z|X-Accel-Redirect:%20/protected/digits.txt");
    let asked = |path: &str, fields: &str| ask(front.address, asking(path, fields));
    let whole = front.get(&path);
    let tag = whole.field("etag").remove(0);
    let part = asked(&path, "Range: bytes=2-4");
    assert_eq!((part.status, part.text().as_str()), (206, "234"));
    assert_eq!(part.field("content-range"), ["bytes 2-4/10"]);
    assert_eq!(part.field("x-own"), ["z"]);
    let several = asked(&path, "Range: bytes=0-0,8-");
    assert_eq!(several.status, 206);
    assert!(several.field("content-type")[0].starts_with("multipart/byteranges"));
    let beyond = asked(&path, "Range: bytes=20-");
    assert_eq!((beyond.status, beyond.field("content-range")), (416, vec!["bytes */10".into()]));
    let current = format!("If-Range: {tag}\r\nRange: bytes=0-1");
    assert_eq!(asked(&path, &current).text(), "01");
    assert_eq!(asked(&path, "If-Range: \"old\"\r\nRange: bytes=0-1").text(), TEXT);
    let known = asked(&path, &format!("If-None-Match: {tag}"));
    assert_eq!((known.status, known.text().as_str(), known.field("x-own").len()), (304, "", 1));
    let other = asked(&path, "If-Match: \"old\"");
    assert_eq!(other.status, 412);
    for page in [beyond, other] {
        assert_eq!(
            (page.field("x-own"), page.field("x-mfserv-cause").len()),
            (vec!["z".into()], 1)
        );
    }
    // An app that looks at ranges itself says 206 and a part of the length.
    let by_app = path.replace("200%20OK", "206%20Partial|Content-Range:%20bytes%202-3/10");
    let part = asked(&by_app, "Range: bytes=2-3");
    assert_eq!((part.status, part.text().as_str()), (206, "23"));
    assert_eq!(part.field("content-range"), ["bytes 2-3/10"]);
    let mut client = Client::connect(front.address);
    client.send(asking(&path, "").replacen("GET", "HEAD", 1));
    let head = client.receive_to(true).unwrap();
    assert_eq!((head.status, head.field("content-length")), (200, vec!["10".to_string()]));
    // What has done something, and a page of an error, is the whole file.
    let post = asking(&path, "Content-Length: 0\r\nRange: bytes=2-4").replacen("GET", "POST", 1);
    assert_eq!(ask(front.address, post).text(), TEXT);
    let page = asked(&path.replace("200%20OK", "403%20Forbidden"), "Range: bytes=2-4");
    assert_eq!((page.status, page.text().as_str()), (403, TEXT));
    let large = format!("{HEAD}X-Accel-Redirect:%20/protected/large.bin");
    assert_eq!(front.get(&large).body, vec![7; 3_000_000]);
}

#[test]
fn what_leads_out_of_the_directories_or_to_nothing_is_not_found_and_is_in_the_log() {
    let world = World::new();
    let (front, _worker) = serving(&world, one_at_a_time());
    for (field, why) in [
        ("X-Accel-Redirect:%20/protected/../config.ini", "below none"),
        ("X-Accel-Redirect:%20/protected/%252e%252e/config.ini", "below none"),
        ("X-Accel-Redirect:%20/protected/%252e%252e%252fconfig.ini", "below none"),
        ("X-Accel-Redirect:%20/other/digits.txt", "below none"),
        ("X-Accel-Redirect:%20DIR/outside", "below none"),
        ("X-Accel-Redirect:%20/protected/absolute", "a link leads out"),
        ("X-Accel-Redirect:%20/protected/upwards", "a link leads out"),
        ("X-Accel-Redirect:%20/protected/missing", "no such file"),
        ("X-Accel-Redirect:%20/protected/digits.txt/", "no such file"),
        ("X-Accel-Redirect:%20/protected/sub", "a directory"),
        ("X-Accel-Redirect:%20/protected/", "a directory"),
        ("X-Sendfile:%20DIR/outside", "below none"),
        ("X-Sendfile:%20DIR/plugin/private/../config.ini", "below none"),
        ("X-Sendfile:%20DIR/plugin/private/%252e%252e/config.ini", "no such file"),
        ("X-Sendfile:%20DIR/plugin/private/upwards", "a link leads out"),
        ("X-Sendfile:%20DIR/plugin/private2/x", "below none"),
        ("X-Sendfile:%20private/digits.txt", "below none"),
        ("X-Sendfile:%20/protected/digits.txt", "below none"),
        ("X-Sendfile:%20DIR/plugin/private/%25e9", "is not UTF-8"),
        ("X-Accel-Redirect:%20/protected/%25e9", "is not UTF-8"),
        ("X-Accel-Redirect:%20@mfserv_end", "below none"),
    ] {
        let log = || std::fs::read_to_string(world.path("log/nginx_error.log")).unwrap_or_default();
        let before = log().len();
        let answer = front.get(&format!(
            "{HEAD}Set-Cookie:%20a=b|Access-Control-Allow-Origin:%20*|Cache-Control:%20private|\
             Content-Disposition:%20attachment|Content-Type:%20x/y|{field}"
        ));
        assert_eq!(
            (answer.status, answer.field("x-mfserv-cause")),
            (404, vec!["not_found".into()]),
            "{field}"
        );
        for (name, expected) in [
            ("set-cookie", "a=b"),
            ("access-control-allow-origin", "*"),
            ("cache-control", "private"),
            ("content-type", "text/html; charset=utf-8"),
            ("content-disposition", ""),
        ] {
            assert_eq!(answer.field(name).join(","), expected, "{name}: {}", answer.head);
        }
        assert!(!answer.text().contains("secret") && answer.field("x-sendfile").is_empty());
        until(&format!("{field} is in the log"), || {
            let log = log();
            log[before..].contains("answered 404: app p/a names") && log[before..].contains(why)
        });
    }
    assert_eq!(front.get("/a/plain").text(), "plain");
}

#[test]
fn a_worker_that_announces_the_length_of_the_file_and_sends_nothing_is_not_waited_for() {
    let world = World::new();
    let (front, worker) = serving(&world, one_at_a_time());
    for _ in 0..3 {
        let begun = Instant::now();
        let path = "/a/?200%20OK|Content-Length:%2010|X-Accel-Redirect:%20/protected/digits.txt";
        assert_eq!(front.get(path).text(), TEXT);
        assert!(begun.elapsed() < Duration::from_secs(4), "its timeout is 5 s");
        assert_eq!(front.get("/a/plain").text(), "plain", "its slot is free");
    }
    // Where it has sent all that it announces, its connection is kept.
    let before = worker.raw.lock().unwrap().len();
    for _ in 0..5 {
        let path = format!("{HEAD}X-Accel-Redirect:%20/protected/digits.txt");
        assert_eq!(front.get(&path).text(), TEXT);
    }
    assert!(worker.raw.lock().unwrap().len() <= before + 1);
}

#[test]
fn answers_of_workers_that_pull_name_files_too() {
    let world = World::new();
    files(&world);
    let puller = Puller::start(&world, 1, |had| {
        let head = "HTTP/1.1 200 OK\r\nX-Accel-Redirect: /protected/digits.txt\r\nX-Own: z\r\n";
        let parts = match had.target() {
            "/a/whole" => vec![format!("{head}Content-Length: 2\r\n\r\nok")],
            "/a/short" => vec![format!("{head}Content-Length: 10\r\n\r\n")],
            "/a/chunks" => {
                vec![format!("{head}Transfer-Encoding: chunked\r\n\r\n"), "0\r\n\r\n".into()]
            }
            other => return Act::Say(other.to_string()),
        };
        Act::Stream(parts.into_iter().map(String::into_bytes).collect())
    });
    let front = world.serving(with_roots(pulling(), &world), &[&puller.worker]);
    for path in ["/a/whole", "/a/chunks", "/a/short", "/a/whole", "/a/short"] {
        // A connection on which something is missing is closed, and then made anew.
        puller.is_linked(&front);
        let answer = front.get(path);
        assert_eq!((answer.status, answer.text().as_str()), (200, TEXT), "{path}");
        assert_eq!(answer.field("x-own"), ["z"]);
    }
}

#[test]
fn scripts_of_fastcgi_name_files_too() {
    let world = World::new();
    files(&world);
    let worker = responder(&world, |stream, request| {
        let body = if request.contains("/a/long") { "x".repeat(60_000) } else { String::new() };
        let head = "Content-Type: x/y\r\nX-Own: z\r\nX-Accel-Redirect: /protected/digits.txt";
        let all = [record(STDOUT, format!("{head}\r\n\r\n{body}").as_bytes()), ended()].concat();
        let _ = stream.write_all(&all);
    });
    let front = world.serving(with_roots(fastcgi(), &world), &[&worker]);
    for path in ["/a/short", "/a/long", "/a/short"] {
        let answer = front.get(path);
        assert_eq!((answer.status, answer.text().as_str()), (200, TEXT), "{path}");
        assert_eq!(
            (answer.field("x-own"), answer.field("content-type")),
            (vec!["z".into()], vec!["x/y".into()])
        );
        assert_eq!(front.get("/a/fine").text(), "fine", "its slot is free");
    }
}

#[test]
fn nginx_sends_what_is_in_locations_that_its_plugin_brings_along() {
    let Some(world) = World::with_lua() else { return };
    files(&world);
    let worker = Worker::start(&world, 1, |stream, received| {
        let fields = "Set-Cookie: a=b\r\nContent-Type: x/y\r\nContent-Length: 2";
        let named = match received.target() {
            "/a/end" => "@mfserv_end",
            target => target.trim_start_matches("/a"),
        };
        let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\nX-Accel-Redirect: {named}\r\n\r\nok");
        stream.write_all(head.as_bytes()).is_ok()
    });
    let mut front = world.front(1);
    for (generation, accel_by_nginx) in [(1, true), (2, false)] {
        let mut table = with_roots(table(Slots::Unlimited, true), &world);
        table.upstreams.get_mut("p/a").unwrap().accel_by_nginx = accel_by_nginx;
        table.server.unknown_host = UnknownHost::Close;
        let data = world.path("data");
        let location = format!("location /internal/ {{ internal; alias {}/; }}\n", data.display());
        brings(&mut table, "p", "", &location);
        front.daemon.publish(generation, table, &[&worker]);
        assert_eq!(said(&mut front), "");
        let own = front.get("/a/protected/digits.txt");
        assert_eq!((own.status, own.text().as_str()), (200, TEXT), "its own directories go first");
        let film = front.get("/a/internal/film");
        if !accel_by_nginx {
            assert_eq!(film.status, 404);
            continue;
        }
        assert_eq!((film.status, film.text().as_str()), (200, "film"));
        assert_eq!(
            (film.field("set-cookie"), film.field("content-type")),
            (vec!["a=b".into()], vec!["x/y".into()])
        );
        assert!(film.field("x-accel-redirect").is_empty(), "{}", film.head);
        let part =
            asking("/a/internal/film", "Range: bytes=1-2").replace("Host: h", "Host: localhost");
        assert_eq!(ask(front.address, part).text(), "il");
        assert_eq!(front.get("/internal/film").status, 404, "only the app may name it");
        assert_eq!(front.get("/a/internal/missing").status, 404);
        assert_eq!(front.get("/a/end").status, 404, "what ends connections is not an app's");
    }
}
