//! Few descriptors: clients that say nothing do not use them up.

use std::time::{Duration, Instant};

use crate::heavy::alone;
use crate::world::*;

/// How many descriptors a front has open.
pub fn descriptors(front: &Front) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", front.child.id())).unwrap().count()
}

#[test]
fn clients_that_say_nothing_give_way_where_descriptors_are_few() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
    let _alone = alone();
    // This process has all these clients.
    let own = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: own.maximum, ..own }).unwrap();
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut front = world.front(1);
    let few = Rlimit { current: Some(1024), maximum: Some(1024) };
    prlimit(Some(Pid::from_child(&front.child)), Resource::Nofile, few).unwrap();
    let mut table = table(ONE, true);
    (table.server.max_connections, table.server.header_timeout_ms) = (40_000, 60_000);
    front.daemon.publish(1, table, &[&worker]);
    until("it is said", || {
        let log = std::fs::read_to_string(world.path("log/nginx_error.log"));
        log.is_ok_and(|log| log.contains("at most 720 clients at a time"))
    });
    let silent: Vec<Client> = (0..1100).map(|_| Client::connect(front.address)).collect();
    let began = Instant::now();
    assert_eq!(front.get("/a").text(), "ok");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(descriptors(&front) < 900, "{}", descriptors(&front));
    drop(silent);
}
