//! What the daemon and the keeper are told and what they can say.

use std::collections::BTreeMap;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use mfserv_core::route::{Slots, Target};
use mfserv_core::wire::frame;
use mfserv_core::wire::front::{FromFront, ToFront};
use mfserv_core::wire::keeper::{Answer as Told, Ask, Request, Response};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::world::*;

#[test]
fn nothing_is_accepted_before_the_first_table() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut front = world.front(1);
    match &front.daemon.hello {
        FromFront::Hello { generation: 0, pid, peers, .. } => {
            assert_eq!((*pid, peers.len()), (front.child.id(), 0));
        }
        other => panic!("{other:?}"),
    }
    let mut client = Client::connect(front.address);
    client.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(front.daemon.stats().accepted, 0);
    front.daemon.publish(1, table(ONE, true), &[&worker]);
    assert_eq!(client.receive().unwrap().text(), "ok");
    let mode = std::fs::metadata(&front.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn an_unusable_table_is_refused_and_changes_nothing() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut front = world.front(1);
    front.daemon.publish(7, table(ONE, true), &[&worker]);
    let good = table(ONE, true);
    let mut bad = Vec::new();
    for change in [
        route("no-slash", Target::Fixed { status: 200, body: String::new() }),
        route("/x", Target::Upstream { name: "p/unknown".into() }),
        route("/x", Target::Static { root: "relative".into() }),
        route("/x", Target::Fixed { status: 1, body: String::new() }),
    ] {
        let mut table = good.clone();
        table.routes.push(change);
        bad.push((8, table));
    }
    let mut pattern = good.clone();
    pattern.routes[0].pattern = true;
    pattern.routes[0].prefix = "/(".into();
    bad.push((8, pattern));
    bad.push((8, table(Slots::Finite { per_worker: 0 }, true)));
    bad.push((6, good));
    for (generation, table) in bad {
        let peers = BTreeMap::new();
        front.daemon.say(&ToFront::Publish { generation, table: Box::new(table), peers });
        front.daemon.wait_for(
            |m| matches!(m, FromFront::Refused { generation: g, .. } if *g == generation),
        );
        assert_eq!(front.get("/a").text(), "ok");
    }
}

