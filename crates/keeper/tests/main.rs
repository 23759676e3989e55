//! A real keeper, as a process of its own (`tests/program.rs`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::disallowed_methods,
    reason = "a test starts programs and stops at the first thing that is wrong"
)]

mod copying;
mod node;
mod once;
mod setup;

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

use mfserv_core::Kind;
use mfserv_core::output::Rotation;
use mfserv_core::wire::keeper::{Answer, Ask, Ended, Notice, Scope};
use mfserv_keeper::{Client, start_ticks};

use node::{Node, PROGRAM, lives, until};
use setup::Setup;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

#[test]
fn an_exit_is_told_with_its_code_or_signal_and_its_last_lines() {
    let node = Node::start();
    assert_eq!(fs::read_to_string(node.home().join("ready")).unwrap(), "ready\n");
    let mut client = node.watching();
    client.spawn("a", "echo first; echo last >&2; exit 7");
    let exit = client.exit_of("a");
    assert_eq!(exit.ended, Ended::Exited { code: 7 });
    assert_eq!(exit.last_output, "first\nlast\n");
    assert_eq!(exit.note, "note of a");
    client.spawn("b", "kill -11 $$");
    assert_eq!(client.exit_of("b").ended, Ended::Signalled { signal: 11 });
    client.spawn("r", "sleep 1000");
    let real_time = |signal| Ask::Signal { id: "r".into(), signal, scope: Scope::Process };
    // What the C library keeps for itself, and what is none.
    for number in [0, 32, 33, 34, 65] {
        let (why, _) = client.refused(real_time(number));
        assert!(why.starts_with(&format!("{number} is no signal")), "{why}");
    }
    client.done(real_time(60));
    assert_eq!(client.exit_of("r").ended, Ended::Signalled { signal: 60 });
    client.done(Ask::Forget { id: "r".into() });
    client.spawn("c", "i=0; while [ $i -lt 5000 ]; do echo line $i; i=$((i+1)); done");
    let last = client.exit_of("c").last_output;
    assert!(last.len() <= 4096 && last.starts_with("line ") && last.ends_with("line 4999\n"));
    until("the log has all lines", || node.log("c").lines().count() == 5000);
    let (_, exits) = client.list();
    assert_eq!(exits.iter().map(|e| e.id.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    client.done(Ask::Forget { id: "b".into() });
    assert_eq!(client.list().1.len(), 2);
}

#[test]
fn a_process_gets_its_environment_limits_and_directory_and_nothing_else() {
    let node = Node::start();
    let mut client = node.watching();
    let mut spec = node
        .spec("a", "env; ulimit -n; pwd; ls /proc/self/fd; cut -d' ' -f6 /proc/$$/stat; echo $$");
    spec.env = BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into()), ("X".into(), "y".into())]);
    spec.rlimits.open_files = 77;
    spec.cwd = "/usr".into();
    client.done_or_spawned(Ask::Spawn { spec: Box::new(spec) });
    let output = client.exit_of("a").last_output;
    let hash = mfserv_keeper::home_hash(&node.home());
    for expected in ["X=y", &format!("MFSERV_WORKER={hash}:a"), "77", "/usr"] {
        assert!(output.lines().any(|line| line == expected), "{expected} in {output}");
    }
    assert!(!output.contains("MFSERV_TEST") && !output.contains("HOME="), "{output}");
    let lines: Vec<&str> = output.lines().collect();
    let cwd = lines.iter().position(|line| *line == "/usr").unwrap();
    assert_eq!(lines[cwd + 1..cwd + 5], ["0", "1", "2", "3"], "3 is the directory that ls reads");
    assert_eq!(lines[lines.len() - 1], lines[lines.len() - 2], "it leads its own session");
}

