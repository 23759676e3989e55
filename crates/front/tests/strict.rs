//! What could be understood in two ways is refused before a byte of it reaches a worker.

use mfserv_core::route::Slots;

use crate::world::*;

/// Requests with their wrong part; `H` stands for a right Host line.
const BAD: &[&str] = &[
    "GET /a HTTP/1.1\r\n\r\n",
    "GET /a HTTP/1.1\r\nHHost: other\r\n\r\n",
    "GET /a HTTP/1.1\r\nHHost: h\r\n\r\n",
    "GET /a HTTP/1.1\r\nHost:\r\n\r\n",
    "GET /a HTTP/1.1\r\nHost: a b\r\n\r\n",
    "GET /a HTTP/1.1\r\nHost: u@h\r\n\r\n",
    "GET /a HTTP/1.1\r\nHost: h/x\r\n\r\n",
    "GET /a HTTP/1.1\r\nHost: h,h\r\n\r\n",
    "GET /a HTTP/1.1\r\nHost: h:99999\r\n\r\n",
    "GET /a HTTP/1.1\r\nHost: [::1\r\n\r\n",
    "GET /a HTTP/1.1\r\nHost : h\r\n\r\n",
    "GET /a HTTP/1.1\nHost: h\n\n",
    "GET /a HTTP/1.1\r\nHost: h\n\r\n",
    "GET /a HTTP/1.1\rHost: h\r\n\r\n",
    "GET /a HTTP/1.1\r\nHX: a\rb\r\n\r\n",
    "GET /a HTTP/1.1\r\nHX: a\0b\r\n\r\n",
    "GET /a HTTP/1.1\r\nHX: a\x01b\r\n\r\n",
    "GET /a HTTP/1.1\r\nHX: a\x7fb\r\n\r\n",
    "GET /a HTTP/1.1\r\nHX: a\r\n folded\r\n\r\n",
    "GET /a HTTP/1.1\r\nHX: a\r\n\tfolded\r\n\r\n",
    "GET /a HTTP/1.1\r\n X: a\r\nH\r\n",
    "GET /a HTTP/1.1\r\nHX : a\r\n\r\n",
    "GET /a HTTP/1.1\r\nHX\t: a\r\n\r\n",
    "GET /a HTTP/1.1\r\nHX\r\n\r\n",
    "GET /a HTTP/1.1\r\nH: a\r\n\r\n",
    "GET /a HTTP/1.1\r\nHX(: a\r\n\r\n",
    "GET /a HTTP/1.1\r\nHX\0: a\r\n\r\n",
    "GET /a HTTP/1.1\r\nH\"X\": a\r\n\r\n",
    "GET  /a HTTP/1.1\r\nH\r\n",
    "GET /a  HTTP/1.1\r\nH\r\n",
    "GET /a HTTP/1.1 \r\nH\r\n",
    "GET\t/a HTTP/1.1\r\nH\r\n",
    "GET /a b HTTP/1.1\r\nH\r\n",
    "GET /a\x0bHTTP/1.1\r\nH\r\n",
    "GET /a\r\nH\r\n",
    "GET /a HTTP/0.9\r\nH\r\n",
    "GET /a HTTP/1.2\r\nH\r\n",
    "GET /a HTTP/2.0\r\nH\r\n",
    "GET /a HTTP/1.11\r\nH\r\n",
    "GET /a HTTP/1,1\r\nH\r\n",
    "GET /a HTTPS/1.1\r\nH\r\n",
    "GET a HTTP/1.1\r\nH\r\n",
    "GET \\a HTTP/1.1\r\nH\r\n",
    "GET * HTTP/1.1\r\nH\r\n",
    "GET /a#x HTTP/1.1\r\nH\r\n",
    "GET /a%00 HTTP/1.1\r\nH\r\n",
    "GET /a%0g HTTP/1.1\r\nH\r\n",
    "GET /a/../../b HTTP/1.1\r\nH\r\n",
    "GET /a/%2e%2e/%2e%2e/a HTTP/1.1\r\nH\r\n",
    "GET http://u@h/a HTTP/1.1\r\nH\r\n",
    "GET http:///a HTTP/1.1\r\nH\r\n",
    "GET http:a HTTP/1.1\r\nH\r\n",
    "GET ftp://h/a HTTP/1.1\r\nH\r\n",
    "G=ET /a HTTP/1.1\r\nH:\r\n\r\n",
    "G{T /a HTTP/1.1\r\nH\r\n",
    "CONNECT h:80 HTTP/1.1\r\nH\r\n",
    "CONNECT /a HTTP/1.1\r\nHX\r\n\r\n",
    "TRACE /a HTTP/1.1\r\nH\r\n",
    "\r\n\r\nGET /a HTTP/1.1\r\nH\r\n",
    "\nGET /a HTTP/1.1\r\nH\r\n",
    " GET /a HTTP/1.1\r\nH\r\n",
    "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "POST /a HTTP/1.1\r\nHContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    "POST /a HTTP/1.1\r\nHContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "POST /a HTTP/1.1\r\nHContent-Length: 1,1\r\n\r\nx",
    "POST /a HTTP/1.1\r\nHContent-Length: +1\r\n\r\nx",
    "POST /a HTTP/1.1\r\nHContent-Length: -1\r\n\r\nx",
    "POST /a HTTP/1.1\r\nHContent-Length: 1 \x0b\r\n\r\nx",
    "POST /a HTTP/1.1\r\nHContent-Length: 0x1\r\n\r\nx",
    "POST /a HTTP/1.1\r\nHContent-Length: 1.0\r\n\r\nx",
    "POST /a HTTP/1.1\r\nHContent-Length: \r\n\r\nx",
    "POST /a HTTP/1.1\r\nHContent-Length: 18446744073709551616\r\n\r\nx",
    "POST /a HTTP/1.1\r\nHContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "POST /a HTTP/1.0\r\nHTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding: chunked\r\n\r\n1 \r\nx\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding: chunked\r\n\r\n+1\r\nx\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding: chunked\r\n\r\n1\r\nx0\r\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding: chunked\r\n\r\n8000000000000000\r\nx\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding: chunked\r\n\r\n1;a\nb\r\nx\r\n0\r\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding: chunked\r\n\r\n0\r\nX: a\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding: chunked\r\n\r\n0\r\n X: a\r\n\r\n",
    "POST /a HTTP/1.1\r\nHTransfer-Encoding: chunked\r\n\r\n0\r\nbad trailer\r\n\r\n",
    "POST /a HTTP/1.1\r\nHExpect: 101-switch\r\nContent-Length: 1\r\n\r\nx",
];

