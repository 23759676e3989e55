//! Pages of an app for errors that the front answers in its place.

use std::io::Write;
use std::os::unix::fs::symlink;

use mfserv_core::maintenance::Shut;
use mfserv_core::route::{ErrorPage, ErrorPages, RouteTable, Symlinks, Target};

use crate::world::*;

/// `p/a` with a worker behind `/a`, files behind `/files`, and nobody behind `/none` and `/zero`.
fn app(world: &World, pages: &[&str]) -> RouteTable {
    let root = world.path("site");
    std::fs::create_dir_all(root.join("errors")).unwrap();
    std::fs::write(root.join("404.html"), "<p>no such page</p>").unwrap();
    std::fs::write(root.join("errors/oops.html"), "<p>we are sorry</p>").unwrap();
    std::fs::write(world.path("secret"), "secret").unwrap();
    let mut table = table(ONE, true);
    table.server.static_symlinks = Symlinks::Beneath;
    let spec = table.upstreams["p/a"].clone();
    table.upstreams.insert("p/none".into(), spec);
    table.routes.extend([
        route("/files", Target::Static { root: root.clone() }),
        route("/none", Target::Upstream { name: "p/none".into() }),
        route("/zero", Target::Fixed { status: 503, body: "scaled to 0\n".into() }),
    ]);
    let pages: Vec<ErrorPage> = pages.iter().map(|text| ErrorPage::parse(text).unwrap()).collect();
    for route in table.routes.iter_mut().filter(|_| !pages.is_empty()) {
        route.error_pages = Some(ErrorPages { root: root.clone(), pages: pages.clone() });
    }
    table
}

/// Who asks for an app without a worker is soon told so.
fn quick(mut table: RouteTable) -> RouteTable {
    table.upstreams.get_mut("p/none").unwrap().queue_timeout_ms = 50;
    table
}

fn asked(front: &Front, method: &str, path: &str, accept: &str) -> Answer {
    let accept = if accept.is_empty() { String::new() } else { format!("Accept: {accept}\r\n") };
    let rest = format!("Host: h\r\n{accept}Connection: close\r\n\r\n");
    ask(front.address, format!("{method} {path} HTTP/1.1\r\n{rest}"))
}

const HTML: &str = "text/html,application/xhtml+xml,*/*;q=0.8";
const ALL: &[&str] = &["404:/404.html", "400-599:/errors/oops.html"];

/// A worker that behaves by the path that it is asked for.
fn worker(world: &World) -> Worker {
    Worker::start(world, 1, |stream, received| match received.target() {
        "/a/own" => {
            let text = "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\napp's 404";
            stream.write_all(text.as_bytes()).is_ok()
        }
        "/a/broken" => {
            stream.write_all(b"what is this\r\n\r\n").unwrap();
            false
        }
        _ => say(stream, "ok"),
    })
}

#[test]
fn errors_of_the_front_have_the_page_of_the_app_and_keep_what_they_say() {
    let world = World::new();
    let mut table = quick(app(&world, ALL));
    table.upstreams.get_mut("p/a").unwrap().max_body_bytes = Some(10);
    let worker = worker(&world);
    let front = world.serving(table, &[&worker]);
    for (path, status, cause, text, retry) in [
        ("/files/none", 404, "not_found", "<p>no such page</p>", None),
        ("/files/errors/", 403, "forbidden", "<p>we are sorry</p>", None),
        ("/a/broken", 502, "malformed", "<p>we are sorry</p>", None),
        ("/none", 503, "no_worker", "<p>we are sorry</p>", Some("1")),
    ] {
        let answer = asked(&front, "GET", path, HTML);
        assert_eq!((answer.status, answer.text().as_str()), (status, text), "{path}");
        assert_eq!(answer.field("x-mfserv-cause"), [cause], "{path}");
        assert_eq!(answer.field("content-type"), ["text/html"], "{path}");
        assert_eq!(answer.field("retry-after"), retry.into_iter().collect::<Vec<_>>(), "{path}");
        assert_eq!(answer.field("x-request-id").len(), 1, "{path}");
        let line = world.logged("uri", path);
        assert_eq!((&line["cause"], &line["status"]), (&cause.into(), &status.into()), "{line}");
        let head = asked(&front, "HEAD", path, HTML);
        let length = text.len().to_string();
        assert_eq!((head.status, head.field("content-length")), (status, vec![length]), "{path}");
    }
    let large = "POST /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 11\r\n\r\n";
    let answer = ask(front.address, format!("{large}0123456789a"));
    assert_eq!((answer.status, answer.text().as_str()), (413, "<p>we are sorry</p>"));
    assert_eq!(answer.field("x-mfserv-cause"), ["too_large"]);
    let refused = asked(&front, "POST", "/files/404.html", HTML);
    assert_eq!((refused.status, refused.text().as_str()), (405, "<p>we are sorry</p>"));
    assert_eq!(refused.field("allow"), ["GET, HEAD"]);
    let zero = asked(&front, "GET", "/zero", HTML);
    assert_eq!((zero.status, zero.text().as_str()), (503, "<p>we are sorry</p>"));
}

