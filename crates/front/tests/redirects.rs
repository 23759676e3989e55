//! `_redirects` of static sites: which requests are sent elsewhere, and which get another file.

use std::os::unix::fs::symlink;

use mfserv_core::route::{
    AppFragments, ErrorPage, ErrorPages, Fragment, Fragments, RouteTable, Symlinks, Target,
};

use crate::fragments::said;
use crate::world::*;

const RULES: &str = "\
/old/*      /new/:splat 302
/a.txt      /b.txt
/forced.txt /b.txt 307!
/docs       /b.txt
/empty      /b.txt
/go/*       https://example.org/:splat
/r/*        /:splat
/bad /b Country=fr
/api/*      /data.json 200
/dir/*      /docs 200
/up/*       /../secret.txt 200
/rules/*    /_redirects 200
/lost/*     /lost.html 404
/nowhere/*  /none.html 404
/spa/*      /index.html 200
";

fn site(world: &World, prefix: &str, fallback: &str) -> RouteTable {
    let root = world.path("site");
    std::fs::create_dir_all(root.join("docs")).unwrap();
    std::fs::create_dir_all(root.join("empty")).unwrap();
    for (name, text) in [
        ("_redirects", RULES),
        ("index.html", "index"),
        ("docs/index.html", "docs"),
        ("a.txt", "a"),
        ("b.txt", "b"),
        ("forced.txt", "forced"),
        ("data.json", "{}"),
        ("lost.html", "lost page"),
        ("404.html", "no such page"),
    ] {
        std::fs::write(root.join(name), text).unwrap();
    }
    std::fs::write(world.path("secret.txt"), "secret").unwrap();
    let mut table = table(ONE, true);
    let pages = vec![ErrorPage::of_convention()];
    let mut files =
        route(prefix, Target::Site { root: root.clone(), fallback: fallback.to_owned() });
    files.error_pages = Some(ErrorPages { root: root.clone(), pages });
    table.routes.extend([files, route("/plain", Target::Static { root })]);
    table
}

fn seen(answer: &Answer) -> (u16, String) {
    let location = answer.field("location").join(" ");
    (answer.status, if location.is_empty() { answer.text() } else { location })
}

#[test]
fn rules_of_a_site_redirect_and_rewrite_below_its_prefix_and_files_go_before_them() {
    for prefix in ["/site", "/"] {
        let world = World::new();
        let front = world.serving(site(&world, prefix, ""), &[]);
        let at = prefix.trim_end_matches('/');
        for (path, status, expected) in [
            ("/old/a/b%20c?x=1", 302, format!("{at}/new/a/b%20c?x=1")),
            ("/a.txt", 200, "a".into()),
            ("/forced.txt", 307, format!("{at}/b.txt")),
            ("/docs/", 200, "docs".into()),
            ("/empty/", 301, format!("{at}/b.txt")),
            ("/go/x", 301, "https://example.org/x".into()),
            ("/r//evil.org", 301, format!("{at}/evil.org")),
            ("/r/%5Cevil.org", 301, format!("{at}/%5Cevil.org")),
            ("/r/%2Fevil.org/%2e%2e/%0d%0aX:1", 301, format!("{at}/%0D%0AX:1")),
            ("/api/users/7", 200, "{}".into()),
            ("/dir/x", 200, "docs".into()),
            ("/spa/deep/path.js", 200, "index".into()),
            ("/lost/x", 404, "lost page".into()),
            ("/nowhere/x", 404, "no such page".into()),
            ("/up/x", 404, "no such page".into()),
            ("/rules/x", 404, "no such page".into()),
            ("/_redirects", 404, "no such page".into()),
            ("/bad", 404, "no such page".into()),
            ("/other", 404, "no such page".into()),
        ] {
            let answer = front.get(&format!("{at}{path}"));
            assert_eq!(seen(&answer), (status, expected), "{prefix} {path}");
        }
        assert_eq!(front.get(&format!("{at}/lost/x")).field("x-mfserv-cause"), ["not_found"]);
        assert_eq!(front.get(&format!("{at}/api/x")).field("content-type"), ["application/json"]);
        assert!(front.get(&format!("{at}/docs")).field("location")[0].ends_with("/docs/"));
        // Files beside an app are no site.
        assert_eq!(seen(&front.get("/plain/_redirects")), (200, RULES.into()));
        assert_eq!(front.get("/plain/old/x").status, 404);
    }
}

#[test]
fn every_method_is_redirected_and_only_reading_ones_get_a_file() {
    let world = World::new();
    let front = world.serving(site(&world, "/site", ""), &[]);
    let asked = |method: &str, path: &str| {
        let rest = "Host: h\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        ask(front.address, format!("{method} /site{path} HTTP/1.1\r\n{rest}")).status
    };
    assert_eq!([asked("POST", "/old/x"), asked("HEAD", "/old/x")], [302, 302]);
    assert_eq!([asked("POST", "/api/x"), asked("POST", "/lost/x")], [405, 405]);
    assert_eq!([asked("HEAD", "/api/x"), asked("HEAD", "/lost/x")], [200, 404]);
}

#[test]
fn a_file_that_a_rule_puts_in_place_has_ranges_and_conditions() {
    let world = World::new();
    let front = world.serving(site(&world, "/site", ""), &[]);
    let asked = |field: &str| {
        let rest = format!("Host: h\r\nConnection: close\r\n{field}\r\n\r\n");
        ask(front.address, format!("GET /site/spa/x HTTP/1.1\r\n{rest}"))
    };
    let part = asked("Range: bytes=1-2");
    assert_eq!((part.status, part.text().as_str()), (206, "nd"));
    let tag = part.field("etag").remove(0);
    assert_eq!(asked(&format!("If-None-Match: {tag}")).status, 304);
}

#[test]
fn rules_come_before_the_page_of_a_single_page_app() {
    let world = World::new();
    let front = world.serving(site(&world, "/site", "index.html"), &[]);
    assert_eq!(seen(&front.get("/site/old/x")), (302, "/site/new/x".into()));
    assert_eq!(seen(&front.get("/site/new/x")), (200, "index".into()));
    assert_eq!(front.get("/site/_redirects").status, 404, "rules are no page");
}

#[test]
fn changed_rules_are_obeyed_and_lines_that_are_not_are_named() {
    let world = World::new();
    let mut front = world.serving(site(&world, "/site", ""), &[]);
    assert_eq!(front.get("/site/old/x").status, 302);
    let said = "app p/a: _redirects:8 is not obeyed: conditions (Country=fr) are not supported";
    assert!(front.daemon.stats().warnings.contains_key(said));
    let log = || std::fs::read_to_string(world.path("log/nginx_error.log")).unwrap_or_default();
    until("the log names the line", || log().matches(said).count() == 1);
    let rules = world.path("site/_redirects");
    for number in 0..5 {
        // Of the same length, within the same second, in place and by a rename.
        let text = format!("/old/* /now{number}/:splat\n");
        match number % 2 {
            0 => std::fs::write(&rules, text).unwrap(),
            _ => {
                std::fs::write(world.path("next"), text).unwrap();
                std::fs::rename(world.path("next"), &rules).unwrap();
            }
        }
        let expected = (301, format!("/site/now{number}/x"));
        until("the new rule is obeyed", || seen(&front.get("/site/old/x")) == expected);
    }
    std::fs::remove_file(&rules).unwrap();
    until("there are no rules", || front.get("/site/old/x").status == 404);
}

#[test]
fn rules_that_a_link_leads_to_are_obeyed_only_where_links_are() {
    let world = World::new();
    let mut table = site(&world, "/site", "");
    let rules = world.path("site/_redirects");
    std::fs::rename(&rules, world.path("outside")).unwrap();
    symlink(world.path("outside"), &rules).unwrap();
    let mut front = world.serving(table.clone(), &[]);
    assert_eq!(front.get("/site/old/x").status, 302, "links are followed by default");
    table.server.static_symlinks = Symlinks::Beneath;
    front.daemon.publish(2, table, &[]);
    assert_eq!(front.get("/site/old/x").status, 404);
}

#[test]
fn a_browser_asks_again_before_it_obeys_a_rule_that_it_has_stored() {
    let world = World::new();
    let front = world.serving(site(&world, "/site", ""), &[]);
    for path in ["/site/old/x", "/site/empty/", "/site/go/x"] {
        assert_eq!(front.get(path).field("cache-control"), ["no-cache"], "{path}");
    }
    assert!(front.get("/site/docs").field("cache-control").is_empty(), "that is no rule");
}

#[test]
fn a_page_that_a_rule_has_for_404_is_for_those_who_take_pages() {
    let world = World::new();
    let front = world.serving(site(&world, "/site", ""), &[]);
    let asked = |accept: &str| {
        let rest = format!("Host: h\r\nConnection: close\r\nAccept: {accept}\r\n\r\n");
        ask(front.address, format!("GET /site/lost/{accept} HTTP/1.1\r\n{rest}"))
    };
    let (page, other) = (asked("text/html"), asked("application/json"));
    assert_eq!((page.status, page.text().as_str()), (404, "lost page"));
    assert!(other.status == 404 && other.text().contains("cause: not_found"), "{}", other.text());
    for (answer, accept) in [(page, "text/html"), (other, "application/json")] {
        assert_eq!(answer.field("vary"), ["Accept"], "{accept}");
        assert_eq!(answer.field("x-mfserv-cause"), ["not_found"], "{accept}");
        let line = world.logged("uri", format!("/site/lost/{accept}"));
        assert_eq!(line["cause"], "not_found", "{line}");
    }
}

#[test]
fn no_rule_no_fallback_and_no_index_shows_the_text_of_a_script() {
    for fallback in ["", "all.php"] {
        let world = World::new();
        let mut table = site(&world, "/site", fallback);
        table.upstreams.get_mut("p/a").unwrap().fastcgi = Some(world.path("site"));
        let rules = "/view/:p /:p.php 200\n/below/* /dir.php/ 200\n/gone/* /all.php 404\n";
        std::fs::write(world.path("site/_redirects"), rules).unwrap();
        std::fs::create_dir(world.path("site/dir.php")).unwrap();
        for file in ["all.php", "dir.php/index.html", "db.php"] {
            std::fs::write(world.path("site").join(file), "<?php $password = 1;").unwrap();
        }
        let front = world.serving(table, &[]);
        for path in ["view/all", "view/db", "below/x", "gone/x", "all.php", "dir.php/", "none"] {
            let answer = front.get(&format!("/site/{path}"));
            assert_eq!(answer.status, 404, "{path}");
            assert!(!answer.text().contains("password"), "{path}");
        }
        assert_eq!(front.get("/site/b.txt").text(), "b");
    }
}

#[test]
fn a_body_that_nobody_reads_before_a_redirect_is_never_taken_for_a_request() {
    let world = World::new();
    let front = world.serving(site(&world, "/site", ""), &[]);
    let mut client = Client::connect(front.address);
    let smuggled = "GET /site/a.txt HTTP/1.1\r\nHost: h\r\n\r\n";
    let length = smuggled.len();
    let post = format!("POST /site/old/x HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
    let next = "GET /site/lost/x HTTP/1.1\r\nHost: h\r\n\r\n";
    client.send([&post, smuggled, next].concat());
    assert_eq!(client.receive().unwrap().status, 302);
    // The connection may end; if it goes on, then with the request that follows.
    if let Some(lost) = client.receive() {
        assert_eq!((lost.status, lost.text().as_str()), (404, "lost page"));
    }
    let mut client = Client::connect(front.address);
    for path in ["/site/old/x", "/site/lost/x", "/site/old/y"] {
        let status = client.get(path).status;
        assert_eq!(status, if path == "/site/lost/x" { 404 } else { 302 }, "{path}");
    }
    assert_eq!(client.get("/site/a.txt").text(), "a");
}

#[test]
fn nobody_gets_the_rules_of_a_site_whose_files_are_nginxs_own() {
    let Some(world) = World::with_lua() else { return };
    for prefix in ["/site", "/"] {
        let mut table = site(&world, prefix, "");
        let words = Fragment { file: "static.conf".into(), text: "add_header X-Own 1;".into() };
        let own = AppFragments { static_location: Some(words), ..AppFragments::default() };
        let apps = [("a".to_string(), own)].into();
        table.fragments.insert("p".into(), Fragments { apps, ..Fragments::default() });
        table.routes.retain(|route| route.prefix == prefix);
        let at = prefix.trim_end_matches('/');
        let mut front = world.serving(table, &[]);
        assert_eq!(said(&mut front), "");
        let file = front.get(&format!("{at}/b.txt"));
        assert_eq!((file.text().as_str(), file.field("x-own")), ("b", vec!["1".into()]));
        for path in ["/_redirects", "//_redirects", "/%5fredirects", "/docs/../_redirects"] {
            assert_eq!(front.get(&format!("{at}{path}")).status, 404, "{prefix} {path}");
        }
        // Only at the root of the site are they rules.
        std::fs::write(world.path("site/docs/_redirects"), "a file").unwrap();
        assert_eq!(front.get(&format!("{at}/docs/_redirects")).text(), "a file");
    }
}
