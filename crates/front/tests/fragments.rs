//! Fragments of plugins that `nginx -t` accepts and nginx does not take, that hang, or that need
//! what others have: the one at fault is left out and named, all others are in force.

mod hosts;
mod locations;
mod slowness;

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use mfserv_core::route::{AppFragments, Fragment, Fragments, RouteTable, Slots};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};

use crate::world::*;

/// What a plugin brings along inside `http` and inside the server.
pub fn brings(table: &mut RouteTable, plugin: &str, http: &str, server: &str) {
    let fragment = |file: &str, text: &str| {
        let fragment = Fragment { file: file.into(), text: text.into() };
        Some(fragment).filter(|_| !text.is_empty())
    };
    let (http, server) = (fragment("http.conf", http), fragment("server.conf", server));
    table.fragments.insert(plugin.into(), Fragments { http, server, ..Fragments::default() });
}

/// A table with a plugin `good` whose page `/good` nginx answers.
pub fn with_good() -> RouteTable {
    let mut table = table(Slots::Unlimited, true);
    brings(&mut table, "good", "", &page("good"));
    table
}

/// A location of nginx's own.
pub fn page(name: &str) -> String {
    format!("location = /{name} {{ return 200 {name}; }}\n")
}

/// The master of nginx of a front.
pub fn master(front: &Front) -> Option<u32> {
    below(front.child.id(), "master").pop()
}

/// True if the front has no nginx, or its nginx has been told to end.
pub fn is_ending(front: &Front) -> bool {
    master(front).is_none_or(|master| !below(master, "worker process is shutting").is_empty())
}

/// The processes of nginx below another process.
pub fn below(parent: u32, what: &str) -> Vec<u32> {
    let all = mfserv_platform::proc::processes(Path::new("/proc"));
    let below = all.iter().filter(|process| process.parent == parent && process.state != 'Z');
    let is_wanted = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).starts_with(&format!("nginx: {what}"))
    };
    below.map(|process| process.pid).filter(is_wanted).collect()
}

