//! Pages of an app for errors that the front answers in its place.

use std::io::{Read, Write};
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

/// What follows the head of the answer to HEAD, until the connection ends.
fn head_alone(front: &Front, path: &str) -> String {
    let mut client = Client::connect(front.address);
    client.send(format!("HEAD {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
    client.receive_to(true).unwrap();
    let mut rest = client.rest();
    client.stream.read_to_end(&mut rest).unwrap();
    String::from_utf8_lossy(&rest).into_owned()
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
        assert_eq!(head_alone(&front, path), "", "nothing follows the head of {path}");
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

#[test]
fn of_the_pages_for_a_status_the_first_one_that_is_there_is_sent_and_the_form_varies_by_accept() {
    let world = World::new();
    let pages = ["404:/none.html", "404-599:/gone/none.html", "400-599:/errors/oops.html"];
    let front = world.serving(quick(app(&world, &pages)), &[]);
    for (path, status) in [("/files/none", 404), ("/none", 503), ("/zero", 503)] {
        let page = asked(&front, "GET", path, HTML);
        assert_eq!((page.status, page.text().as_str()), (status, "<p>we are sorry</p>"), "{path}");
        let other = asked(&front, "GET", path, "application/json");
        assert!(other.status == status && !other.text().contains("sorry"), "{path}");
        for answer in [page, other] {
            assert_eq!(answer.field("vary"), ["Accept"], "{path}");
        }
    }
    assert!(asked(&front, "GET", "/files/404.html", HTML).field("vary").is_empty());
    std::fs::write(world.path("site/none.html"), "it came later").unwrap();
    until("the page that came goes before the others", || {
        asked(&front, "GET", "/files/none", HTML).text() == "it came later"
    });
}

#[test]
fn a_page_is_no_file_with_ranges_and_conditions_and_the_next_request_is_answered() {
    let world = World::new();
    let front = world.serving(quick(app(&world, ALL)), &[]);
    let mut client = Client::connect(front.address);
    let fields = "Host: h\r\nRange: bytes=0-1\r\nIf-None-Match: *\r\nIf-Match: \"x\"";
    for path in ["/files/none", "/zero", "/files/none"] {
        client.send(format!("GET {path} HTTP/1.1\r\n{fields}\r\n\r\n"));
        let answer = client.receive().unwrap();
        let expected = match path {
            "/zero" => (503, "<p>we are sorry</p>"),
            _ => (404, "<p>no such page</p>"),
        };
        assert_eq!((answer.status, answer.text().as_str()), expected, "{path}");
        assert!(answer.field("etag").is_empty() && answer.field("accept-ranges").is_empty());
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert_eq!(client.receive_to(true).unwrap().status, answer.status, "{path}");
    }
    assert_eq!(client.get("/files/404.html").text(), "<p>no such page</p>");
}

#[test]
fn a_page_that_cannot_be_opened_now_does_not_replace_the_error_that_it_is_for() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let Some(world) = World::where_holds("spool_files") else { return };
    let front = world.serving(quick(app(&world, ALL)), &[]);
    let mut client = Client::connect(front.address);
    assert_eq!(client.get("/files/404.html").status, 200);
    let none = Rlimit { current: Some(3), maximum: Some(1024) };
    prlimit(Some(Pid::from_child(&front.child)), Resource::Nofile, none).unwrap();
    let zero = client.get("/zero");
    assert_eq!((zero.status, zero.text().as_str()), (503, "scaled to 0\n"));
}