#[test]
fn what_cannot_be_started_is_refused_with_errno_and_a_sentence() {
    let node = Node::start();
    let mut client = node.client();
    let script = node.home().join("script");
    fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let plain = node.home().join("plain");
    fs::write(&plain, "x").unwrap();
    let mut refused = |argv: &str, change: &dyn Fn(&mut mfserv_core::wire::keeper::ProcessSpec)| {
        let mut spec = node.spec("a", "");
        spec.argv = vec![argv.to_owned()];
        change(&mut spec);
        client.refused(Ask::Spawn { spec: Box::new(spec) })
    };
    let (reason, errno) = refused("no-such-program", &|_| {});
    assert!(
        errno == 2 && reason.contains("no-such-program is in no directory of PATH="),
        "{reason}"
    );
    let (reason, errno) = refused(script.to_str().unwrap(), &|_| {});
    assert!(errno == 2 && reason.contains("/no/such/interpreter"), "{reason}");
    let (reason, errno) = refused(plain.to_str().unwrap(), &|_| {});
    assert!(errno == 13 && reason.contains("plain cannot be executed"), "{reason}");
    let (reason, errno) = refused("true", &|spec| spec.cwd = "/no/such/place".into());
    assert!(errno == 2 && reason.contains("/no/such/place"), "{reason}");
    let (reason, _) = refused("true", &|spec| spec.listeners = vec!["http".into()]);
    assert!(reason.contains("no socket http"), "{reason}");
    let (reason, _) = refused("true", &|spec| spec.id = "../x".into());
    assert!(reason.contains("no name"), "{reason}");
    assert_eq!(fs::read_dir(node.home().join("var/run/fifo")).unwrap().count(), 0);
    client.spawn("a", "sleep 1000");
    let (reason, _) = client.refused(Ask::Spawn { spec: Box::new(node.spec("a", "true")) });
    assert_eq!(reason, "a lives already");
}

fn what_hides_is_killed(setup: Setup<&str>, containment: &str) {
    let node = Node::with(setup);
    let mut client = node.watching();
    let pid_file = node.home().join("pid");
    // One process, whenever it is counted: it starts no other one.
    let hide = format!("(setsid sh -c 'echo $$ > {}; exec sleep 1000' &) ", pid_file.display());
    client
        .spawn("a", &format!("{hide}; while [ ! -s {} ]; do sleep 0.01; done", pid_file.display()));
    let exit = client.exit_of("a");
    assert_eq!((exit.ended, exit.left_behind), (Ended::Exited { code: 0 }, 1));
    assert!(!lives(fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap()));
    fs::remove_file(&pid_file).unwrap();
    let process = client.spawn("b", &format!("{hide}; sleep 1000"));
    assert_eq!(process.containment, containment);
    until("the hidden process", || fs::metadata(&pid_file).is_ok_and(|file| file.len() > 0));
    client.done(Ask::Signal { id: "b".into(), signal: SIGTERM, scope: Scope::Tree });
    assert_eq!(client.exit_of("b").ended, Ended::Signalled { signal: SIGTERM });
    assert!(!lives(fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap()));
    until("no FIFO", || fs::read_dir(node.home().join("var/run/fifo")).unwrap().count() == 0);
}

#[test]
fn a_grandchild_that_left_its_session_is_killed_by_its_marker() {
    what_hides_is_killed(Setup { cgroups: false, ..Setup::default() }, "session");
}

#[test]
fn a_grandchild_that_left_its_session_is_killed_by_its_cgroup_where_there_are_cgroups() {
    let probe = Node::start();
    let containment = probe.client().spawn("a", "sleep 1000").containment;
    drop(probe);
    what_hides_is_killed(Setup::default(), &containment);
}

const COUNTING: &str = "i=0; while :; do i=$((i+1)); echo line $i; done";

/// Every line from 1 on is there, in order; those that are there twice do not count, nor
/// the halves that a killed keeper leaves. Returns the last number.
fn assert_no_line_lost(log: &str) -> u64 {
    let mut expected = 1;
    let mut halves = 0;
    for line in log.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let number = line.trim_end().strip_prefix("line ").and_then(|n| n.parse::<u64>().ok());
        let Some(number) = number else {
            assert!(line.len() < "line ".len() + 1, "two lines are mixed: {line}");
            halves += 1;
            continue;
        };
        assert!(number <= expected, "line {expected} is missing before {number}");
        expected = expected.max(number + 1);
    }
    assert!(halves <= 5, "{halves} halves of lines");
    expected - 1
}

