//! The disk on which a front keeps bodies of requests, and answers of slow clients, is full.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use mfserv_testkit::{Load, Node, Plugin, SmallDisk, programs, until};
use rustix::net::{AddressFamily, SocketType, sockopt};

use super::{PATIENCE, shop};
use crate::full_disk::{App, MB};
use crate::{Turn, node};

const SHOP: App = App { name: "shop/main", path: "/shop/upload.php" };
/// What the script says: more than all buffers between php-fpm and a client can have.
const LONG: usize = 40 << 20;
const SCRIPTS: [(&str, &str); 3] = [
    ("upload.php", "<?php echo md5(file_get_contents('php://input'));"),
    ("fine.php", "<?php echo 'fine';"),
    (
        "long.php",
        "<?php header('Content-Length: 41943040'); \
         for ($i = 0; $i < 2621440; $i++) { printf('%015d ', $i); }",
    ),
];

#[test]
fn on_a_full_disk_a_long_upload_is_refused_clearly_a_long_answer_comes_and_nothing_else_fails() {
    let _turn = Turn::heavy();
    let node = node();
    let disk = SmallDisk::new(node.path("bodies"), 8, "PHP on a full disk");
    let Some(disk) = disk else { return };
    node.set("nginx.clientbody_temp_path", &disk.path().to_string_lossy());
    let Some(dir) = shop(&node, &SCRIPTS) else { return };
    node.add(&Plugin::python("hello", programs::SERVES));
    node.start();
    let package = crate::install::release(&node, &dir);
    node.mfserv(&["install", &package.to_string_lossy()]).code(0);
    let empty = disk.free();
    SHOP.takes_uploads(&node);
    let load = Load::new(node.address(), "/hello").also("/shop/fine.php").post_every(3).start();
    load.answers(20);
    let began = Instant::now();
    // In the middle of a body, and from its beginning.
    for left in [MB, 0] {
        disk.fill(left);
        SHOP.refuses_uploads(&node, disk.path(), began);
        until("nothing is left of them", PATIENCE, || disk.free() == left);
    }
    a_slow_client_gets_every_byte(&node);
    load.answers(20);
    load.stop().assert_nothing_failed();
    disk.make_room();
    until("the room of others is there", PATIENCE, || disk.free() == empty);
    SHOP.takes_uploads(&node);
    a_slow_client_gets_every_byte(&node);
    until("every file is closed", PATIENCE, || disk.free() == empty);
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0, "files have no names");
    node.stop();
}

/// The client takes nothing at first, then all.
fn a_slow_client_gets_every_byte(node: &Node) {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&socket, 16 * 1024).unwrap();
    rustix::net::connect(&socket, &node.address()).unwrap();
    let mut client = TcpStream::from(socket);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
        .write_all(b"GET /shop/long.php HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        .unwrap();
    // The disk has room for less than the answer: so it is full now, or was before.
    until("the worker waits for the client", PATIENCE, || {
        let warnings = node.status().front_warnings;
        warnings.keys().any(|text| text.contains("app shop/main: workers wait for slow clients"))
    });
    assert_eq!(node.get("/shop/fine.php").text(), "fine");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    let at = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    assert_eq!(answer.len() - at, LONG);
    for (number, word) in answer[at..].chunks(16).enumerate() {
        assert_eq!(word, format!("{number:015} ").as_bytes());
    }
}
