"""Sends the requests of werkzeug's test client through the WSGI server of mfserv.

Loaded into pytest (`-p through_server`): each test of Werkzeug and Flask stays as it is, but what
it asks of an app goes over a unix socket, to the server, which runs in a thread of this process.
"""

import contextvars
import itertools
import os
import signal
import socket
import tempfile
import threading
from http.client import HTTPResponse
from urllib.parse import quote

import werkzeug.test
from _mfserv_worker import Server
from werkzeug.datastructures import Headers

# What an environment has of its request: the server says it, not the test.
OF_THE_REQUEST = ("REQUEST_METHOD", "QUERY_STRING", "CONTENT_LENGTH", "CONTENT_TYPE", "SERVER_PROTOCOL")
OF_THE_SERVER = ("wsgi.input", "wsgi.input_terminated", "wsgi.file_wrapper")

calls = {}
names = map(str, itertools.count())
real_run = werkzeug.test.run_wsgi_app


class Call(object):
    """A request that a test has made, and what became of it in the app."""

    def __init__(self, app, environ):
        self.app = app
        self.environ = environ
        self.context = contextvars.copy_context()
        self.error = None
        self.length = None

    def run(self, code, *arguments):
        try:
            return self.context.run(code, *arguments)
        except StopIteration:
            raise
        except BaseException as error:
            self.error = error
            raise


class Pieces(object):
    """An answer, made in the context of the test."""

    def __init__(self, call, answer):
        self.call = call
        self.answer = answer

    def __iter__(self):
        self.pieces = self.call.run(iter, self.answer)
        return self

    def __next__(self):
        return self.call.run(next, self.pieces)

    def close(self):
        if hasattr(self.answer, "close"):
            self.call.run(self.answer.close)


class Body(list):
    """The answer, as a test gets it."""

    def close(self):
        pass


def app_of_call(environ, start_response):
    """The app of the server: that of the test whose request it is."""
    call = calls[environ.pop("HTTP_X_CALL")]
    merged = {
        name: value
        for name, value in call.environ.items()
        if not name.startswith("HTTP_") and name not in OF_THE_REQUEST
    }
    for name, value in environ.items():
        if name == "HTTP_HOST" and name not in call.environ:
            continue
        if name.startswith("HTTP_") or name in OF_THE_REQUEST + OF_THE_SERVER:
            merged[name] = value
    assert environ["PATH_INFO"] == merged["SCRIPT_NAME"] + merged["PATH_INFO"]

    def start(status, headers, exc_info=None):
        call.length = next((value for name, value in headers if name.lower() == "content-length"), None)
        return start_response(status, headers, exc_info)

    answer = call.run(call.app, merged, start)
    # These have their own ways in the server.
    if type(answer) in (list, tuple, environ["wsgi.file_wrapper"]):
        return answer
    return Pieces(call, answer)


def start_server():
    """The path of its socket, and its thread."""
    path = os.path.join(tempfile.mkdtemp(), "socket")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)

    def serve():
        options = {
            "timeout": 3600,
            "timeout_signal": 40,
            "is_trusted": True,
            "is_stripped": False,
            "put_id": None,
        }
        server = Server(
            app_of_call,
            listener=listener.fileno(),
            report=lambda message, error: None,
            set_id=lambda value: None,
            **options
        )
        server.run(listener.close)

    # The server is made for the main thread, and sees to its signals there.
    real_set = signal.set_wakeup_fd
    signal.set_wakeup_fd = lambda fd, **options: (
        real_set(fd, **options) if threading.current_thread() is threading.main_thread() else fd
    )
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return path, thread


path_of_server, thread_of_server = start_server()


def request_of(environ, name):
    """The bytes of the request that an environment is of."""
    target = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1")
    target = quote(target, safe="/:@!$&'()*+,;=-._~") or "/"
    if environ.get("QUERY_STRING"):
        target += "?" + environ["QUERY_STRING"]
    lines = ["%s %s HTTP/1.1" % (environ["REQUEST_METHOD"], target), "X-Call: " + name, "Connection: close"]
    body = environ["wsgi.input"]
    length = environ.get("CONTENT_LENGTH")
    is_chunked = environ.get("HTTP_TRANSFER_ENCODING") == "chunked"
    content = b""
    if str(length).isdigit():
        content = body.read(int(length))
    elif environ.get("wsgi.input_terminated"):
        content = body.read()
        is_chunked |= content != b""
    if content and body.seekable():
        # for a redirection that sends it again
        body.seek(-len(content), 1)
    for key, value in environ.items():
        if key.startswith("HTTP_") and key not in ("HTTP_TRANSFER_ENCODING", "HTTP_CONNECTION"):
            lines.append("%s: %s" % (key[5:].replace("_", "-"), value))
    if "HTTP_HOST" not in environ:
        lines.append("Host: none")
    if environ.get("CONTENT_TYPE"):
        lines.append("Content-Type: " + environ["CONTENT_TYPE"])
    if is_chunked:
        lines.append("Transfer-Encoding: chunked")
        chunk = b"%x\r\n%s\r\n" % (len(content), content) if content else b""
        content = chunk + b"0\r\n\r\n"
    elif length not in (None, ""):
        lines.append("Content-Length: %s" % length)
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content


def run_through_server(app, environ, buffered=False):
    """In the place of `werkzeug.test.run_wsgi_app`."""
    if threading.current_thread() is thread_of_server:
        # A request within a request: the server takes one at a time.
        return real_run(app, environ, buffered)
    call = Call(app, dict(environ))
    name = next(names)
    calls[name] = call
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(path_of_server)
        try:
            client.sendall(request_of(environ, name))
        except BrokenPipeError:
            # answered before the end of the body
            pass
        response = HTTPResponse(client, method=environ["REQUEST_METHOD"])
        try:
            response.begin()
            body = Body([response.read()])
        except Exception:
            if call.error is None:
                raise
        finally:
            response.close()
            del calls[name]
    if call.error is not None:
        raise call.error
    headers = Headers(
        [pair for pair in response.getheaders() if pair[0].lower() not in ("connection", "transfer-encoding")]
    )
    if call.length is None:
        # The server has found it out.
        headers.pop("Content-Length", None)
    return body, "%d %s" % (response.status, response.reason), headers


werkzeug.test.run_wsgi_app = run_through_server


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line("through the server: %s" % next(names))
