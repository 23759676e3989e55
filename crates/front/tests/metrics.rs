//! What a front counts, and how the telemetry role gets it.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::time::Instant;

use mfserv_core::route::{Slots, Target};
use mfserv_core::wire::metrics::{Answerer, FrontCounters, METHODS, Requests, ToTelemetry};
use mfserv_platform::link::Link;

use crate::world::*;

/// The telemetry role's end: what one connection has brought, summed up.
pub struct Receiver {
    link: Link,
    pub last: FrontCounters,
    rows: BTreeMap<(String, Answerer), Requests>,
}

impl Receiver {
    pub fn accept(world: &World) -> Self {
        let path = world.path("metrics.sock");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let mut link = Link::new(listener.accept().unwrap().0);
        let hello = link.receive_until(Instant::now() + PATIENCE).unwrap().unwrap();
        assert!(matches!(hello, ToTelemetry::Hello(_)), "{hello:?}");
        Self { link, last: FrontCounters::default(), rows: BTreeMap::new() }
    }

    /// False when the front has closed the connection.
    pub fn receive(&mut self) -> bool {
        match self.link.receive_until(Instant::now() + PATIENCE) {
            Ok(Some(ToTelemetry::Front(mut front))) => {
                for row in std::mem::take(&mut front.requests) {
                    self.rows.insert((row.plugin.clone(), row.by), row);
                }
                self.last = *front;
                true
            }
            Err(_) => false,
            other => panic!("{other:?}"),
        }
    }

    fn row(&self, plugin: &str, by: Answerer) -> &Requests {
        &self.rows[&(plugin.to_string(), by)]
    }

    fn count(&self) -> u64 {
        self.rows.values().map(|row| row.duration.count()).sum()
    }
}

#[test]
fn every_request_is_counted_once_whatever_clients_invent() {
    let Some(world) = World::where_holds("own_refusals") else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let mut routes = table(Slots::Unlimited, true);
    let files = world.path("files");
    std::fs::create_dir(&files).unwrap();
    std::fs::write(files.join("a.txt"), "a file").unwrap();
    routes.routes.insert(0, route("/files", Target::Static { root: files }));
    let mut front = world.serving(routes, &[&worker]);
    let mut receiver = Receiver::accept(&world);

    for number in 0..20 {
        let head = format!("INVENTED{number} /a/{number} HTTP/1.1\r\nHost: h{number}.example\r\n");
        assert_eq!(ask(front.address, format!("{head}Connection: close\r\n\r\n")).status, 200);
        assert_eq!(front.get(&format!("/nowhere{number}")).status, 404);
    }
    assert_eq!(front.get("/a").status, 200);
    assert_eq!(front.get("/files/a.txt").status, 200);
    assert_eq!(ask(front.address, "not HTTP at all\r\n\r\n").status, 400);
    until("everything is counted", || {
        receiver.receive();
        receiver.count() == 43
    });

    assert_eq!(receiver.rows.len(), 3, "neither paths nor hosts make rows: {:?}", receiver.rows);
    let app = receiver.row("p", Answerer::Dynamic);
    assert_eq!((app.app.as_str(), &app.statuses[..]), ("a", &[(200, 21)][..]));
    assert_eq!((app.methods[0], app.methods[METHODS.len()]), (1, 20), "{:?}", app.methods);
    assert_eq!(app.wait.count(), 21);
    assert!(app.received > 21 * 40 && app.sent > 21 * 40, "{app:?}");
    assert!(app.exemplars.iter().all(|one| one.id.len() == 32), "{:?}", app.exemplars);
    let of_files = receiver.row("p", Answerer::Static);
    assert_eq!((of_files.duration.count(), of_files.received > 0), (1, true));
    let unknown = receiver.row("#unknown#", Answerer::Front);
    let mut faults = unknown.faults.clone();
    faults.sort();
    assert_eq!(faults, [("bad_request".to_string(), 1), ("no_route".to_string(), 20)]);
    assert_eq!(receiver.last.load.len(), 1);

    // A role that comes later gets everything, and the last request of a front that ends.
    drop(receiver);
    let mut receiver = Receiver::accept(&world);
    receiver.receive();
    assert_eq!(receiver.count(), 43);
    assert_eq!(front.get("/a").status, 200);
    front.signal(rustix::process::Signal::TERM);
    while receiver.receive() {}
    assert_eq!(receiver.count(), 44);
    assert!(front.ended().success());
}

#[test]
fn the_time_that_a_request_waits_for_a_slot_is_counted() {
    let world = World::new();
    let (release, released) = std::sync::mpsc::sync_channel::<()>(2);
    let released = std::sync::Mutex::new(released);
    let worker = Worker::start(&world, 1, move |stream, _| {
        released.lock().unwrap().recv().unwrap();
        use std::io::Write;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        true
    });
    let mut front = world.serving(table(ONE, true), &[&worker]);
    let mut receiver = Receiver::accept(&world);
    let address = front.address;
    let asks: Vec<_> = (0..2).map(|_| std::thread::spawn(move || get(address, "/a"))).collect();
    until("one has the slot and one waits", || {
        receiver.receive();
        let load = &receiver.last.load[0];
        (load.in_flight, load.waiting) == (1, 1)
    });
    for _ in 0..2 {
        release.send(()).unwrap();
    }
    for ask in asks {
        assert_eq!(ask.join().unwrap().status, 200);
    }
    until("both are counted", || {
        receiver.receive();
        receiver.count() == 2
    });
    let row = receiver.row("p", Answerer::Dynamic);
    assert_eq!(row.wait.buckets[0], 1, "one had its slot at once: {row:?}");
    assert!(row.wait.sum_us > 1_000 && row.wait.sum_us < row.duration.sum_us, "{row:?}");
    assert_eq!(front.daemon.stats().requests, 2);
}