/// Kills the master of nginx, and waits until another one serves in the place of its workers.
fn kill_master(front: &Front) {
    let before = master(front).unwrap();
    let pid = Pid::from_raw(i32::try_from(before).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    until("there is another nginx", || {
        let has_next = master(front).is_some_and(|now| now != before);
        has_next && below(front.child.id(), "worker").is_empty()
    });
}

/// What the front says while it looks, for longer than the daemon is kept waiting.
const LOOKS: &str = "nginx still looks";

/// What the front says of fragments, when it knows which ones nginx has.
pub fn said(front: &mut Front) -> String {
    let mut said = String::new();
    until("nginx has looked at the fragments", || {
        said = warnings(front);
        !said.contains(LOOKS)
    });
    said
}

/// Without limits of this machine, which a front says too.
fn warnings(front: &mut Front) -> String {
    let mut all = front.daemon.stats().warnings;
    all.retain(|_, warned| warned.is_of_routes);
    all.into_keys().collect::<Vec<_>>().join("\n")
}

fn serves(front: &Front, path: &str) -> bool {
    front.get(path).status == 200
}

const RAISES: &str = "init_by_lua_block {\n  error(\"boom\")\n}\n";

#[test]
fn a_fragment_that_passes_the_check_and_is_not_taken_is_left_out_alone_and_a_killed_nginx_comes_back()
 {
    let Some(world) = World::with_lua() else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let mut table = with_good();
    let mut front = world.serving(table.clone(), &[&worker]);
    said(&mut front);
    // Another plugin is new too, and nobody but the one at fault is left out.
    brings(&mut table, "bad", RAISES, &page("bad"));
    brings(&mut table, "new", "", &page("new"));
    front.daemon.publish(2, table.clone(), &[&worker]);
    said(&mut front);
    for path in ["/good", "/new", "/bad", "/a"] {
        assert!(serves(&front, path), "{path}");
    }
    let warned = said(&mut front);
    assert!(warned.contains("plugin bad: http.conf (in http) is left out"), "{warned}");
    assert!(warned.contains("boom") && warned.contains("(its line 1)"), "{warned}");
    kill_master(&front);
    until("nginx answers again", || serves(&front, "/good") && serves(&front, "/new"));
    // A change of another plugin's: the bad one is tried again, and nothing goes.
    brings(&mut table, "new", "", &page("newer"));
    front.daemon.publish(3, table.clone(), &[&worker]);
    said(&mut front);
    assert!(serves(&front, "/good") && serves(&front, "/newer") && serves(&front, "/a"));
    assert!(said(&mut front).contains("plugin bad"));
    brings(&mut table, "bad", "init_by_lua_block {\n  fine = 1\n}\n", &page("bad"));
    front.daemon.publish(4, table, &[&worker]);
    assert_eq!(said(&mut front), "");
}

#[test]
fn a_fragment_that_is_not_taken_at_the_first_start_is_left_out_alone() {
    let Some(world) = World::with_lua() else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let mut table = with_good();
    brings(&mut table, "bad", RAISES, "");
    let mut front = world.serving(table, &[&worker]);
    said(&mut front);
    assert!(serves(&front, "/good") && serves(&front, "/a"));
    let warned = said(&mut front);
    assert!(warned.contains("plugin bad: http.conf (in http) is left out"), "{warned}");
    assert!(!warned.contains("plugin good"), "{warned}");
}

#[test]
fn a_fragment_with_which_nginx_cannot_start_any_more_is_found_when_its_master_has_died() {
    let Some(world) = World::with_lua() else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let mut table = with_good();
    let trap = world.path("trap");
    let lua = format!("if io.open(\"{}\") then error(\"a trap\") end", trap.display());
    brings(&mut table, "later", &format!("init_by_lua_block {{ {lua} }}\n"), &page("later"));
    let mut front = world.serving(table, &[&worker]);
    assert_eq!(said(&mut front), "");
    std::fs::write(&trap, "").unwrap();
    kill_master(&front);
    until("the plugin is named", || said(&mut front).contains("plugin later: http.conf"));
    for path in ["/good", "/later", "/a"] {
        assert!(serves(&front, path), "{path}");
    }
}

#[test]
fn a_fragment_whose_port_only_nginx_knows_to_be_taken_is_left_out_alone_and_named() {
    let Some(world) = World::with_lua() else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut table = with_good();
    // A name is resolved by nginx alone.
    let server = format!("server {{ listen localhost:{}; }}\n", busy.local_addr().unwrap().port());
    brings(&mut table, "busy", &server, &page("busy"));
    let mut front = world.serving(table, &[&worker]);
    said(&mut front);
    // nginx tries five times to have the port, each time.
    until("the plugin is named", || said(&mut front).contains("plugin busy: http.conf (in http)"));
    for path in ["/good", "/busy", "/a"] {
        assert!(serves(&front, path), "{path}");
    }
    assert!(said(&mut front).contains("Address already in use"));
}

/// Makes `nginx -t` hang: it reads a FIFO into which nobody writes.
fn hangs(fifo: &Path) -> String {
    format!("include {};\n", fifo.display())
}

#[test]
fn a_check_that_hangs_delays_neither_the_first_start_nor_a_new_nginx_nor_the_end() {
    let Some(world) = World::with_lua() else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let (fifo, mut generation) = (world.path("fifo"), 1);
    mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let mut table = with_good();
    brings(&mut table, "slow", &hangs(&fifo), &page("slow"));
    let mut front = world.front(1);
    // The first start: clients are served before anything is known of the fragment, and the daemon is
    // answered before it takes the front for one that hangs.
    let mut publish = |front: &mut Front, table: &RouteTable| {
        let (began, next) = (Instant::now(), generation);
        generation += 1;
        front.daemon.publish(next, table.clone(), &[&worker]);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    };
    publish(&mut front, &table);
    assert!(serves(&front, "/a") && warnings(&mut front).contains(LOOKS));
    until("the plugin is named", || said(&mut front).contains("plugin slow: http.conf"));
    for path in ["/good", "/slow", "/a"] {
        assert!(serves(&front, path), "{path}");
    }
    // While the next check hangs, nginx dies: the next one does not wait for the check.
    brings(&mut table, "other", &hangs(&fifo), "");
    publish(&mut front, &table);
    publish(&mut front, &table);
    until("nginx is checking", || checks(&front) > 0);
    kill_master(&front);
    assert!(checks(&front) > 0, "the check hangs still");
    until("nginx answers again", || serves(&front, "/good"));
    assert!(checks(&front) > 0, "the check hangs still");
    // And so does the end.
    front.signal(Signal::TERM);
    front.ended();
    assert_eq!(checks(&front), 0, "nothing is left over");
}

/// How many checks of a configuration run.
fn checks(front: &Front) -> usize {
    let all = mfserv_platform::proc::processes(Path::new("/proc"));
    let dir = front.socket.parent().unwrap().display().to_string();
    let is_check = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("\0-t\0") && line.contains(&dir)
    };
    all.iter().filter(|one| is_check(&one.pid)).count()
}

