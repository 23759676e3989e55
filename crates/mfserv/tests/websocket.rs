//! WebSockets of an ASGI app on the server of mfserv, through the front.

use std::io::{Read, Write};
use std::net::TcpStream;

use mfserv_testkit::websocket::{
    BINARY, CLOSE, PING, PONG, TEXT, closed, frame, next, read_head, request,
};
use mfserv_testkit::{Load, Node, Plugin, until};

use crate::{PATIENCE, Turn, node};

const APP: &str = r#"
import json

ended = []

async def app(scope, receive, send):
    path = scope.get("path", "")
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        return await send({"type": "http.response.body", "body": json.dumps(ended).encode()})
    assert scope["type"] == "websocket"
    await receive()
    if path.endswith("/close"):
        return await send({"type": "websocket.close"})
    if path.endswith("/deny"):
        await send({"type": "websocket.http.response.start", "status": 418, "headers": []})
        return await send({"type": "websocket.http.response.body", "body": b"short and stout"})
    await send({"type": "websocket.accept", "subprotocol": (scope["subprotocols"] or [None])[-1]})
    if path.endswith("/bye"):
        return await send({"type": "websocket.close", "code": 4000, "reason": "enough"})
    if path.endswith("/scheme"):
        return await send({"type": "websocket.send", "text": scope["scheme"] + " " + scope["client"][0]})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
    ended.append([path.rsplit("/", 1)[1], message["code"]])
"#;

/// Asks for a WebSocket (RFC 6455, 1.3). Returns the head of the answer.
fn ask(node: &Node, path: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(node.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let protocols = "Sec-WebSocket-Protocol: one, two\r\n";
    stream.write_all(request("h", &format!("/talks/{path}"), protocols).as_bytes()).unwrap();
    let head = read_head(&mut stream).to_ascii_lowercase();
    (stream, head)
}

fn open(node: &Node, path: &str) -> TcpStream {
    let (stream, head) = ask(node, path);
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
    assert!(head.contains("sec-websocket-protocol: two\r\n"), "{head}");
    stream
}

#[test]
fn a_websocket_of_an_asgi_app_goes_through_the_front_both_ways_to_its_end() {
    let _turn = Turn::cheap();
    let node = node();
    node.set("front.upgrade_drain_timeout", "5");
    let command = "mfserv_worker --asgi main.application:app {unix_socket_path}";
    let plugin = Plugin::new("talks").file("main/__init__.py", "");
    node.add(&plugin.file("main/application.py", APP).app("main", command));
    node.start();

    let mut echoes = open(&node, "echo");
    let large = vec![b'l'; 1 << 20];
    for (first, payload) in [(TEXT, "gr\u{fc}n".as_bytes()), (BINARY, &large), (TEXT, b"")] {
        echoes.write_all(&frame(first, payload)).unwrap();
        assert!(next(&mut echoes) == (first, payload.to_vec()), "{} bytes", payload.len());
    }
    // In two frames, with a ping between them.
    let parts = [frame(0x01, b"two "), frame(PING, b"there?"), frame(0x80, b"frames")].concat();
    echoes.write_all(&parts).unwrap();
    assert_eq!(next(&mut echoes), (PONG, b"there?".to_vec()));
    assert_eq!(next(&mut echoes), (TEXT, b"two frames".to_vec()));

    // Many at once, beside requests.
    let load = Load::new(node.address(), "/talks").connections(4).start();
    let mut many: Vec<_> = (0..50).map(|_| open(&node, "many")).collect();
    for (number, stream) in many.iter_mut().enumerate() {
        stream.write_all(&frame(TEXT, number.to_string().as_bytes())).unwrap();
    }
    for (number, stream) in many.iter_mut().enumerate() {
        assert_eq!(next(stream), (TEXT, number.to_string().into_bytes()));
    }
    load.answers(20);
    load.stop().assert_nothing_failed();

    assert_eq!(next(&mut open(&node, "scheme")), (TEXT, b"ws 127.0.0.1".to_vec()));
    assert_eq!(next(&mut open(&node, "bye")), closed(4000, "enough"));
    assert!(ask(&node, "close").1.starts_with("http/1.1 403 "));
    assert!(ask(&node, "deny").1.starts_with("http/1.1 418 "));

    // The app is told how each has ended.
    echoes.write_all(&frame(CLOSE, &4001_u16.to_be_bytes())).unwrap();
    assert_eq!(next(&mut echoes), closed(4001, ""));
    drop(many);
    let count = |end: &str| node.get("/talks").text().matches(end).count();
    until("the app knows", PATIENCE, || count("[\"echo\", 4001]") == 1);
    until("fifty have left", PATIENCE, || count("[\"many\", 1006]") == 50);

    // When its worker is replaced it goes on for a while, then the front closes the connection.
    let mut last = open(&node, "last");
    last.write_all(&frame(TEXT, b"still there")).unwrap();
    assert_eq!(next(&mut last), (TEXT, b"still there".to_vec()));
    node.mfserv(&["restart", "talks"]).code(0);
    last.write_all(&frame(TEXT, b"after the restart")).unwrap();
    assert_eq!(next(&mut last), (TEXT, b"after the restart".to_vec()));
    let mut rest = Vec::new();
    last.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty() || rest.starts_with(&[CLOSE]), "{rest:?}");
    node.stop();
}
