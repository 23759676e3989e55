"""The end of a child that an app has forked."""

import atexit
import os
import sys
import traceback


def end_child(error):
    """Ends a child that the app has forked, as its error says. It shares with its parent what the
    server waits for: nothing of that may be closed here."""
    code = 0
    if error is not None:
        code = error.code if isinstance(error, SystemExit) else 1
        if not isinstance(error, SystemExit):
            traceback.print_exception(type(error), error, error.__traceback__)
        if code is not None and not isinstance(code, int):
            sys.stderr.write("%s\n" % code)
            code = 1
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit((code or 0) & 0xFF)
