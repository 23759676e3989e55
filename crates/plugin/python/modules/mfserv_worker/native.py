"""Starts the server of the extension module `_mfserv_worker`."""

import os
import signal

from _mfserv_worker import Server

from mfserv_worker import request_id


def serve(app, own_socket, timeout, timeout_signal, report, trusts_front, put_id):
    """Serves a WSGI app in the main thread until SIGTERM or SIGINT.

    `own_socket` has the listening socket, and `remove()`s its file. `report(message, error)`
    writes to the log. `put_id("MFSERV_CURRENT_REQUEST_ID", id)`, if there is one, notes the id
    of each request for the whole process.
    """
    server = Server(
        app,
        listener=own_socket.socket.fileno(),
        timeout=timeout,
        timeout_signal=int(timeout_signal),
        report=report,
        is_trusted=trusts_front,
        set_id=request_id.set,
        put_id=put_id,
    )

    def stop(signum, frame):
        """Asks for a clean end; the signal a second time ends at once."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        server.stop()

    os.register_at_fork(after_in_child=server.forked)
    signal.signal(timeout_signal, server.interrupt)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    # A signal may come between the look for it and the wait for requests, or to another thread.
    signal.set_wakeup_fd(server.wakeup_fd(), warn_on_full_buffer=False)
    server.run(own_socket.remove)
