import os
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler


class Exchange(BaseHTTPRequestHandler):
    def answer(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = answer

    def log_message(self, *args):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def write():
    lines = (b"x" * 999 + b"\n") * 1000
    while True:
        began = time.monotonic()
        rest = memoryview(lines)
        while rest:
            rest = rest[os.write(1, rest):]
        time.sleep(max(0, 0.02 - (time.monotonic() - began)))


threading.Thread(target=write, daemon=True).start()
Server(sys.argv[1], Exchange).serve_forever()