#[test]
fn answers_of_the_app_and_clients_that_want_json_have_no_page() {
    let world = World::new();
    let worker = worker(&world);
    let mut front = world.serving(quick(app(&world, ALL)), &[&worker]);
    let own = asked(&front, "GET", "/a/own", HTML);
    assert_eq!((own.status, own.text().as_str()), (404, "app's 404"));
    let paths = ["/files/none", "/a/broken", "/none", "/zero"];
    let wishes = ["application/json", "application/json, text/plain, */*", "image/png"];
    let seen = |front: &Front| -> Vec<(u16, String, Vec<String>)> {
        let all = wishes.iter().flat_map(|accept| paths.map(|path| (path, accept)));
        let answers = all.map(|(path, accept)| asked(front, "GET", path, accept));
        // The id of a request is a new one each time.
        let without_id = |text: String| {
            text.lines().filter(|line| !line.contains("request:")).collect::<Vec<_>>().join("\n")
        };
        answers.map(|one| (one.status, without_id(one.text()), one.field("retry-after"))).collect()
    };
    let with_pages = seen(&front);
    front.daemon.publish(2, quick(app(&world, &[])), &[&worker]);
    assert_eq!(with_pages, seen(&front), "what they have without pages");
    assert!(with_pages.iter().all(|(status, text, _)| *status >= 400 && !text.contains("sorry")));
}

#[test]
fn a_page_that_is_not_there_or_leads_out_of_the_root_is_not_sent() {
    let world = World::new();
    let pages = ["404:/none.html", "502:/out.html", "503:/errors"];
    let table = quick(app(&world, &pages));
    symlink(world.path("secret"), world.path("site/out.html")).unwrap();
    let worker = worker(&world);
    let front = world.serving(table, &[&worker]);
    for (path, cause) in
        [("/files/none", "not_found"), ("/a/broken", "malformed"), ("/none", "no_worker")]
    {
        let answer = asked(&front, "GET", path, HTML);
        assert!(answer.text().contains(&format!("cause: {cause}")), "{path}: {}", answer.text());
        assert_eq!(answer.field("x-mfserv-cause"), [cause], "{path}");
    }
    std::fs::write(world.path("site/none.html"), "it came later").unwrap();
    until("the page that came is sent", || {
        asked(&front, "GET", "/files/none", HTML).text() == "it came later"
    });
}

#[test]
fn an_app_in_maintenance_without_a_page_for_it_has_that_of_its_errors() {
    let world = World::new();
    let mut table = app(&world, ALL);
    let own = world.path("noon.html");
    std::fs::write(&own, "<p>back at noon</p>").unwrap();
    for route in &mut table.routes {
        let page = (route.prefix == "/files").then(|| own.clone());
        route.maintenance = Some(Shut { page });
    }
    let front = world.serving(table, &[]);
    for (path, text) in [("/a", "<p>we are sorry</p>"), ("/files/x", "<p>back at noon</p>")] {
        let answer = asked(&front, "GET", path, HTML);
        assert_eq!((answer.status, answer.text().as_str()), (503, text));
        assert_eq!(answer.field("retry-after"), ["30"], "{path}");
    }
}