#[test]
fn a_keeper_that_is_killed_loses_no_line_and_its_successor_adopts_all() {
    let mut node = Node::start();
    let mut client = node.client();
    let before = client.spawn("a", COUNTING);
    client.spawn("dies", "sleep 1000");
    client.spawn("code", "trap 'exit 9' TERM; while :; do sleep 0.05; done");
    let (alive, _) = client.list();
    let dies = alive.iter().find(|p| p.id == "dies").unwrap().pid;
    for _ in 0..5 {
        let lines = node.log("a").lines().count();
        until("more lines", || node.log("a").lines().count() > lines + 1000);
        node.kill();
        if lives(dies) {
            node::kill(dies);
        }
        node.again();
    }
    let mut client = node.watching();
    let (alive, exits) = client.list();
    let mut names: Vec<_> = alive.iter().map(|p| (p.id.as_str(), p.adopted)).collect();
    names.sort();
    assert_eq!(names, [("a", true), ("code", true)]);
    assert_eq!(alive.iter().find(|p| p.id == "a").unwrap().pid, before.pid);
    assert_eq!(
        exits.iter().map(|e| (e.id.as_str(), &e.ended)).collect::<Vec<_>>(),
        [("dies", &Ended::Unknown)]
    );
    let lines = node.log("a").lines().count();
    until("lines after adoption", || node.log("a").lines().count() > lines + 1000);
    client.done(Ask::Signal { id: "code".into(), signal: SIGTERM, scope: Scope::Process });
    let ended = client.exit_of("code").ended;
    // Linux 6.15 and later tell, others do not.
    assert!(matches!(ended, Ended::Unknown | Ended::Exited { code: 9 }), "{ended:?}");
    eprintln!("an adopted process ended with {ended:?}");
    client.done(Ask::Signal { id: "a".into(), signal: SIGKILL, scope: Scope::Tree });
    client.exit_of("a");
    drop(client);
    node.stop();
    assert!(assert_no_line_lost(&node.log("a")) > 6000);
}

#[test]
fn an_upgrade_keeps_children_exit_codes_listeners_lines_and_the_one_who_asked() {
    let mut node = Node::start();
    let mut client = node.watching();
    client.done(listen("http", "127.0.0.1:0"));
    let before = client.spawn("a", COUNTING);
    client.spawn("code", "echo early; trap 'echo late; exit 9' TERM; while :; do sleep 0.05; done");
    until("early", || node.log("code").contains("early"));
    let keeper = client.client.greeting().pid;
    let (reason, _) = client.refused(Ask::Upgrade { program: "/etc/passwd".into() });
    assert!(reason.contains("/etc/passwd"), "{reason}");
    for _ in 0..3 {
        let lines = node.log("a").lines().count();
        until("more lines", || node.log("a").lines().count() > lines + 1000);
        client.done(Ask::Upgrade { program: PROGRAM.into() });
    }
    assert_eq!(node.second_keeper().status.code(), Some(5), "the lock is still held");
    let greeting = node.client().client.greeting().clone();
    assert_eq!(
        (greeting.pid, greeting.adopted, greeting.listeners),
        (keeper, 0, vec!["http".to_owned()])
    );
    let (alive, exits) = client.list();
    assert_eq!((alive.len(), exits.len()), (2, 0));
    assert!(alive.iter().all(|p| !p.adopted));
    assert_eq!(alive[0], before);
    client.done(Ask::Signal { id: "code".into(), signal: SIGTERM, scope: Scope::Process });
    let exit = client.exit_of("code");
    assert_eq!(
        (exit.ended, exit.last_output.as_str()),
        (Ended::Exited { code: 9 }, "early\nlate\n")
    );
    client.done(Ask::Signal { id: "a".into(), signal: SIGKILL, scope: Scope::Tree });
    client.exit_of("a");
    drop(client);
    node.stop();
    let log = node.log("a");
    assert_eq!(assert_no_line_lost(&log), log.lines().count() as u64, "no line is there twice");
}

fn listen(name: &str, address: &str) -> Ask {
    Ask::Listen { name: name.into(), address: address.into(), backlog: 16 }
}

