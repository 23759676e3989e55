//! The disk on which a front keeps bodies of requests, and answers of slow clients, is full.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use mfserv_testkit::{Load, Node, Plugin, post, programs, skipped, until};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::net::{AddressFamily, SocketType, sockopt};

use super::{PATIENCE, shop};
use crate::{Turn, node};

const MB: usize = 1 << 20;
/// What the script says: more than all buffers between php-fpm and a client can have.
const LONG: usize = 40 * MB;
const SCRIPTS: [(&str, &str); 3] = [
    ("upload.php", "<?php echo md5(file_get_contents('php://input'));"),
    ("fine.php", "<?php echo 'fine';"),
    (
        "long.php",
        "<?php header('Content-Length: 41943040'); \
         for ($i = 0; $i < 2621440; $i++) { printf('%015d ', $i); }",
    ),
];

/// A file system of 8 MB; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`, with the reason, where none can be mounted.
    fn new(directory: PathBuf) -> Option<Self> {
        fs::create_dir_all(&directory).unwrap();
        let options = c"size=8m,mode=0700";
        if let Err(why) = mount("none", &directory, "tmpfs", MountFlags::empty(), options) {
            skipped(&format!("PHP on a full disk: no small file system can be mounted: {why}"));
            return None;
        }
        Some(Self(directory))
    }

    /// Leaves room for so many bytes.
    fn fill(&self, but: usize) {
        let mut file = File::create(self.0.join("of others")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        let length = file.metadata().unwrap().len();
        file.set_len(length - but as u64).unwrap();
        assert_eq!(self.free(), but as u64);
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("of others")).unwrap();
    }

    /// Bytes, also of files that have no name any more.
    fn free(&self) -> u64 {
        let system = rustix::fs::statvfs(&self.0).unwrap();
        system.f_bavail * system.f_frsize
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn on_a_full_disk_a_long_upload_is_refused_clearly_a_long_answer_comes_and_nothing_else_fails() {
    let _turn = Turn::heavy();
    let node = node();
    let Some(disk) = SmallDisk::new(node.path("bodies")) else { return };
    node.set("nginx.clientbody_temp_path", &disk.0.to_string_lossy());
    let Some(dir) = shop(&node, &SCRIPTS) else { return };
    node.add(&Plugin::python("hello", programs::SERVES));
    node.start();
    let package = crate::install::release(&node, &dir);
    node.mfserv(&["install", &package.to_string_lossy()]).code(0);
    let empty = disk.free();
    uploads_arrive(&node);
    let load = Load::new(node.address(), "/hello").also("/shop/fine.php").post_every(3).start();
    load.answers(20);
    let began = Instant::now();
    // In the middle of a body, and from its beginning.
    for left in [MB, 0] {
        disk.fill(left);
        uploads_are_refused(&node, &disk.0, began);
        until("nothing is left of them", PATIENCE, || disk.free() == left as u64);
    }
    a_slow_client_gets_every_byte(&node);
    load.answers(20);
    load.stop().assert_nothing_failed();
    disk.make_room();
    until("the room of others is there", PATIENCE, || disk.free() == empty);
    uploads_arrive(&node);
    a_slow_client_gets_every_byte(&node);
    until("every file is closed", PATIENCE, || disk.free() == empty);
    assert_eq!(fs::read_dir(&disk.0).unwrap().count(), 0, "files have no names");
    node.stop();
}

/// 3 MB, with their sum as `upload.php` has to say it.
fn upload() -> (Vec<u8>, &'static str) {
    (vec![b'u'; 3 * MB], "7b3f99c06ce17e54bb73dfbcac24cab8")
}

fn uploads_arrive(node: &Node) {
    let (body, sum) = upload();
    for _ in 0..2 {
        let answer = post(node.address(), "/shop/upload.php", &body).unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, sum));
    }
}

/// `began`: before the first one.
fn uploads_are_refused(node: &Node, disk: &Path, began: Instant) {
    let (body, _) = upload();
    let clients = |count: usize| {
        std::thread::scope(|scope| {
            // More than php-fpm has processes: a slot that is not given back would be missed.
            let ask = || post(node.address(), "/shop/upload.php", &body).unwrap();
            let asked: Vec<_> = (0..count).map(|_| scope.spawn(ask)).collect();
            for one in asked {
                let answer = one.join().unwrap();
                let cause = answer.field("x-mfserv-cause").map(str::to_string);
                assert_eq!((answer.status, cause.as_deref()), (500, Some("disk")));
            }
        });
    };
    clients(8);
    clients(1);
    let short = post(node.address(), "/shop/upload.php", b"short").unwrap();
    assert_eq!((short.status, short.text().as_str()), (200, "4f09daa9d95bcb166a302407a0e0babe"));
    let said = |text: &str| {
        let dir = disk.to_string_lossy();
        text.contains("app shop/main: requests are refused with 500")
            && text.contains(&*dir)
            && text.contains("No space left")
            && text.contains("clientbody_temp_path")
    };
    until("status says which directory has no room", PATIENCE, || {
        node.status().front_warnings.keys().any(|text| said(text))
    });
    let lines = || node.log_lines("nginx_error").iter().filter(|line| said(line)).count();
    until("the log says it too", PATIENCE, || lines() > 0);
    let minutes = usize::try_from(began.elapsed().as_secs() / 60).unwrap();
    assert!(lines() <= 1 + minutes, "once a minute");
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
