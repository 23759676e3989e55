//! What the front says and asks beyond HTTP in clear: certificates of clients, redirects, HSTS.

use mfserv_core::route::RealIp;
use mfserv_core::tls::{ClientCertificates, TlsSettings};

use super::kit::{
    Authority, curl, python, replace, serving, settings, text, tls_table, try_curl, with_directory,
};
use crate::copies::with_fragment;
use crate::fragments::said;
use crate::kind;
use crate::start::differs;
use crate::world::{Front, Worker, World, ask, get};

const CLAIMS: [&str; 8] = [
    "-H",
    "X-SSL-Client-Verify: SUCCESS",
    "-H",
    "x-ssl-client-s-dn: CN=root",
    "-H",
    "Client-Cert: :AAAA:",
    "-H",
    "X_SSL_Client_Verify: SUCCESS",
];

#[test]
fn a_verified_client_is_known_to_the_app_and_nobody_can_say_that_he_is_one() {
    let world = World::with_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let (mut front, ca) = serving(&world, &[&worker]);
    let (known, foreign) = (Authority::named(&world, "known"), Authority::named(&world, "foreign"));
    known.issue(&world, "reader", &["reader.example"]);
    foreign.issue(&world, "stranger", &["reader.example"]);
    let (certificate, key) = (world.path("reader.pem"), world.path("reader.key"));
    let reader = ["--cert", text(&certificate), "--key", text(&key)];
    let (certificate, key) = (world.path("stranger.pem"), world.path("stranger.key"));
    let stranger = ["--cert", text(&certificate), "--key", text(&key)];
    let fields = || {
        let received = worker.last();
        ["x-ssl-client-verify", "x-ssl-client-s-dn", "client-cert", "x_ssl_client_verify"]
            .map(|name| received.field(name))
    };
    let none = || Vec::<String>::new();

    // Where nobody is asked, nothing is said and nothing is taken away: a proxy may say it.
    curl(&world, &ca, "localhost", "/a", &CLAIMS);
    assert_eq!(fields()[..2], [vec!["SUCCESS".to_string()], vec!["CN=root".to_string()]]);

    let mut with = settings(&world, "server");
    with.client_certificates = ClientCertificates::Optional;
    with.client_authorities = Some(known.certificate.clone());
    front.daemon.publish(2, tls_table(&world, with), &[&worker]);
    curl(&world, &ca, "localhost", "/a", &CLAIMS);
    assert_eq!(fields(), [vec!["NONE".to_string()], none(), none(), none()]);
    ask(world.address, "GET /a HTTP/1.1\r\nHost: h\r\nX-SSL-Client-Verify: SUCCESS\r\n\r\n");
    assert_eq!(fields(), [vec!["NONE".to_string()], none(), none(), none()], "in clear too");
    for version in ["1.2", "1.3"] {
        let only = ["--tls-max", version];
        curl(&world, &ca, "localhost", "/a", &[&reader[..], &CLAIMS, &only].concat());
        let [verify, subject, whole, _] = fields();
        assert_eq!((verify, subject), (vec!["SUCCESS".into()], vec!["CN=reader,O=Tests".into()]));
        let received = worker.last();
        assert_eq!(received.field("x-ssl-client-i-dn"), ["CN=known"]);
        assert_eq!(received.field("x-ssl-client-serial").len(), 1);
        let pem = std::fs::read_to_string(world.path("reader.pem")).unwrap();
        let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        assert_eq!(whole, [format!(":{base64}:")]);
        // A stranger is refused, not served as nobody.
        let count = worker.count();
        let refused = try_curl(&world, &ca, "localhost", "/a", &[&stranger[..], &only].concat());
        assert!(is_refused(&refused), "{refused:?}");
        assert_eq!(worker.count(), count);
    }
}

