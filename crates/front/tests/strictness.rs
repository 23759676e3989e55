//! Hundreds of requests that are wrong, or could be read in two ways, and dozens of broken
//! answers. What counts is what an instrumented worker, and the next client, really get.

use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

use mfserv_core::route::Slots;

use crate::patience::in_time;
use crate::world::*;

const POLICIES: [Slots; 2] = [ONE, Slots::Unlimited];

/// A whole head with this start line and these lines after a right Host.
fn head(start: &str, lines: &str) -> Vec<u8> {
    format!("{start}\r\nHost: h\r\n{lines}\r\n").into_bytes()
}

fn get(lines: &str) -> Vec<u8> {
    head("GET /a HTTP/1.1", lines)
}

fn post(lines: &str, body: &str) -> Vec<u8> {
    let mut request = head("POST /a HTTP/1.1", lines);
    request.extend_from_slice(body.as_bytes());
    request
}

fn chunked(body: &str) -> Vec<u8> {
    post("Transfer-Encoding: chunked\r\n", body)
}

fn bad_start_lines() -> Vec<Vec<u8>> {
    let versions = [
        "HTTP/0.9",
        "HTTP/1.2",
        "HTTP/1.9",
        "HTTP/2.0",
        "HTTP/2",
        "HTTP/3",
        "HTTP/1",
        "HTTP/1.",
        "HTTP/.1",
        "HTTP/1.10",
        "HTTP/1.01",
        "HTTP/01.1",
        "HTTP/11",
        "HTTP/1.1.1",
        "HTTP/1.1x",
        "HTTP/x.y",
        "HTTP/-1.1",
        "HTTP/+1.1",
        "http/1.1",
        "Http/1.1",
        "HTTP 1.1",
        "HTTP/ 1.1",
        "HTTP /1.1",
        "HTTPS/1.1",
        "ICAP/1.0",
        "RTSP/1.0",
        "HTTP/1.1 ",
        "HTTP/1.1\t",
        "HTTP/1.1\x0b",
        "HTTP/1.1 x",
        "",
        "GET /a HTTP/1.1",
    ];
    let targets = [
        "",
        "a",
        "a/b",
        "*",
        "?",
        "?x",
        "#",
        "/a#b",
        "#/a",
        "/a b",
        "/a\tb",
        "/a\x0bb",
        "/a\x7f",
        "\\a",
        "h",
        "h:80",
        "//",
        ":80",
        "http:",
        "http:/",
        "http:a",
        "http://",
        "http:///a",
        "http://?x",
        "http://@/a",
        "http://u@h/a",
        "http://u:p@h/a",
        "http://@h/a",
        "http://h@/a",
        "http://h\\a",
        "http://h h/a",
        "http://h,i/a",
        "http://h:x/a",
        "http://h:99999/a",
        "http://h:-1/a",
        "http://h%41/a",
        "http://[::1/a",
        "http://::1/a",
        "http://[h]/a",
        "ftp://h/a",
        "ws://h/a",
        "file:///a",
        "javascript:1",
        "//h/a#x",
        "mailto:x@h",
    ];
    let methods = [
        "",
        " ",
        "G ET",
        "GET\t",
        "G\x01T",
        "(GET)",
        "GE<T",
        "GE>T",
        "GE@T",
        "GE,T",
        "GE;T",
        "GE:T",
        "GE\\T",
        "GE\"T",
        "GE/T",
        "GE[T",
        "GE]T",
        "GE?T",
        "GE=T",
        "GE{T",
        "GE}T",
        "GE\x7fT",
        "GE\u{e9}T",
    ];
    let mut all = Vec::new();
    all.extend(versions.iter().map(|version| head(&format!("GET /a {version}"), "")));
    all.extend(targets.iter().map(|t| head(&format!("GET {t} HTTP/1.1"), "")));
    all.extend(methods.iter().map(|m| head(&format!("{m} /a HTTP/1.1"), "")));
    all.extend(
        [
            "GET  /a HTTP/1.1",
            "GET /a  HTTP/1.1",
            "GET\t/a\tHTTP/1.1",
            "GET /a\tHTTP/1.1",
            " GET /a HTTP/1.1",
        ]
        .iter()
        .map(|start| head(start, "")),
    );
    // `//` is a path after all; `CONNECT` has no meaning here.
    all.retain(|request| !request.starts_with(b"GET // HTTP"));
    all.extend(["CONNECT h:80 HTTP/1.1", "CONNECT /a HTTP/1.1"].iter().map(|s| head(s, "")));
    all
}

