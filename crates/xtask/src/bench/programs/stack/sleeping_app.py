"""An app that takes as long as it is asked to: `?us=MICROSECONDS`."""

import time


def app(environ, start_response):
    _, _, microseconds = environ.get("QUERY_STRING", "").rpartition("us=")
    time.sleep(int(microseconds or 0) / 1e6)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"ok\n"]
