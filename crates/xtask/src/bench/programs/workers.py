"""The apps of `bench workers`. As a program: a server with one of them, on a unix socket."""

import sys


def raw(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"ok\n"]


def make(name):
    if name == "raw":
        return raw
    from flask import Flask

    flask = Flask("flask")
    flask.add_url_rule("/a", "index", lambda: "ok\n")
    return flask


def serve(server, name, path):
    if server == "bjoern":
        import bjoern

        bjoern.run(make(name), "unix:" + path)
    else:
        from mfserv_wsgi import OwnSocket, native_server, report
        from mfserv_wsgi import serve as waitress

        own_socket = OwnSocket(path)
        if server == "waitress":
            return waitress(make(name), own_socket, 60)
        import os
        import signal

        put_id = os.environ.__setitem__
        native_server()(make(name), own_socket, 60, signal.SIGRTMAX - 3, report, True, put_id)


if __name__ == "__main__":
    serve(*sys.argv[1:])
