"""The app: an aiohttp server on a unix socket.

application.py UNIX_SOCKET [TIMEOUT]
"""

import os
import sys

from aiohttp import web
from aiohttp_metwork_middlewares import mflog_middleware, timeout_middleware_factory


async def hello_world(request):
    # this logger knows the id of the request
    request["mflog_logger"].info("this is an info message")
    return web.Response(text="Hello World from aiohttp app")


def make_app(timeout):
    app = web.Application(middlewares=[timeout_middleware_factory(timeout), mflog_middleware])
    app.router.add_get("/{tail:.*}", hello_world)
    return app


def main():
    unix_socket = sys.argv[1]
    if len(sys.argv) > 2:
        timeout = int(sys.argv[2])
    else:
        # a little less than the front, so that it is the app that answers
        timeout = int(os.environ.get("MFSERV_NGINX_TIMEOUT", "60")) - 2
    # the front writes the access log
    web.run_app(make_app(timeout), path=unix_socket, access_log=None, print=None)


if __name__ == "__main__":
    main()
