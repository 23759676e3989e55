"""Starts an ASGI app in the server of the extension module `_mfserv_worker`."""

import asyncio
import base64
import contextvars
import hashlib
import inspect
import os
import resource
import select
import signal
import sys
from urllib.parse import unquote

from mfserv_worker import request_id
from mfserv_worker.child import end_child

# The front bounds the requests that are under way; this is what one worker takes of them.
CONNECTIONS = 10000
# how long a worker that was told to stop goes on sending answers, and reading requests that have begun
FLUSH_SECONDS = 5.0
# how long tasks that were cancelled at the end may take to clean up
CANCEL_SECONDS = 1.0
# how often a WebSocket must give a sign of life; one that does not answer a ping until the next one is closed
PING_SECONDS = 20.0


def is_asgi(app):
    """Whether a callable is an ASGI app: a coroutine function, or an object that is called as one."""
    return inspect.iscoroutinefunction(app) or (
        not inspect.isclass(app) and inspect.iscoroutinefunction(getattr(type(app), "__call__", None))
    )


class Lifespan(object):
    """The start and the end of an app, by the lifespan protocol of ASGI.

    `mode`: "off" leaves it out; "auto" takes an exception before the app is ready for an app that
    does not know the protocol; with "on" that is a failure. `on_exit()` is called when the app that
    has started ends its process by an exception, which `exit` is then.
    """

    def __init__(self, app, mode, report, on_exit):
        self.app = app
        self.mode = mode
        self.report = report
        self.on_exit = on_exit
        self.exit = None
        self.process = os.getpid()
        self.state = {}
        self.task = None
        self.messages = asyncio.Queue()
        self.started = asyncio.Event()
        self.stopped = asyncio.Event()
        self.is_ready = False
        self.is_known = False
        self.failure = None

    async def startup(self):
        """Returns whether the app may serve."""
        if self.mode == "off":
            return True
        self.messages.put_nowait({"type": "lifespan.startup"})
        self.task = asyncio.ensure_future(self.run())
        await self.started.wait()
        if self.failure is not None:
            self.report("the app refuses to start: %s" % (self.failure or "lifespan.startup.failed"), None)
            return False
        if self.is_ready:
            return True
        error = None if self.task.cancelled() else self.task.exception()
        if self.mode == "on":
            self.report("the app failed in its lifespan, before it was ready", error)
            return False
        if self.is_known and error is not None:
            # It may also be an app that asks for a message before it looks at the scope.
            self.report("the app failed in its lifespan, before it was ready: it is served without", error)
        return True

    async def shutdown(self, timeout):
        """Waits for the end of the app, so many seconds at most; 0 = any time."""
        if self.task is None or self.task.done():
            return
        self.messages.put_nowait({"type": "lifespan.shutdown"})
        try:
            await asyncio.wait_for(self.stopped.wait(), timeout or None)
        except asyncio.TimeoutError:
            self.report("the app was not shut down after %s s: it is ended" % timeout, None)
        if self.failure is not None:
            self.report("the app failed to shut down: %s" % self.failure, None)

    async def run(self):
        try:
            scope = {
                "type": "lifespan",
                "asgi": {"version": "3.0", "spec_version": "2.0"},
                "state": self.state,
            }
            await self.app(scope, self.receive, self.send)
        except Exception as error:
            if not self.started.is_set():
                # `startup` says what it means
                raise
            if self.failure is None:
                self.report("uncaught exception in the lifespan of the app", error)
        except (SystemExit, KeyboardInterrupt) as error:
            if not self.started.is_set() or os.getpid() != self.process:
                raise
            self.exit = error
            self.on_exit()
        finally:
            self.started.set()
            self.stopped.set()

    async def receive(self):
        self.is_known = True
        return await self.messages.get()

    async def send(self, message):
        kind = message["type"]
        if kind.endswith(".failed"):
            self.failure = message.get("message", "")
        if kind.startswith("lifespan.startup."):
            self.is_ready = self.failure is None
            self.started.set()
        elif kind.startswith("lifespan.shutdown."):
            self.stopped.set()
        else:
            raise RuntimeError("the server knows no message '%s' of a lifespan" % kind)