#[test]
fn a_listening_socket_is_held_inherited_and_given_back_to_a_keeper_that_lost_it() {
    let mut node = Node::start();
    let mut client = node.watching();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    let (reason, errno) = client.refused(listen("http", &address));
    assert!(errno == 98 && reason.contains(&address), "{reason}");
    drop(free);
    let unix = format!("unix:{}", node.home().join("var/x.socket").display());
    for _ in 0..2 {
        client.done(listen("http", &address));
        client.done(listen("local", &unix));
    }
    client.refused(listen("http", "127.0.0.1:1"));
    TcpStream::connect(&address).unwrap();
    let mut spec =
        node.spec("front", "echo $MFSERV_LISTEN; readlink /proc/$$/fd/3 /proc/$$/fd/4; sleep 1000");
    spec.listeners = vec!["http".into(), "local".into()];
    client.done_or_spawned(Ask::Spawn { spec: Box::new(spec) });
    until("the front's words", || node.log("front").lines().count() == 3);
    let words = node.log("front");
    let words: Vec<&str> = words.lines().collect();
    assert_eq!(words[0], "http=3,local=4");
    assert!(words[1].starts_with("socket:") && words[2].starts_with("socket:"));

    node.kill();
    node.again();
    let mut client = node.watching();
    assert!(client.client.greeting().listeners.is_empty());
    assert_eq!(client.refused(listen("http", &address)).1, 98);
    assert_eq!(client.refused(listen("local", &unix)).1, 98);
    TcpStream::connect(&address).unwrap();
    client.done(Ask::Signal { id: "front".into(), signal: SIGKILL, scope: Scope::Tree });
    client.exit_of("front");
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let answer = client.client.offer("http", &address, other.as_fd()).unwrap();
    assert!(matches!(&answer, Answer::Refused { reason, .. } if reason.contains(&address)));
    let other_address = other.local_addr().unwrap().to_string();
    assert_eq!(client.client.offer("http", &other_address, other.as_fd()).unwrap(), Answer::Done);
    drop(other);
    TcpStream::connect(&other_address).unwrap();
    client.done(Ask::Unlisten { name: "http".into() });
    assert!(TcpStream::connect(&other_address).is_err());
}

#[test]
fn a_process_that_writes_as_fast_as_it_can_does_not_delay_the_log_of_another() {
    let node = Node::start();
    let mut client = node.watching();
    let mut spec = node.spec("loud", "exec yes 'a line of some length, again and again and again'");
    spec.output.rotation = Rotation { max_bytes: 20_000_000, max_age_s: 0, keep: 2, mode: None };
    client.done_or_spawned(Ask::Spawn { spec: Box::new(spec) });
    until("the loud one", || node.log("loud").len() > 1_000_000);
    client.spawn("quiet", "while :; do date +%s%N; sleep 0.02; done");
    let mut delays = Vec::new();
    until("a hundred lines of the quiet one", || {
        let log = node.log("quiet");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        for line in log.lines().skip(delays.len()) {
            let said = Duration::from_nanos(line.parse().unwrap());
            delays.push(now.saturating_sub(said));
        }
        delays.len() >= 100
    });
    delays.sort();
    // The machine may do something else for a moment.
    assert!(delays[90] < Duration::from_secs(5), "lines came late: {delays:?}");
    assert!(delays.last() < Some(&Duration::from_secs(20)), "lines came late: {delays:?}");
}

#[test]
fn a_full_disk_blocks_no_process_and_is_reported() {
    let node = Node::start();
    let mut client = node.watching();
    fs::create_dir_all(node.home().join("log")).unwrap();
    let log = node.home().join("log/a.log");
    symlink("/dev/full", &log).unwrap();
    client.spawn("a", "i=0; while [ $i -lt 10 ]; do head -c 1000000 /dev/zero | tr '\\0' 'x' | fold -w 99; i=$((i+1)); done; echo end");
    let exit = client.exit_of("a");
    assert_eq!(exit.ended, Ended::Exited { code: 0 });
    assert!(exit.last_output.ends_with("end\n"));
    let mut notices = std::mem::take(&mut client.notices);
    until("both notices", || {
        notices.extend(client.client.notices(Duration::from_millis(50)).unwrap());
        let trouble =
            notices.iter().any(|n| matches!(n, Notice::LogTrouble { file, .. } if *file == log));
        let dropped = notices
            .iter()
            .any(|n| matches!(n, Notice::Dropped { id, bytes } if id == "a" && *bytes > 1_000_000));
        trouble && dropped
    });
    fs::remove_file(&log).unwrap();
    until("the log says what was dropped", || {
        let text = node.log("a");
        text.lines().any(|l| l.starts_with("[mfserv] ") && l.contains("bytes of output dropped"))
    });
}