/// True if a client has got no answer, or, of nginx, the page that refuses its certificate.
fn is_refused(outcome: &Result<String, String>) -> bool {
    match outcome {
        Err(_) => true,
        Ok(answer) => differs("client_certificates") && answer.starts_with("HTTP/1.1 400 "),
    }
}

#[test]
fn a_client_without_a_certificate_is_refused_where_one_is_required() {
    let world = World::with_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let ca = Authority::new(&world);
    ca.issue(&world, "server", &["localhost"]);
    let known = Authority::named(&world, "known");
    known.issue(&world, "reader", &["reader.example"]);
    ca.issue(&world, "stranger", &["reader.example"]);
    let [reader, its_key, stranger, strange_key] =
        ["reader.pem", "reader.key", "stranger.pem", "stranger.key"].map(|name| world.path(name));
    let mut with = settings(&world, "server");
    with.client_certificates = ClientCertificates::Required;
    with.client_authorities = Some(known.certificate.clone());
    let _front = world.serving(tls_table(&world, with), &[&worker]);
    for version in ["1.2", "1.3"] {
        let only = ["--tls-max", version];
        assert!(is_refused(&try_curl(&world, &ca, "localhost", "/a", &only)));
        let stranger = ["--cert", text(&stranger), "--key", text(&strange_key)];
        let refused = try_curl(&world, &ca, "localhost", "/a", &[&stranger[..], &only].concat());
        assert!(is_refused(&refused), "{refused:?}");
    }
    assert_eq!(worker.count(), 0, "none of them reaches the app");
    let reader = ["--cert", text(&reader), "--key", text(&its_key)];
    curl(&world, &ca, "localhost", "/a", &reader);
    assert_eq!(worker.last().field("x-ssl-client-verify"), ["SUCCESS"]);
}

