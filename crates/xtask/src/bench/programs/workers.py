"""The apps of `bench workers`. As a program: a server with one of them, on a unix socket."""

import sys


def raw(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"ok\n"]


async def raw_asgi(scope, receive, send):
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"3")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok\n"})


def flask():
    from flask import Flask

    flask = Flask("flask")
    flask.add_url_rule("/a", "index", lambda: "ok\n")
    return flask


def starlette():
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def index(request):
        return PlainTextResponse("ok\n")

    return Starlette(routes=[Route("/a", index)])


def fastapi():
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    fastapi = FastAPI()

    @fastapi.get("/a", response_class=PlainTextResponse)
    async def index():
        return "ok\n"

    return fastapi


WSGI = {"raw": lambda: raw, "flask": flask}
ASGI = {"raw_asgi": lambda: raw_asgi, "starlette": starlette, "fastapi": fastapi}


def serve(server, name, path):
    if server == "bjoern":
        import bjoern

        bjoern.run(WSGI[name](), "unix:" + path)
    elif server == "uvicorn":
        import uvicorn

        app = ASGI[name]()
        uvicorn.run(app, uds=path, loop="uvloop", http="httptools", access_log=False, log_level="warning")
    elif name in ASGI:
        from mfserv_worker.asgi import serve as asgi
        from mfserv_wsgi import OwnSocket, report

        asgi(ASGI[name], lambda: OwnSocket(path), 60, report, True)
    else:
        from mfserv_wsgi import OwnSocket, native_server, report
        from mfserv_wsgi import serve as waitress

        own_socket = OwnSocket(path)
        if server == "waitress":
            return waitress(WSGI[name](), own_socket, 60)
        import os
        import signal

        put_id = os.environ.__setitem__
        native_server()(WSGI[name](), own_socket, 60, signal.SIGRTMAX - 3, report, True, put_id)


if __name__ == "__main__":
    serve(*sys.argv[1:])