#[test]
fn the_daemon_is_restarted_and_a_second_keeper_is_refused() {
    let node = Node::with(Setup { daemon: Some("echo here; exec sleep 1000"), ..Setup::default() });
    let mut client = node.watching();
    let pid =
        |client: &mut node::Asker| client.list().0.iter().find(|p| p.id == "daemon").map(|p| p.pid);
    until("a daemon", || pid(&mut client).is_some());
    let first = pid(&mut client).unwrap();
    client.done(Ask::Signal { id: "daemon".into(), signal: SIGKILL, scope: Scope::Process });
    assert_eq!(client.exit_of("daemon").ended, Ended::Signalled { signal: SIGKILL });
    until("another daemon", || pid(&mut client).is_some_and(|pid| pid != first));
    assert!(
        client
            .refused(Ask::Spawn { spec: Box::new(node.spec("daemon", "true")) })
            .0
            .contains("daemon")
    );
    let second = node.second_keeper();
    assert_eq!(second.status.code(), Some(i32::from(Kind::Refused.exit_code())));
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        words.contains(&format!("locked by process {}", client.client.greeting().pid)),
        "{words}"
    );
}

#[test]
fn a_daemon_that_ends_at_once_is_not_started_without_pause() {
    let node = Node::with(Setup { daemon: Some("echo started"), ..Setup::default() });
    until("some starts", || node.log("daemon").lines().count() >= 4);
    let start = Instant::now();
    let before = node.log("daemon").lines().count();
    until("another start", || node.log("daemon").lines().count() > before);
    assert!(start.elapsed() > Duration::from_millis(100));
}

#[test]
fn a_shutdown_leaves_no_process_fifo_socket_or_cgroup() {
    let mut node = Node::with(Setup { daemon: Some("exec sleep 1000"), ..Setup::default() });
    let mut client = node.client();
    let home = node.home();
    client.done(listen("local", &format!("unix:{}", home.join("var/x.socket").display())));
    client.spawn("deaf", "trap '' TERM; while :; do sleep 0.1; done");
    client.spawn("polite", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.02; done");
    // Erased environment, own session, orphan: only its descent from the keeper is left.
    client.spawn("stray", "env -i setsid sh -c '(sleep 1000 &) ; sleep 1000' & sleep 1000");
    let pids: Vec<u32> = client.list().0.iter().map(|p| p.pid).collect();
    assert!(pids.len() >= 3);
    until("it is polite", || node.log("polite") == "up\n");
    client.done(Ask::Shutdown);
    assert!(pids.iter().all(|pid| !lives(*pid)));
    assert_eq!(node.marked_processes(), Vec::<u32>::new());
    assert_eq!(node.wait(), Some(0));
    let left: Vec<_> =
        fs::read_dir(home.join("var/run")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["keeper.lock"]);
    assert!(!home.join("var/x.socket").exists());
    assert!(node.log("polite").contains("bye"));
    let hash = mfserv_keeper::home_hash(&home);
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        assert!(!std::path::Path::new(root).join(format!("mfserv-{hash}")).exists());
    }
}

#[test]
fn a_keeper_killed_while_it_starts_processes_leaves_none_that_its_successor_does_not_know() {
    let mut node = Node::start();
    let mut number = 0;
    for round in 0..10 {
        let mut client = node.client();
        let killer = {
            let pid = client.client.greeting().pid;
            let pause = Duration::from_micros(3000 + 1700 * round);
            std::thread::spawn(move || {
                // only time can pass: the moment is the subject, another one in each round
                std::thread::sleep(pause);
                node::kill(pid);
            })
        };
        let spawn = |client: &mut node::Asker, number: u32| {
            let spec = Box::new(node.spec(&format!("w{number}"), "exec sleep 1000"));
            matches!(client.client.ask(Ask::Spawn { spec }), Ok(Answer::Spawned(_)))
        };
        let mut answered = Vec::new();
        while spawn(&mut client, number) {
            answered.push(format!("w{number}"));
            number += 1;
        }
        number += 1;
        killer.join().unwrap();
        node.kill();
        node.again();
        let mut alive = node.client().list().0;
        for id in &answered {
            assert!(alive.iter().any(|p| p.id == *id), "{id} was promised");
        }
        let mut known: Vec<u32> = alive.drain(..).map(|p| p.pid).collect();
        known.sort();
        until("the unknown ones are gone", || {
            let mut marked = node.marked_processes();
            marked.sort();
            marked == known
        });
    }
}

