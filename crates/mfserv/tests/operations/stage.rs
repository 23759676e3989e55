//! A node whose programs and hooks can be held up, and commands that are followed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use mfserv_core::event::Fact;
use mfserv_testkit::{Node, Plugin, Signal, kill, programs, until, until_some};
use serde_json::Value;

use crate::install::release;
use crate::{PATIENCE, node};

/// A node with a plugin of two releases. What starts, and what ends, can be held up.
///
/// - `main` (in every release) starts once `hold-start` is not there; it says so in `reached`.
/// - `side` (in release 2) ends once `hold-end` is not there.
pub struct Stage {
    pub node: Node,
}

impl Stage {
    pub fn new() -> Stage {
        let node = node();
        node.start();
        let stage = Stage { node };
        for number in [1, 2] {
            let file = stage.package(number);
            stage.node.mfserv(&["install", &file]).code(0);
        }
        stage
    }

    /// The package of a release: those with even numbers have `side`.
    pub fn package(&self, number: u32) -> String {
        let main = format!(
            "import os, time\n\
             open({:?}, 'a').close()\n\
             while os.path.exists({:?}): time.sleep(0.02)\n{}",
            self.node.path("reached"),
            self.node.path("hold-start"),
            programs::SERVES
        );
        let side = format!(
            "import os, signal, time\n\
             def end(*_):\n    \
                 while os.path.exists({:?}): time.sleep(0.02)\n    \
                 os._exit(0)\n\
             signal.signal(signal.SIGTERM, end)\n{}",
            self.node.path("hold-end"),
            programs::SERVES
        );
        let hook = format!(
            "#!/bin/sh\ntouch {}\nwhile [ -e {} ]; do sleep 0.02; done\n",
            self.node.path("reached").display(),
            self.node.path("hold-staging").display()
        );
        let mut plugin = Plugin::python("foo", &main)
            .key("general", "_release", &number.to_string())
            .file("postinstall", &hook);
        if number % 2 == 0 {
            let side_command = "python3 -u {plugin_dir}/side.py {unix_socket_path}";
            plugin = plugin.app("side", side_command).file("side.py", &side);
        }
        let dir = self.node.path(&format!("work/{number}"));
        release(&self.node, &plugin.write(&dir)).to_string_lossy().into_owned()
    }

    pub fn hold(&self, what: &str) {
        let _ = fs::remove_file(self.node.path("reached"));
        fs::write(self.node.path(&format!("hold-{what}")), "").unwrap();
    }

    pub fn let_go(&self) {
        for what in ["start", "end", "staging"] {
            let _ = fs::remove_file(self.node.path(&format!("hold-{what}")));
        }
    }

    pub fn until_reached(&self) {
        let reached = self.node.path("reached");
        until("a program or a hook is held up", PATIENCE, || reached.exists());
    }

    /// The number of the release that is current.
    pub fn current(&self) -> Option<u32> {
        let link = fs::read_link(self.node.path("var/plugins/foo")).ok()?;
        link.file_name()?.to_str()?.parse().ok()
    }

    pub fn releases(&self) -> usize {
        fs::read_dir(self.node.path("var/releases/foo")).map_or(0, Iterator::count)
    }

    /// A command whose events are read from a file.
    pub fn ask(&self, args: &[&str]) -> Asker {
        let out = self.node.path("asker.out");
        let mut command = self.node.command(args);
        command.arg("--json").stdout(fs::File::create(&out).unwrap()).stderr(Stdio::null());
        Asker { child: command.spawn().unwrap(), out }
    }

    /// Kills the daemon; returns when another one answers.
    pub fn kill_daemon(&self) {
        let before = self.node.role_pid("daemon");
        self.node.kill(before);
        until("another daemon answers", PATIENCE, || {
            self.node.try_status().is_some_and(|status| status.daemon.pid != before)
        });
    }

    /// What an operation came to, by its id.
    pub fn outcome(&self, id: &str) -> Value {
        let ran = self.node.mfserv(&["wait", id, "--json"]);
        let last = ran.stdout.lines().last().unwrap_or_default();
        let outcome: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{ran:?}"));
        assert_eq!(outcome["event"], "outcome", "{ran:?}");
        assert_eq!(ran.code == 0, outcome["ok"] == true, "{ran:?}");
        outcome
    }

    /// Whether the events say that the operation was finished or undone by a later daemon.
    pub fn recovered(&self, id: &str) -> Option<bool> {
        self.node.events().into_iter().find_map(|event| match event.fact {
            Fact::OperationRecovered { id: of, finished, .. } if of == id => Some(finished),
            _ => None,
        })
    }
}

/// A command that asks for an operation.
pub struct Asker {
    pub child: Child,
    out: PathBuf,
}

impl Asker {
    pub fn events(&self) -> Vec<Value> {
        events_in(&self.out)
    }

    pub fn id(&self) -> String {
        until_some("the operation is accepted", PATIENCE, || {
            let events = self.events();
            let accepted = events.iter().find(|event| event["event"] == "accepted")?;
            Some(accepted["operation"].as_str().unwrap().to_string())
        })
    }

    pub fn kill(mut self) {
        kill(self.child.id(), Signal::KILL);
        self.child.wait().unwrap();
    }

    pub fn code(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

fn events_in(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
