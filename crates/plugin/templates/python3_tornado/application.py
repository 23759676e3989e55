"""The app: a Tornado server on a unix socket.

application.py UNIX_SOCKET [TIMEOUT]
"""

import asyncio
import os
import signal
import sys

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_unix_socket
from tornado.web import Application, RequestHandler


class HelloWorld(RequestHandler):
    def get(self):
        self.write("Hello, world")


def make_app():
    debug = os.environ.get("MFSERV_CURRENT_APP_DEBUG", "0") == "1"
    # autoreload is mfserv's: it replaces the worker
    return Application([(r".*", HelloWorld)], debug=debug, autoreload=False, log_function=lambda handler: None)


async def main():
    unix_socket = sys.argv[1]
    timeout = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    server = HTTPServer(make_app(), body_timeout=timeout)
    server.add_socket(bind_unix_socket(unix_socket))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    # what runs is served to its end
    server.stop()
    await server.close_all_connections()


if __name__ == "__main__":
    asyncio.run(main())
