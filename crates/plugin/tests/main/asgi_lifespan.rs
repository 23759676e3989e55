//! The server of mfserv with ASGI apps: lifespans that do not go as they should.

use std::fs;

use mfserv_plugin::base::BaseEnvironment;

use crate::Node;
use crate::asgi::{log, worker};
use crate::wsgi_client::get;

const APP: &str = r#"
import asyncio, os, sys

async def answers(send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"served"})

def with_lifespan(lifespan):
    async def app(scope, receive, send):
        if scope["type"] == "http":
            if scope["path"] == "/leave":
                left.set()
            return await answers(send)
        await receive()
        await lifespan(receive, send)
    return app

left = asyncio.Event()

async def starts(send):
    await send({"type": "lifespan.startup.complete"})

async def knows(receive, send):
    raise ConnectionError("the database is down")

async def refuses(receive, send):
    await send({"type": "lifespan.startup.failed", "message": "no database"})
    raise ConnectionError("the database is down")

async def hangs(receive, send):
    await starts(send)
    await receive()
    await asyncio.sleep(1000)

async def dies(receive, send):
    await starts(send)
    await left.wait()
    raise ValueError("eels")

async def exits(receive, send):
    await starts(send)
    await left.wait()
    sys.exit(5)

async def exits_late(receive, send):
    await starts(send)
    await receive()
    sys.exit(4)

knows, refuses, hangs = with_lifespan(knows), with_lifespan(refuses), with_lifespan(hangs)
dies, exits, exits_late = with_lifespan(dies), with_lifespan(exits), with_lifespan(exits_late)
"#;

/// Called by the tests that have made a base environment.
pub fn lifespans_that_fail_are_told_once(node: &Node, base: &BaseEnvironment) {
    let dir = node.plugin("python3_raw_asgi", "lifespan");
    fs::write(dir.join("main/application.py"), APP).unwrap();
    // The name of the app, its path that is asked, how it ends, and what is logged.
    for (name, path, code, why) in [
        ("knows", "/", 0, "ConnectionError: the database is down"),
        ("refuses", "", 1, "the app refuses to start: no database"),
        ("hangs", "/", 0, "the app was not shut down after 1 s"),
        ("dies", "/leave", 0, "ValueError: eels"),
        ("exits", "/leave", 5, ""),
        ("exits_late", "/", 4, ""),
    ] {
        let socket = node.work().join(name);
        let target = format!("main.application:{name}");
        let mut app = worker(node, base, &dir, &["--asgi", "--timeout=1", &target], &socket);
        if !path.is_empty() {
            assert_eq!(get(&socket, path, "").1, "served", "{name}");
        }
        if name == "dies" {
            assert_eq!(get(&socket, "/", "").1, "served", "requests are served all the same");
        }
        if !path.is_empty() && name != "exits" {
            app.signal("TERM");
        }
        assert_eq!(app.ended().code(), Some(code), "{name}: {}", log(&socket));
        let log = log(&socket);
        assert!(!socket.exists() && log.contains(why), "{name}: {log}");
        assert!(!log.contains("never retrieved"), "{name}: it is told once: {log}");
        assert_eq!(log.is_empty(), why.is_empty(), "{name}: {log}");
    }
}