#[test]
fn a_session_of_an_authority_that_was_removed_is_not_resumed() {
    for version in ["TLSv1_2", "TLSv1_3"] {
        let world = World::with_tls();
        let worker = Worker::saying(&world, 1, "hello");
        let ca = Authority::new(&world);
        ca.issue(&world, "server", &["localhost"]);
        let (old, new) = (Authority::named(&world, "old"), Authority::named(&world, "new"));
        old.issue(&world, "reader", &["r"]);
        let authorities = world.path("authorities.pem");
        std::fs::copy(&old.certificate, &authorities).unwrap();
        let mut with = settings(&world, "server");
        with.client_certificates = ClientCertificates::Required;
        with.client_authorities = Some(authorities.clone());
        let _front = world.serving(tls_table(&world, with), &[&worker]);
        let code = r#"
c = context()
c.minimum_version = c.maximum_version = getattr(ssl.TLSVersion, sys.argv[1])
d = os.environ["DIR"]
c.load_cert_chain(os.path.join(d, "reader.pem"), os.path.join(d, "reader.key"))
def get(session=None):
    s = connect(c, session=session)
    s.sendall(b"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert answer(s)[1] == b"hello"
    return s
session = get().session
assert get(session).session_reused
open(os.path.join(d, "asked"), "w").close()
end = time.monotonic() + 60
while True:
    # Until the front has seen the file, the session is resumed.
    try: get(session)
    except (ssl.SSLError, ConnectionResetError, EOFError): break
    # nginx refuses a certificate with a page.
    except AssertionError: break
    assert time.monotonic() < end
    time.sleep(0.05)
print("refused")
"#;
        std::thread::scope(|scope| {
            let client = scope.spawn(|| python(&world, &ca, code, &[version]));
            crate::world::until("it was there", || world.path("asked").exists());
            replace(&authorities, &new.certificate);
            assert_eq!(client.join().unwrap().trim(), "refused");
        });
    }
}

#[test]
fn requests_in_clear_are_sent_to_tls_and_inner_endpoints_are_not() {
    let world = World::with_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let (mut front, ca) = serving(&world, &[&worker]);
    let mut with = settings(&world, "server");
    with.redirect = true;
    front.daemon.publish(2, tls_table(&world, with.clone()), &[&worker]);
    let port = world.secure_port();
    let to = |text: &str| ask(world.address, text);
    let moved = to("GET /a/x?y=%20 HTTP/1.1\r\nHost: www.example.org:80\r\n\r\n");
    assert_eq!(moved.status, 301);
    assert_eq!(moved.field("location"), [format!("https://www.example.org:{port}/a/x?y=%20")]);
    let moved = to("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab");
    assert_eq!(moved.status, 308);
    assert_eq!(to("GET /a HTTP/1.1\r\nHost: a\"b\r\n\r\n").status, 400);
    if !differs("old_clients") {
        assert_eq!(to("GET /a HTTP/1.0\r\n\r\n").status, 400, "it names no host");
    }
    assert_eq!(worker.count(), 0, "no request in clear reaches the app");
    assert_eq!(get(world.address, "/__health").status, 503, "the state of the node is said");
    assert!(curl(&world, &ca, "localhost", "/a", &[]).ends_with("hello"));
    // A proxy that has spoken TLS with the client is believed where it is trusted.
    let proxied = "GET /a HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: https\r\n\r\n";
    assert_eq!(to(proxied).status, 200);
    let mut table = tls_table(&world, with);
    let proxies = vec!["10.0.0.0/8".into()];
    let header = "X-Forwarded-For".into();
    table.server.real_ip = Some(RealIp { header, recursive: true, proxies });
    front.daemon.publish(3, table, &[&worker]);
    assert_eq!(to(proxied).status, 301, "and nobody else");
}

#[test]
fn answers_over_tls_alone_have_strict_transport_security_and_once() {
    let world = World::with_tls();
    let worker = Worker::start(&world, 1, |stream, _| {
        use std::io::Write;
        let head =
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nStrict-Transport-Security: max-age=1\r\n\r\n";
        stream.write_all(head.as_bytes()).is_ok()
    });
    let (mut front, ca) = serving(&world, &[&worker]);
    let found = |path: &str| {
        let answer = curl(&world, &ca, "localhost", path, &[]).to_ascii_lowercase();
        let fields = answer.lines().filter(|line| line.starts_with("strict-transport"));
        fields.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(found("/a"), ["strict-transport-security: max-age=1"], "what the app says");
    assert_eq!(found("/none"), [""; 0]);
    let mut with = settings(&world, "server");
    with.strict_transport = Some("max-age=60; includeSubDomains".into());
    front.daemon.publish(2, tls_table(&world, with), &[&worker]);
    for path in ["/a", "/none"] {
        assert_eq!(found(path), ["strict-transport-security: max-age=60; includesubdomains"]);
    }
    assert_eq!(get(world.address, "/a").field("strict-transport-security"), [""; 0]);
    // The client of a proxy that is believed speaks TLS with that.
    let proxied = "GET /a HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: https\r\n\r\n";
    let answer = ask(world.address, proxied);
    let wanted = ["max-age=60; includeSubDomains"];
    assert_eq!(answer.field("strict-transport-security"), wanted);
}

#[test]
fn certificates_by_name_and_those_of_clients_go_together() {
    let world = World::with_tls();
    let worker = Worker::saying(&world, 1, "hello");
    let (ca, directory) = with_directory(&world);
    ca.issue(&world, "other", &["other.example"]);
    for end in ["pem", "key"] {
        let name = format!("other.{end}");
        std::fs::copy(world.path(&name), directory.join(&name)).unwrap();
    }
    let known = Authority::named(&world, "known");
    known.issue(&world, "reader", &["reader.example"]);
    let [reader, its_key] = ["reader.pem", "reader.key"].map(|name| world.path(name));
    let mut with = settings(&world, "server");
    with.directory = Some(directory);
    let mut front = world.serving(tls_table(&world, with.clone()), &[&worker]);
    with.client_certificates = ClientCertificates::Required;
    with.client_authorities = Some(known.certificate.clone());
    front.daemon.publish(2, tls_table(&world, with), &[&worker]);
    let reader = ["--cert", text(&reader), "--key", text(&its_key)];
    for host in ["localhost", "other.example"] {
        assert!(is_refused(&try_curl(&world, &ca, host, "/a", &[])), "{host}");
        curl(&world, &ca, host, "/a", &reader);
        assert_eq!(worker.last().field("x-ssl-client-verify"), ["SUCCESS"], "{host}");
    }
    assert_eq!(said(&mut front), "");
}

#[test]
fn files_with_a_fragment_obey_the_redirect_to_tls_and_strict_transport_security() {
    let is_nginx = kind::under_test().0 == "nginx";
    let world = World::with_tls();
    let (mut front, ca) = serving(&world, &[]);
    std::fs::create_dir_all(world.path("site")).unwrap();
    std::fs::write(world.path("site/a.txt"), "content").unwrap();
    let mut with = settings(&world, "server");
    with.strict_transport = Some("max-age=60".into());
    let publish = |front: &mut Front, generation: u64, with: &TlsSettings| {
        let mut table = with_fragment(&world, "add_header X-Own 1;");
        table.server.tls = Some(with.clone());
        front.daemon.publish(generation, table, &[]);
        assert_eq!(said(front), "");
    };
    publish(&mut front, 2, &with);
    for path in ["/s/a.txt", "/s/none"] {
        let answer = curl(&world, &ca, "localhost", path, &[]).to_ascii_lowercase();
        let found = answer.matches("strict-transport-security: max-age=60").count();
        assert_eq!(found, 1, "{path}: {answer}");
        assert_eq!(get(world.address, path).field("strict-transport-security"), [""; 0], "{path}");
    }
    assert_eq!(get(world.address, "/s/a.txt").field("x-own").len(), usize::from(is_nginx));
    let later = "GET /s/a.txt HTTP/1.1\r\nHost: h\r\nIf-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT\r\n\r\n";
    assert_eq!(ask(world.address, later).status, 304);
    let post = "POST /s/a.txt HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";
    let refused = ask(world.address, post);
    assert_eq!((refused.status, refused.field("allow").join(";").as_str()), (405, "GET, HEAD"));

    with.redirect = true;
    publish(&mut front, 3, &with);
    let port = world.secure_port();
    for (method, status) in [("GET", 301), ("POST", 308)] {
        let text = format!(
            "{method} /s/a.txt?b=%20 HTTP/1.1\r\nHost: h.example:80\r\nContent-Length: 0\r\n\r\n"
        );
        let moved = ask(world.address, &text);
        assert_eq!(moved.status, status, "{method}");
        let location = format!("https://h.example:{port}/s/a.txt?b=%20");
        assert_eq!(moved.field("location"), [location], "{method}");
    }
    let proxied = "GET /s/a.txt HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: https\r\n\r\n";
    assert_eq!(ask(world.address, proxied).status, 200, "a proxy that is believed");
    // Also one that does not say for whom it asks; and nobody else.
    for (generation, proxies, status) in [(4, "127.0.0.0/8", 200), (5, "10.0.0.0/8", 301)] {
        let mut table = with_fragment(&world, "add_header X-Own 1;");
        table.server.tls = Some(with.clone());
        let header = "X-Forwarded-For".into();
        let proxies = vec![proxies.into()];
        table.server.real_ip = Some(RealIp { header, recursive: true, proxies });
        front.daemon.publish(generation, table, &[]);
        assert_eq!(said(&mut front), "");
        assert_eq!(ask(world.address, proxied).status, status, "{generation}");
        let named = proxied.replace("Host: h", "Host: h\r\nX-Forwarded-For: 1.2.3.4");
        assert_eq!(ask(world.address, named).status, status, "{generation}");
    }
    assert!(curl(&world, &ca, "localhost", "/s/a.txt", &[]).ends_with("content"));
}
