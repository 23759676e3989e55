//! What `top` shows on a terminal, and in which state it leaves it.

mod demo;

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mfserv_testkit::{Node, Plugin, Ran, programs, pty, until};
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::Value;

use crate::{PATIENCE, PROGRAM, Turn, node};

/// Bytes, and when they were written.
pub type Written = Vec<(f64, Vec<u8>)>;

/// A program on a terminal of its own.
pub struct Terminal {
    child: Child,
    ours: File,
    theirs: File,
    screen: Arc<Mutex<vt100::Parser>>,
    /// What was written on it, and when, seconds since its beginning.
    pub written: Arc<Mutex<Written>>,
}

impl Terminal {
    /// Runs `mfserv top`.
    fn run(node: &Node, size: (u16, u16), env: &[(&str, &str)]) -> Self {
        Self::of(node, &["top", "--interval", "0.3"], size, env)
    }

    /// Runs a command of mfserv; the terminal is its controlling one, so that Ctrl-C is a signal.
    pub fn of(node: &Node, args: &[&str], size: (u16, u16), env: &[(&str, &str)]) -> Self {
        let (ours, theirs) = pty();
        // Whoever runs the tests may ignore signals (nohup, a shell in the background).
        let args = [&["--ctty", "--wait", "env", "--default-signal", PROGRAM], args].concat();
        let mut command = node.other(Path::new("setsid"), &args);
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR").envs(env.iter().copied());
        let ends = [(); 3].map(|()| theirs.try_clone().unwrap());
        let [stdin, stdout, stderr] = ends;
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(cells(size.1), cells(size.0), 0)));
        let ours = File::from(ours);
        let written = Arc::<Mutex<Written>>::default();
        let (child, shared) = (command.spawn().unwrap(), (screen.clone(), written.clone()));
        let mut terminal = Self { child, ours, theirs, screen, written };
        terminal.resize(size);
        let (mut from, began) = (terminal.ours.try_clone().unwrap(), Instant::now());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = from.read(&mut bytes) {
                let bytes = &bytes[..count];
                shared.0.lock().unwrap().process(bytes);
                shared.1.lock().unwrap().push((began.elapsed().as_secs_f64(), bytes.to_vec()));
            }
        });
        terminal
    }

    pub fn resize(&mut self, (ws_col, ws_row): (u16, u16)) {
        self.screen.lock().unwrap().screen_mut().set_size(cells(ws_row), cells(ws_col));
        let size = Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.ours, size).unwrap();
    }

    pub fn press(&mut self, keys: &str) {
        self.ours.write_all(keys.as_bytes()).unwrap();
    }

    pub fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    #[track_caller]
    pub fn shows(&self, what: &str, is_so: impl Fn(&str) -> bool) {
        let mut text = String::new();
        let shown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(what, Duration::from_secs(30), || {
                text = self.text();
                is_so(&text)
            });
        }));
        assert!(shown.is_ok(), "{what}:\n{}", self.text());
    }

    /// It has no echo and shows the second screen.
    pub fn is_taken(&self) -> bool {
        let has_echo = tcgetattr(&self.theirs).unwrap().local_modes.contains(LocalModes::ECHO);
        let is_second = self.screen.lock().unwrap().screen().alternate_screen();
        !has_echo && is_second
    }

    pub fn is_given_back(&self) -> bool {
        let parser = self.screen.lock().unwrap();
        let modes = tcgetattr(&self.theirs).unwrap().local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON)
            && !parser.screen().alternate_screen()
            && !parser.screen().hide_cursor()
    }

    fn pid(&self) -> Pid {
        // Of `setsid`, or of the program that it has become.
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        let child = std::fs::read_to_string(children).unwrap_or_default();
        let pid = child.trim().parse().unwrap_or(self.child.id() as i32);
        Pid::from_raw(pid).unwrap()
    }

    #[track_caller]
    pub fn end(&mut self) -> ExitStatus {
        let mut ended = None;
        until("top has ended", PATIENCE, || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        self.read_all();
        until("the terminal is as it was", PATIENCE, || self.is_given_back());
        ended.unwrap()
    }

    /// Waits until all that was written before is on the screen: the end of a program is seen
    /// before its last words are read.
    fn read_all(&mut self) {
        // A title, which changes nothing on the screen.
        const LAST: &[u8] = b"\x1b]0;ended\x07";
        self.theirs.write_all(LAST).unwrap();
        until("all is read", PATIENCE, || {
            let written = self.written.lock().unwrap();
            let last: Vec<u8> =
                written.iter().rev().take(2).rev().flat_map(|it| it.1.clone()).collect();
            last.ends_with(LAST)
        });
        let mut written = self.written.lock().unwrap();
        let mut left = LAST.len();
        while let Some((at, mut bytes)) = written.pop() {
            let cut = left.min(bytes.len());
            bytes.truncate(bytes.len() - cut);
            left -= cut;
            if !bytes.is_empty() {
                written.push((at, bytes));
            }
            if left == 0 {
                return;
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = kill_process(self.pid(), Signal::KILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cells(count: u16) -> NonZero<u16> {
    NonZero::new(count).unwrap()
}

/// The words of the row of an app.
pub fn row(text: &str, app: &str) -> Vec<String> {
    let line = text.lines().find(|line| line.starts_with(&format!("{app} "))).unwrap_or("");
    line.split_whitespace().map(str::to_owned).collect()
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

pub fn shop() -> Node {
    let node = node();
    node.add(&Plugin::python("shop", programs::SERVES).key("app_main", "numprocesses", "2"));
    node.start();
    node.settled("app.shop.main");
    node
}

#[test]
fn top_shows_what_runs_and_obeys_its_keys_on_a_terminal_that_changes() {
    let _turn = Turn::cheap();
    let node = shop();
    let mut top = Terminal::run(&node, (110, 30), &[]);
    top.shows("the app and its workers", |text| {
        text.contains("mfserv RUNNING")
            && row(text, "shop.main").get(3).is_some_and(|it| it == "2/2")
    });
    assert!(top.is_taken());
    top.shows("requests, after some were made", |text| {
        assert_eq!(node.get("/shop/x").status, 200);
        let row = row(text, "shop.main");
        let number = |at: usize| row.get(at).and_then(|it| it.parse::<f64>().ok());
        number(1).is_some_and(|rate| rate > 0.0) && row[2].ends_with("ms")
    });
    assert!(top.text().contains("LAST EVENTS") && top.text().contains("host memory"));

    let before = node.pids("app.shop.main");
    top.press("/shop\r");
    top.shows("the rows of the filter", |text| {
        !text.lines().any(|it| it.starts_with("telemetry "))
    });
    top.press("\r");
    top.shows("the workers", |text| before.iter().all(|pid| text.contains(&format!("pid {pid} "))));
    top.press("R");
    top.shows("a question", |text| text.contains("replace the workers of shop.main"));
    top.press("n");
    top.shows("that nothing was done", |text| text.contains("nothing was restarted"));
    top.press("Ry");
    top.shows("that it is done", |text| text.contains("done: "));
    let after = node.settled("app.shop.main");
    assert!(after.workers.iter().all(|worker| !before.contains(&worker.pid.unwrap())));
    top.press("?");
    top.shows("the keys", |text| text.contains("sort by memory"));
    top.press(" \x1b");

    top.resize((40, 12));
    top.shows("fewer columns", |text| {
        text.contains("REQ/S") && !text.contains("CRASHES") && row(text, "shop.main").len() == 5
    });
    assert!(top.text().lines().count() <= 12, "{}", top.text());
    top.resize((110, 30));
    top.shows("all columns", |text| text.contains("CRASHES"));
    top.press("\x03");
    top.end();
    node.stop();
}

#[test]
fn top_goes_on_without_roles_and_gives_the_terminal_back_however_it_ends() {
    let _turn = Turn::cheap();
    let node = shop();
    let mut top = Terminal::run(&node, (100, 24), &[("NO_COLOR", "1")]);
    top.shows("the node", |text| text.contains("mfserv RUNNING") && text.contains("host CPU"));
    let telemetry = node.role_pid("telemetry");
    signal(telemetry, Signal::STOP);
    top.shows("that nothing is counted", |text| text.contains("the history cannot be read"));
    // The daemon may have replaced it already: it does not answer.
    mfserv_testkit::kill(telemetry, Signal::CONT);
    top.shows("counters again", |text| {
        !text.contains("cannot be read") && text.contains("host CPU")
    });
    node.mfserv(&["stop"]).code(0);
    top.shows("that nothing runs", |text| text.contains("what is shown is"));
    node.start();
    top.shows("the node again", |text| {
        text.contains("mfserv RUNNING") && !text.contains("what is shown is")
    });

    // Ctrl-Z, as the terminal sends it.
    top.press("\x1a");
    until("the terminal is given back", PATIENCE, || top.is_given_back());
    let stat = |pid: Pid| std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    until("it has stopped", PATIENCE, || stat(top.pid()).is_ok_and(|it| it.contains(") T ")));
    kill_process(top.pid(), Signal::CONT).unwrap();
    top.shows("the node after it went on", |text| text.contains("mfserv RUNNING"));
    assert!(top.is_taken());
    kill_process(top.pid(), Signal::TERM).unwrap();
    top.end();
    let mut top = Terminal::run(&node, (100, 24), &[]);
    top.shows("the node", |text| text.contains("mfserv RUNNING"));
    top.press("q");
    assert!(top.end().success());

    in_a_pipe(&node);
    let mut dumb = Terminal::run(&node, (80, 24), &[("TERM", "dumb")]);
    dumb.shows("frames below each other", |text| text.contains("LAST EVENTS"));
    assert!(dumb.is_given_back(), "it was never taken");
    dumb.press("\x03");
    dumb.end();
    node.stop();
    node.mfserv(&["top", "--once"]).code(3);
}

fn in_a_pipe(node: &Node) {
    let refused = node.mfserv(&["top"]).code(2);
    assert!(refused.stderr.contains("--once"), "{refused:?}");
    let once: Ran = node.mfserv(&["top", "--once", "--sort", "memory"]).code(0);
    assert_eq!(row(&once.stdout, "shop.main")[3], "2/2", "{}", once.stdout);
    assert!(!once.stdout.contains('\x1b'), "{}", once.stdout);
    let json = node.mfserv(&["top", "--once", "--json"]).code(0).stdout;
    let frame: Value = serde_json::from_str(&json).unwrap();
    let rows = frame["rows"].as_array().unwrap();
    let shop = rows.iter().find(|row| row["name"] == "shop.main").unwrap();
    assert_eq!((&shop["ready"], &frame["state"]), (&Value::from(2), &Value::from("RUNNING")));
    assert_eq!(shop["workers"].as_array().unwrap().len(), 2, "{frame}");
}