fn written(request: &str) -> String {
    request
        .replace("\r\nH\r\n", "\r\nHost: h\r\n\r\n")
        .replace("\r\nHHost:", "\r\nHost: h\r\nHost:")
        .replace("\r\nHContent", "\r\nHost: h\r\nContent")
        .replace("\r\nHTransfer", "\r\nHost: h\r\nTransfer")
        .replace("\r\nHExpect", "\r\nHost: h\r\nExpect")
        .replace("\r\nHX", "\r\nHost: h\r\nX")
        .replace("\r\nH:", "\r\nHost: h\r\n:")
        .replace("\r\nH\"", "\r\nHost: h\r\n\"")
}

#[test]
fn malformed_and_ambiguous_requests_reach_no_worker() {
    assert!(BAD.len() >= 60);
    for slots in [ONE, Slots::Unlimited] {
        let Some(world) = World::where_holds("own_refusals") else { return };
        let worker = Worker::saying(&world, 1, "reached");
        let front = world.serving(table(slots, true), &[&worker]);
        for request in BAD {
            let request = written(request);
            let mut client = Client::connect(front.address);
            // Whatever is hidden behind the doubtful request must not be served either.
            client.send(format!("{request}GET /a/smuggled HTTP/1.1\r\nHost: h\r\n\r\n"));
            let answer = client.receive().unwrap_or_else(|| panic!("no answer to {request:?}"));
            assert!((400..600).contains(&answer.status), "{} to {request:?}", answer.status);
            if !request.starts_with("TRACE") && !request.contains("%") && !request.contains("..") {
                assert!(client.receive().is_none(), "a second answer after {request:?}");
            }
        }
        let targets: Vec<String> =
            worker.requests.lock().unwrap().iter().map(|r| r.target().to_string()).collect();
        // After a request that was whole and only its path or method refused, the next is right.
        let whole = BAD
            .iter()
            .filter(|r| r.starts_with("TRACE") || r.contains('%') || r.contains(".."))
            .count();
        assert!(targets.iter().all(|target| target == "/a/smuggled"), "{targets:?}");
        assert!(targets.len() <= whole, "{} of {whole}", targets.len());
    }
}

#[test]
fn unusual_but_right_requests_are_served() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let front = world.serving(table(ONE, true), &[&worker]);
    for request in [
        "GET /a HTTP/1.0\r\n\r\n",
        "\r\nGET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "GET http://h/a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "GET /a HTTP/1.1\r\nhOST:h\r\nX-Empty:\r\nX-Tab:\ta\t\r\nConnection: close\r\n\r\n",
        "M-SEARCH /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "GET /a?x=/../%00\"<>[]{}| HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: h\r\nX: caf\u{e9}\r\nConnection: close\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: 001\r\nConnection: close\r\n\r\nx",
        "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\nConnection: close\r\n\r\n\
         1;a=\"b c\"\r\nx\r\n0\r\nX-T: 1\r\n\r\n",
        "GET /a HTTP/1.1\r\nHost: h\r\nContent_Length: 5\r\nConnection: close\r\n\r\n",
    ] {
        assert_eq!(ask(front.address, request).text(), "ok", "{request:?}");
    }
    let long =
        format!("GET /a?{} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "q".repeat(30_000));
    assert_eq!(ask(front.address, long).text(), "ok");
}

#[test]
fn heads_are_bounded_and_may_come_byte_by_byte() {
    let Some(world) = World::where_holds("own_refusals") else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let front = world.serving(table(ONE, true), &[&worker]);
    let long = format!("GET /a?{} HTTP/1.1\r\nHost: h\r\n\r\n", "q".repeat(40_000));
    assert_eq!(ask(front.address, long).status, 431);
    let many = format!("GET /a HTTP/1.1\r\nHost: h\r\n{}\r\n", "x: y\r\n".repeat(101));
    assert_eq!(ask(front.address, many).status, 431);
    assert_eq!(worker.bytes(), 0);
    let mut client = Client::connect(front.address);
    for byte in b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello" {
        client.send([*byte]);
    }
    assert_eq!(client.receive().unwrap().text(), "ok");
    assert_eq!(worker.last().body, b"hello");
}

#[test]
fn options_of_the_whole_server_is_answered_by_the_front() {
    let Some(world) = World::where_holds("own_refusals") else { return };
    let worker = Worker::saying(&world, 1, "ok");
    let front = world.serving(table(ONE, true), &[&worker]);
    let answer = ask(front.address, "OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_eq!((answer.status, worker.count()), (200, 0));
}