/// Bytes that may not stand in a field name, each in the middle, in front and behind.
fn bad_field_names() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for byte in (0..=b' ').chain(*b"\"(),/;<=>?@[\\]{}\x7f\x80\xff") {
        if byte == b'\n' || byte == b'\r' {
            continue;
        }
        let mut request = b"GET /a HTTP/1.1\r\nHost: h\r\nX-A".to_vec();
        request.push(byte);
        request.extend_from_slice(b"B: c\r\n\r\n");
        all.push(request);
    }
    for name in
        ["Host", "Content-Length", "Transfer-Encoding", "Connection", "Expect", "Upgrade", "Cookie"]
    {
        for gap in [" ", "\t", "  ", "\x0b"] {
            all.push(get(&format!("{name}{gap}: 1\r\n")));
        }
    }
    for lines in ["novalue\r\n", ": empty\r\n", " : empty\r\n", "\t: x\r\n", "X\r\n", " X: a\r\n"] {
        all.push(get(lines));
    }
    all
}

fn bad_field_values() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for byte in (0..0x20).chain([0x7f]).filter(|byte| !b"\t\n\r".contains(byte)) {
        let mut request = b"GET /a HTTP/1.1\r\nHost: h\r\nX: a".to_vec();
        request.push(byte);
        request.extend_from_slice(b"b\r\n\r\n");
        all.push(request);
    }
    for lines in [
        "X: a\nb\r\n",
        "X: a\rb\r\n",
        "X: a\n\r\n",
        "X: a\r\r\n",
        "X: a\n\n",
        "X: a\nY: b\r\n",
        "X: a\rY: b\r\n",
        "X: a\r\n b\r\n",
        "X: a\r\n\tb\r\n",
        "X: a\r\n \r\n",
        "X:\r\n a\r\n",
        "X: a\r\n Content-Length: 5\r\n",
        "X: a\r\n\x0bb\r\n",
        "X: a\u{0}\r\n",
        "\rX: a\r\n",
        "\nX: a\r\n",
        "X: a\r\n\r",
        "Content-Length: 0\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\nX: y\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Content-Length:\r\n 5\r\n",
    ] {
        all.push(get(lines));
    }
    all
}

