//! Sessions that are resumed.

use std::os::unix::fs::PermissionsExt;

use super::kit::{Authority, python, serving, settings, tls_table};
use crate::world::{Worker, World};

/// A client that keeps sessions, of the version in its first argument. It waits for a line of
/// `go` before each round of connections, and says how many of them were resumed.
const ROUNDS: &str = r#"
c = context()
version = getattr(ssl.TLSVersion, sys.argv[1])
c.minimum_version = c.maximum_version = version
def get(session=None):
    s = connect(c, session=session)
    s.sendall(b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert answer(s)[1] == b"hello"
    return s.session_reused, s.session
first = get()[1]
d = os.environ["DIR"]
for round in range(int(sys.argv[2])):
    # Sessions of several connections: they come to all threads.
    resumed = 0
    for n in range(20):
        reused, session = get(first)
        resumed += reused
    print(resumed, flush=True)
    open(os.path.join(d, "did%d" % round), "w").close()
    while round + 1 < int(sys.argv[2]) and not os.path.exists(os.path.join(d, "go%d" % round)):
        time.sleep(0.01)
"#;

#[test]
fn a_session_is_resumed_on_every_thread() {
    for version in ["TLSv1_2", "TLSv1_3"] {
        let world = World::with_tls();
        let worker = Worker::saying(&world, 1, "hello");
        let ca = Authority::new(&world);
        ca.issue(&world, "server", &["localhost"]);
        let mut table = tls_table(&world, settings(&world, "server"));
        table.server.threads = 4;
        let _front = world.serving(table, &[&worker]);
        assert_eq!(python(&world, &ca, ROUNDS, &[version, "1"]).trim(), "20", "{version}");
    }
}

#[test]
fn a_session_is_resumed_by_the_front_that_comes_next_after_a_handover_or_a_kill() {
    for version in ["TLSv1_2", "TLSv1_3"] {
        let world = World::with_tls();
        let worker = Worker::saying(&world, 1, "hello");
        let (mut first, ca) = serving(&world, &[&worker]);
        let said = std::thread::scope(|scope| {
            let client = scope.spawn(|| python(&world, &ca, ROUNDS, &[version, "3"]));
            let table = || tls_table(&world, settings(&world, "server"));
            crate::world::until("a round", || world.path("did0").exists());
            // The next one serves before the first one ends.
            let mut second = world.front(2);
            second.daemon.publish(1, table(), &[&worker]);
            first.signal(rustix::process::Signal::TERM);
            assert!(first.ended().success());
            std::fs::write(world.path("go0"), "").unwrap();
            crate::world::until("a round", || world.path("did1").exists());
            second.child.kill().unwrap();
            second.ended();
            let mut third = world.front(3);
            third.daemon.publish(1, table(), &[&worker]);
            std::fs::write(world.path("go1"), "").unwrap();
            client.join().unwrap()
        });
        assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["20"; 3], "{version}");
        let keys = std::fs::metadata(world.path("tickets.json")).unwrap();
        assert_eq!(keys.permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn no_key_is_ever_logged() {
    let world = World::with_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let (mut front, ca) = serving(&world, &[&worker]);
    python(&world, &ca, ROUNDS, &["TLSv1_3", "1"]);
    front.signal(rustix::process::Signal::TERM);
    assert!(front.ended().success());
    let secret = std::fs::read_to_string(world.path("server.key")).unwrap();
    let secret = secret.lines().nth(1).unwrap();
    for log in ["nginx_access.log", "nginx_error.log"] {
        let text = std::fs::read_to_string(world.path("log").join(log)).unwrap_or_default();
        assert!(!text.contains(secret) && !text.contains("secret"), "{log}");
    }
}
