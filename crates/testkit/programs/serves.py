import json
import os
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler


class Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536

    def answer(self):
        received = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        if path.endswith("/pid"):
            body = str(os.getpid())
        elif path.endswith("/env"):
            body = json.dumps(dict(os.environ))
        elif path.endswith("/head"):
            body = json.dumps({name.lower(): value for name, value in self.headers.items()})
        elif path.endswith("/slow"):
            print("slow begins", flush=True)
            time.sleep(int(query or 0) / 1000)
            body = "slow"
        elif received:
            body = "received " + received.decode()
        else:
            body = "hello from " + os.environ.get("MFSERV_CURRENT_PLUGIN_NAME", "nobody")
        status = 500 if path.endswith("/fail") else 200
        load_id = self.headers.get("X-Load-Id")
        if load_id:
            print("handled", self.command, load_id, flush=True)
        body = body.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = answer

    def log_message(self, *args):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 1024


def say_how_long_it_took():
    with open("/proc/self/stat") as file:
        ticks = int(file.read().rsplit(")", 1)[1].split()[19])
    began = ticks / os.sysconf("SC_CLK_TCK")
    took = time.clock_gettime(time.CLOCK_BOOTTIME) - began
    print("booted", os.getpid(), int(took * 1000), flush=True)


server = Server(sys.argv[1], Exchange)
say_how_long_it_took()
server.serve_forever()
