"""An app that sleeps as long as it is asked to, and keeps a diary of when it did.

/mixed?id=ID&us=MICROSECONDS: a line `ID BEGIN END` (monotonic clock, nanoseconds) is
appended to the diary of this process.
"""

import os
import time

PLACE = os.environ["MFSERV_CURRENT_PLUGIN_DATA_DIR"]
os.makedirs(PLACE, exist_ok=True)
DIARY = os.open(
    os.path.join(PLACE, "diary-%d" % os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644
)
BODY = b"slept\n"


def application(environ, start_response):
    query = environ.get("QUERY_STRING", "")
    if query:
        begin = time.monotonic_ns()
        asked = dict(pair.split("=", 1) for pair in query.split("&"))
        time.sleep(int(asked["us"]) / 1e6)
        line = b"%d %d %d\n" % (int(asked["id"]), begin, time.monotonic_ns())
        os.write(DIARY, line)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]
