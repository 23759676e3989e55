//! What is learnt of requests that wait at a worker.

use super::*;

#[test]
fn a_kind_of_requests_is_short_though_it_has_waited_at_a_worker() {
    let world = World::new();
    let ([one], tell) = workers(&world);
    let mut routes = deep(8);
    routes.upstreams.get_mut("p/a").unwrap().timeout_ms = NEVER_MS;
    let mut front = world.serving(routes, &[&one.worker]);
    let get = |target: &str| format!("GET /a/{target} HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut first = vec![Client::connect(front.address)];
    let mut others: Vec<Client> = (0..6).map(|_| Client::connect(front.address)).collect();
    until("the others wait at the worker, before and after", || {
        for target in ["page", "first", "other"].repeat(32) {
            ask(&mut first, &get(target));
            answered(&mut first);
        }
        let before = front.daemon.stats().upstreams["p/a"].clone();
        ask(&mut first, &get("first?hold"));
        ask(&mut others, &get("other"));
        until("all have come", || {
            let now = &front.daemon.stats().upstreams["p/a"];
            let answered = now.by_class[1] - before.by_class[1];
            answered + now.in_flight.values().sum::<u64>() + now.waiting == 7
        });
        let now = &front.daemon.stats().upstreams["p/a"];
        let all_wait = now.by_class == before.by_class && now.behind == before.behind + 6;
        if all_wait {
            // A kind that took so long would not be short for its next hundred requests.
            std::thread::sleep(Duration::from_millis(300));
        }
        tell.send(()).unwrap();
        answered(&mut first);
        answered(&mut others);
        let before = behind(&mut front);
        std::thread::scope(|scope| {
            for client in &mut others {
                scope.spawn(|| (0..15).for_each(|_| drop(client.get("/a/other"))));
            }
        });
        all_wait && behind(&mut front) > before
    });
}
