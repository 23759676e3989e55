//! Certificates that are replaced while clients come.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::kit::{Authority, connect, python, serving, settings, tls_table, with_directory};
use crate::start::differs;
use crate::world::{Front, Worker, World, until};

fn faults(front: &mut Front) -> Vec<String> {
    let warnings = front.daemon.stats().warnings;
    let faults = warnings.into_iter().filter(|(_, warned)| warned.is_fault);
    faults.map(|(sentence, _)| sentence).collect()
}

/// A client that connects anew for each request, until the file `stop` is there and it has seen
/// the certificate that is named there; it prints how many requests it had, and the common names that
/// it saw, and makes a file `PID.NAME.seen` for each. Any failure ends it.
const LOAD: &str = r#"
n, seen = 0, set()
stop = os.path.join(os.environ["DIR"], "stop")
while not os.path.exists(stop) or open(stop).read() not in seen:
    assert n < 100000
    s = connect()
    s.sendall(b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert answer(s)[1] == b"hello"
    name = dict(part[0] for part in s.getpeercert()["subject"])["commonName"]
    if name not in seen:
        seen.add(name)
        open(os.path.join(os.environ["DIR"], f"{os.getpid()}.{name}.seen"), "w").close()
    n += 1
print(n, " ".join(sorted(seen)))
"#;

#[test]
fn a_certificate_is_renewed_in_each_way_under_load_without_a_failed_handshake() {
    let world = World::with_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let ca = Authority::new(&world);
    ca.issue(&world, "first", &["localhost"]);
    let path = |name: &str| world.path(name);
    for end in ["pem", "key"] {
        std::fs::copy(path(&format!("first.{end}")), path(&format!("server.{end}"))).unwrap();
    }
    let _front = world.serving(tls_table(&world, settings(&world, "server")), &[&worker]);
    // Both clients have seen it: else the next one may come before they have asked once.
    let serves = |name: &str| {
        let ending = format!(".{name}.seen");
        let files = || std::fs::read_dir(world.dir.path()).unwrap().flatten();
        let is_it =
            |file: &std::fs::DirEntry| file.file_name().to_string_lossy().ends_with(&ending);
        until(name, || files().filter(is_it).count() == 2);
    };
    std::thread::scope(|scope| {
        let loads = [0, 1].map(|_| scope.spawn(|| python(&world, &ca, LOAD, &[])));
        serves("first");
        // Written in place, the key a moment later.
        ca.issue(&world, "written", &["localhost"]);
        std::fs::copy(path("written.pem"), path("server.pem")).unwrap();
        std::fs::copy(path("written.key"), path("server.key")).unwrap();
        serves("written");
        // Renamed.
        ca.issue(&world, "renamed", &["localhost"]);
        for end in ["pem", "key"] {
            std::fs::rename(path(&format!("renamed.{end}")), path(&format!("server.{end}")))
                .unwrap();
        }
        serves("renamed");
        // Links that lead elsewhere, as certbot has them.
        for round in ["link1", "link2"] {
            ca.issue(&world, round, &["localhost"]);
            for end in ["pem", "key"] {
                let beside = path("link.new");
                std::os::unix::fs::symlink(path(&format!("{round}.{end}")), &beside).unwrap();
                std::fs::rename(&beside, path(&format!("server.{end}"))).unwrap();
            }
            serves(round);
        }
        // The connection of a client may be older than this certificate.
        std::fs::write(path("stop.new"), "link2").unwrap();
        std::fs::rename(path("stop.new"), path("stop")).unwrap();
        for load in loads {
            let said = load.join().unwrap();
            let (count, seen) = said.trim().split_once(' ').unwrap();
            // Each of the five was seen, which takes longer on a busy machine.
            assert!(count.parse::<u32>().unwrap() > 20, "{said}");
            assert_eq!(seen, "first link1 link2 renamed written");
        }
    });
}

#[test]
fn a_certificate_that_is_broken_while_it_serves_is_said_once_and_serves_until_it_is_corrected() {
    let world = World::with_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let (mut front, ca) = serving(&world, &[&worker]);
    let path = |name: &str| world.path(name);
    let serves = |name: &str| {
        let wanted = format!("CN = {name}");
        until(name, || connect(&world, &ca, "localhost", &[]).contains(&wanted));
    };
    ca.issue(&world, "other", &["localhost"]);
    std::fs::write(path("server.pem"), "half of a certif").unwrap();
    until("it is said", || faults(&mut front).iter().any(|it| it.contains("no certificate")));
    serves("server");
    std::fs::remove_file(path("server.pem")).unwrap();
    until("it is said", || faults(&mut front).iter().any(|it| it.contains("No such file")));
    serves("server");
    std::fs::copy(path("other.pem"), path("server.pem")).unwrap();
    until("it is said", || faults(&mut front).iter().any(|it| it.contains("is not the key")));
    assert_eq!(faults(&mut front).len(), 1);
    serves("server");
    let log = || std::fs::read_to_string(path("log/nginx_error.log")).unwrap_or_default();
    let said = || log().lines().filter(|line| line.contains("is not the key")).count();
    until("it is in the log", || said() > 0);
    std::fs::copy(path("other.key"), path("server.key")).unwrap();
    until("it is corrected", || faults(&mut front).is_empty());
    serves("other");
    assert_eq!(said(), 1, "it is said once, not each second: {}", log());
}

#[test]
fn connections_outlive_the_certificate_that_they_began_with() {
    if differs("idle_connections") {
        return;
    }
    let world = World::with_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let (_front, ca) = serving(&world, &[&worker]);
    let renewed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let code = r#"
s = connect()
f = s.makefile("rb")
for round in range(2):
    s.sendall(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
    assert read(f)[1] == b"hello"
    if round == 0:
        open(os.path.join(os.environ["DIR"], "asked"), "w").close()
        while not os.path.exists(os.path.join(os.environ["DIR"], "renewed")): time.sleep(0.01)
print(dict(part[0] for part in s.getpeercert()["subject"])["commonName"])
"#;
            python(&world, &ca, code, &[])
        });
        until("it has asked", || world.path("asked").exists());
        ca.issue(&world, "next", &["localhost"]);
        for end in ["pem", "key"] {
            let from = world.path(&format!("next.{end}"));
            std::fs::rename(from, world.path(&format!("server.{end}"))).unwrap();
        }
        let next = || connect(&world, &ca, "localhost", &[]).contains("CN = next");
        until("the next one serves", next);
        renewed.store(true, Ordering::SeqCst);
        std::fs::write(world.path("renewed"), "").unwrap();
        assert_eq!(client.join().unwrap().trim(), "server");
    });
}

#[test]
fn a_renewal_is_noticed_within_seconds_among_a_thousand_certificates() {
    let world = World::with_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let (ca, directory) = with_directory(&world);
    // The same certificate under many names: each of them is read and looked at.
    for n in 0..1000 {
        for end in ["pem", "key"] {
            let to = directory.join(format!("{n}.{end}"));
            std::fs::copy(world.path(&format!("server.{end}")), to).unwrap();
        }
    }
    let mut with = settings(&world, "server");
    with.directory = Some(directory.clone());
    let _front = world.serving(tls_table(&world, with), &[&worker]);
    ca.issue(&world, "new", &["new.example"]);
    for end in ["pem", "key"] {
        let from = world.path(&format!("new.{end}"));
        std::fs::rename(from, directory.join(format!("500.{end}"))).unwrap();
    }
    let began = Instant::now();
    until("it serves", || connect(&world, &ca, "new.example", &[]).contains("CN = new"));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
