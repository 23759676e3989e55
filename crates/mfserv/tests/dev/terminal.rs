//! `mfserv dev` in the foreground.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use mfserv_testkit::{Node, Signal, kill, pty, until};

use super::{edition, save, until_served, watched};
use crate::{PATIENCE, Turn};

/// A `mfserv dev` that runs, and what it has said. Killed when it is dropped.
pub(super) struct Session {
    child: Child,
    said: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Session {
    /// Without a terminal, so that it must be told to stay.
    pub(super) fn start(node: &Node, dir: &Path, args: &[&str]) -> Session {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let dir = dir.to_string_lossy();
        let mut command = node.command(&[&["dev", &dir], args].concat());
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        let child = command.spawn().unwrap();
        // With it go the writing ends that are ours.
        drop(command);
        Session::read(child, reader.into())
    }

    /// In a terminal.
    fn in_terminal(node: &Node, dir: &Path, colours: bool) -> Session {
        let (terminal, side) = pty();
        let mut command = node.command(&["dev", &dir.to_string_lossy()]);
        command.env("TERM", "xterm").env("NO_COLOR", if colours { "" } else { "1" });
        command.stdout(side).stderr(Stdio::null());
        Session::read(command.spawn().unwrap(), terminal.into())
    }

    fn read(child: Child, mut from: File) -> Session {
        let said = Arc::new(Mutex::new(String::new()));
        let heard = said.clone();
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut bytes) {
                heard.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
        });
        Session { child, said, reader: Some(reader) }
    }

    pub(super) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    #[track_caller]
    pub(super) fn until_said(&self, what: &str) {
        let begun = std::time::Instant::now();
        while !self.said().contains(what) {
            assert!(begun.elapsed() < PATIENCE, "{what:?} is not said: {}", self.said());
            // Between two looks; a wait of its own, so that its failure shows what was printed.
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Ctrl-C; returns all that it has said.
    pub(super) fn interrupt(self) -> String {
        kill(self.child.id(), Signal::INT);
        self.ended()
    }

    /// Waits for its end; returns all that it has said.
    pub(super) fn ended(mut self) -> String {
        let mut ended = None;
        until("it ends", PATIENCE, || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        self.reader.take().unwrap().join().unwrap();
        assert!(ended.unwrap().success(), "{ended:?}: {}", self.said());
        self.said()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn dev_shows_lines_edits_and_why_one_is_broken_and_leaves_a_running_node_as_it_was() {
    let _turn = Turn::cheap();
    let node = crate::node();
    node.start();
    let dir = watched("seen").write(&node.path("work"));
    let session = Session::start(&node, &dir, &["--follow"]);
    session.until_said(&format!("http://{}/seen", node.address()));
    session.until_said("Ctrl-C ends this");
    until_served(&node, "seen", "first");
    session.until_said("main | booted");
    save(&dir.join("main.py"), &edition("second"));
    session.until_said("main.py changed\n");
    session.until_said("serves the new code after");
    until_served(&node, "seen", "second");
    // A worker that is still to come would find the broken code too.
    node.settled("app.seen.main");
    save(&dir.join("main.py"), "raise ValueError('no')\n");
    session.until_said("main | ValueError: no");
    session.until_said("the old code goes on serving");
    session.until_said("/__dev/seen");
    assert!(node.get("/seen?last=1").text().starts_with("second"));
    session.until_said("\nGET /seen?last=1 200 ");
    let said = session.interrupt();
    assert_eq!(said.matches("ValueError: no").count(), 1, "said twice: {said}");
    assert!(said.contains("seen stays linked") && !said.contains("is stopped"), "{said}");
    assert!(!said.contains('\u{1b}'), "colours without a terminal: {said}");
    assert!(node.get("/seen").text().starts_with("second"), "it goes on without the terminal");
    node.stop();
}

#[test]
fn dev_stays_in_a_terminal_and_a_node_that_it_has_started_ends_with_it() {
    let _turn = Turn::cheap();
    let node = crate::node();
    let dir = watched("alone").write(&node.path("work"));
    let hash = {
        let session = Session::in_terminal(&node, &dir, true);
        session.until_said("Ctrl-C ends this");
        until_served(&node, "alone", "first");
        session.until_said("main |\u{1b}[0m booted");
        let hash = node.hash();
        let said = session.interrupt();
        assert!(
            said.contains("alone stays linked") && said.contains("mfserv is stopped"),
            "{said}"
        );
        hash
    };
    node.mfserv(&["status"]).code(3);
    node.assert_nothing_left(hash.as_deref());
    let session = Session::in_terminal(&node, &dir, false);
    session.until_said("main | booted");
    assert!(!session.interrupt().contains("\u{1b}["));
    node.assert_nothing_left(hash.as_deref());
}

#[test]
fn what_is_broken_from_the_start_is_mended_under_the_eyes_of_dev() {
    let _turn = Turn::cheap();
    let node = crate::node();
    node.start();
    let dir = watched("mended").file("main.py", "raise ValueError('no')\n");
    let dir = dir.write(&node.path("work"));
    let session = Session::start(&node, &dir, &["--follow"]);
    session.until_said("ValueError: no");
    save(&dir.join("main.py"), &edition("second"));
    until_served(&node, "mended", "second");
    session.until_said("serves the new code after");
    node.mfserv(&["uninstall", "mended"]).code(0);
    session.until_said("mended was uninstalled");
    let said = session.ended();
    assert!(!said.contains("stays linked"), "{said}");
    node.stop();
}

#[test]
fn a_directory_that_is_moved_away_and_back_is_no_reason_to_build() {
    let _turn = Turn::cheap();
    let node = crate::node();
    node.start();
    let dir = watched("moved").file(".npmrc", "\n").write(&node.path("work"));
    let session = Session::start(&node, &dir, &["--follow"]);
    session.until_said("Ctrl-C ends this");
    until_served(&node, "moved", "first");
    let away = dir.with_file_name("away");
    std::fs::rename(&dir, &away).unwrap();
    session.until_said("moved is not there any more");
    std::fs::rename(&away, &dir).unwrap();
    save(&dir.join("main.py"), &edition("second"));
    until_served(&node, "moved", "second");
    let said = session.interrupt();
    assert!(!said.contains("building"), "{said}");
    node.stop();
}

#[test]
fn the_environment_is_built_again_when_its_sources_change_and_workers_follow() {
    let _turn = Turn::cheap();
    let node = crate::node();
    node.start();
    let dir = node.path("work/sample_wsgi");
    crate::samples().copy("sample_wsgi", &dir);
    let session = Session::start(&node, &dir, &["--follow"]);
    session.until_said("Ctrl-C ends this");
    let before = node.settled("app.sample_wsgi.main");
    let sources = dir.join("python3_virtualenv_sources/requirements-to-freeze.txt");
    std::fs::write(&sources, "no such package!\n").unwrap();
    session.until_said("requirements-to-freeze.txt changed: building");
    session.until_said("error: ");
    assert_eq!(node.get("/sample_wsgi").status, 200, "what served before goes on");
    // One that Flask needs too, so that it is in the caches.
    std::fs::write(&sources, "itsdangerous\n").unwrap();
    session.until_said("built (1 packages)");
    until("other workers serve", PATIENCE, || {
        let now = node.watcher("app.sample_wsgi.main");
        now.ready == now.wanted && now.workers.iter().all(|w| !before.workers.contains(w))
    });
    let said = session.interrupt();
    assert!(!said.contains(".stage."), "what a build is making is no edit: {said}");
    node.stop();
}
