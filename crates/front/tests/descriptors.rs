//! Few descriptors: clients that say nothing do not use them up.

use std::fs::DirEntry;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use mfserv_core::route::{Slots, Target};

use crate::heavy::alone;
use crate::world::*;

/// How many descriptors a front has open.
pub fn descriptors(front: &Front) -> usize {
    let open = std::fs::read_dir(format!("/proc/{}/fd", front.pid())).unwrap();
    // Logs are opened by what is first written to them, whenever that is.
    let is_log = |entry: &DirEntry| {
        std::fs::read_link(entry.path())
            .is_ok_and(|file| file.parent().is_some_and(|dir| dir.ends_with("log")))
    };
    open.flatten().filter(|entry| !is_log(entry)).count()
}

#[test]
fn clients_that_say_nothing_give_way_where_descriptors_are_few() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
    let _alone = alone();
    // This process has all these clients.
    let own = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: own.maximum, ..own }).unwrap();
    let Some(world) = World::where_holds("client_limits") else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let mut front = world.front(1);
    let few = Rlimit { current: Some(1024), maximum: Some(1024) };
    prlimit(Some(Pid::from_child(&front.child)), Resource::Nofile, few).unwrap();
    let mut table = table(ONE, true);
    (table.server.max_connections, table.server.header_timeout_ms) = (40_000, NEVER_MS);
    front.daemon.publish(1, table, &[&worker]);
    until("it is said", || {
        let log = std::fs::read_to_string(world.path("log/nginx_error.log"));
        log.is_ok_and(|log| log.contains("at most 720 clients at a time"))
    });
    let silent: Vec<Client> = (0..1100).map(|_| Client::connect(front.address)).collect();
    let began = Instant::now();
    assert_eq!(front.get("/a").text(), "ok");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(descriptors(&front) < 900, "{}", descriptors(&front));
    drop(silent);
}

#[test]
fn the_busy_clients_of_one_app_leave_descriptors_for_other_apps_and_for_files() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
    let _alone = alone();
    let own = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: own.maximum, ..own }).unwrap();
    let Some(world) = World::where_holds("client_limits") else { return };
    let held = Arc::new((Mutex::new(true), Condvar::new()));
    let holding = held.clone();
    let busy = Worker::start(&world, 1, move |stream, _| {
        let (is_held, changed) = &*holding;
        drop(changed.wait_while(is_held.lock().unwrap(), |is_held| *is_held).unwrap());
        say(stream, "at last")
    });
    let other = Worker::start_of(&world, "p/b", 1, true, |stream, _| say(stream, "other"));
    let mut front = world.front(1);
    let few = Rlimit { current: Some(512), maximum: Some(512) };
    prlimit(Some(Pid::from_child(&front.child)), Resource::Nofile, few).unwrap();
    let mut table = table(Slots::Unlimited, true);
    let app = table.upstreams.get_mut("p/a").unwrap();
    (app.timeout_ms, app.queue_timeout_ms) = (NEVER_MS, NEVER_MS);
    let second = app.clone();
    table.upstreams.insert("p/b".into(), second);
    let mut route_of_second = route("/b", Target::Upstream { name: "p/b".into() });
    route_of_second.app = "b".into();
    table.routes.push(route_of_second);
    std::fs::create_dir(world.path("files")).unwrap();
    std::fs::write(world.path("files/a.txt"), "file").unwrap();
    table.routes.push(route("/files", Target::Static { root: world.path("files") }));
    front.daemon.publish(1, table, &[&busy, &other]);
    // Each would take two descriptors: one for itself, one for the worker.
    let mut clients: Vec<Client> = (0..300).map(|_| Client::connect(front.address)).collect();
    clients.iter_mut().for_each(|client| client.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n"));
    let is_said = |front: &mut Front| {
        front
            .daemon
            .stats()
            .warnings
            .keys()
            .any(|text| text.starts_with("app p/a: it has its share"))
    };
    until("it has its share", || is_said(&mut front));
    for (path, text) in [("/b", "other"), ("/files/a.txt", "file"), ("/b", "other")] {
        let began = Instant::now();
        assert_eq!(front.get(path).text(), text);
        assert!(began.elapsed() < Duration::from_secs(10), "{path}: {:?}", began.elapsed());
    }
    let warnings = front.daemon.stats().warnings;
    let few = warnings.keys().any(|text| text.contains("this process may have 512 descriptors"));
    assert!(few, "{warnings:?}");
    *held.0.lock().unwrap() = false;
    held.1.notify_all();
    for client in &mut clients {
        assert_eq!(client.receive().expect("an answer").text(), "at last");
    }
}
