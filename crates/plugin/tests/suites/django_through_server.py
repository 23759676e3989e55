"""Runs tests of Django with the requests of its test client through the WSGI server of mfserv.

Arguments: those of Django's `tests/runtests.py`, which lies in the current directory. Tests whose
names are in the variable LEFT_OUT, separated by commas, are left out.
"""

import atexit
import os
import runpy
import sys
import threading
import unittest

sys.path[:0] = [os.path.abspath(".."), os.path.abspath(".")]

import django.test.client  # noqa: E402
from django.db import connections  # noqa: E402
from through_server import run_through_server, thread_of_server  # noqa: E402

real_call = django.test.client.ClientHandler.__call__
counted = {"requests": 0}


def call(handler, environ):
    """In the place of `ClientHandler.__call__`: the answer is what has come over the socket."""
    if threading.current_thread() is thread_of_server:
        return real_call(handler, environ)
    kept = {alias: connections[alias] for alias in connections}
    made = {}

    def app(environ, start_response):
        # of the thread of the test, as in a live server of Django's
        for alias in kept:
            connections[alias] = kept[alias]
        response = made["response"] = real_call(handler, environ)
        cookies = [("Set-Cookie", cookie.OutputString()) for cookie in response.cookies.values()]
        made["headers"] = list(response.items()) + cookies
        start_response("%d %s" % (response.status_code, response.reason_phrase), made["headers"])
        return response

    for connection in kept.values():
        connection.inc_thread_sharing()
    try:
        body, status, headers = run_through_server(app, dict(environ), True)
    finally:
        for connection in kept.values():
            connection.dec_thread_sharing()
    counted["requests"] += 1
    response = made["response"]
    come, sent = (sorted((name.lower(), value.strip()) for name, value in of) for of in (headers, made["headers"]))
    assert int(status.split()[0]) == response.status_code and come == sent, (status, come, sent)
    if response.streaming:
        response.streaming_content = body
    else:
        assert response.content == b"".join(body)
    return response


left_out = os.environ.get("LEFT_OUT", "").split(",")
real_names = unittest.TestLoader.getTestCaseNames
unittest.TestLoader.getTestCaseNames = lambda loader, case: [
    name for name in real_names(loader, case) if name not in left_out
]
django.test.client.ClientHandler.__call__ = call
atexit.register(lambda: print("through the server: %d" % counted["requests"]))
sys.argv[0] = "runtests.py"
runpy.run_path("runtests.py", run_name="__main__")
