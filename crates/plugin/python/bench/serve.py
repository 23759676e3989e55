"""Starts one candidate WSGI server on a unix socket, the app in one process.

usage: serve.py SERVER APP SOCKET     (APP: hello | flask)
"""

import socket
import sys


def hello(environ, start_response):
    body = b"Hello World!"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def flask_app():
    from flask import Flask

    app = Flask("bench")

    @app.route("/")
    def index():
        return "Hello World !"

    return app


def listener(path, backlog=1024):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(path)
    sock.listen(backlog)
    return sock


def serve_waitress(app, path):
    """waitress, its requests run by the main thread between two turns of its loop."""
    from collections import deque

    from waitress import wasyncore
    from waitress.server import create_server

    queue, channels = deque(), {}

    class MainThread:
        add_task = queue.append

        def shutdown(self, cancel_pending=True, timeout=5):
            return False

    server = create_server(app, map=channels, sockets=[listener(path)], _dispatcher=MainThread(), ident=None)
    server.pull_trigger = lambda thunk=None: None
    while True:
        wasyncore.poll2(30.0, channels)
        while queue:
            queue.popleft().service()


def serve_mfserv_wsgi(app, path):
    """What bjoern_wrapper.py runs: waitress as above, with the limits of a request."""
    import mfserv_wsgi

    sys.modules["bench_app"] = sys.modules["__main__"]
    sys.modules["__main__"].bench_app = app
    sys.exit(mfserv_wsgi.main(["--timeout=60", "bench_app:bench_app", path]))


def serve_waitress_threads(app, path):
    import waitress

    waitress.serve(app, sockets=[listener(path)], threads=1)


def serve_gunicorn_sync(app, path):
    """gunicorn's sync worker class, without its master process."""
    import os

    from gunicorn.config import Config
    from gunicorn.glogging import Logger
    from gunicorn.workers.sync import SyncWorker

    cfg = Config()
    sock = listener(path)
    sock.setblocking(False)

    class App:
        def wsgi(self):
            return app

        def reload(self):
            pass

    worker = SyncWorker(0, os.getppid(), [sock], App(), 0, cfg, Logger(cfg))
    worker.init_process()


def serve_cheroot(app, path):
    from cheroot.wsgi import Server

    Server(path, app, numthreads=1, max=1).start()


def serve_wsgiref(app, path):
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

    class Handler(WSGIRequestHandler):
        def address_string(self):
            return "unix"

        def log_message(self, *args):
            pass

    server = WSGIServer(("localhost", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener(path)
    server.server_name, server.server_port = "localhost", 80
    server.setup_environ()
    server.get_request = lambda: (server.socket.accept()[0], ("unix", 0))
    server.set_app(app)
    server.serve_forever()


def serve_bjoern(app, path):
    import bjoern

    bjoern.run(app, "unix:" + path, listen_backlog=1024)


def load(name):
    return hello if name == "hello" else flask_app()


if __name__ == "__main__":
    globals()["serve_" + sys.argv[1]](load(sys.argv[2]), sys.argv[3])