#[test]
fn a_worker_is_drained_when_it_holds_nothing_any_more() {
    let world = World::new();
    let (tell, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let worker = Worker::start(&world, 1, move |stream, received| {
        if received.target() == "/a/wait" {
            told.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        say(stream, "old")
    });
    let other = Worker::saying(&world, 2, "new");
    let mut front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    // An idle connection beside the busy one.
    let mut busy = Client::connect(front.address);
    busy.send("GET /a/wait HTTP/1.1\r\nHost: h\r\n\r\n");
    until("the worker is busy", || worker.count() == 1);
    front.get("/a");
    front.daemon.admit(&other);
    front.daemon.drain(&worker);
    until("the idle connection is closed", || worker.open.load(Ordering::SeqCst) == 1);
    for _ in 0..10 {
        assert_eq!(front.get("/a").text(), "new");
    }
    let early = |m: &FromFront| matches!(m, FromFront::Drained { .. });
    assert!(!front.daemon.says(early, Duration::from_millis(100)));
    tell.send(()).unwrap();
    front.daemon.drained(&worker);
    assert_eq!(busy.receive().unwrap().text(), "old");
    until("its connection is closed", || worker.open.load(Ordering::SeqCst) == 0);
    // Unknown ones are drained at once.
    front.daemon.drain(&worker);
    front.daemon.drained(&worker);
}

#[test]
fn a_drain_is_a_barrier_also_after_the_app_has_left_the_table() {
    let world = World::new();
    let (tell, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let worker = Worker::start(&world, 1, move |stream, _| {
        told.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        say(stream, "old")
    });
    let mut front = world.serving(table(ONE, true), &[&worker]);
    let mut busy = Client::connect(front.address);
    busy.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
    until("the worker is busy", || worker.count() == 1);
    let mut without = table(ONE, true);
    without.routes.clear();
    without.upstreams.clear();
    front.daemon.publish(2, without, &[]);
    assert_eq!(front.get("/a").status, 404);
    front.daemon.drain(&worker);
    let early = |m: &FromFront| matches!(m, FromFront::Drained { .. });
    assert!(!front.daemon.says(early, Duration::from_millis(100)));
    tell.send(()).unwrap();
    front.daemon.drained(&worker);
    assert_eq!(busy.receive().unwrap().text(), "old");
}

/// Clients with and without keep-alive that ask until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(front: &Front, clients: usize) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let address = front.address;
        let clients = (0..clients)
            .map(|number| {
                let (stop, served) = (stop.clone(), served.clone());
                std::thread::spawn(move || {
                    let mut failed = Vec::new();
                    let mut client = Client::connect(address);
                    while !stop.load(Ordering::SeqCst) {
                        client.send(match number % 2 {
                            0 => "GET /a HTTP/1.1\r\nHost: h\r\n\r\n",
                            _ => "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi",
                        });
                        match client.receive() {
                            Some(answer) if answer.status == 200 && answer.whole => {
                                served.fetch_add(1, Ordering::SeqCst);
                                if answer.field("connection") == ["close"] {
                                    client = Client::connect(address);
                                }
                            }
                            other => failed.push(format!("{other:?}")),
                        }
                    }
                    failed
                })
            })
            .collect();
        Self { stop, served, clients }
    }

    /// Waits until so many more requests were served.
    fn serves(&self, more: usize) {
        let goal = self.served.load(Ordering::SeqCst) + more;
        until("requests are served", || {
            self.served.load(Ordering::SeqCst) >= goal
                || self.clients.iter().any(|client| client.is_finished())
        });
    }

    /// The failed requests.
    fn finish(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    }
}

#[test]
fn tables_and_workers_change_under_load_and_nothing_is_lost() {
    for slots in [ONE, Slots::Unlimited] {
        let world = World::new();
        let mut old = Worker::saying(&world, 1, "ok");
        let mut front = world.serving(table(slots, true), &[&old]);
        let load = Load::start(&front, 8);
        for round in 2..12 {
            let new = Worker::saying(&world, round, "ok");
            if round % 2 == 0 {
                front.daemon.publish(round.into(), table(slots, true), &[&new]);
                front.daemon.drain(&old);
            } else {
                front.daemon.admit(&new);
                front.daemon.drain(&old);
            }
            front.daemon.drained(&old);
            until("it is left alone", || old.open.load(Ordering::SeqCst) == 0);
            let before = old.count();
            load.serves(100);
            assert_eq!(old.count(), before, "a drained worker got a request");
            old = new;
        }
        assert_eq!(load.finish(), [""; 0]);
    }
}

#[test]
fn a_front_goes_on_without_its_daemon_and_tells_the_next_one_what_it_has() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut front = world.serving(table(ONE, true), &[&worker]);
    let load = Load::start(&front, 4);
    for _ in 0..5 {
        front.daemon = Daemon::connect(&front.socket);
        match &front.daemon.hello {
            FromFront::Hello { generation: 1, peers, .. } => {
                assert_eq!(peers["p/a"], [worker.peer()]);
            }
            other => panic!("{other:?}"),
        }
        load.serves(50);
    }
    assert_eq!(load.finish(), [""; 0]);
    // Nonsense on the control socket costs that connection only.
    let mut bad = UnixStream::connect(&front.socket).unwrap();
    bad.write_all(&[255; 64]).unwrap();
    let mut rest = Vec::new();
    let _ = bad.read_to_end(&mut rest);
    assert_eq!(front.get("/a").text(), "ok");
    assert_eq!(front.daemon.stats().upstreams["p/a"].in_flight.len(), 1);
}

#[test]
fn one_front_hands_over_to_another_under_load_and_nothing_is_lost() {
    let Some(world) = World::where_holds("idle_connections") else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let mut old = world.serving(table(ONE, true), &[&worker]);
    let load = Load::start(&old, 16);
    load.serves(200);
    for number in 2..5 {
        let mut new = world.front(number);
        new.daemon.publish(u64::from(number), table(ONE, true), &[&worker]);
        load.serves(100);
        old.signal(rustix::process::Signal::TERM);
        assert!(old.ended().success());
        assert!(!old.socket.exists());
        load.serves(200);
        old = new;
    }
    assert_eq!(load.finish(), [""; 0]);
}

