//! Certificates that have ended or vanished, and clients that would not be let in any more.

use std::io::Write;

use mfserv_core::tls::{ClientCertificates, TlsSettings, Version};

use super::kit::{
    Authority, connect, openssl, python, replace, settings, text, tls_table, with_directory,
};
use crate::start::differs;
use crate::world::{Front, NEVER_MS, Worker, World, until};

/// What the front says is wrong.
fn faults(front: &mut Front) -> Vec<String> {
    let warnings = front.daemon.stats().warnings.into_iter();
    warnings.filter(|(_, warned)| warned.is_fault).map(|(sentence, _)| sentence).collect()
}

fn asking(world: &World, authorities: &std::path::Path) -> TlsSettings {
    let mut with = settings(world, "server");
    with.client_certificates = ClientCertificates::Required;
    with.client_authorities = Some(authorities.to_owned());
    with
}

/// A client with the certificate `reader`: `kept` and `slow` are open connections, the second one
/// with a running request.
const READER: &str = r#"
c = context()
d = os.environ["DIR"]
c.load_cert_chain(os.path.join(d, "reader.pem"), os.path.join(d, "reader.key"))
def ask(s, path="/a"):
    s.sendall(b"GET %s HTTP/1.1\r\nHost: h\r\n\r\n" % path.encode())
def opened(session=None):
    s = connect(c, session=session)
    ask(s)
    head, body = answer(s)
    if not head.startswith(b"HTTP/1.1 200"): raise EOFError(head)
    assert body == b"hello", (head, body)
    return s
def is_refused(what):
    try: what()
    except (ssl.SSLError, ConnectionError, EOFError): return True
"#;

#[test]
fn a_client_whose_certificate_has_expired_neither_resumes_its_session_nor_goes_on() {
    let code = r#"
for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    c.minimum_version = c.maximum_version = version
    first = opened()
    assert opened(first.session).session_reused
    globals()[str(version)] = first
end = ssl.cert_time_to_seconds(sys.argv[1]) + 1.5
time.sleep(max(0, end - time.time()))  # The certificate ends when its time has come.
for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    c.minimum_version = c.maximum_version = version
    first = globals()[str(version)]
    assert is_refused(lambda: opened(first.session)), "resumed"
    def goes_on():
        ask(first)
        if not answer(first)[0].startswith(b"HTTP/1.1 200"): raise EOFError()
    assert is_refused(goes_on), "kept"
print("refused")
"#;
    let world = World::with_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let ca = Authority::new(&world);
    ca.issue(&world, "server", &["localhost"]);
    let front = world.serving(tls_table(&world, asking(&world, &ca.certificate)), &[&worker]);
    // Long enough for four connections on a busy machine.
    ca.issue_between(&world.path("reader"), "r", -60, 9);
    let end = openssl(&["x509", "-noout", "-enddate", "-in", text(&world.path("reader.pem"))]);
    let end = end.trim().trim_start_matches("notAfter=").to_string();
    let said = python(&world, &ca, &format!("{READER}{code}"), &[&end]);
    assert_eq!(said.trim(), "refused");
    if !differs("log_of_handshakes") {
        let log = || std::fs::read_to_string(world.path("log/nginx_error.log")).unwrap_or_default();
        until("it is logged", || log().contains("that is to be resumed has expired"));
    }
    drop(front);
}

