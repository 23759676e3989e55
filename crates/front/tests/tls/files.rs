//! What a front does with the files that it is told, and with those that it cannot use.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use mfserv_core::tls::{ClientCertificates, TlsSettings};
use mfserv_core::wire::front::{FromFront, ToFront};

use super::kit::{
    Authority, connect, curl, serving, settings, text, tls_table, try_curl, with_directory,
};
use crate::world::{Front, Worker, World, get, until};

/// What the front says is wrong.
fn faults(front: &mut Front) -> Vec<String> {
    let warnings = front.daemon.stats().warnings;
    warnings
        .into_iter()
        .filter(|(_, warned)| warned.is_fault)
        .map(|(sentence, _)| sentence)
        .collect()
}

#[test]
fn a_front_without_a_usable_certificate_serves_no_tls_says_why_and_begins_when_there_is_one() {
    let world = World::with_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let ca = Authority::new(&world);
    let mut front = world.serving(tls_table(&world, settings(&world, "server")), &[&worker]);
    let said = faults(&mut front);
    assert!(said.len() == 1 && said[0].contains("server.pem: No such file"), "{said:?}");
    assert!(said[0].contains("every TLS client is refused"), "{said:?}");
    let refused = try_curl(&world, &ca, "localhost", "/a", &[]).unwrap_err();
    // nginx says that it does not know the name.
    let alerts = ["alert internal error", "unrecognized name"];
    assert!(alerts.iter().any(|alert| refused.contains(alert)), "{refused}");
    let address = format!("127.0.0.1:{}", world.secure_port()).parse().unwrap();
    let clear = crate::world::try_ask(address, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
    // nginx says so with a page.
    let is_refused = clear.is_none_or(|answer| answer.status == 400);
    assert!(is_refused && worker.count() == 0, "nothing is served in clear on the port of TLS");
    assert_eq!(get(world.address, "/a").text(), "hello", "the rest serves");
    ca.issue(&world, "server", &["localhost"]);
    until("the certificate is found", || faults(&mut front).is_empty());
    // nginx takes it over a moment later, and its old processes accept for a moment after that.
    until("it is served", || {
        try_curl(&world, &ca, "localhost", "/a", &[]).is_ok_and(|answer| answer.ends_with("hello"))
    });
}

#[test]
fn each_kind_of_file_that_cannot_be_used_is_named_with_the_reason() {
    let world = World::with_tls();
    let ca = Authority::new(&world);
    ca.issue(&world, "server", &["localhost"]);
    ca.issue(&world, "other", &["localhost"]);
    let (certificate, key) = (world.path("server.pem"), world.path("server.key"));
    let good = (std::fs::read(&certificate).unwrap(), std::fs::read(&key).unwrap());
    let secret = String::from_utf8(good.1.clone()).unwrap();
    let secret = secret.lines().nth(1).unwrap().to_string();
    let encrypted = std::process::Command::new("openssl")
        .args(["pkey", "-in", text(&key), "-aes256", "-passout", "pass:x"])
        .output()
        .unwrap();
    let cut = &good.0[..good.0.len() / 2];
    for (name, spoil, expected) in [
        ("no certificate", Spoil::Certificate(b"hello"), "server.pem has no certificate"),
        ("an empty one", Spoil::Certificate(b""), "server.pem has no certificate"),
        ("half of one", Spoil::Certificate(cut), "server.pem is no PEM"),
        (
            "another key",
            Spoil::Key(&std::fs::read(world.path("other.key")).unwrap()),
            "server.key is not the key of",
        ),
        ("no key", Spoil::Key(&good.0), "server.key: it has no private key"),
        ("a passphrase", Spoil::Key(&encrypted.stdout), "server.key: the key needs a passphrase"),
        (
            "everybody may read",
            Spoil::Mode(0o644),
            "server.key may be used by others (mode 0644): chmod 600",
        ),
        ("its group may write", Spoil::Mode(0o660), "server.key may be used by others (mode 0660)"),
        ("a pipe", Spoil::Pipe, "server.key is no file"),
        ("nothing", Spoil::Gone, "server.key: No such file"),
    ] {
        spoil.apply(&certificate, &key);
        let why = mfserv_front::inspect_tls(&settings(&world, "server")).unwrap_err();
        assert!(why.contains(expected), "{name}: {why}");
        assert!(!why.contains(&secret), "{name}: no secret is said");
        let _ = std::fs::remove_file(&key);
        std::fs::write(&certificate, &good.0).unwrap();
        std::fs::write(&key, &good.1).unwrap();
        Spoil::Mode(0o640).apply(&certificate, &key);
        assert_eq!(
            mfserv_front::inspect_tls(&settings(&world, "server")),
            Ok(Default::default()),
            "{name}"
        );
    }
}

enum Spoil<'a> {
    Certificate(&'a [u8]),
    Key(&'a [u8]),
    Mode(u32),
    Pipe,
    Gone,
}

impl Spoil<'_> {
    fn apply(self, certificate: &Path, key: &Path) {
        match self {
            Spoil::Certificate(bytes) => std::fs::write(certificate, bytes).unwrap(),
            Spoil::Key(bytes) => std::fs::write(key, bytes).unwrap(),
            Spoil::Mode(bits) => {
                std::fs::set_permissions(key, PermissionsExt::from_mode(bits)).unwrap();
            }
            Spoil::Gone => std::fs::remove_file(key).unwrap(),
            Spoil::Pipe => {
                std::fs::remove_file(key).unwrap();
                let fifo = rustix::fs::FileType::Fifo;
                let bits = rustix::fs::Mode::from(0o600);
                rustix::fs::mknodat(rustix::fs::CWD, key, fifo, bits, 0).unwrap();
            }
        }
    }
}

#[test]
fn new_settings_that_cannot_be_used_are_refused_and_those_before_serve() {
    let world = World::with_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let (mut front, ca) = serving(&world, &[&worker]);
    let table = Box::new(tls_table(&world, settings(&world, "missing")));
    front.daemon.say(&ToFront::Publish { generation: 2, table, peers: Default::default() });
    let refused = front.daemon.wait_for(|m| matches!(m, FromFront::Refused { .. }));
    assert!(format!("{refused:?}").contains("missing.pem: No such file"), "{refused:?}");
    assert!(curl(&world, &ca, "localhost", "/a", &[]).ends_with("hello"));
    // Authorities of another file, too, are refused where it cannot be used, and not ignored.
    let with = |authorities: &std::path::Path| TlsSettings {
        client_certificates: ClientCertificates::Optional,
        client_authorities: Some(authorities.to_path_buf()),
        ..settings(&world, "server")
    };
    front.daemon.publish(3, tls_table(&world, with(&ca.certificate)), &[&worker]);
    let table = Box::new(tls_table(&world, with(&world.path("nobody.pem"))));
    front.daemon.say(&ToFront::Publish { generation: 4, table, peers: Default::default() });
    let refused = front.daemon.wait_for(|m| matches!(m, FromFront::Refused { generation: 4, .. }));
    assert!(format!("{refused:?}").contains("nobody.pem: No such file"), "{refused:?}");
    // A table with the settings of before is taken, whatever became of the files meanwhile: a
    // deployment does not fail for them.
    std::fs::write(world.path("server.pem"), "broken").unwrap();
    front.daemon.publish(5, tls_table(&world, with(&ca.certificate)), &[&worker]);
    assert!(curl(&world, &ca, "localhost", "/a", &[]).ends_with("hello"));
}

#[test]
fn each_of_a_thousand_names_gets_its_certificate_and_an_unknown_one_the_default() {
    let world = World::with_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let (ca, directory) = with_directory(&world);
    const EC: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let issue = |name: &str, hosts: &[&str]| ca.issue_into(&directory.join(name), hosts, &EC, "30");
    std::thread::scope(|scope| {
        for first in 0..4 {
            let issue = &issue;
            scope.spawn(move || {
                for n in (first..1000).step_by(4) {
                    issue(&format!("h{n}"), &[&format!("h{n}.example.org")]);
                }
            });
        }
    });
    issue("wild", &["*.wild.example", "wild.example"]);
    // As certbot has them.
    std::fs::create_dir(directory.join("live")).unwrap();
    issue("certbot", &["live.example"]);
    for (from, to) in [("certbot.pem", "fullchain.pem"), ("certbot.key", "privkey.pem")] {
        std::fs::rename(directory.join(from), directory.join("live").join(to)).unwrap();
    }
    let mut with = settings(&world, "server");
    with.directory = Some(directory.clone());
    let mut front = world.serving(tls_table(&world, with), &[&worker]);
    assert_eq!(faults(&mut front), [""; 0]);
    let code = r#"
c = context()
c.check_hostname = False
def subject(name):
    s = connect(c, name)
    names = [v for k, v in s.getpeercert()["subjectAltName"]]
    s.close()
    return names
for n in range(1000):
    assert subject("h%d.example.org" % n) == ["h%d.example.org" % n], n
for name, expected in (("A.wild.example", "*.wild.example"), ("wild.example", "*.wild.example"),
        ("live.example", "live.example"), ("a.b.wild.example", "localhost"), ("unknown.org", "localhost"),
        ("h1000.example.org", "localhost"), (None, "localhost")):
    assert subject(name)[0] == expected, (name, subject(name))
print("done")
"#;
    assert_eq!(super::kit::python(&world, &ca, code, &[]).trim(), "done");
    // A broken one among many: the others serve, and it is said.
    std::fs::write(directory.join("broken.pem"), "x").unwrap();
    std::fs::write(directory.join("broken.key"), "x").unwrap();
    std::fs::remove_file(directory.join("h7.key")).unwrap();
    until("it is said", || faults(&mut front).iter().any(|said| said.contains("broken.pem")));
    assert_eq!(faults(&mut front).len(), 1);
    let served = |name: &str| connect(&world, &ca, name, &[]);
    // nginx reads its configuration anew when the front has said what is wrong.
    until("one that was removed is not served", || {
        served("h7.example.org").contains("CN = server")
    });
    assert!(connect(&world, &ca, "h8.example.org", &[]).contains("CN = h8"));
}

#[test]
fn a_name_may_have_a_certificate_of_each_kind_of_key() {
    let world = World::with_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let (ca, directory) = with_directory(&world);
    let rsa = ["-newkey", "rsa:2048", "-nodes"];
    ca.issue_into(&directory.join("rsa"), &["localhost"], &rsa, "30");
    let mut with = settings(&world, "server");
    with.directory = Some(directory);
    let _front = world.serving(tls_table(&world, with), &[&worker]);
    for (algorithms, expected) in
        [("ECDSA+SHA256:RSA-PSS+SHA256", "CN = server"), ("RSA-PSS+SHA256:RSA+SHA256", "CN = rsa")]
    {
        for version in ["-tls1_2", "-tls1_3"] {
            let said = connect(&world, &ca, "localhost", &[version, "-sigalgs", algorithms]);
            assert!(said.contains(expected), "{algorithms} {version}: {said}");
            assert!(said.contains("Verify return code: 0"), "{algorithms} {version}: {said}");
        }
    }
}

#[test]
fn a_certificate_that_ends_soon_is_served_and_said() {
    let world = World::with_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let ca = Authority::new(&world);
    ca.issue(&world, "server", &["localhost"]);
    const EC: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    ca.issue_into(&world.path("short"), &["localhost"], &EC, "3");
    let mut front = world.serving(tls_table(&world, settings(&world, "short")), &[&worker]);
    assert_eq!(faults(&mut front), [""; 0], "it is no fault yet");
    let said = front.daemon.stats().warnings.into_keys();
    let said: Vec<String> = said.filter(|sentence| sentence.starts_with("TLS: ")).collect();
    assert!(said.len() == 1 && said[0].contains("short.pem expires in 7"), "{said:?}");
    assert!(curl(&world, &ca, "localhost", "/a", &[]).ends_with("hello"));
}

#[test]
fn certificates_that_only_nginx_refuses_are_said_also_after_the_next_table() {
    let Some(world) = World::with_lua().map(World::and_tls) else { return };
    let worker = Worker::saying(&world, 1, "hello");
    let ca = Authority::new(&world);
    // OpenSSL serves with no certificate that is signed in this way.
    let kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha1"];
    ca.issue_into(&world.path("server"), &["localhost"], &kind, "30");
    let table = tls_table(&world, settings(&world, "server"));
    let mut front = world.serving(table.clone(), &[&worker]);
    for generation in 2..4 {
        let said: Vec<_> = front.daemon.stats().warnings.into_keys().collect();
        assert!(said.iter().any(|one| one.starts_with("nginx refuses the cert")), "{said:?}");
        assert_eq!(get(world.address, "/a").text(), "hello", "the rest serves");
        front.daemon.publish(generation, table.clone(), &[&worker]);
    }
}