fn bad_hosts() -> Vec<Vec<u8>> {
    let hosts = [
        "",
        " ",
        "h h",
        "h,h",
        "h, h",
        "h;h",
        "u@h",
        "u:p@h",
        "@h",
        "h@",
        "h/",
        "h/x",
        "/h",
        "h?x",
        "h#x",
        "h\\x",
        "h%41",
        "h%00",
        "h:",
        ":80",
        ":",
        "h:x",
        "h:-1",
        "h:+1",
        "h:8 0",
        "h:99999",
        "h:65536",
        "h:080808",
        "h:80:80",
        "h:80x",
        "::1",
        "[::1",
        "::1]",
        "[]",
        "[h]",
        "[1.2.3.4]",
        "[::1]x",
        "[::1]:x",
        "[::1%25eth0]",
        "h\tx",
        "h\"",
        "h'",
        "h!",
        "h$",
        "h&",
        "h(",
        "h*",
        "h+",
        "h=",
        "h<",
        "h>",
        "h|",
        "h^",
        "h`",
        "h{",
        "caf\u{e9}",
        "http://h",
        "h\u{2e}\u{200b}",
    ];
    let mut all: Vec<Vec<u8>> = hosts
        .iter()
        .filter(|host| **host != "h:")
        .map(|host| format!("GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes())
        .collect();
    all.push(b"GET /a HTTP/1.1\r\n\r\n".to_vec());
    for second in
        ["Host: h\r\n", "host: h\r\n", "HOST: other\r\n", "X: y\r\nHost: h\r\n", "Host:\r\n"]
    {
        all.push(get(second));
        all.push(format!("GET http://h/a HTTP/1.1\r\nHost: h\r\n{second}\r\n").into_bytes());
    }
    all.push(b"GET http://h/a HTTP/1.1\r\n\r\n".to_vec());
    all
}

fn bad_framings() -> Vec<Vec<u8>> {
    let lengths = [
        "+1",
        "-1",
        "- 1",
        "1-",
        "1 1",
        "1,1",
        "1, 1",
        "1,2",
        "1;",
        "1;x",
        "1.0",
        "1e0",
        "0x1",
        "0b1",
        "0o1",
        "1_0",
        "one",
        "\"1\"",
        "'1'",
        "1\t1",
        "",
        " ",
        ",",
        "1,",
        ",1",
        "NaN",
        "1h",
        "\u{ff11}",
        "\u{661}",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "18446744073709551617",
        "99999999999999999999999999",
        "0000000000000000000000000001",
        "4294967297 ,1",
        "1\x0b",
        "1\u{a0}",
        "%31",
        "(1)",
        "*",
        "null",
    ];
    let codings = [
        "identity",
        "gzip",
        "deflate",
        "compress",
        "br",
        "x-chunked",
        "xchunked",
        "chunkedx",
        "chunked chunked",
        "chunked,chunked",
        "chunked, chunked",
        "chunked, identity",
        "identity, chunked",
        "chunked, gzip",
        "gzip, chunked",
        "gzip,chunked",
        "chunked,",
        ",chunked",
        ", chunked",
        "chunked;",
        "chunked;q=1",
        "chunked; x",
        "\"chunked\"",
        "'chunked'",
        "(chunked)",
        "chunked\x0b",
        "\x0bchunked",
        "chunk",
        "chunked\u{a0}",
        "c\u{e7}hunked",
        "chunked=",
        "trailers",
        "",
        " ",
        ",",
        "none",
        "0",
        "true",
        "chunked\tchunked",
    ];
    let mut all = Vec::new();
    all.extend(lengths.iter().map(|l| post(&format!("Content-Length: {l}\r\n"), "x")));
    all.extend(codings.iter().map(|c| post(&format!("Transfer-Encoding: {c}\r\n"), "0\r\n\r\n")));
    let (length, coding) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    for (first, second) in [
        (length, coding),
        (coding, length),
        (length, length),
        (coding, coding),
        (length, "Content-Length: 6\r\n"),
        (length, "content-length: 5\r\n"),
        (length, "Content-Length:\r\n"),
        ("Content-Length: 0\r\n", coding),
        (coding, "Transfer-Encoding: identity\r\n"),
        ("Transfer-Encoding: gzip\r\n", coding),
        (coding, "Transfer-Encoding:\r\n"),
        ("Transfer-Encoding:\r\n", coding),
        ("TRANSFER-ENCODING: chunked\r\n", length),
        (length, "transfer-encoding:chunked\r\n"),
        (length, "Transfer-Encoding: identity\r\n"),
        (length, "Transfer-Encoding: x\r\n"),
    ] {
        all.push(post(&format!("{first}{second}"), "0\r\n\r\n"));
        all.push(post(&format!("{first}X: y\r\n{second}"), "0\r\n\r\n"));
    }
    for lines in [coding.to_string(), format!("{coding}{length}")] {
        all.push([head("POST /a HTTP/1.0", &lines), b"0\r\n\r\n".to_vec()].concat());
    }
    for expect in ["x", "100", "100-continue, x", "200-ok", "100-continue;x", "\"100-continue\""] {
        all.push(post(&format!("Expect: {expect}\r\nContent-Length: 1\r\n"), "x"));
    }
    all.push(post("Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 1\r\n", "x"));
    all
}

fn bad_chunks() -> Vec<Vec<u8>> {
    [
        "\r\n",
        "\n",
        " 1\r\nx\r\n",
        "\t1\r\nx\r\n",
        "1 \r\nx\r\n",
        "1\t\r\nx\r\n",
        "+1\r\nx\r\n",
        "-1\r\nx\r\n",
        "0x1\r\nx\r\n",
        "0X1\r\nx\r\n",
        "1h\r\nx\r\n",
        "x\r\n",
        "g\r\n",
        "1\nx\r\n",
        "1\r\rx\r\n",
        "1\n\rx\r\n",
        "1\r\nxx\r\n",
        "1\r\nx\n",
        "1\r\nx\r\r",
        "1\r\nx0\r\n\r\n",
        "1\r\nx\n\r0\r\n\r\n",
        "2\r\nx\r\n0\r\n\r\n",
        "1;a\nx\r\n",
        "1;a\rb\r\nx\r\n",
        "1;a\0\r\nx\r\n",
        "1;\x01\r\nx\r\n",
        "1;a=\"\n\"\r\nx\r\n",
        ";a\r\nx\r\n",
        "1,1\r\nx\r\n",
        "1.0\r\nx\r\n",
        "1_\r\nx\r\n",
        "\"1\"\r\nx\r\n",
        "ffffffffffffffff\r\nx",
        "8000000000000000\r\nx",
        "10000000000000000\r\nx",
        "00000000000000001\r\nx",
        "fffffffffffffffff\r\nx",
        "0\r\nX\r\n\r\n",
        "0\r\n: x\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\n\tX: y\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nX: y\n\n",
        "0\r\nX: \0\r\n\r\n",
        "0\r\nX: a\r\n b\r\n\r\n",
        "0\r\nX: \x7f\r\n\r\n",
        "0\r\nX(: y\r\n\r\n",
        "0\n\n",
        "0\r\n\n",
        "0\r\n\rX",
        "0;a\n\r\n",
        "1\r\nx\r\n0\n\r\n",
        "1\r\nx\r\n\r\n",
        "1\r\nx\r\n-0\r\n\r\n",
        "\u{0661}\r\nx\r\n",
        "1\u{a0}\r\nx\r\n",
    ]
    .iter()
    .map(|body| chunked(body))
    .chain([
        chunked(&format!("1;{}\r\nx\r\n0\r\n\r\n", "y".repeat(1000))),
        chunked(&format!("0\r\n{}\r\n", "X: y\r\n".repeat(3000))),
    ])
    .collect()
}

fn other_protocols() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "SSH-2.0-x\r\n\r\n",
        "\r\n\r\n\r\n",
        "\n\n",
        "\r\n\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n",
        "\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n",
        "\0GET /a HTTP/1.1\r\nHost: h\r\n\r\n",
        "\u{feff}GET /a HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /a\r\n\r\n",
        "GET\r\n\r\n",
        "GET /a HTTP/1.1\nHost: h\n\n",
        "HELO x\r\n\r\n",
        "GET /a HTTP/1.1\rHost: h\r\r",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    all.push(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec());
    all.push(b"\r\n\r\n\0\r\nQUIT\n!\x11\r\n\r\n".to_vec());
    all.push(get(&"X: y\r\n".repeat(101)));
    all.push(get(&format!("X: {}\r\n", "y".repeat(33_000))));
    all.push(head(&format!("GET /{} HTTP/1.1", "a".repeat(33_000)), ""));
    all.push(head(&format!("{} /a HTTP/1.1", "G".repeat(33_000)), ""));
    all
}

/// Requests whose end cannot come any more.
fn ended_early() -> Vec<Vec<u8>> {
    [
        post("Content-Length: 5\r\n", "abc"),
        post("Content-Length: 1\r\n", ""),
        chunked(""),
        chunked("5"),
        chunked("5\r"),
        chunked("5\r\n"),
        chunked("5\r\nabc"),
        chunked("5\r\nabcde"),
        chunked("5\r\nabcde\r\n"),
        chunked("5\r\nabcde\r\n0"),
        chunked("5\r\nabcde\r\n0\r\n"),
        chunked("5\r\nabcde\r\n0\r\nX: y\r\n"),
        chunked("5\r\nabcde\r\n0\r\n\r"),
        b"GET /a HTTP/1.1\r\nHost: h\r\n".to_vec(),
        b"GET /a HTTP/1.1\r\nHost: h\r\n\r".to_vec(),
        b"GET /a HTTP/1.1\r\nHost: h".to_vec(),
        b"GET /a HTTP/1.1".to_vec(),
        b"G".to_vec(),
    ]
    .to_vec()
}

fn all_bad() -> Vec<Vec<u8>> {
    [
        bad_start_lines(),
        bad_field_names(),
        bad_field_values(),
        bad_hosts(),
        bad_framings(),
        bad_chunks(),
        other_protocols(),
    ]
    .concat()
}

#[test]
fn no_doubtful_request_reaches_a_worker_and_nothing_behind_it_does() {
    let bad = all_bad();
    println!("{} doubtful requests, {} that end early", bad.len(), ended_early().len());
    assert!(bad.len() >= 300, "only {}", bad.len());
    for slots in POLICIES {
        let Some(world) = World::where_holds("own_refusals") else { return };
        let worker = Worker::saying(&world, 1, "reached");
        let front = world.serving(table(slots, true), &[&worker]);
        for request in &bad {
            let shown = String::from_utf8_lossy(&request[..request.len().min(200)]).into_owned();
            let mut client = Client::connect(front.address);
            client.send([request, &b"GET /a/smuggled HTTP/1.1\r\nHost: h\r\n\r\n"[..]].concat());
            let answer = client.receive().unwrap_or_else(|| panic!("no answer to {shown:?}"));
            assert!((400..600).contains(&answer.status), "{} to {shown:?}", answer.status);
            assert_eq!(answer.field("x-request-id").len(), 1, "{shown:?}");
            assert!(client.receive().is_none(), "a second answer after {shown:?}");
            assert_eq!(worker.bytes(), 0, "{shown:?} reached the worker");
        }
        for request in ended_early() {
            let mut client = Client::connect(front.address);
            client.send(&request);
            client.stream.shutdown(Shutdown::Write).unwrap();
            let answer = client.receive();
            assert!(answer.is_none_or(|answer| answer.status >= 400), "{request:?}");
            assert_eq!(worker.bytes(), 0, "{request:?} reached the worker");
        }
        // The front is none the worse for it.
        assert_eq!(front.get("/a").text(), "reached");
    }
}

/// Unusual, but with one meaning only: the request, and the target and body that arrive.
fn unusual() -> Vec<(Vec<u8>, &'static str, Vec<u8>)> {
    let mut all: Vec<(Vec<u8>, &'static str, Vec<u8>)> = Vec::new();
    for (start, target) in [
        ("GET /a HTTP/1.1", "/a"),
        ("get /a HTTP/1.1", "/a"),
        ("X /a HTTP/1.1", "/a"),
        ("M-SEARCH /a HTTP/1.1", "/a"),
        ("!#$%&'*+-.^_`|~09Az /a HTTP/1.1", "/a"),
        ("PROPFIND /a HTTP/1.1", "/a"),
        ("DELETE /a HTTP/1.1", "/a"),
        ("OPTIONS /a HTTP/1.1", "/a"),
        ("GET http://h/a HTTP/1.1", "/a"),
        ("GET HTTP://H/a HTTP/1.1", "/a"),
        ("GET https://h/a?b HTTP/1.1", "/a?b"),
        ("GET /a? HTTP/1.1", "/a?"),
        ("GET /a?? HTTP/1.1", "/a??"),
        ("GET /a?x=http://y/../%00 HTTP/1.1", "/a?x=http://y/../%00"),
        ("GET /a/%41%2f%5c HTTP/1.1", "/a/%41%2f%5c"),
        ("GET //a HTTP/1.1", "//a"),
        ("GET /x/../a/./b HTTP/1.1", "/x/../a/./b"),
        ("GET /%61 HTTP/1.1", "/%61"),
        ("GET /a/;p=1,2:@!$&'()*+= HTTP/1.1", "/a/;p=1,2:@!$&'()*+="),
        ("GET /a/caf%C3%A9 HTTP/1.1", "/a/caf%C3%A9"),
        ("GET /a/%ff HTTP/1.1", "/a/%ff"),
    ] {
        all.push((head(start, ""), target, vec![]));
    }
    for lines in [
        "X:\r\n",
        "X: \r\n",
        "X:\t\r\n",
        "X:a\r\n",
        "X:  a \t \r\n",
        "x-a: B\r\n",
        "X: a\tb\r\n",
        "X: caf\u{e9}\r\n",
        "X: \"a, b\"\r\n",
        "X: a:b:c\r\n",
        "X: {}[]()<>@,;\\/?=\r\n",
        "A: 1\r\nA: 2\r\n",
        "!#$%&'*+-.^`|~: x\r\n",
        "0: x\r\n",
        "X_Y: z\r\n",
        "Content_Length: 5\r\n",
        "Transfer_Encoding: chunked\r\n",
        "TE: trailers, chunked\r\n",
        "Connection: keep-alive\r\n",
        "Connection: X-Y, keep-alive\r\nX-Y: 1\r\n",
        "Connection: ,, keep-alive ,\r\n",
        "Proxy-Connection: keep-alive\r\n",
        "Proxy: http://evil\r\n",
        "Keep-Alive: timeout=5\r\n",
        "Upgrade: h2c\r\nConnection: upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n",
        "Upgrade: websocket\r\n",
        "Content-Length: 0\r\n",
        "Content-Length:0\r\n",
        "Content-Length: 000\r\n",
        "Cookie: a=b\r\nCookie: c=d\r\n",
        "Expect: 100-continue\r\n",
        "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: bad\r\n",
        "X-Request-Id: mine\r\n",
        "Authorization: Basic eDp5\r\n",
        "Range: bytes=0-\r\n",
        "If-Match: *\r\n",
    ] {
        all.push((get(lines), "/a", vec![]));
    }
    for host in [
        "h",
        "H",
        "h:80",
        "h:",
        "h:0",
        "h:65535",
        "h.example",
        "h.example.",
        "a-b.c_d",
        "127.0.0.1",
        "127.0.0.1:8080",
        "[::1]",
        "[::1]:80",
        "[2001:DB8::1]",
        "xn--caf-dma.example",
        "~x",
    ] {
        all.push((format!("GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes(), "/a", vec![]));
    }
    all.push((b"\r\nGET /a HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), "/a", vec![]));
    all.push((b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_vec(), "/a", vec![]));
    all.push((get(&"X: y\r\n".repeat(99)), "/a", vec![]));
    all.push((get(&format!("X: {}\r\n", "y".repeat(30_000))), "/a", vec![]));
    all.push((post("Content-Length: 3\r\n", "abc"), "/a", b"abc".to_vec()));
    all.push((post("Content-Length: 003\r\n", "abc"), "/a", b"abc".to_vec()));
    all.push((post("Content-Length: 3 \t\r\n", "\r\n\0"), "/a", b"\r\n\0".to_vec()));
    all.push((head("GET /a HTTP/1.1", "Content-Length: 2\r\n"), "/a", b"xy".to_vec()));
    all.last_mut().unwrap().0.extend_from_slice(b"xy");
    all.push((post("Expect: 100-continue\r\nContent-Length: 2\r\n", "xy"), "/a", b"xy".to_vec()));
    for (body, content) in [
        ("0\r\n\r\n", ""),
        ("1\r\nx\r\n0\r\n\r\n", "x"),
        ("A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("a\r\n0123456789\r\n00\r\n\r\n", "0123456789"),
        ("0001\r\nx\r\n0\r\n\r\n", "x"),
        ("1;\r\nx\r\n0;\r\n\r\n", "x"),
        ("1;a\r\nx\r\n0\r\n\r\n", "x"),
        ("1;a=b;c=\"d e\"\r\nx\r\n0\r\n\r\n", "x"),
        ("1 ;a\r\nx\r\n0\r\n\r\n", ""),
        ("1\r\nx\r\n2\r\n\r\n\r\n0\r\n\r\n", "x\r\n"),
        ("1\r\nx\r\n0\r\nX-T: y\r\nZ:\r\n\r\n", "x"),
        ("1\r\nx\r\n0\r\nContent-Length: 5\r\nHost: evil\r\n\r\n", "x"),
    ] {
        // White space before `;` is refused, and is no part of this list.
        if body.starts_with("1 ;") {
            continue;
        }
        all.push((chunked(body), "/a", content.as_bytes().to_vec()));
    }
    for coding in ["Chunked", "CHUNKED", "chunked \t", " \tchunked"] {
        let request = post(&format!("Transfer-Encoding:{coding}\r\n"), "1\r\nx\r\n0\r\n\r\n");
        all.push((request, "/a", b"x".to_vec()));
    }
    all
}

#[test]
fn no_unusual_but_right_request_is_refused_and_it_arrives_with_its_meaning() {
    let unusual = unusual();
    println!("{} unusual requests", unusual.len());
    assert!(unusual.len() >= 90, "only {}", unusual.len());
    for slots in POLICIES {
        let Some(world) = World::where_holds("own_refusals") else { return };
        let worker = Worker::saying(&world, 1, "ok");
        let front = world.serving(table(slots, true), &[&worker]);
        for (request, target, body) in &unusual {
            let shown = String::from_utf8_lossy(&request[..request.len().min(200)]).into_owned();
            let mut client = Client::connect(front.address);
            client.send([request, &b"GET /a/next HTTP/1.1\r\nHost: h\r\n\r\n"[..]].concat());
            let answer = client.receive().unwrap_or_else(|| panic!("no answer to {shown:?}"));
            assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{shown:?}");
            assert_eq!(client.receive().map(|answer| answer.status), Some(200), "after {shown:?}");
            let requests = std::mem::take(&mut *worker.requests.lock().unwrap());
            let [one, next] = &requests[..] else { panic!("{requests:?} for {shown:?}") };
            assert_eq!((one.target(), &one.body), (*target, body), "{shown:?}");
            assert_eq!(next.target(), "/a/next", "after {shown:?}");
            let odd = [
                "te",
                "proxy",
                "proxy-connection",
                "keep-alive",
                "http2-settings",
                "x-y",
                "expect",
            ];
            for name in odd.into_iter().chain(["content_length", "transfer_encoding", "x_y"]) {
                assert!(one.field(name).is_empty(), "{name} of {shown:?}");
            }
            assert_eq!(one.field("host").len(), 1, "{shown:?}");
            assert!(one.field("content-length").len() + one.field("transfer-encoding").len() < 2);
        }
    }
}

/// What a worker writes, and whether it closes after it. No client may take any of it for
/// a whole answer with another meaning than `whole` says.
fn broken_answers() -> Vec<(String, Option<&'static str>)> {
    let ok = "HTTP/1.1 200 OK\r\n";
    let mut all: Vec<(String, Option<&'static str>)> = Vec::new();
    for start in [
        "",
        "H",
        "HTTP/1.1",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r",
        "hello\r\n\r\n",
        "\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        "<html>hello</html>\r\n\r\n",
        "HTTP/1.1 200 OK\n\n",
        "HTTP/1.1 200 OK\r\n\n",
        " HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 2 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 000 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1 600 OK\r\n\r\n",
        "HTTP/1.1 999 OK\r\n\r\n",
        "HTTP/1.1 -20 OK\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/0.9 200 OK\r\n\r\n",
        "http/1.1 200 OK\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ] {
        all.push((start.into(), None));
    }
    for lines in [
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: 2\r\nContent-Length: 2",
        "Content-Length: 2, 2",
        "Content-Length: -2",
        "Content-Length: +2",
        "Content-Length: 0x2",
        "Content-Length: two",
        "Content-Length:",
        "Content-Length: 99999999999999999999",
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: identity",
        "X : a",
        "X\t: a",
        ": a",
        "X",
        "X: a\r\n b",
        "X: a\nb: c",
        "X: a\rb",
        "X: \0",
        "X: \x01",
        "X(: a",
        "Content-Length: 2\r\n Content-Length: 3",
    ] {
        all.push((format!("{ok}{lines}\r\n\r\nab"), None));
    }
    for cut in [
        "Content-Length: 10\r\n\r\nab",
        "Content-Length: 1\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nab",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nabX",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n-1\r\n",
        "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        "Transfer-Encoding: chunked\r\n\r\n2\nab\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nab",
    ] {
        all.push((format!("{ok}{cut}"), None));
    }
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for right in [
        "Content-Length: 2\r\n\r\nab",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        "Content-Length: 2\r\nConnection: close\r\n\r\nab",
    ] {
        // Junk behind a whole answer, as if it were the answer to the next request.
        all.push((format!("{ok}{right}{evil}"), Some("ab")));
    }
    all.push((format!("HTTP/1.1 204 No\r\nContent-Length: 4\r\n\r\n{evil}"), Some("")));
    all.push((format!("HTTP/1.1 304 No\r\n\r\n{evil}"), Some("")));
    all.push((
        format!("{}{ok}Content-Length: 0\r\n\r\n", "HTTP/1.1 100 C\r\n\r\n".repeat(40)),
        None,
    ));
    all
}

#[test]
fn no_broken_answer_is_taken_for_a_whole_one_and_none_reaches_the_next_request() {
    assert!(broken_answers().len() >= 40);
    for (slots, closes) in POLICIES.into_iter().flat_map(|slots| [(slots, true), (slots, false)]) {
        let world = World::new();
        let worker = Worker::start(&world, 1, move |stream, received| {
            let Some(number) = received.target().strip_prefix("/a/broken/") else {
                return say(stream, received.target());
            };
            let answers = broken_answers();
            let (answer, _) = &answers[number.parse::<usize>().unwrap()];
            let _ = stream.write_all(answer.as_bytes());
            if closes {
                // The end comes apart from the answer: the front cannot be seen reading.
                std::thread::sleep(Duration::from_millis(3));
            }
            !closes
        });
        let mut table = table(slots, true);
        table.upstreams.get_mut("p/a").unwrap().timeout_ms = 150;
        let front = world.serving(table, &[&worker]);
        let mut neighbour = Client::connect(front.address);
        for (number, (written, whole)) in broken_answers().iter().enumerate() {
            let start = format!("POST /a/broken/{number} HTTP/1.1");
            let ask = || try_ask(front.address, head(&start, "Content-Length: 0\r\n"));
            match (if whole.is_some() { in_time(ask) } else { ask() }, whole) {
                (Some(got), Some(text)) => assert_eq!(got.text(), *text, "{written:?}"),
                (Some(got), None) => {
                    assert!(matches!(got.status, 502 | 504) || !got.whole, "{written:?}: {got:?}");
                }
                (None, _) => {}
            }
            let next = format!("/a/next/{number}");
            let got = in_time(|| Some(neighbour.get(&next))).unwrap();
            assert_eq!(got.text(), next, "after {written:?}");
            // No connection that carried a broken answer is used again.
            let raw = worker.raw.lock().unwrap();
            let used = raw.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            for text in used.filter(|text| text.contains("/a/broken/")) {
                let last = text.rfind("/a/broken/").unwrap_or_default();
                assert!(!text[last..].contains("/a/next/"), "{text:?} after {written:?}");
            }
        }
    }
}
