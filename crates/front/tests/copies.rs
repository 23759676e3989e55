//! Compressed copies beside files of an app that has a fragment for them: with nginx as the front, it
//! is nginx that reads them, and it sends what the embedded front sends.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use mfserv_core::route::{AppFragments, Fragment, Fragments, RouteTable, Slots, Target};

use crate::files::asking;
use crate::fragments::said;
use crate::kind;
use crate::start::differs;
use crate::world::*;

/// A table whose static files have a fragment with these words.
pub fn with_fragment(world: &World, words: &str) -> RouteTable {
    let mut table = table(Slots::Unlimited, true);
    table.server.static_compression = false;
    table.routes.push(route("/s", Target::Static { root: world.path("site") }));
    let fragment = Fragment { file: "static.conf".into(), text: words.into() };
    let own = AppFragments { static_location: Some(fragment), ..AppFragments::default() };
    let apps = [("a".to_string(), own)].into();
    table.fragments.insert("p".into(), Fragments { apps, ..Fragments::default() });
    table
}

fn asked(front: &Front, path: &str, fields: &str) -> Answer {
    ask(front.address, asking(path, fields))
}

/// Files of different ages: `a.js` is as old as its copies.
fn write_files(site: &Path) {
    std::fs::create_dir_all(site).unwrap();
    for (name, content, age) in [
        ("a.js", "plain", 10),
        ("a.js.gz", "gzipped", 10),
        ("a.js.br", "brotli", 10),
        ("gz.css", "plain", 10),
        ("gz.css.gz", "gzipped", 10),
        ("alone.txt", "plain", 10),
        ("stale.js", "plain", 10),
        ("stale.js.gz", "of before", 20),
        ("only.css.gz", "gzipped", 10),
    ] {
        let path = site.join(name);
        std::fs::write(&path, content).unwrap();
        let when = UNIX_EPOCH + Duration::from_secs(1_000_000_000 - age);
        std::fs::File::options().write(true).open(path).unwrap().set_modified(when).unwrap();
    }
}

fn copies_are_sent(front: &Front, is_nginx: bool) {
    for (path, accept, body, coding) in [
        ("a.js", "identity", "plain", ""),
        ("a.js", "gzip", "gzipped", "gzip"),
        ("a.js", "br", "brotli", "br"),
        ("a.js", "gzip, deflate, br, zstd", "brotli", "br"),
        ("a.js", "br;q=0, gzip", "gzipped", "gzip"),
        ("a.js", "gzip;q=0", "plain", ""),
        ("gz.css", "gzip, br", "gzipped", "gzip"),
        ("gz.css", "br", "plain", ""),
    ] {
        let case = format!("{path} {accept}");
        // Also behind a proxy.
        let fields = format!("Via: 1.1 x\r\nAccept-Encoding: {accept}");
        let answer = asked(front, &format!("/s/{path}"), &fields);
        assert_eq!((answer.status, answer.text().as_str()), (200, body), "{case}");
        assert_eq!(answer.field("content-encoding").join(","), coding, "{case}");
        assert_eq!(answer.field("vary"), ["Accept-Encoding"], "{case}");
        let content_type = if path == "a.js" { "application/javascript" } else { "text/css" };
        assert_eq!(answer.field("content-type"), [content_type], "{case}");
        let known = format!("{fields}\r\nIf-None-Match: {}", answer.field("etag")[0]);
        assert_eq!(asked(front, &format!("/s/{path}"), &known).status, 304, "{case}");
        let part = asked(front, &format!("/s/{path}"), &format!("{fields}\r\nRange: bytes=1-2"));
        let whole = is_nginx && !coding.is_empty();
        let expected = if whole { (200, body) } else { (206, &body[1..3]) };
        assert_eq!((part.status, part.text().as_str()), expected, "{case}");
    }
    let alone = asked(front, "/s/alone.txt", "Accept-Encoding: gzip, br");
    assert_eq!((alone.text().as_str(), alone.field("content-encoding").len()), ("plain", 0));
    let itself = asked(front, "/s/a.js.gz", "Accept-Encoding: gzip");
    assert_eq!((itself.text().as_str(), itself.field("content-encoding").len()), ("gzipped", 0));
}

#[test]
fn copies_beside_files_with_a_fragment_are_sent_to_those_who_take_them() {
    let is_nginx = kind::under_test().0 == "nginx";
    let world = if is_nginx { World::with_lua() } else { Some(World::new()) };
    let Some(world) = world else { return };
    write_files(&world.path("site"));
    let table = |words: &str| with_fragment(&world, words);
    let mut front = world.serving(table("add_header X-Own 1;"), &[]);
    assert_eq!(said(&mut front), "");
    let answer = asked(&front, "/s/alone.txt", "Accept: */*");
    assert_eq!(answer.field("x-own").len(), usize::from(is_nginx), "nginx reads them itself");
    copies_are_sent(&front, is_nginx);
    let (stale, only) = ("/s/stale.js", "/s/only.css");
    let gzip = |path: &str| asked(&front, path, "Accept-Encoding: gzip");
    match differs("copies") {
        false => assert_eq!((gzip(stale).text().as_str(), gzip(only).status), ("plain", 404)),
        true => assert_eq!((gzip(stale).text().as_str(), gzip(only).status), ("of before", 200)),
    }
    assert_eq!(asked(&front, only, "Accept-Encoding: identity").status, 404);
    if !is_nginx {
        return;
    }
    // A fragment that says something of it has its way.
    for (generation, words, copies) in [
        (2, "gzip_static off;", ["plain", "plain"]),
        (3, "brotli_static on;", ["plain", "brotli"]),
        (4, "# brotli_static off;", ["gzipped", "brotli"]),
    ] {
        front.daemon.publish(generation, table(words), &[]);
        assert_eq!(said(&mut front), "", "{words}");
        let sent = ["gzip", "br"]
            .map(|accept| asked(&front, "/s/a.js", &format!("Accept-Encoding: {accept}")).text());
        assert_eq!(sent, copies, "{words}");
    }
}
