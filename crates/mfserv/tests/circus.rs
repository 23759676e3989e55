//! The protocol of Circus, spoken by the `circusctl` and the Python client of Circus itself.

mod endpoint;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use mfserv_testkit::{Load, Node, Plugin, get, programs, servers, until, until_some};
use serde_json::Value;

use crate::compat::OldNames;
use crate::{PATIENCE, Turn, node};

/// The Python client of Circus, as it is on PyPI.
struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    endpoint: String,
}

impl Client {
    /// `None` if this machine cannot have it.
    fn of(endpoint: &str) -> Option<Client> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let python = servers::of_pypi(target, "circus", "0.19.0")?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/circus/drive.py");
        let mut command = Command::new(python);
        let command = command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (output, endpoint) = (BufReader::new(output), endpoint.into());
        Some(Client { child, input, output, endpoint })
    }

    /// Sends a line, and reads the line that answers it.
    fn line(&mut self, line: &str) -> Value {
        writeln!(self.input, "{line}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|why| panic!("{line}: {why}: {answer}"))
    }

    /// Runs a command; its exit code and what it prints.
    fn run(&mut self, words: &str) -> (i64, String) {
        let answer = self.line(&format!("--endpoint {} --timeout 30 {words}", self.endpoint));
        (answer[0].as_i64().unwrap(), answer[1].as_str().unwrap().trim_end().to_string())
    }

    /// Runs a command that succeeds; what it prints.
    #[track_caller]
    fn says(&mut self, words: &str) -> String {
        let (code, text) = self.run(words);
        assert_eq!(code, 0, "{words}: {text}");
        text
    }

    #[track_caller]
    fn check(&mut self, cases: &[(&str, i64, &str)]) {
        for (words, code, text) in cases {
            let ran = self.run(words);
            assert_eq!(ran.0, *code, "{words}: {}", ran.1);
            match text.strip_suffix('…') {
                Some(begin) => assert!(ran.1.starts_with(begin), "{words}: {}", ran.1),
                None => assert_eq!(ran.1, *text, "{words}"),
            }
        }
    }

    /// What was published so far: topics and messages.
    fn heard(&mut self) -> Vec<(String, Value)> {
        let heard = self.line("heard");
        let heard = heard.as_array().unwrap();
        heard.iter().map(|one| (one[0].as_str().unwrap().into(), one[1].clone())).collect()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn socket(node: &Node) -> PathBuf {
    node.path("var/circus.socket")
}

fn ipc(path: &Path) -> String {
    format!("ipc://{}", path.display())
}

/// A node with the app `shop`, two workers.
fn shop() -> Node {
    let node = node();
    node.add(&Plugin::python("shop", programs::SERVES).key("app_main", "numprocesses", "2"));
    node.start();
    node.settled("app.shop.main");
    until("the socket is there", PATIENCE, || socket(&node).exists());
    node
}

/// A slow request that is in the hands of a worker.
fn slow(node: &Node, ms: u32) -> std::thread::JoinHandle<u16> {
    let begun = |node: &Node| {
        let lines = node.log_lines("app_shop_main");
        lines.iter().filter(|line| line.ends_with("slow begins")).count()
    };
    let before = begun(node);
    let address = node.address();
    let answer =
        std::thread::spawn(move || get(address, &format!("/shop/slow?{ms}")).unwrap().status);
    until("a worker has the request", PATIENCE, || begun(node) > before);
    answer
}

#[test]
fn circusctl_drives_the_node_a_script_hears_of_it_and_no_request_is_lost() {
    let _turn = Turn::heavy();
    let node = shop();
    let Some(mut client) = Client::of(&ipc(&socket(&node))) else { return };
    looks(&mut client, &node);
    hears(&mut client, &node);
    let load = Load::new(node.address(), "/shop/").connections(4).start();
    client.check(&[
        ("incr app.shop.main 2 --waiting", 0, "4"),
        ("decr app.shop.main", 0, "3"),
        ("restart app.shop.main --waiting", 0, "ok"),
        ("restart --match regex app.*main --waiting", 0, "ok"),
        ("reload app.shop.main --waiting", 0, "ok"),
        ("set app.shop.main numprocesses 2 --waiting", 0, "ok"),
        ("set app.shop.main max_age 60 graceful_timeout 12.5 --waiting", 0, "ok"),
        ("set app.shop.main stop_signal QUIT", 0, "ok"),
        ("get app.shop.main max_age", 0, "max_age: 60"),
        (
            "get app.shop.main graceful_timeout stop_signal",
            0,
            "graceful_timeout: 12.5\nstop_signal: 3",
        ),
        ("incr app.shop.main", 0, "3"),
    ]);
    node.settled("app.shop.main");
    let status = node.mfserv(&["status"]).code(0).stdout;
    for shown in [
        "app.shop.main is scaled to 3 (configured: 2), until its configuration changes or is reloaded",
        "app.shop.main runs with max_age=60, graceful_timeout=12.5, stop_signal=3, which is not in \
         its configuration, until that changes or is reloaded",
    ] {
        assert!(status.lines().any(|line| line == shown), "{status}");
    }
    let pids = node.settled("app.shop.main").workers.into_iter().filter_map(|one| one.pid);
    let pids: Vec<u32> = pids.collect();
    client.check(&[
        (&format!("kill app.shop.main {}", pids[0]), 0, "ok"),
        (&format!("signal app.shop.main {} TERM", pids[1]), 0, "ok"),
        ("reloadconfig --waiting", 0, "ok"),
        ("get app.shop.main max_age numprocesses", 0, "max_age: 0\nnumprocesses: 2"),
        ("restart nginx --waiting", 0, "ok"),
        ("restart --waiting", 0, "ok"),
    ]);
    let now = node.settled("app.shop.main").workers;
    assert!(now.iter().all(|one| !pids.contains(&one.pid.unwrap_or(0))), "{pids:?} {now:?}");
    load.stop().assert_nothing_failed();
    stops(&mut client, &node);
    let in_flight = slow(&node, 4000);
    let address = node.address();
    let refused = std::thread::spawn(move || {
        until("requests are refused, by an answer, before the node has ended", PATIENCE, || {
            get(address, "/shop/").expect("an answer").status == 503
        });
    });
    client.check(&[("quit --waiting", 0, "ok")]);
    assert_eq!(in_flight.join().unwrap(), 200);
    refused.join().unwrap();
    until("the node has stopped", PATIENCE, || node.keeper_pid().is_none());
    assert!(!socket(&node).exists() && !node.path("var/circus_pubsub.socket").exists());
}

/// Commands that look, and those that are refused.
fn looks(client: &mut Client, node: &Node) {
    let pids = node.pids("app.shop.main");
    let list = format!("{},{}", pids[0], pids[1]);
    // circusctl sorts the rows of a table as text: 10000 goes before 9999.
    let first = pids.iter().map(u32::to_string).min().unwrap();
    client.check(&[
        ("list", 0, "app.shop.main,nginx"),
        ("list App.Shop.Main", 0, &list),
        ("status", 0, "app.shop.main: active\nnginx: active"),
        ("status app.shop.main", 0, "active"),
        ("numprocesses", 0, "3"),
        ("numprocesses app.shop.main", 0, "2"),
        ("numwatchers", 0, "2"),
        ("globaloptions check_delay", 0, "check_delay: 15.0"),
        ("globaloptions", 0, "check_delay: 15.0\nendpoint: ipc:///…"),
        ("listsockets", 0, "3:socket …"),
        ("stats app.shop.main", 0, &format!("app.shop.main:\n{first}: {first}  python3 …")),
        (&format!("stats app.shop.main {}", pids[0]), 0, &format!("{0}: {0}  python3 …", pids[0])),
        ("stats", 0, "app.shop.main:\n…"),
        ("dstats", 0, "Main Process:\n…"),
        ("options app.shop.main", 0, "args: ['-u', …"),
        ("start app.shop.main", 0, "ok"),
        ("stats app.shop.main 1", 3, "error: process 1 not found in 'app.shop.main'"),
        ("numprocesses nope", 3, "error: program nope not found"),
        ("restart nope*", 3, "error: program nope* not found"),
        ("get app.shop.main nope", 3, "error: 'nope' option not found"),
        ("globaloptions nope", 3, "'nope' not an existing option"),
        ("signal app.shop.main 1 HUP", 3, "error: process 1 is not one of app.shop.main"),
        ("signal app.shop.main NOPE", 3, "error: signal invalid: NOPE"),
        ("stop nginx", 3, "error: the web front is started and stopped with the node…"),
        ("incr nginx", 3, "error: the web front is started and stopped with the node…"),
        ("add web sleep 3", 3, "error: add is not supported: watchers are those of …"),
        ("rm app.shop.main", 3, "error: rm is not supported…"),
        ("ipython", 3, "error: ipython is not supported…"),
        ("set app.shop.main cmd sh", 3, "error: 'cmd' cannot be set: it decides what is run…"),
        ("set app.shop.main args sh", 3, "error: 'args' cannot be set…"),
        ("set app.shop.main uid 0", 3, "error: 'uid' cannot be set…"),
        ("set app.shop.main gid 0", 3, "error: 'gid' cannot be set…"),
        ("set app.shop.main numprocesses 3 warmup_delay 1", 3, "error: 'warmup_delay' cannot be …"),
        ("numprocesses app.shop.main", 0, "2"),
    ]);
    let env: String = client.says("get app.shop.main env");
    assert!(env.contains("MFSERV_CURRENT_PLUGIN_NAME=shop"), "{env}");
    let mode = std::fs::metadata(socket(node)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// What is in flight is finished, and what comes later is refused at once.
fn stops(client: &mut Client, node: &Node) {
    let in_flight = slow(node, 1500);
    client.check(&[("stop app.shop.main", 0, "ok")]);
    // What takes longer than 3 s goes on after the answer.
    until("it refuses requests", PATIENCE, || {
        let began = Instant::now();
        let status = node.get("/shop/").status;
        assert!(began.elapsed() < Duration::from_secs(10), "{status} was not answered at once");
        status == 503
    });
    assert_eq!(in_flight.join().unwrap(), 200);
    until("it has stopped", PATIENCE, || client.says("status app.shop.main") == "stopped");
    client.check(&[("start --waiting", 0, "ok"), ("status app.shop.main", 0, "active")]);
    assert_eq!(node.get("/shop/").status, 200);
    let before = node.pids("app.shop.main");
    let in_flight = slow(node, 1000);
    client.check(&[("kill app.shop.main", 0, "ok")]);
    assert_eq!(in_flight.join().unwrap(), 200);
    until("they have ended", PATIENCE, || {
        !node.pids("app.shop.main").iter().any(|pid| before.contains(pid))
    });
    // A signal that cannot be caught is not waited for.
    let before = node.settled("app.shop.main").workers[0].pid.unwrap();
    client.check(&[(&format!("kill app.shop.main {before} --signum 9"), 0, "ok")]);
    until("it is replaced", PATIENCE, || !node.pids("app.shop.main").contains(&before));
}

/// A Python script hears what happens to watchers.
fn hears(client: &mut Client, node: &Node) {
    let events = node.path("var/circus_pubsub.socket");
    client.line(&format!("events {} watcher.app", ipc(&events)));
    OldNames::new(node);
    let (ours, topic) = (node.path("ours"), "watcher.app.shop.main.spawn");
    let mut listens = node.other(&node.path("prefix/bin/circusctl"), &["listen", topic]);
    let mut listens = listens.stdout(std::fs::File::create(&ours).unwrap()).spawn().unwrap();
    // It is not known when ZeroMQ has subscribed: from some change on it hears of all.
    until("both are subscribed", PATIENCE, || {
        client.says("incr app.shop.main");
        client.says("decr app.shop.main");
        !client.heard().is_empty() && !std::fs::read(&ours).unwrap().is_empty()
    });
    listens.kill().unwrap();
    listens.wait().unwrap();
    let ours = std::fs::read_to_string(ours).unwrap();
    let is_event = |line: &str| line.starts_with(&format!("{topic}: {{")) && line.ends_with('}');
    assert!(ours.lines().all(is_event), "{ours}");
    node.settled("app.shop.main");
    let seen = client.heard().len();
    let pids = node.pids("app.shop.main");
    client.check(&[
        ("restart app.shop.main --waiting", 0, "ok"),
        ("stop app.shop.main --waiting", 0, "ok"),
        ("start app.shop.main --waiting", 0, "ok"),
    ]);
    let all = ["kill", "spawn", "reap", "reload", "updated", "stop", "start"];
    let heard = until_some("all is heard", PATIENCE, || {
        let heard = client.heard().split_off(seen);
        let has =
            |event: &str| heard.iter().any(|(t, _)| *t == format!("watcher.app.shop.main.{event}"));
        all.iter().all(|event| has(event)).then_some(heard)
    });
    let reaped = heard.iter().filter(|(topic, _)| topic.ends_with(".reap"));
    let reaped: Vec<&Value> = reaped.map(|(_, message)| message).collect();
    for pid in pids {
        let killed = |(topic, message): &&(String, Value)| {
            topic.ends_with(".kill") && message["process_pid"] == pid
        };
        assert_eq!(heard.iter().filter(killed).count(), 1, "{heard:?}");
        let its = reaped.iter().find(|message| message["process_pid"] == pid);
        assert_eq!(its.unwrap()["exit_code"], -15, "{reaped:?}");
    }
    assert!(heard.iter().all(|(topic, _)| topic.starts_with("watcher.app.shop.main.")));
    assert!(heard.iter().all(|(_, message)| message["time"].as_f64().unwrap() > 1.6e9));
}
