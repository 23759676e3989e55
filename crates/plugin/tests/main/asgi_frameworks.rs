//! Starlette and FastAPI, from the package index, on the server of mfserv.

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;

use crate::asgi::{in_environment, log, worker};
use crate::templates::{deploy, with_base};
use crate::wsgi_client::{connect, get, raw_text as raw};
use crate::{Node, until};

/// What frameworks need of a server.
const FASTAPI: &str = r#"
import asyncio, contextlib, signal, time
import anyio
from fastapi import Depends, FastAPI, Request, WebSocket, WebSocketException
from fastapi.responses import FileResponse, StreamingResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.endpoints import WebSocketEndpoint
from starlette.routing import Route, WebSocketRoute

@contextlib.asynccontextmanager
async def lifespan(app):
    yield {"made": "at the start"}
    open("shut-down", "w").close()

left = []

def blocking(request):
    time.sleep(0.01)
    return PlainTextResponse("in a thread")

async def raises(request):
    raise ValueError("eels")

async def grouped(request):
    async with anyio.create_task_group() as group:
        with anyio.move_on_after(0.01):
            await anyio.sleep(10)
        group.start_soon(anyio.sleep, 0)
    text = "gone" if await request.is_disconnected() else "there"
    return PlainTextResponse(text, background=BackgroundTask(left.append, "background"))

class Noted(BaseHTTPMiddleware):
    async def dispatch(self, request, call_next):
        response = await call_next(request)
        response.headers["X-Noted"] = "1"
        return response

class Upper(WebSocketEndpoint):
    encoding = "json"
    async def on_connect(self, websocket):
        await websocket.accept(subprotocol="upper")
    async def on_receive(self, websocket, data):
        await websocket.send_json({"upper": data["text"].upper()})
    async def on_disconnect(self, websocket, close_code):
        left.append(close_code)

starlette = Starlette(routes=[Route("/blocking", blocking), WebSocketRoute("/upper", Upper),
                              Route("/raises", raises), Route("/grouped", grouped)])
starlette.add_middleware(Noted)
app = FastAPI(lifespan=lifespan)
app.mount("/starlette", starlette)

@app.websocket("/only/{name}")
async def only(websocket: WebSocket, name: str):
    if name != "me":
        raise WebSocketException(code=1008)
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(name + text)
    left.append("iterated")

@app.get("/wakeup")
async def lose_wakeup():
    assert "uvloop" in type(asyncio.get_running_loop()).__module__
    other = asyncio.SelectorEventLoop()
    other.add_signal_handler(signal.SIGUSR1, lambda: None)
    other.close()
    return "lost"

@app.get("/left")
def what_is_left():
    return left

async def dependency(request: Request):
    yield request.state.made

@app.post("/json/{number}")
async def of_json(number: int, body: dict, made: str = Depends(dependency)):
    return {"number": number, "body": body, "made": made}

@app.get("/endless")
async def endless():
    async def pieces():
        while True:
            yield b"piece\n"
            await asyncio.sleep(0.01)
    # Starlette runs this when the stream has ended, also by the end of the client.
    return StreamingResponse(pieces(), background=BackgroundTask(left.append, "client"))

@app.get("/file")
async def file():
    return FileResponse(__file__)
"#;

/// A client of others, in the environment of the plugin.
const CLIENT: &str = r#"
import asyncio, json, sys
from websockets.asyncio.client import unix_connect
from websockets.exceptions import InvalidStatus

async def main(path):
    connect = lambda target, **options: unix_connect(path, "ws://h" + target, **options)
    async with connect("/starlette/upper", subprotocols=["upper"]) as socket:
        assert socket.subprotocol == "upper"
        # in parts, and larger than what is read at once
        await socket.send(['{"text": "', "é" * 100000, '"}'])
        assert json.loads(await socket.recv()) == {"upper": "É" * 100000}
        await (await socket.ping())
        await socket.close(4001)
    async with connect("/only/me", compression="deflate") as socket:
        await socket.send("!")
        assert await socket.recv() == "me!"
    try:
        async with connect("/only/you"):
            raise SystemExit("it was accepted")
    except InvalidStatus as refused:
        assert refused.response.status_code == 403

asyncio.run(asyncio.wait_for(main(sys.argv[1]), 60))
"#;

#[test]
fn starlette_and_fastapi_run_on_the_server_of_mfserv() {
    let node = Node::new();
    let shared = with_base(&node);
    let base = &shared.environment;
    let plugin = node.plugin("python3_fastapi", "api");
    fs::write(plugin.join("main/application.py"), FASTAPI).unwrap();
    let wanted = plugin.join("python3_virtualenv_sources/requirements-to-freeze.txt");
    let text = fs::read_to_string(&wanted).unwrap();
    fs::write(&wanted, format!("{text}websockets>=14\nuvloop\n")).unwrap();
    let dir: PathBuf = deploy(&node, &plugin).dir;
    let socket = node.work().join("f");
    let mut app = worker(&node, base, &dir, &["--asgi", "main.application:app"], &socket);
    let answer = |path: &str| get(&socket, path, "").1;
    assert_eq!(answer("/starlette/blocking"), "in a thread");
    let (head, body) = get(&socket, "/starlette/grouped", "");
    assert!(head.to_lowercase().contains("x-noted: 1") && body.contains("there"), "{head} {body}");
    until("a background task has run", || answer("/left") == r#"["background"]"#);
    let post = "POST /json/7 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\
                Content-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"a\":1}";
    let said = raw(&socket, post.as_bytes());
    assert!(said.ends_with(r#"{"number":7,"body":{"a":1},"made":"at the start"}"#), "{said}");
    assert!(answer("/file").contains("asynccontextmanager"));
    assert!(get(&socket, "/starlette/raises", "").0.starts_with("HTTP/1.1 500"));
    until("the error is logged, after the answer", || log(&socket).contains("ValueError: eels"));
    let mut leaves = connect(&socket);
    leaves.write_all(b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    leaves.read_exact(&mut [0; 100]).unwrap();
    drop(leaves);
    until("the stream of a client that left has ended", || answer("/left").contains("client"));
    fs::write(dir.join("client.py"), CLIENT).unwrap();
    let mut client = in_environment(&node, base, &dir, "python");
    let said = client.arg("client.py").arg(&socket).output().unwrap();
    assert!(said.status.success(), "{} {}", String::from_utf8_lossy(&said.stderr), log(&socket));
    until("both are told", || {
        answer("/left").contains("4001") && answer("/left").contains("iterat")
    });
    assert_eq!(answer("/wakeup"), "\"lost\"");
    // A second later signals wake the event loop again, which nothing shows.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    app.signal("TERM");
    assert_eq!(app.ended().code(), Some(0), "{}", log(&socket));
    assert!(dir.join("shut-down").exists());
}
