//! Live reload: a second address whose pages are loaded again after an edit.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use mfserv_testkit::websocket::{TEXT, frame, next, read_head, request};
use mfserv_testkit::{Client, Method, Node, Response};

use super::save;
use super::terminal::Session;
use crate::apps::{built_script, edit, example, example_with_packages};
use crate::{PATIENCE, Turn, node};

/// What is added to a page that was asked for after so many edits.
fn tag(edits: u32) -> String {
    format!("\n<script src=\"/__mfserv_live/reload.js?{edits}\"></script>\n")
}

/// After how many edits a page was asked for. The start of the app may count as one.
#[track_caller]
fn edits_of(page: &Response) -> u32 {
    let text = page.text();
    let (_, after) = text.rsplit_once("reload.js?").unwrap_or_else(|| panic!("{page:?}"));
    let edits = after.split('"').next().unwrap().parse().unwrap();
    assert!(text.ends_with(&tag(edits)), "{page:?}");
    edits
}

/// A session with live reload, and its second address.
fn started(node: &Node, dir: &Path) -> (Session, SocketAddr) {
    let session = Session::start(node, dir, &["--follow", "--live-reload"]);
    session.until_said("(live reload)");
    session.until_said("Ctrl-C ends this");
    let said = session.said();
    let line = said.lines().find(|line| line.ends_with("(live reload)")).unwrap();
    let address = line.trim().strip_prefix("http://").unwrap().split('/').next().unwrap();
    (session, address.parse().unwrap())
}

/// What a browser gets of this path.
fn opened(address: SocketAddr, path: &str) -> Response {
    let fields = [("Accept", "text/html,*/*"), ("Accept-Encoding", "gzip")];
    Client::new(address).ask(Method::Get, path, &fields, b"").unwrap()
}

/// A page that waits, as its script does.
struct Page(TcpStream);

impl Page {
    /// One that was asked for after so many edits.
    fn after(address: SocketAddr, edits: u32) -> Page {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let target = format!("/__mfserv_live/events?{edits}");
        stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).unwrap();
        Page(stream)
    }

    /// One of now.
    fn open(address: SocketAddr) -> Page {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /__mfserv_live/events HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let mut page = Page(stream);
        let head = page.until("here");
        assert!(head.contains("text/event-stream"), "{head}");
        page
    }

    fn until(&mut self, what: &str) -> String {
        let (mut heard, mut bytes) = (String::new(), [0; 512]);
        while !heard.contains(what) {
            match self.0.read(&mut bytes) {
                Ok(n @ 1..) => heard.push_str(&String::from_utf8_lossy(&bytes[..n])),
                end => panic!("{what:?} does not come: {end:?}, {heard}"),
            }
        }
        heard
    }

    fn until_loaded_again(mut self) {
        self.until("data: reload");
    }
}

#[test]
fn a_page_of_an_app_is_loaded_again_when_the_edited_code_serves_and_nothing_else_is_altered() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = example(&node, "flask");
    let (session, live) = started(&node, &dir);
    let page = opened(live, "/flask/");
    assert!(page.text().contains("A Flask app") && edits_of(&page) <= 1, "{page:?}");
    assert!(opened(live, "/__mfserv_live/reload.js").text().contains("location.reload()"));
    // The address of the node is as ever, and so is what is no page.
    assert!(!opened(node.address(), "/flask/").text().contains("mfserv_live"));
    let version = opened(live, "/flask/version");
    assert_eq!(version.text(), "one\n".to_owned() + &tag(edits_of(&version)), "it is HTML");
    let style = opened(live, "/flask/static/style.css").text();
    assert_eq!(style, opened(node.address(), "/flask/static/style.css").text());
    let script = Client::new(live).ask(Method::Get, "/flask/", &[], b"").unwrap();
    assert!(!script.text().contains("mfserv_live"), "a script asks for no page");

    let waiting = Page::open(live);
    edit(&dir, "app.py", "one", "two");
    waiting.until_loaded_again();
    // As a browser does: the start of the app may have been an event, too.
    loop {
        let page = opened(live, "/flask/version");
        match page.text().starts_with("two") {
            true => break,
            false => Page::after(live, edits_of(&page)).until_loaded_again(),
        }
    }
    // A page that was asked for before the edit, and whose browser comes only now.
    Page::after(live, 0).until_loaded_again();
    let waiting = Page::open(live);
    save(&dir.join("static/style.css"), "p { color: teal }\n");
    waiting.until_loaded_again();
    session.interrupt();
    // Another session of these tests may have the port by now.
    let ended = |page: &str| !page.contains("mfserv_live") || !page.contains("two");
    let page =
        Client::new(live).ask(Method::Get, "/flask/version", &[("Accept", "text/html")], b"");
    assert!(page.map_or(true, |page| ended(&page.text())), "it ends with the session");
    assert_eq!(node.get("/flask/version").text(), "two\n");
    let ran = node.mfserv(&["dev", dir.to_str().unwrap(), "--live-reload"]).code(2);
    assert!(ran.stderr.contains("add --follow"), "{ran:?}");
    node.stop();
}

#[test]
fn a_page_of_a_site_is_loaded_again_when_the_site_is_built() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = example_with_packages(&node, "spa");
    let (session, live) = started(&node, &dir);
    edits_of(&opened(live, "/spa/about/us"));
    let waiting = Page::open(live);
    edit(&dir, "src/routes.js", "one", "two");
    waiting.until_loaded_again();
    assert!(built_script(&node).contains("two"));
    session.interrupt();
    node.stop();
}

#[test]
fn a_websocket_passes_through_the_address_of_live_reload() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = example(&node, "fastapi");
    let (session, live) = started(&node, &dir);
    let mut stream = TcpStream::connect(live).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let origin = format!("Origin: http://{live}\r\n");
    stream.write_all(request(&live.to_string(), "/fastapi/echo", &origin).as_bytes()).unwrap();
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream.write_all(&frame(TEXT, b"hello")).unwrap();
    assert_eq!(next(&mut stream).1, b"heard hello");
    session.interrupt();
    node.stop();
}

#[test]
fn a_page_that_git_ignores_is_loaded_again_when_somebody_builds_it_by_hand() {
    let _turn = Turn::cheap();
    let node = node();
    node.start();
    let dir = node.path("apps/site");
    std::fs::create_dir_all(dir.join("dist")).unwrap();
    std::fs::write(dir.join(".gitignore"), "dist\n").unwrap();
    std::fs::write(dir.join("dist/index.html"), "<p>one").unwrap();
    let (session, live) = started(&node, &dir);
    let mut page = Page::open(live);
    std::fs::write(dir.join("dist/index.html"), "<p>another").unwrap();
    page.until("data: reload");
    assert!(opened(live, "/site/").text().starts_with("<p>another"));
    session.interrupt();
    node.stop();
}
