"""What receives logs and points while their sender is measured.

It takes the `_bulk` of Elasticsearch, with a result for each document, and the `/write` of InfluxDB,
and says yes to everything else. It prints its port first.
"""

import gzip
import http.server
import json


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        status, content = 200, b"{}"
        if self.path.startswith("/_bulk"):
            items = [{"create": {"status": 201}}] * body.count(b'{"create":')
            content = json.dumps({"errors": False, "items": items}).encode()
        elif self.path.startswith("/write"):
            status, content = 204, b""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status == 200:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
