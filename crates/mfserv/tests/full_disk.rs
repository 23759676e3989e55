//! The disk on which a front keeps bodies of requests is full: what becomes of uploads to WSGI and
//! Node apps, with either kind of front. (`php/full_disk.rs` has those to PHP, and slow clients.)

use std::path::Path;
use std::time::Instant;

use mfserv_testkit::{Load, Node, Plugin, SmallDisk, nginx, post, until};

use crate::nginx::{stand_before, target};
use crate::{PATIENCE, Turn, node};

/// A megabyte.
pub const MB: u64 = 1 << 20;

/// 3 MB, with their sum as an app has to say it.
fn upload() -> (Vec<u8>, &'static str) {
    (vec![b'u'; 3 << 20], "7b3f99c06ce17e54bb73dfbcac24cab8")
}

/// An app that takes uploads, and answers with their sum.
pub struct App {
    /// Its name, for messages: `plugin/app`.
    pub name: &'static str,
    /// Where it takes them.
    pub path: &'static str,
}

impl App {
    /// Uploads reach it as if nothing were.
    pub fn takes_uploads(&self, node: &Node) {
        let (body, sum) = upload();
        for _ in 0..2 {
            let answer = post(node.address(), self.path, &body).unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (200, sum), "{}", self.name);
        }
    }

    /// Uploads that need the disk are refused, and short ones are not. `began`: before the first one.
    pub fn refuses_uploads(&self, node: &Node, disk: &Path, began: Instant) {
        let (body, _) = upload();
        let clients = |count: usize| {
            std::thread::scope(|scope| {
                // More than there are slots: one that is not given back would be missed.
                let ask = || post(node.address(), self.path, &body).unwrap();
                let asked: Vec<_> = (0..count).map(|_| scope.spawn(ask)).collect();
                for one in asked {
                    let answer = one.join().unwrap();
                    let cause = answer.field("x-mfserv-cause").map(str::to_string);
                    let is = (answer.status, cause.as_deref());
                    assert_eq!(is, (500, Some("disk")), "{}", self.name);
                }
            });
        };
        clients(8);
        clients(1);
        let short = post(node.address(), self.path, b"short").unwrap();
        let sum = "4f09daa9d95bcb166a302407a0e0babe";
        assert_eq!((short.status, short.text().as_str()), (200, sum), "{}", self.name);
        let refused = format!("app {}: requests are refused with 500", self.name);
        let said = |text: &str| {
            let dir = disk.to_string_lossy();
            text.contains(&refused)
                && text.contains(&*dir)
                && text.contains("less than a twentieth (5 %) of the file system is free")
                && text.contains("clientbody_temp_path")
        };
        until("status says which directory has no room", PATIENCE, || {
            node.status().front_warnings.keys().any(|text| said(text))
        });
        let lines = || {
            let all = node.log_lines("nginx_error");
            all.iter().filter(|line| line.contains(&refused)).count()
        };
        until("the log says it too", PATIENCE, || lines() > 0);
        let minutes = usize::try_from(began.elapsed().as_secs() / 60).unwrap();
        assert!(lines() <= 1 + minutes, "once a minute");
    }
}

const WSGI: &str = r#"
import hashlib

def application(environ, start_response):
    body = hashlib.md5(environ["wsgi.input"].read()).hexdigest().encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"#;

const NODE: &str = r#"
const server = require("http").createServer((request, response) => {
  const sum = require("crypto").createHash("md5");
  request.on("data", (part) => sum.update(part));
  request.on("end", () => response.end(sum.digest("hex")));
});
server.keepAliveTimeout = 60000;
server.listen(process.argv[2]);
process.on("SIGTERM", () => server.close(() => process.exit(0)));
"#;

/// An app of WSGI, one of Node that takes two requests at a time, and one that takes any number.
fn plugins() -> [Plugin; 3] {
    let worker = "mfserv_worker --timeout={timeout} main.wsgi:application {unix_socket_path}";
    let wsgi = Plugin::new("wsgi").file("main/__init__.py", "").file("main/wsgi.py", WSGI);
    let node = |name| {
        let plugin = Plugin::new(name).file("server.js", NODE);
        plugin.app("main", "node {plugin_dir}/server.js {unix_socket_path}")
    };
    let limited = node("node").key("app_main", "_requests_per_worker", "2");
    [wsgi.app("main", worker), limited, node("open")]
}

fn uploads_on_a_full_disk(node: &Node) {
    let what = "uploads to WSGI and Node apps on a full disk";
    let Some(disk) = SmallDisk::new(node.path("bodies"), 8, what) else { return };
    node.set("nginx.clientbody_temp_path", &disk.path().to_string_lossy());
    for plugin in plugins() {
        node.add(&plugin);
    }
    node.start();
    let empty = disk.free();
    let limited =
        [App { name: "wsgi/main", path: "/wsgi/x" }, App { name: "node/main", path: "/node/x" }];
    // The body goes to its worker as it comes, and to no disk.
    let open = App { name: "open/main", path: "/open/x" };
    let arrive = || limited.iter().chain([&open]).for_each(|app| app.takes_uploads(node));
    arrive();
    let load = Load::new(node.address(), "/wsgi").also("/node").post_every(3).start();
    load.answers(20);
    let began = Instant::now();
    // In the middle of a body, and from its beginning.
    for left in [MB, 0] {
        disk.fill(left);
        for app in &limited {
            app.refuses_uploads(node, disk.path(), began);
        }
        open.takes_uploads(node);
        until("nothing is left of them", PATIENCE, || disk.free() == left);
    }
    load.answers(20);
    load.stop().assert_nothing_failed();
    disk.make_room();
    until("every file is closed", PATIENCE, || disk.free() == empty);
    arrive();
    until("every file is closed", PATIENCE, || disk.free() == empty);
    node.stop();
}

#[test]
fn on_a_full_disk_uploads_to_wsgi_and_node_apps_are_refused_clearly_and_nothing_else_fails() {
    let _turn = Turn::heavy();
    uploads_on_a_full_disk(&node());
}

#[test]
fn on_a_full_disk_uploads_to_wsgi_and_node_apps_behind_nginx_are_refused_as_clearly() {
    let _turn = Turn::heavy();
    if nginx(target()).is_none() {
        return;
    }
    let node = node();
    stand_before(&node);
    uploads_on_a_full_disk(&node);
}
