"""bjoern with the app of this directory: `bjoern_server.py SOCKET [--wrapped]`.

--wrapped puts in front of the app what MFSERV's bjoern_wrapper.py does for each request: the
request id goes into the environment of the process, an alarm and a time stamp limit the request,
and the answer passes through two generators.
"""

import datetime
import os
import signal
import sys

import bjoern
from app import app

SECONDS = 60


class TooSlow(Exception):
    pass


def give_up(signum, frame):
    raise TooSlow


class Limited:
    """Ends a request that takes too long."""

    def __init__(self, app):
        self.app = app
        # A thread of MFSERV looks at it each second.
        self.began = None

    def __call__(self, environ, start_response):
        self.began = datetime.datetime.now()
        signal.signal(signal.SIGALRM, give_up)
        signal.alarm(SECONDS)
        pieces = None
        try:
            pieces = self.app(environ, start_response)
            for piece in pieces:
                yield piece
        finally:
            self.began = None
            signal.alarm(0)
            if hasattr(pieces, "close"):
                pieces.close()


class Named:
    """Notes the request id for the lines that the app logs."""

    def __init__(self, app):
        self.app = app

    def __call__(self, environ, start_response):
        if "HTTP_X_REQUEST_ID" in environ:
            os.environ["MFSERV_CURRENT_REQUEST_ID"] = environ["HTTP_X_REQUEST_ID"]
        pieces = self.app(environ, start_response)
        try:
            for piece in pieces:
                yield piece
        finally:
            if hasattr(pieces, "close"):
                pieces.close()


if "--wrapped" in sys.argv:
    app = Named(Limited(app))
bjoern.run(app, "unix:" + sys.argv[1], listen_backlog=10000)