#[test]
fn a_port_of_a_fragment_goes_to_the_next_nginx_and_waits_for_who_has_it() {
    let Some(world) = World::with_lua() else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap();
    let mut table = with_good();
    let server = |text: &str| format!("server {{ listen {address}; return 200 {text}; }}\n");
    brings(&mut table, "own", &server("one"), &page("own"));
    let mut front = world.serving(table.clone(), &[&worker]);
    said(&mut front);
    let warned = said(&mut front);
    let words =
        format!("plugin own: http.conf (in http) is left out: another process has {address}");
    assert!(warned.contains(&words), "{warned}");
    assert!(serves(&front, "/good") && serves(&front, "/own") && serves(&front, "/a"));
    drop(busy);
    let text = || get(address, "/").text();
    until("the port is free, and nginx has it", || said(&mut front).is_empty());
    assert_eq!(text(), "one");
    // Another text with the same port, which nginx has already.
    brings(&mut table, "own", &server("two"), &page("own"));
    front.daemon.publish(2, table.clone(), &[&worker]);
    said(&mut front);
    assert_eq!((said(&mut front).as_str(), text().as_str()), ("", "two"));
    // The workers of a killed nginx have the port until there is another one.
    kill_master(&front);
    until("the next nginx has the port", || said(&mut front).is_empty() && answers(address));
    // A handover: the next front serves all but the port, and gets that from this one.
    let mut next = world.front(2);
    next.daemon.publish(2, table, &[&worker]);
    assert!(said(&mut next).contains(&words) && serves(&next, "/good") && serves(&next, "/own"));
    front.signal(Signal::TERM);
    until("the next nginx has the port", || said(&mut next).is_empty());
    assert_eq!(text(), "two");
    front.ended();
}

#[test]
fn what_needs_a_fragment_that_waits_for_a_port_comes_back_with_it() {
    let Some(world) = World::with_lua() else { return };
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap();
    let mut table = with_good();
    let http = format!(
        "map $arg_x $from_own {{ default own; }}\nserver {{ listen {address}; return 200 one; }}\n"
    );
    brings(&mut table, "own", &http, "location = /own { return 200 $from_own; }\n");
    let mut front = world.serving(table, &[]);
    said(&mut front);
    until("both are left out", || said(&mut front).lines().count() == 2);
    let warned = front.daemon.stats().warnings.into_values();
    let faults = warned.filter(|warned| warned.is_of_routes && warned.is_fault).count();
    assert_eq!(faults, 1, "what waits comes back by itself, the other is a fault");
    drop(busy);
    until("both are in force", || said(&mut front).is_empty());
    assert_eq!(front.get("/own").text(), "own");
}

fn answers(address: std::net::SocketAddr) -> bool {
    std::net::TcpStream::connect(address).is_ok()
}

