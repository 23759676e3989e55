"""Sends the requests of Starlette's test client through the ASGI server of mfserv.

Loaded into pytest (`-p asgi_through_server`): each test of Starlette and FastAPI stays as it is, but
what it asks of an app goes over a unix socket, to the server, which runs in a thread of this
process. WebSockets go the same way, with the client of `websockets`. The lifespan of an app stays
with the test client.
"""

import asyncio
import contextvars
import itertools
import os
import socket
import tempfile
import threading
from http.client import HTTPResponse

import starlette.testclient
from mfserv_worker.asgi import Worker, as_coroutine_function
from starlette.testclient import httpx
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import unix_connect

# What the test client says of a connection that it does not have; the rest is of the request.
OF_THE_CLIENT = ("client", "server", "scheme", "root_path", "state")
# how long a test waits for an app that has to end
PATIENCE = 20

calls = {}
names = map(str, itertools.count())


class Call(object):
    """A request that a test has made, and what became of it in the app."""

    def __init__(self, app, scope):
        self.app = as_coroutine_function(app)
        self.scope = scope
        self.sent = []
        self.debug = None
        self.error = None
        self.context = contextvars.copy_context()
        self.has_begun = False
        self.is_over = threading.Event()
        self.name = next(names)
        calls[self.name] = self

    def end(self):
        """Waits for the app, and raises what it has raised."""
        # The server refuses a few requests itself.
        assert not self.has_begun or self.is_over.wait(PATIENCE), "the app goes on: %s" % self.scope
        calls.pop(self.name, None)
        if self.error is not None:
            raise self.error


def compare(come, sent):
    """Whether the server says of a request what the test has sent."""
    for key in ("method", "path", "raw_path", "query_string", "http_version"):
        assert come[key] == sent[key], (key, come[key], sent[key])
    of_the_connection = (b"connection", b"transfer-encoding")
    come, sent = (
        sorted((name, value.strip()) for name, value in scope["headers"] if name not in of_the_connection)
        for scope in (come, sent)
    )
    assert come == sent, (come, sent)


async def app_of_call(scope, receive, send):
    """The app of the server: that of the test whose request it is."""
    [name] = [value for key, value in scope["headers"] if key == b"x-call"]
    call = calls[name.decode()]
    call.has_begun = True
    merged = dict(scope, headers=[pair for pair in scope["headers"] if pair[0] != b"x-call"])
    for key in OF_THE_CLIENT:
        if key in call.scope:
            merged[key] = call.scope[key]
    merged["extensions"] = dict(scope["extensions"])
    if scope["type"] == "http":
        merged["extensions"]["http.response.debug"] = {}

    async def send_noted(message):
        if message["type"] == "http.response.debug":
            call.debug = message["info"]
            return
        await send(message)
        call.sent.append(message)

    try:
        if scope["type"] == "http":
            compare(merged, call.scope)
        # The test client leaves spaces at the ends of values.
        merged["headers"] = call.scope["headers"]
        running = call.app(merged, receive, send_noted)
        await asyncio.get_running_loop().create_task(running, context=call.context)
    except BaseException as error:
        call.error = error
        raise
    finally:
        call.is_over.set()


class ThreadWorker(Worker):
    """The worker, without what is of a process."""

    def settle(self):
        pass


def start_server():
    """The path of its socket, and its thread."""
    path = os.path.join(tempfile.mkdtemp(), "socket")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    listener.setblocking(False)

    class OwnSocket(object):
        socket = listener

    async def main():
        loop = asyncio.get_running_loop()
        worker = ThreadWorker(None, None, 0, lambda message, error: None, True, "off", True)
        worker.app = app_of_call
        worker.server = worker.make_server(loop, OwnSocket, {})
        loop.add_reader(worker.server.fileno(), worker.server.turn)
        await loop.create_future()

    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    return path, thread


path_of_server, thread_of_server = start_server()


class Content(httpx.SyncByteStream):
    """The body of an answer, as it comes."""

    def __init__(self, response, finish):
        self.response = response
        self.finish = finish
        self.is_closed = False

    def __iter__(self):
        while piece := self.response.read1(65536):
            yield piece

    def close(self):
        if not self.is_closed:
            self.is_closed = True
            self.finish()


