import os
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler


class Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 0

    def answer(self):
        body = b"whole"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        print("head sent by", os.getpid(), flush=True)
        time.sleep(0.5)
        self.wfile.write(body)

    do_GET = do_HEAD = answer

    def log_message(self, *args):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


Server(sys.argv[1], Exchange).serve_forever()