#[test]
fn connections_end_after_their_request_when_others_vouch_for_clients() {
    let world = World::with_tls();
    let go = world.path("go");
    let worker = Worker::start(&world, 1, move |stream, received| {
        if received.target().contains("slow") {
            std::fs::write(go.with_extension("asked"), "").unwrap();
            until("it may answer", || go.exists());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").is_ok()
    });
    let ca = Authority::new(&world);
    ca.issue(&world, "server", &["localhost"]);
    let (old, new) = (Authority::named(&world, "old"), Authority::named(&world, "new"));
    old.issue(&world, "reader", &["r"]);
    let authorities = world.path("authorities.pem");
    std::fs::copy(&old.certificate, &authorities).unwrap();
    let mut table = tls_table(&world, asking(&world, &authorities));
    table.server.keepalive_timeout_ms = NEVER_MS;
    let _front = world.serving(table, &[&worker]);
    let code = r#"
kept, slow = opened(), opened()
ask(slow, "/a/slow")
assert kept.recv(1) == b"", "the idle one ends"
open(os.path.join(d, "go"), "w").close()
head, body = answer(slow)
assert body == b"hello", (head, body)
assert slow.recv(1) == b"", "the other one after its answer"
print("ended")
"#;
    std::thread::scope(|scope| {
        let client = scope.spawn(|| python(&world, &ca, &format!("{READER}{code}"), &[]));
        until("a request is running", || world.path("go.asked").exists());
        replace(&authorities, &new.certificate);
        assert_eq!(client.join().unwrap().trim(), "ended");
    });
}

#[test]
fn a_valid_certificate_is_preferred_to_one_that_has_expired_and_one_that_vanishes_is_said() {
    let world = World::with_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let (ca, directory) = with_directory(&world);
    ca.issue_between(&directory.join("a-expired"), "shop.example", -1000, -10);
    ca.issue_between(&directory.join("b-valid"), "shop.example", -1000, 90_000_000);
    let mut with = settings(&world, "server");
    with.directory = Some(directory.clone());
    let mut front = world.serving(tls_table(&world, with), &[&worker]);
    let is_served = |name: &str| connect(&world, &ca, "shop.example", &[]).contains(name);
    until("the valid one is served", || is_served("CN = b-valid"));
    let notes = |front: &mut Front| -> String {
        let warnings = front.daemon.stats().warnings.into_iter();
        warnings.filter(|(_, warned)| !warned.is_fault).map(|(sentence, _)| sentence).collect()
    };
    // Another one has its name.
    ca.issue_between(&directory.join("c-valid"), "shop.example", -1000, 90_000_000);
    std::fs::remove_file(directory.join("b-valid.pem")).unwrap();
    until("the other one is served", || is_served("CN = c-valid"));
    assert!(!notes(&mut front).contains("is gone"));
    std::fs::remove_file(directory.join("a-expired.pem")).unwrap();
    std::fs::remove_file(directory.join("c-valid.key")).unwrap();
    until("it is said", || notes(&mut front).contains("b-valid.pem or its key is gone"));
    let said = notes(&mut front);
    assert!(said.contains("clients of shop.example get the default"), "{said}");
    assert_eq!(faults(&mut front), [""; 0], "it may be wanted");
    let log = || std::fs::read_to_string(world.path("log/nginx_error.log")).unwrap_or_default();
    until("it is logged", || log().contains("c-valid.pem or its key is gone"));
}

#[test]
fn a_certificate_that_no_suite_goes_with_is_said_and_so_is_a_client_that_finds_nothing_in_common() {
    let world = World::with_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let ca = Authority::new(&world);
    ca.issue_into(&world.path("server"), &["localhost"], &["-newkey", "rsa:2048", "-nodes"], "30");
    let mut with = settings(&world, "server");
    with.versions = vec![Version::V1_2];
    with.ciphers = vec!["ECDHE-ECDSA-AES128-GCM-SHA256".into()];
    let mut front = world.serving(tls_table(&world, with), &[&worker]);
    let said = faults(&mut front);
    assert!(
        said.iter().any(|it| it.contains("server.pem cannot be used: its key is for RSA")),
        "{said:?}"
    );
    connect(&world, &ca, "localhost", &[]);
    if !differs("log_of_handshakes") {
        let log = || std::fs::read_to_string(world.path("log/nginx_error.log")).unwrap_or_default();
        until("it is logged", || log().contains("handshakes that failed (nothing_in_common): 1;"));
    }
}

#[test]
fn a_client_has_the_names_and_the_number_that_openssl_writes() {
    let world = World::with_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let ca = Authority::new(&world);
    ca.issue(&world, "server", &["localhost"]);
    let mut front = world.serving(tls_table(&world, asking(&world, &ca.certificate)), &[&worker]);
    let (key, pem) = (world.path("reader.key"), world.path("reader.pem"));
    let numbers = ["0x7f01", "0xff0102", "0x80"];
    let subjects = [
        "/C=DE/O=a=b, c\\+d;<e>/CN=#x \"y\" ü ",
        "/CN=one+OU=two/street=Way 1/GN=Given/SN=Sur/1.2.3.4.5=own/UID=u",
        "/DC=org/emailAddress=a@b.example/x500UniqueIdentifier=bits/title= ",
    ];
    for (number, subject) in numbers.into_iter().zip(subjects) {
        let (authority, its_key) = (world.path("authority.ca.pem"), world.path("authority.ca.key"));
        openssl(&[
            "req",
            "-x509",
            "-utf8",
            "-CA",
            text(&authority),
            "-CAkey",
            text(&its_key),
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            text(&key),
            "-out",
            text(&pem),
            "-subj",
            subject,
            "-set_serial",
            number,
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ]);
        let said = openssl(&[
            "x509",
            "-noout",
            "-subject",
            "-serial",
            "-nameopt",
            "RFC2253",
            "-in",
            text(&pem),
        ]);
        let line = |start: &str| said.lines().find_map(|line| line.strip_prefix(start)).unwrap();
        python(&world, &ca, &format!("{READER}opened()"), &[]);
        let received = worker.last();
        assert_eq!(received.field("x-ssl-client-s-dn"), [line("subject=").trim_end()]);
        assert_eq!(received.field("x-ssl-client-serial"), [line("serial=")]);
    }
    assert_eq!(faults(&mut front), [""; 0]);
}