class TransportThroughServer(starlette.testclient._TestClientTransport):
    """In the place of the transport of the test client."""

    def handle_request(self, request):
        if request.url.scheme in ("ws", "wss") or any(b"_" in key for key, value in request.headers.raw):
            # Our session, made by the real transport; or names that the server leaves out, as nginx does.
            return super().handle_request(request)
        url = request.url
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": request.method,
            "path": url.path,
            "raw_path": url.raw_path.split(b"?", 1)[0],
            "query_string": url.query,
            "headers": [(key.lower().encode(), value.encode()) for key, value in request.headers.multi_items()],
            "root_path": self.root_path,
            "scheme": url.scheme,
            "client": self.client,
            "server": [url.raw_host.decode("ascii"), url.port or {"http": 80, "https": 443}[url.scheme]],
            "state": self.app_state.copy(),
        }
        call = Call(self.app, scope)
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE)
        client.connect(path_of_server)
        try:
            client.sendall(self.bytes_of(request, scope, call.name))
        except BrokenPipeError:
            # answered before the end of the body
            pass
        response = HTTPResponse(client, method=request.method)

        def finish():
            response.close()
            client.close()
            try:
                call.end()
            except asyncio.CancelledError:
                pass
            except BaseException:
                if self.raise_server_exceptions:
                    raise

        try:
            response.begin()
        except Exception:
            finish()
            raise
        if call.error is not None and self.raise_server_exceptions:
            finish()
        answer = httpx.Response(
            response.status,
            headers=[
                (key, value)
                for key, value in response.getheaders()
                if (key.lower() != "connection" and key.lower() != "transfer-encoding")
            ],
            stream=Content(response, finish),
            request=request,
        )
        if call.debug is not None and "template" in call.debug:
            answer.template = call.debug["template"]
            answer.context = call.debug["context"]
        return answer

    @staticmethod
    def bytes_of(request, scope, name):
        body = request.read()
        target = scope["raw_path"] + (b"?" + scope["query_string"] if request.url.query else b"")
        lines = [b"%s %s HTTP/1.1" % (request.method.encode(), target), b"x-call: " + name.encode()]
        is_chunked = False
        for key, value in request.headers.raw:
            is_chunked |= key.lower() == b"transfer-encoding"
            # no connection is used twice
            lines.append(key + b": " + (b"close" if key.lower() == b"connection" else value))
        if is_chunked:
            body = (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
        return b"\r\n".join(lines) + b"\r\n\r\n" + body


class SessionThroughServer(starlette.testclient.WebSocketTestSession):
    """In the place of the session of the test client."""

    OF_THE_HANDSHAKE = (b"connection", b"upgrade", b"host")

    def __enter__(self):
        scope = self.scope
        self.call = Call(self.app, scope)
        host = "".join(value.decode() for key, value in scope["headers"] if key == b"host")
        target = scope["raw_path"].decode() + ("?" + scope["query_string"].decode() if scope["query_string"] else "")
        headers = [("x-call", self.call.name)]
        for key, value in scope["headers"]:
            if key not in self.OF_THE_HANDSHAKE and not key.startswith(b"sec-websocket"):
                headers.append((key.decode(), value.decode()))
        try:
            self.client = unix_connect(
                path_of_server,
                "ws://%s%s" % (host or "none", target),
                subprotocols=scope["subprotocols"] or None,
                additional_headers=headers,
                user_agent_header=None,
                compression=None,
                max_size=None,
                open_timeout=PATIENCE,
                close_timeout=PATIENCE,
                legacy=True,
            )
        except InvalidStatus as refused:
            self.call.end()
            return self.refuse(refused.response)
        response = self.client.response
        self.accepted_subprotocol = self.client.subprotocol
        own = ("upgrade", "connection", "sec-websocket-accept", "sec-websocket-protocol", "date", "server")
        self.extra_headers = [
            (key.lower().encode(), value.encode())
            for key, value in response.headers.raw_items()
            if key.lower() not in own
        ]
        return self

    def refuse(self, response):
        for message in self.call.sent:
            if message["type"] == "websocket.close":
                assert response.status_code == 403, response
                self._raise_on_close(message)
        raise starlette.testclient.WebSocketDenialResponse(
            status_code=response.status_code,
            headers=[pair for pair in response.headers.raw_items() if pair[0].lower() != "transfer-encoding"],
            content=bytes(response.body or b""),
        )

    def __exit__(self, *raised):
        self.close(1000)
        self.call.end()

    def send(self, message):
        if message["type"] == "websocket.receive":
            data = message.get("text")
            self.client.send(message["bytes"] if data is None else data)
        elif message["type"] == "websocket.disconnect":
            self.client.close(message.get("code", 1000), message.get("reason") or "")

    def receive(self):
        try:
            data = self.client.recv(PATIENCE)
        except ConnectionClosed as closed:
            if closed.rcvd is None or closed.rcvd.code == 1011:
                self.call.end()
            return {"type": "websocket.close", "code": closed.rcvd.code, "reason": closed.rcvd.reason}
        return {"type": "websocket.send", "text" if isinstance(data, str) else "bytes": data}


starlette.testclient._TestClientTransport = TransportThroughServer
starlette.testclient.WebSocketTestSession = SessionThroughServer


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line("through the server: %s" % next(names))
