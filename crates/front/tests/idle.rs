//! Which workers have nothing in hand, as the daemon is told.

use std::collections::BTreeMap;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use mfserv_core::route::Slots;
use mfserv_core::wire::front::{FromFront, ToFront};

use crate::endpoints::{base64url, post};
use crate::world::*;

/// How long a worker has had nothing in hand, milliseconds; `None`: it has something.
fn quiet_ms(front: &mut Front, worker: &Worker) -> Option<u64> {
    let workers = BTreeMap::from([(worker.app.clone(), vec![worker.id.clone()])]);
    front.daemon.say(&ToFront::Idle { workers });
    match front.daemon.wait_for(|m| matches!(m, FromFront::Idle { .. })) {
        FromFront::Idle { quiet } => {
            quiet.into_iter().find(|(id, _)| *id == worker.id).map(|q| q.1)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_worker_is_idle_from_the_end_of_its_last_answer_on_and_not_while_it_has_a_request() {
    for slots in [ONE, Slots::Unlimited] {
        let world = World::new();
        let (tell, told) = mpsc::channel::<()>();
        let told = Mutex::new(told);
        let worker = Worker::start(&world, 1, move |stream, received| {
            if received.target() == "/a/slow" {
                told.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            }
            say(stream, "ok")
        });
        let began = Instant::now();
        let mut front = world.serving(table(slots, true), &[&worker]);
        until("it has been idle for a while", || quiet_ms(&mut front, &worker) > Some(300));
        assert!(began.elapsed() >= Duration::from_millis(300), "it is counted from its admission");
        let mut client = Client::connect(front.address);
        client.send("GET /a/slow HTTP/1.1\r\nHost: h\r\n\r\n");
        until("it is busy", || worker.count() == 1);
        assert_eq!(quiet_ms(&mut front, &worker), None);
        let served = Instant::now();
        tell.send(()).unwrap();
        assert_eq!(client.receive().unwrap().text(), "ok");
        let quiet = quiet_ms(&mut front, &worker).expect("nothing in hand");
        assert!(u128::from(quiet) <= served.elapsed().as_millis(), "{quiet} ms");
    }
}

#[test]
fn a_worker_whose_client_has_gone_is_at_work_until_the_timeout_of_its_app() {
    const TIMEOUT: Duration = Duration::from_secs(4);
    let world = World::new();
    let worker = Worker::start(&world, 1, |stream, received| {
        if received.target() == "/a/slow" {
            // Its work, in which nothing is to be seen.
            std::thread::sleep(TIMEOUT / 2);
        }
        say(stream, "ok")
    });
    let mut limited = table(ONE, true);
    limited.upstreams.get_mut("p/a").unwrap().timeout_ms = TIMEOUT.as_millis() as u64;
    let mut front = world.serving(limited, &[&worker]);
    let mut client = Client::connect(front.address);
    client.send("GET /a/slow HTTP/1.1\r\nHost: h\r\n\r\n");
    until("it is in the worker", || worker.count() == 1);
    let left = Instant::now();
    drop(client);
    until("the front has let it go", || {
        front.daemon.stats().upstreams["p/a"].in_flight[&worker.id.to_string()] == 0
    });
    assert_eq!(quiet_ms(&mut front, &worker), None, "the worker does not know");
    until("its time is over", || quiet_ms(&mut front, &worker).is_some());
    assert!(left.elapsed() >= TIMEOUT, "{:?}", left.elapsed());
}

#[test]
fn a_worker_that_is_unknown_draining_or_declared_down_is_not_called_idle() {
    let world = World::new();
    let first = Worker::saying(&world, 1, "first");
    let second = Worker::saying(&world, 2, "second");
    let stranger = Worker::saying(&world, 3, "stranger");
    let mut front = world.serving(table(ONE, true), &[&first, &second]);
    assert_eq!(quiet_ms(&mut front, &stranger), None);
    assert!(quiet_ms(&mut front, &first).is_some() && quiet_ms(&mut front, &second).is_some());
    front.daemon.drain(&second);
    front.daemon.drained(&second);
    assert_eq!(quiet_ms(&mut front, &second), None);
    let link = world.path("app.p.a.1.socket").display().to_string();
    let down = format!("/__socket_down/{}", base64url(&link));
    assert_eq!(post(front.address, &down, "").status, 200);
    assert_eq!(quiet_ms(&mut front, &first), None);
}