#[test]
fn a_keeper_that_has_lost_the_listening_socket_gets_it_back() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let keeper = UnixListener::bind(world.path("keep.sock")).unwrap();
    let mut front = world.serving(table(ONE, true), &[&worker]);
    for _ in 0..2 {
        let (stream, _) = keeper.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (hello, _) = receive(&stream);
        assert!(matches!(&hello.ask, Ask::Hello { role, .. } if role == "front"));
        send_hello(&stream, hello.seq, vec!["other".into()]);
        let (offer, socket) = receive(&stream);
        let address = world.address.to_string();
        assert_eq!(offer.ask, Ask::Offer { name: "http".into(), address });
        let socket = std::net::TcpListener::from(socket.expect("no descriptor came"));
        assert_eq!(socket.local_addr().unwrap(), world.address);
        // A keeper that has it is offered nothing.
        drop(stream);
        let (stream, _) = keeper.accept().unwrap();
        let (hello, _) = receive(&stream);
        send_hello(&stream, hello.seq, vec!["http".into()]);
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!((&stream).read(&mut [0]).is_err());
    }
    drop(keeper);
    front.signal(rustix::process::Signal::INT);
    assert!(front.ended().success());
}

fn send_hello(mut stream: &UnixStream, seq: u64, listeners: Vec<String>) {
    let answer = Told::Hello { version: 1, pid: 1, adopted: 0, listeners, program: String::new() };
    stream.write_all(&frame::encode(&Response { seq, answer }).unwrap()).unwrap();
}

fn receive(stream: &UnixStream) -> (Request, Option<OwnedFd>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut room = [0; 4096];
    let mut slices = [IoSliceMut::new(&mut room)];
    let got =
        rustix::net::recvmsg(stream, &mut slices, &mut ancillary, RecvFlags::empty()).unwrap();
    let mut descriptor = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut all) = message {
            descriptor = all.next();
        }
    }
    let mut buffer = room[..got.bytes].to_vec();
    (frame::decode(&mut buffer).unwrap().expect("a whole frame"), descriptor)
}

#[test]
fn who_waits_for_an_app_that_is_removed_is_told_at_once() {
    let world = World::new();
    let mut front = world.serving(table(ONE, true), &[]);
    let mut waiting = Client::connect(front.address);
    waiting.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
    until("it waits", || front.daemon.stats().upstreams["p/a"].waiting == 1);
    let mut without = table(ONE, true);
    without.routes.clear();
    without.upstreams.clear();
    front.daemon.publish(2, without, &[]);
    let answer = waiting.receive().unwrap();
    assert_eq!((answer.status, answer.field("x-mfserv-cause")), (503, vec!["removed".into()]));
    assert_eq!(waiting.get("/a").status, 404);
}

#[test]
fn requests_wait_for_the_first_worker_of_an_app() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut front = world.serving(table(ONE, true), &[]);
    let mut clients: Vec<Client> = (0..5).map(|_| Client::connect(front.address)).collect();
    for client in &mut clients {
        client.send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx");
    }
    until("all wait", || front.daemon.stats().upstreams["p/a"].waiting == 5);
    front.daemon.admit(&worker);
    clients.iter_mut().for_each(|client| assert_eq!(client.receive().unwrap().text(), "ok"));
}

/// The names of a front's threads that serve.
fn lanes(front: &Front) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", front.pid())).unwrap();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
    let names = tasks.flatten().filter_map(|task| name(task).ok());
    let mut lanes: Vec<String> = names
        .map(|name| name.trim().into())
        .filter(|name: &String| name.starts_with("lane-"))
        .collect();
    lanes.sort();
    lanes
}

#[test]
fn a_table_with_more_threads_is_served_by_more_from_then_on() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut front = world.front(1);
    let mut kept: Vec<Client> = Vec::new();
    for (generation, threads) in [(1, 1), (2, 3), (3, 2)] {
        let mut table = table(ONE, true);
        table.server.threads = threads;
        front.daemon.publish(generation, table, &[&worker]);
        kept.extend((0..6).map(|_| Client::connect(front.address)));
        // One slot, shared by the clients of all threads; each sees the last table.
        for client in &mut kept {
            assert_eq!(client.get("/a").text(), "ok");
        }
        assert_eq!(lanes(&front).len(), [1, 3, 3][generation as usize - 1]);
    }
    until("all are counted", || front.daemon.stats().requests == 6 + 12 + 18);
    front.daemon.drain(&worker);
    front.daemon.drained(&worker);
}