#[test]
fn only_fragments_at_fault_are_left_out_and_they_come_back_when_another_one_mends_them() {
    let Some(world) = World::with_lua() else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let mut table = with_good();
    let map = |name: &str| format!("map $arg_x ${name} {{ default of_{name}; }}\n");
    let says = |at: &str, name: &str| format!("location = /{at} {{ return 200 ${name}; }}\n");
    // `b` needs what `z` has; two others are broken, one of which opens a block.
    brings(&mut table, "b", "", &says("b", "from_z"));
    brings(&mut table, "c", "no_such_directive on;\n", "");
    brings(&mut table, "d", "", "location = /d { return 200;\n");
    brings(&mut table, "z", &map("from_z"), "");
    let mut front = world.serving(table.clone(), &[&worker]);
    said(&mut front);
    assert_eq!(front.get("/b").text(), "of_from_z");
    assert!(serves(&front, "/good"));
    let left_out = |front: &mut Front| {
        let said = said(front);
        let names = said.lines().filter_map(|line| line.split([' ', ':']).nth(1));
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(left_out(&mut front), "c d");
    // A new one that takes what another one has: the one that was there stays.
    brings(&mut table, "a", "", &says("b", "from_z"));
    brings(&mut table, "e", "", &says("e", "from_y"));
    front.daemon.publish(2, table.clone(), &[&worker]);
    said(&mut front);
    assert_eq!(left_out(&mut front), "a c d e");
    assert_eq!(front.get("/b").text(), "of_from_z");
    // What `e` needed comes with `y`, and `a` has its place when `b` has gone.
    brings(&mut table, "y", &map("from_y"), "");
    table.fragments.remove("b");
    front.daemon.publish(3, table, &[&worker]);
    said(&mut front);
    assert_eq!(left_out(&mut front), "c d");
    assert_eq!(
        (front.get("/e").text(), front.get("/b").text()),
        ("of_from_y".into(), "of_from_z".into())
    );
}

#[test]
fn fields_that_fragments_add_take_nothing_from_what_is_answered() {
    let Some(world) = World::with_lua() else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let mut table = table(Slots::Unlimited, true);
    table.server.add_request_id = true;
    table.server.max_body_bytes = 10;
    let own = format!("add_header X-Server yes;\n{}", page("own"));
    brings(&mut table, "p", "add_header X-Http yes;\n", &own);
    brings_to_app(&mut table, "add_header X-App yes;\n");
    let mut front = world.serving(table, &[&worker]);
    said(&mut front);
    let large =
        "POST /other HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 11\r\n\r\n";
    let large = ask(front.address, large);
    assert_eq!((large.status, large.field("x-mfserv-cause")), (413, vec!["too_large".into()]));
    assert_eq!(large.field("x-request-id").len(), 1, "{large:?}");
    for (path, field) in [("/own", "x-server"), ("/a", "x-app"), ("/nothing", "x-request-id")] {
        let answer = front.get(path);
        let ids = answer.field("x-request-id");
        assert_eq!((ids.len(), answer.field(field).len()), (1, 1), "{path}: {answer:?}");
        assert_eq!(world.logged("uri", path)["request_id"], *ids[0], "{path}");
    }
}

/// What the app `p/a` brings into its location.
pub fn brings_to_app(table: &mut RouteTable, text: &str) {
    let location = Some(Fragment { file: "a.conf".into(), text: text.into() });
    let app = AppFragments { location, ..AppFragments::default() };
    table.fragments.entry("p".into()).or_default().apps.insert("a".into(), app);
}

#[test]
fn two_fronts_at_a_handover_change_their_configurations_at_the_same_time() {
    let Some(world) = World::with_lua() else { return };
    let mut fronts = [world.front(1), world.front(2)];
    std::thread::scope(|scope| {
        for (number, front) in fronts.iter_mut().enumerate() {
            scope.spawn(move || {
                for round in 1..=6 {
                    let mut table = with_good();
                    brings(&mut table, "p", "", &page(&format!("of_{number}_{round}")));
                    front.daemon.publish(round, table, &[]);
                    assert_eq!(said(front), "", "front {number}, round {round}");
                }
            });
        }
    });
    let shown = || std::fs::read_to_string(world.path("nginx.conf")).unwrap();
    assert!(shown().contains("of_0_6") || shown().contains("of_1_6"));
    fronts[0].signal(Signal::TERM);
    fronts[0].ended();
    assert!(serves(&fronts[1], "/of_1_6"));
    let names = std::fs::read_dir(world.path("nginx")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.ends_with(".conf")).collect::<Vec<_>>(), ["front.2.conf"]);
}