#[test]
fn output_of_what_cannot_be_found_is_still_copied_and_its_fifo_removed_when_it_ends() {
    let node = Node::with(Setup { cgroups: false, ..Setup::default() });
    let mut client = node.watching();
    let stray = "while [ ! -e go ]; do sleep 0.02; done; echo the stray says so";
    client.spawn("a", &format!("env -i PATH=$PATH setsid -f sh -c '{stray}'; sleep 1"));
    assert_eq!(client.exit_of("a").left_behind, 0);
    let fifos = || fs::read_dir(node.home().join("var/run/fifo")).unwrap().count();
    assert_eq!(fifos(), 1);
    fs::write(node.home().join("go"), "").unwrap();
    until("the words of the stray", || node.log("a") == "the stray says so\n");
    until("no FIFO", || fifos() == 0);
}

#[test]
fn a_hundred_processes_start_and_stop_quickly_without_cgroups() {
    let mut node = Node::with(Setup { cgroups: false, ..Setup::default() });
    let mut client = node.client();
    let start = Instant::now();
    for number in 0..100 {
        client.spawn(&format!("w{number}"), "exec sleep 1000");
    }
    assert_eq!(client.list().0.len(), 100);
    client.done(Ask::Shutdown);
    assert_eq!(node.wait(), Some(0));
    // Ten seconds and more of it are the machine's, when it is slow.
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    assert_eq!(node.marked_processes(), Vec::<u32>::new());
}

#[test]
fn a_signal_to_end_is_told_to_those_who_watch_and_obeyed_after_the_grace() {
    let mut node = Node::with(Setup { grace_ms: 700, ..Setup::default() });
    let mut client = node.watching();
    client.spawn("a", "sleep 1000");
    let start = Instant::now();
    node.signal(SIGTERM);
    let notices = client.client.notices(Duration::from_secs(5)).unwrap();
    assert_eq!(notices.first(), Some(&Notice::Ending { grace_ms: 700 }));
    client.notices.extend(notices);
    assert_eq!(client.exit_of("a").ended, Ended::Signalled { signal: SIGTERM });
    assert!(start.elapsed() >= Duration::from_millis(700));
    assert_eq!(node.wait(), Some(0));
}

#[test]
fn clients_that_do_not_behave_are_cut_and_disturb_nobody() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    let node = Node::start();
    let mut good = node.client();
    good.spawn("a", "sleep 1000");
    let socket = mfserv_keeper::socket_path(&node.home());
    let connect = || UnixStream::connect(&socket).unwrap();
    for garbage in [&b"\xff\xff\xff\xff"[..], b"\0\0\0\x02{]", b"\0\0\0\x02{}"] {
        let mut bad = connect();
        bad.write_all(garbage).unwrap();
        assert_eq!(bad.read(&mut [0; 16]).unwrap_or(0), 0, "{garbage:?} is cut");
    }
    let unknown = br#"{"seq":3,"ask":"dance"}"#;
    let mut newer = connect();
    newer.write_all(&(unknown.len() as u32).to_be_bytes()).unwrap();
    newer.write_all(unknown).unwrap();
    let mut answer = [0; 512];
    let count = newer.read(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer[4..count]).into_owned();
    assert!(answer.contains(r#""seq":3"#) && answer.contains("refused"), "{answer}");

    let mut deaf = connect();
    deaf.set_nonblocking(true).unwrap();
    let list = mfserv_core::wire::frame::encode(&mfserv_core::wire::keeper::Request {
        seq: 1,
        ask: Ask::List,
    })
    .unwrap();
    let mut sent = 0;
    until("the deaf one is cut", || {
        for _ in 0..20_000 {
            match deaf.write(&list) {
                Ok(count) => sent += count,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => return true,
            }
        }
        assert_eq!(good.list().0.len(), 1, "another client is served meanwhile");
        false
    });
    let _many: Vec<UnixStream> = (0..100).map(|_| connect()).collect();
    assert_eq!(good.list().0.len(), 1);
}

#[test]
fn nobody_at_the_socket_means_not_running() {
    let home = tempfile::tempdir().unwrap();
    let error = Client::connect(&mfserv_keeper::socket_path(home.path()), "cli").err().unwrap();
    assert_eq!(error.kind, Kind::NotRunning);
    assert!(start_ticks(std::process::id()).unwrap() > 0);
}
