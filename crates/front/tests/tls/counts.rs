//! What is counted of handshakes.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;

use mfserv_core::tls::ClientCertificates;

use super::kit::{Authority, connect, curl, python, serving, settings, tls_table, try_curl};
use crate::metrics::Receiver;
use crate::start::differs;
use crate::world::{Worker, World, until};

#[test]
fn handshakes_are_counted_by_their_outcome() {
    if differs("counters") {
        return;
    }
    let world = World::with_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let (mut front, ca) = serving(&world, &[&worker]);
    let mut receiver = Receiver::accept(&world);
    let mut counts = |wanted: &[(&str, u64)]| {
        let wanted: BTreeMap<String, u64> =
            wanted.iter().map(|(word, count)| (word.to_string(), *count)).collect();
        let mut found = BTreeMap::new();
        until("it is counted", || {
            assert!(receiver.receive());
            let seen = receiver.last.handshakes.iter().filter(|(_, count)| *count > 0);
            found = seen.cloned().collect();
            found.values().sum::<u64>() >= wanted.values().sum()
        });
        assert_eq!(found, wanted);
    };
    curl(&world, &ca, "localhost", "/a", &[]);
    counts(&[("full", 1)]);
    let code = r#"
c = context()
s = connect(c)
s.sendall(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"); answer(s)
for n in range(3):
    assert connect(c, session=s.session).session_reused
"#;
    python(&world, &ca, code, &[]);
    counts(&[("full", 2), ("resumed", 3)]);
    let port = world.secure_port();
    let send = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(bytes).unwrap();
    };
    send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    send(&[22, 3, 1, 0, 200, 1, 0]);
    send(&[22, 3, 1, 0, 4, 9, 9, 9, 9]);
    connect(&world, &ca, "localhost", &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]);
    // A client that does not know the authority.
    let other = Authority::named(&world, "other");
    assert!(try_curl(&world, &other, "localhost", "/a", &["--tls-max", "1.2"]).is_err());
    let failed = [
        ("full", 2),
        ("resumed", 3),
        ("plain_http", 1),
        ("abandoned", 1),
        ("malformed", 1),
        ("nothing_in_common", 1),
        ("alert", 1),
    ];
    counts(&failed);
    let mut with = settings(&world, "server");
    with.client_certificates = ClientCertificates::Required;
    with.client_authorities = Some(ca.certificate.clone());
    front.daemon.publish(2, tls_table(&world, with), &[&worker]);
    assert!(try_curl(&world, &ca, "localhost", "/a", &["--tls-max", "1.2"]).is_err());
    counts(&[&failed[..], &[("client_certificate", 1)]].concat());
}