class Worker(object):
    """One process: an event loop, an app and a listening socket."""

    def __init__(self, load, listen, timeout, report, trusts_front, lifespan, eager):
        self.load = load
        self.app = None
        self.listen = listen
        self.timeout = timeout
        self.report = report
        self.trusts_front = trusts_front
        self.mode = lifespan
        self.eager = eager
        self.tasks = set()
        self.server = None
        self.loop = None
        self.wakeup = -1

    async def main(self):
        """Serves until SIGTERM or SIGINT; returns the exit code."""
        loop = self.loop = asyncio.get_running_loop()
        # Nothing of the app has set a variable in it: a signal comes in the context of any request.
        context = contextvars.copy_context()
        # With the event loop that runs: some modules ask for it.
        app = self.load()
        if app is None:
            return 1
        self.app = as_coroutine_function(app)
        stopping = asyncio.Event()

        def stop():
            """Asks for a clean end; the signal a second time ends at once."""
            if stopping.is_set():
                return
            stopping.set()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_DFL)
            # of the event loop, not of a task
            if self.server is not None:
                own_socket.remove()
                self.server.leave()

        def stop_soon():
            loop.call_soon_threadsafe(stop, context=context)

        def on_signal(number, frame):
            # Now: the app may block the event loop for long.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            stop_soon()

        lifespan = Lifespan(self.app, self.mode, self.report, stop_soon)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
            # Another event loop of the app may take the descriptor that tells this one of signals.
            signal.signal(number, on_signal)
        self.wakeup = signal.set_wakeup_fd(-1)
        self.settle()
        if not await self.until(stopping, lifespan.startup()):
            return 0 if stopping.is_set() else 1
        # It exists once the app can answer.
        own_socket = self.listen()
        if own_socket is None:
            return 1
        try:
            self.server = self.make_server(loop, own_socket, lifespan.state)
            os.register_at_fork(after_in_child=self.forked)
            loop.add_reader(self.server.fileno(), self.server.turn)
            await stopping.wait()
            await self.finish()
        finally:
            own_socket.remove()
        await lifespan.shutdown(self.timeout)
        if lifespan.exit is not None:
            raise lifespan.exit
        return 0

    def settle(self):
        """Makes signals wake this event loop again, unless another one of the app that is open does
        with them what it likes."""
        before = signal.set_wakeup_fd(self.wakeup, warn_on_full_buffer=False)
        if before not in (-1, self.wakeup):
            try:
                signal.set_wakeup_fd(before, warn_on_full_buffer=False)
            except (OSError, ValueError):
                # it is closed
                pass

    @staticmethod
    async def until(stopping, startup):
        """What the start of the app returns; False if the worker is told to stop before."""
        started, stopped = asyncio.ensure_future(startup), asyncio.ensure_future(stopping.wait())
        await asyncio.wait([started, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        return started.done() and started.result()

    def make_server(self, loop, own_socket, state):
        from _mfserv_worker import Asgi

        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if descriptors == resource.RLIM_INFINITY:
            descriptors = CONNECTIONS * 2
        return Asgi(
            self.app,
            loop=loop,
            listener=own_socket.socket.fileno(),
            connections=min(CONNECTIONS, descriptors * 3 // 4),
            # with a factory, tasks are what it makes
            task_class=asyncio.Task if loop.get_task_factory() is None else None,
            is_eager=self.eager and sys.version_info >= (3, 12) and loop.get_task_factory() is None,
            tasks=self.tasks,
            report=self.report,
            state=state,
            is_trusted=self.trusts_front,
            is_stripped=is_stripped(),
            set_id=request_id.set,
            accept_key=accept_key,
            ping=PING_SECONDS,
            settle=self.settle,
            end_child=end_child,
        )

    def forked(self):
        """Called in a child that the app has forked."""
        self.server.forked()
        leave_events_of_parent(self.loop)

    async def finish(self):
        """Waits for the requests that are under way, for as long as one may take; then for what
        was answered and is not sent."""
        loop = asyncio.get_running_loop()
        now = served = loop.time()
        end = now + (self.timeout or float("inf"))
        while now < end and (self.tasks or self.server.has_work()):
            if self.tasks:
                served = now
            elif now - served > FLUSH_SECONDS:
                break
            await asyncio.sleep(0.01)
            now = loop.time()
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            served = now
            await asyncio.wait(list(self.tasks), timeout=CANCEL_SECONDS)
        self.server.close()
        # An answer has its time to leave from when its request was over.
        while self.server.has_output() and loop.time() - served < FLUSH_SECONDS:
            await asyncio.sleep(0.01)
        loop.remove_reader(self.server.fileno())


def accept_key(key):
    """What a server answers to the key of a WebSocket (RFC 6455, 4.2.2)."""
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


def leave_events_of_parent(loop):
    """Called in a child that the app has forked. The set of events of its event loop is that of its
    parent too, and an exception that leaves the loop takes descriptors out of it: this child gets
    a set of its own."""
    find = getattr(loop, "_get_backend_id", None) or getattr(getattr(loop, "_selector", None), "fileno", None)
    if find is not None:
        own = select.epoll()
        os.dup2(own.fileno(), find(), inheritable=False)
        own.close()


def as_coroutine_function(app):
    """The app as a coroutine function: it sets context variables in the task of a request alone,
    and returns any awaitable."""
    if is_asgi(app):
        return app

    async def called(scope, receive, send):
        await app(scope, receive, send)

    return called


def is_stripped():
    """Whether the front strips the prefix of the app from paths, and says it in X-Forwarded-Prefix."""
    return os.environ.get("MFSERV_STRIP_PREFIX") == "1"


def with_prefix(app):
    """The app for a server that knows nothing of X-Forwarded-Prefix: it gets the prefix that the
    front has stripped as `root_path`, with which its paths begin."""

    async def prefixed(scope, receive, send):
        fields = dict(scope.get("headers", ()))
        prefix = fields.get(b"x-forwarded-prefix", b"")
        if prefix:
            root = unquote(prefix.decode("latin-1"))
            raw = prefix + scope.get("raw_path", b"")
            scope = dict(scope, root_path=root, path=root + scope["path"], raw_path=raw)
        await app(scope, receive, send)

    return prefixed


def new_event_loop():
    """An event loop of uvloop, where the app has it; else of asyncio."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def serve(load, listen, timeout, report, trusts_front, lifespan="auto", eager=True):
    """Serves an ASGI app until SIGTERM or SIGINT; returns the exit code.

    `load()` imports the app; None, with the reason logged, when it can not be. `listen()` makes the socket, as an object with `socket` and `remove()`, or None with the reason
    logged. `timeout`: seconds that requests under way may still take at the end, 0 = any time.
    `report(message, error)` writes to the log.
    """
    process = os.getpid()
    loop = new_event_loop()
    asyncio.set_event_loop(loop)
    worker = Worker(load, listen, timeout, report, trusts_front, lifespan, eager)
    main = loop.create_task(worker.main())
    try:
        while not main.done():
            try:
                loop.run_until_complete(main)
            except (SystemExit, KeyboardInterrupt) as error:
                if os.getpid() != process:
                    end_child(error)
                # Of a request, which is answered with 500: the event loop goes on.
                if main.done() or worker.server is None:
                    raise
        return main.result()
    finally:
        close(loop)


def close(loop):
    """As `asyncio.run` does it."""
    try:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(list(left), timeout=CANCEL_SECONDS))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
