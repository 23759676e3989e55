"""Starts the server of the extension module `_mfserv_worker`."""

import os
import signal
import threading

from _mfserv_worker import Server

from mfserv_worker import request_id
from mfserv_worker.child import end_child


def serve(app, own_socket, timeout, timeout_signal, report, trusts_front, put_id, threads=1):
    """Serves a WSGI app until SIGTERM or SIGINT: in the main thread, or in so many others.

    `own_socket` has the listening socket, and `remove()`s its file. `report(message, error)`
    writes to the log. `put_id("MFSERV_CURRENT_REQUEST_ID", id)`, if there is one, notes the id
    of each request for the whole process: with one thread only.
    """
    server = Server(
        app,
        listener=own_socket.socket.fileno(),
        timeout=timeout,
        timeout_signal=int(timeout_signal),
        report=report,
        is_trusted=trusts_front,
        is_stripped=os.environ.get("MFSERV_STRIP_PREFIX") == "1",
        set_id=request_id.set,
        put_id=put_id if threads == 1 else None,
        threads=threads,
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
    with_threads(server, 0 if threads == 1 else threads, report, lambda: server.run(own_socket.remove))


def with_threads(server, count, report, lead):
    """Calls `lead()` while so many threads serve, and waits for their end."""
    process = os.getpid()

    def work(number):
        try:
            server.work(number)
        except BaseException as error:
            if os.getpid() != process:
                end_child(error)
            # Only the system can have failed it: the node starts another worker.
            report("a thread of this worker has ended", error)
            server.stop()

    threads = [
        threading.Thread(target=work, args=(number,), name="mfserv-%d" % number, daemon=True)
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    try:
        lead()
    finally:
        for thread in threads:
            thread.join()
