"""One worker of a WSGI app: a single-threaded HTTP/1.1 server on a unix socket.

The server is waitress. Its event loop reads requests and writes responses for
any number of connections, and between two turns the main thread runs the
requests that are complete, one after the other: an idle or slow connection
never blocks another, and a signal can interrupt the request that runs.

Options and behaviour are those of MFSERV's bjoern_wrapper.py, except that
SIGTERM also ends it cleanly, and that it never removes a socket which is no
longer its own.

The environment of a request is that of PEP 3333 and RFC 3875 as the client made
the request. The front tells what a unix socket cannot: X-Real-IP, X-Real-Port,
X-Forwarded-Host, X-Forwarded-Port and X-Forwarded-Proto. Only the front can
connect to the socket, so the headers are trusted, unless
[nginx] add_x_forwarded_headers=0 says that the front does not set them.

The source is also that of Python 2.7, for plugins of MFSERV 1.x: there it runs with the last
waitress for 2.7.
"""

import argparse
import errno
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections import deque
from select import POLLIN, POLLOUT, poll

try:
    import faulthandler
except ImportError:
    # Python 2.7 has none
    faulthandler = None

try:
    from mfserv_worker import request_id
except ImportError:
    # Python 2 has no context variables
    request_id = None

BACKLOG = 10000
REQUEST_ID = "MFSERV_CURRENT_REQUEST_ID"
# which server a WSGI app gets: [python] server, or _python_server of the app
SERVER = "MFSERV_PYTHON_SERVER"
# which server an ASGI app gets: [python] asgi_server, or _python_asgi_server of the app
ASGI_SERVER = "MFSERV_PYTHON_ASGI_SERVER"
# how many threads serve a WSGI app: [python] threads, or _python_threads of the app
THREADS = "MFSERV_PYTHON_THREADS"
THREADS_MAX = 256
# how long a worker that was told to stop goes on serving who has connected
FLUSH_SECONDS = 5.0
# Interrupts a request that takes too long. Not SIGALRM: apps and their libraries use that
# signal and its timer for timeouts of their own, and there is only one of each in a process.
TIMEOUT_SIGNAL = signal.SIGRTMAX - 3
# Writes what each thread does to the log. The node sends it, and the extension module.
STACK_SIGNAL = signal.SIGRTMAX - 4
# The front sets X-Real-* and X-Forwarded-*: MFSERV's [nginx] add_x_forwarded_headers.
FORWARDED = os.environ.get("MFSERV_NGINX_ADD_X_FORWARDED_HEADERS", "1") != "0"
# The front strips the prefix of the app from paths, and says it in X-Forwarded-Prefix.
STRIPPED = os.environ.get("MFSERV_STRIP_PREFIX") == "1"
DEFAULT_PORTS = {"http": "80", "https": "443"}
# Python 2.7 has no monotonic clock but that of times(2), in steps of 10 ms.
monotonic = getattr(time, "monotonic", None) or (lambda: os.times()[4])


class EnvironmentVariable(object):
    """A variable of the environment that has another value for each request.

    glibc's setenv(3), which `os.environ[name] = value` calls, keeps each value that it was ever
    given: 80 bytes a request. putenv(3) takes memory of its caller, which is written again here.
    """

    SIZE = 1024

    def __init__(self):
        self.memory = None

    def __call__(self, name, value):
        """As `os.environ[name] = value`."""
        data = getattr(os.environ, "_data", None)
        if data is None:
            # Python 2, which uses putenv(3) itself
            os.environ[name] = value
            return
        key, text = os.environ.encodekey(name), os.environ.encodevalue(value)
        if not self.write(key + b"=" + text):
            self.memory = None
            os.environ[name] = value
        data[key] = text

    def write(self, line):
        """False if that cannot be done so."""
        if len(line) >= self.SIZE:
            return False
        if self.memory is not None:
            self.memory.value = line
            return True
        try:
            import ctypes

            memory = ctypes.create_string_buffer(line, self.SIZE)
            # The environment needs it until the process ends.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))
            if ctypes.CDLL(None).putenv(memory) != 0:
                return False
        except (ImportError, OSError, AttributeError):
            return False
        self.memory = memory
        return True


put_variable = EnvironmentVariable()


class SoftTimeout(BaseException):
    """The running request took too long. Not an Exception, so that no app swallows it."""


def report(message, error=None):
    """Logs a problem, with the traceback of an exception."""
    if error is None:
        log_problem(message)
        return
    try:
        raise error
    except BaseException:
        log_problem(message, exc_info=True)


def log_problem(message, exc_info=False):
    """Logs with mflog, imported at the first problem (it takes as long as the rest of the start)."""
    try:
        from mflog import get_logger

        logger = get_logger("bjoern_wrapper")
        logger.error(message, exc_info=True) if exc_info else logger.warning(message)
    except Exception:
        import traceback

        sys.stderr.write(message + "\n")
        if exc_info:
            traceback.print_exc()


def kill_family(message):
    """SIGKILLs the descendants of this process, says why, then kills itself."""
    todo, pids = [os.getpid()], []
    while todo:
        pid = todo.pop()
        pids.append(pid)
        try:
            for thread in os.listdir("/proc/%d/task" % pid):
                with open("/proc/%d/task/%s/children" % (pid, thread)) as children:
                    todo += [int(child) for child in children.read().split()]
        except (OSError, IOError):
            pass
    for pid in reversed(pids[1:]):
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
    errors = poll()
    errors.register(2, POLLOUT)
    # a pipe that nobody reads any more would wait for ever
    if errors.poll(0):
        try:
            os.write(2, message.encode("ascii"))
        except OSError:
            pass
        if faulthandler is not None:
            # By a thread that needs no lock of the interpreter: if nobody reads, only it waits.
            faulthandler.dump_traceback_later(0.01, file=2)
            time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)


def show_stacks_on_signal():
    """From now on STACK_SIGNAL writes what each thread does to the standard error."""
    if faulthandler is None:
        signal.signal(STACK_SIGNAL, signal.SIG_IGN)
    else:
        faulthandler.register(STACK_SIGNAL, file=2, all_threads=True)


class Clock(object):
    """The time that the running request has left.

    A thread watches it, so that a request costs no system call. It interrupts the
    main thread by a signal: also a system call that waits ends then.
    """

    def __init__(self, timeout):
        self.timeout = timeout
        self.began = None  # when the running request began
        self.in_app = False  # the app's own code runs: the only time to interrupt
        self.main = threading.current_thread().ident
        signal.signal(TIMEOUT_SIGNAL, self.interrupt)

    def interrupt(self, signum, frame):
        # The request may have ended, and another one begun, while the signal was on its way.
        if self.in_app and self.is_late():
            self.in_app = False
            raise SoftTimeout()

    def is_late(self):
        began = self.began
        return began is not None and monotonic() - began >= self.timeout

    def start(self):
        self.began = monotonic()
        self.in_app = True

    def resume(self):
        self.in_app = True

    def pause(self):
        self.in_app = False

    def finish(self):
        self.in_app = False
        self.began = None

    def watch(self):
        """Interrupts a request at the soft limit. A request that even the signal does not
        interrupt reaches the hard limit, one second later: that ends the process."""
        while True:
            began = self.began
            elapsed = 0.0 if began is None else monotonic() - began
            if elapsed >= self.timeout + 1:
                kill_family("hard timeout (%i s) => SIGKILL\n" % (self.timeout + 1))
            elif self.timeout and elapsed >= self.timeout:
                self.signal_main()
                # the code between two pieces of a response is not interrupted: try again
                time.sleep(0.05)
            else:
                time.sleep(min(1.0, (self.timeout or 1) - elapsed))

    def signal_main(self):
        pthread_kill = getattr(signal, "pthread_kill", None)
        if pthread_kill is not None:
            return pthread_kill(self.main, TIMEOUT_SIGNAL)
        # Python 2.7 has none. The kernel gives a signal of a process to its first thread.
        os.kill(os.getpid(), TIMEOUT_SIGNAL)


class TimedBody(object):
    """A response body that is made piece by piece: each piece under the same clock."""

    def __init__(self, limits, body):
        self.limits = limits
        self.body = body
        self.pieces = iter(body)

    def __iter__(self):
        return self

    def __next__(self):
        clock = self.limits.clock
        try:
            clock.resume()
            try:
                return next(self.pieces)
            finally:
                clock.pause()
                self.limits.end_child()
        except SoftTimeout:
            clock.pause()
        # not in the handler: the interrupt is no cause that helps anybody
        raise RuntimeError("request timeout (%i s) while sending the response" % clock.timeout)

    next = __next__  # its name in Python 2.7

    def close(self):
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close()
        finally:
            self.limits.clock.finish()


class Limits(object):
    """The app, with its timeouts, its request id and an answer for what it does not catch."""

    def __init__(self, app, clock):
        self.app = app
        self.clock = clock
        self.owner = os.getpid()

    def end_child(self):
        """A child that the app has forked goes no further: the connections are its parent's."""
        if os.getpid() == self.owner:
            return
        error = sys.exc_info()[1]
        if error is None or isinstance(error, StopIteration):
            os._exit(0)
        if isinstance(error, Exception):
            log_problem("uncaught exception in a forked child", exc_info=True)
            os._exit(1)
        # the others end it on their own

    def __call__(self, environ, start_response):
        put_variable(REQUEST_ID, environ.get("HTTP_X_REQUEST_ID", ""))
        if request_id is not None:
            request_id.set(os.environ[REQUEST_ID])
        clock = self.clock
        try:
            clock.start()
            try:
                body = self.app(environ, start_response)
            finally:
                clock.pause()
                self.end_child()
        except SoftTimeout:
            clock.finish()
            log_problem("request timeout (%i s) => HTTP/504" % clock.timeout)
            return answer(start_response, "504 Gateway Time-out", b"")
        except Exception:
            clock.finish()
            log_problem("uncaught exception => HTTP/500", exc_info=True)
            return answer(start_response, "500 Internal Server Error", b"HTTP/500 Internal Server Error")
        if isinstance(body, (list, tuple, bytes)):
            clock.finish()
            return [body] if isinstance(body, bytes) else body
        return TimedBody(self, body)


def answer(start_response, status, body):
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start_response(status, headers, sys.exc_info())
    return [body]


class OwnSocket(object):
    """The unix socket of this worker, removed at the end if it is still the same file.
    A child that the app has forked removes nothing: the socket is its parent's."""

    def __init__(self, path):
        self.path = path
        self.owner = os.getpid()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.remove_dead(path)
        self.socket.bind(path)
        self.identity = self.look()
        self.socket.listen(BACKLOG)

    @staticmethod
    def remove_dead(path):
        """Removes a socket file that nobody listens on any more."""
        probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            probe.connect(path)
        except (OSError, socket.error) as error:
            if error.errno == errno.ECONNREFUSED:
                os.unlink(path)
        finally:
            probe.close()

    def look(self):
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return (found.st_dev, found.st_ino)

    def remove(self):
        if os.getpid() == self.owner and self.identity is not None and self.look() == self.identity:
            os.unlink(self.path)


def split_port(host, default):
    """`example.org:8443` as host and port; an IPv6 address keeps its brackets."""
    name, colon, port = host.rpartition(":")
    if colon and port.isdigit() and not name.endswith(":"):
        return name, port
    return host, default


def describe_request(environ, headers):
    """Puts what a unix socket does not tell into a WSGI environment: who asks, which server
    was asked, by which scheme (PEP 3333; RFC 3875, 4.1). `headers`: upper case, with `_`."""
    forwarded = headers if FORWARDED else {}
    scheme = forwarded.get("X_FORWARDED_PROTO", "").strip().lower()
    scheme = scheme if scheme in DEFAULT_PORTS else "http"
    host = forwarded.get("X_FORWARDED_HOST") or headers.get("HOST") or "localhost"
    # a proxy before the front may have appended its own name: the first one is the client's
    name, port = split_port(host.split(",")[0].strip(), "")
    if not port:
        port = forwarded.get("X_FORWARDED_PORT", "").split(",")[0].strip()
    environ["SERVER_NAME"] = name or "localhost"
    environ["SERVER_PORT"] = port if port.isdigit() else DEFAULT_PORTS[scheme]
    environ["REMOTE_ADDR"] = forwarded.get("X_REAL_IP") or "127.0.0.1"
    remote_port = forwarded.get("X_REAL_PORT", "")
    if remote_port.isdigit():
        environ["REMOTE_PORT"] = remote_port
    environ["wsgi.url_scheme"] = scheme
    if scheme == "https":
        environ["HTTPS"] = "on"


def put_prefix(environ, prefix):
    """Puts the prefix that the front has stripped from the path into a WSGI environment."""
    try:
        from urllib.parse import unquote_to_bytes

        environ["SCRIPT_NAME"] = unquote_to_bytes(prefix).decode("latin-1")
    except ImportError:
        from urllib import unquote

        environ["SCRIPT_NAME"] = unquote(prefix)
    environ["RAW_URI"] = environ["REQUEST_URI"] = prefix + environ["RAW_URI"]


def only_ascii(line):
    """A request line in which each byte that is not ASCII is percent-encoded: waitress reads
    no others, and browsers and scripts send UTF-8 as it is."""
    try:
        line.decode("ascii")
        return line
    except UnicodeDecodeError:
        text = "".join("%%%02X" % byte if byte >= 0x80 else chr(byte) for byte in bytearray(line))
        return text.encode("ascii")


def spooling():
    """Where waitress keeps large bodies: temporary files, by default. rlimit_fsize limits
    those too, and it is meant for the files of the app: under such a limit bodies stay in
    memory, as they did behind MFSERV's bjoern."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit == resource.RLIM_INFINITY:
        return {}
    return {"inbuf_overflow": sys.maxsize, "outbuf_overflow": sys.maxsize}


def own_protocol(channel_class, parser_class, task_class, file_class):
    """The classes of waitress with what PEP 3333 and RFC 9110 ask for besides."""

    class Parser(parser_class):
        raw_uri = ""

        def parse_header(self, head):
            line, end, rest = head.partition(b"\r\n")
            target = line.split(b" ", 2)[1:2]
            uri = target[0] if target else b""
            self.raw_uri = uri if isinstance(uri, str) else uri.decode("latin-1")
            super(Parser, self).parse_header(only_ascii(line) + end + rest)

    class Task(task_class):
        @property
        def sends_body(self):
            return self.has_body and self.request.command != "HEAD"

        def get_environment(self):
            if self.environ is not None:
                return self.environ
            environ = super(Task, self).get_environment()
            # a single thread, several workers
            environ["wsgi.multithread"] = False
            environ["wsgi.multiprocess"] = True
            environ["SERVER_SOFTWARE"] = "mfserv"
            environ["RAW_URI"] = environ["REQUEST_URI"] = self.request.raw_uri
            # those of the unix socket, which has neither
            del environ["REMOTE_HOST"], environ["REMOTE_PORT"]
            describe_request(environ, self.request.headers)
            prefix = self.request.headers.get("X_FORWARDED_PREFIX") if STRIPPED else None
            if prefix:
                put_prefix(environ, prefix)
            return environ

        def build_response_header(self):
            head = super(Task, self).build_response_header()
            self.channel.sends_body = self.sends_body
            if not self.sends_body:
                self.chunked_response = False
            return head

        def write(self, data):
            if isinstance(data, memoryview):
                data = data.tobytes()
            if self.request.command != "HEAD":
                return super(Task, self).write(data)
            # the head is that of a GET; its body is the app's to write and nobody's to read
            super(Task, self).write(b"")
            self.content_bytes_written += len(data)

    class Channel(channel_class):
        """Sends the head of a response together with the first piece of its body: who reads
        it is woken once, and a worker that is killed between the two has not begun an answer
        that it can not finish."""

        held = b""
        sends_body = True
        owner = os.getpid()

        def write_soon(self, data):
            if os.getpid() != self.owner:
                raise RuntimeError("the request is that of the parent of this process: only it can answer")
            if not self.sends_body and isinstance(data, file_class):
                data.close()
                return 0
            if not self.held and isinstance(data, bytes) and data.startswith(b"HTTP/1."):
                self.held = data
                return len(data)
            if self.held:
                head, self.held = self.held, b""
                if isinstance(data, bytes):
                    data = head + data
                else:
                    super(Channel, self).write_soon(head)
            return super(Channel, self).write_soon(data)

        def service(self):
            super(Channel, self).service()
            if self.held and self.connected:
                # a response without a body
                head, self.held = self.held, b""
                super(Channel, self).write_soon(head)

    Channel.parser_class = Parser
    Channel.task_class = Task
    return Channel


class Worker(object):
    """The event loop, and the requests that wait for their turn in the main thread."""

    def __init__(self, app, own_socket):
        from waitress import wasyncore
        from waitress.buffers import ReadOnlyFileBasedBuffer
        from waitress.parser import HTTPRequestParser
        from waitress.server import create_server
        from waitress.task import WSGITask

        self.poll = wasyncore.poll2
        self.queue = deque()
        self.channels = {}
        self.stopping = False
        self.server = create_server(
            app,
            map=self.channels,
            sockets=[own_socket.socket],
            _dispatcher=self,
            ident=None,
            # the front sets X-Forwarded-*, and it is the only one who can connect
            clear_untrusted_proxy_headers=False,
            # bounds on connections, bodies and heads are the front's
            connection_limit=100000,
            max_request_body_size=1 << 40,
            # one thread can not wait for itself: a response larger than its
            # buffer goes to a temporary file
            outbuf_high_watermark=sys.maxsize,
            **spooling()
        )
        self.server.channel_class = own_protocol(
            self.server.channel_class, HTTPRequestParser, WSGITask, ReadOnlyFileBasedBuffer
        )
        # the loop is never asleep while a request runs: nobody has to wake it
        self.wake = self.server.pull_trigger
        self.server.pull_trigger = lambda thunk=None: None

    def add_task(self, channel):
        """Called by waitress for each complete request."""
        self.queue.append(channel)

    def shutdown(self, cancel_pending=True, timeout=0):
        """Called by waitress when its server closes."""
        return False

    def stop(self, signum=None, frame=None):
        """Asks for a clean end; the signal a second time ends at once."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        self.stopping = True
        self.wake()

    def turn(self, patience):
        self.poll(patience, self.channels)
        while self.queue:
            self.queue.popleft().service()

    def run(self):
        while not self.stopping:
            self.turn(30.0)

    def finish(self, listener):
        """Serves who had connected before the socket went away, then sends what
        was answered; FLUSH_SECONDS at most, besides the requests themselves."""
        deadline = monotonic() + FLUSH_SECONDS
        waiting = poll()
        waiting.register(listener, POLLIN)
        while monotonic() < deadline and waiting.poll(0):
            before = len(self.server.active_channels)
            self.turn(0)
            if len(self.server.active_channels) <= before:
                self.end_idle()
        # what the last one has sent is there already
        self.turn(0)
        while monotonic() < deadline and self.has_work():
            self.turn(0.1)
        self.server.trigger.close()

    def end_idle(self):
        """Nobody could be accepted: a client that has sent nothing keeps out one that may have."""
        for channel in list(self.server.active_channels.values()):
            has_begun = channel.requests or channel.request or channel.total_outbufs_len
            arrived = poll()
            arrived.register(channel.socket, POLLIN)
            if not has_begun and not arrived.poll(0):
                channel.handle_close()

    def has_work(self):
        channels = list(self.server.active_channels.values())
        return any(channel.total_outbufs_len or channel.requests for channel in channels)


def import_app(target):
    """Imports MODULE:CALLABLE; None, with the reason logged, when it can not be."""
    module_name, colon, name = target.partition(":")
    if not (module_name and colon and name):
        log_problem("bad application: %r, expected MODULE:CALLABLE" % target)
        return None
    from importlib import import_module

    try:
        module = import_module(module_name)
    except ImportError:
        log_problem("can't import the module %s" % module_name, exc_info=True)
        return None
    app = getattr(module, name, None)
    if not callable(app):
        log_problem("no callable %s in the module %s" % (name, module_name))
        return None
    return app


def parse(arguments, prog="bjoern_wrapper.py"):
    parser = argparse.ArgumentParser(prog=prog, description="WSGI server on a unix socket")
    parser.add_argument("wsgi_app", metavar="MODULE:CALLABLE", help="the WSGI application")
    parser.add_argument("unix_socket", metavar="UNIX_SOCKET", help="the unix socket to listen on")
    parser.add_argument(
        "--timeout", type=int, default=60, help="longest time of one request, seconds (0 = no soft limit)"
    )
    parser.add_argument("--debug", action="store_true", help="debug level, and a page for exceptions")
    parser.add_argument("--debug-evalex", action="store_true", help="with --debug: a console in that page")
    if prog == "mfserv_worker":
        add_options_of_worker(parser)
    return parser.parse_args(arguments)


def number_of_threads(text):
    if not (text.isdigit() and 1 <= int(text) <= THREADS_MAX):
        raise argparse.ArgumentTypeError("%r is no number of threads: 1 to %d" % (text, THREADS_MAX))
    return int(text)


def configured_threads():
    text = os.environ.get(THREADS, "1")
    try:
        return number_of_threads(text)
    except argparse.ArgumentTypeError as error:
        log_problem("%s: %s, one thread serves" % (THREADS, error))
        return 1


def add_options_of_worker(parser):
    parser.description = "WSGI and ASGI server on a unix socket"
    parser.add_argument(
        "--server",
        choices=["mfserv", "waitress", "uvicorn"],
        help="the server; else what the configuration says, else mfserv",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--asgi", action="store_true", help="the app is an ASGI app")
    kind.add_argument("--wsgi", action="store_true", help="the app is a WSGI app")
    parser.add_argument(
        "--lifespan", choices=["auto", "on", "off"], default="auto", help="lifespan events of an ASGI app"
    )
    parser.add_argument(
        "--threads",
        type=number_of_threads,
        help="how many requests of a WSGI app run at a time, each in a thread; else what the configuration says, else 1",
    )
    parser.add_argument(
        "--no-eager", action="store_true", help="an ASGI request begins a turn of the event loop later"
    )


def log_everything():
    import logging

    os.environ["MFLOG_MINIMAL_LEVEL"] = "DEBUG"
    logging.basicConfig(level=logging.DEBUG)


def with_debugger(app, evalex):
    from werkzeug.debug import DebuggedApplication

    log_everything()
    return DebuggedApplication(app, evalex=evalex)


def main(arguments=None):
    """The command line of bjoern_wrapper.py; returns the exit code. Which server it starts is
    not in it, since it is older than the choice: the configuration says so, in the environment."""
    options = parse(arguments)
    show_stacks_on_signal()
    return run(options, configured(SERVER), put_variable)


def configured(variable):
    return os.environ.get(variable, "mfserv")


def main_of_worker(arguments=None):
    """The command line of mfserv_worker; returns the exit code."""
    options = parse(arguments, "mfserv_worker")
    show_stacks_on_signal()
    if options.asgi:
        return run_asgi(lambda: import_app(options.wsgi_app), options)
    app = import_app(options.wsgi_app)
    if app is None:
        return 1
    if not options.wsgi and is_asgi(app):
        return run_asgi(lambda: app, options)
    if options.server == "uvicorn":
        log_problem("uvicorn serves no WSGI app: %s needs --asgi, or another --server" % options.wsgi_app)
        return 1
    return run_app(app, options, options.server or configured(SERVER), None)


def is_asgi(app):
    try:
        from mfserv_worker.asgi import is_asgi
    except (ImportError, SyntaxError):
        # Python 2 has no ASGI
        return False
    return is_asgi(app)


def run_asgi(load, options):
    """Serves the ASGI app that `load()` imports; returns the exit code."""
    if options.server == "waitress":
        log_problem("waitress serves no ASGI app: %s needs --wsgi, or another --server" % options.wsgi_app)
        return 1
    if options.threads is not None:
        log_problem("--threads is for WSGI apps: an ASGI app has all its requests in one thread; leave it out")
        return 1
    if options.debug or options.debug_evalex:
        log_everything()
    release_children()
    if (options.server or configured(ASGI_SERVER)) == "uvicorn" or not is_native("uvicorn"):
        return with_uvicorn(load, options)
    from mfserv_worker.asgi import serve

    def listen():
        return listen_on(options.unix_socket)

    timeout = max(options.timeout, 0)
    return serve(load, listen, timeout, report, FORWARDED, options.lifespan, not options.no_eager)


def with_uvicorn(load, options):
    """Serves with uvicorn, which is in the base environment."""
    import uvicorn

    app = load()
    if app is None:
        return 1
    from mfserv_worker.asgi import is_asgi, with_prefix

    # An app of ASGI 2 is called another way.
    if STRIPPED and is_asgi(app):
        app = with_prefix(app)
    own = uvicorn.Server(
        uvicorn.Config(
            app,
            uds=options.unix_socket,
            lifespan=options.lifespan,
            log_level="debug" if options.debug or options.debug_evalex else "warning",
            timeout_graceful_shutdown=max(options.timeout, 0) or None,
            # as waitress: the front meets no connection that is just being closed
            timeout_keep_alive=120,
            # the front sets X-Forwarded-*, and it is the only one who can connect
            proxy_headers=FORWARDED,
            forwarded_allow_ips="*",
        )
    )
    own.run()
    return 0 if own.started else 1


def run(options, server, put_id):
    """Serves the WSGI app of a command line; returns the exit code."""
    app = import_app(options.wsgi_app)
    return 1 if app is None else run_app(app, options, server, put_id)


def run_app(app, options, server, put_id):
    """Serves a WSGI app; returns the exit code."""
    if options.debug or options.debug_evalex:
        app = with_debugger(app, options.debug_evalex)
    timeout = max(options.timeout, 0)
    native = native_server() if server == "mfserv" else None
    # bjoern_wrapper.py has no such option.
    threads = getattr(options, "threads", None) or configured_threads()
    if native is None and threads > 1:
        log_problem("waitress serves one request at a time: %d threads need the server mfserv" % threads)
    own_socket = listen_on(options.unix_socket)
    if own_socket is None:
        return 1
    release_children()
    try:
        if native is None:
            serve(app, own_socket, timeout)
        else:
            native(app, own_socket, timeout, TIMEOUT_SIGNAL, report, FORWARDED, put_id, threads)
    finally:
        own_socket.remove()
    return 0


def release_children():
    """Signals end a child that the app forks as they end other processes: what they mean to this
    worker is not for it. A signal that comes to the child meanwhile waits."""
    if not hasattr(os, "register_at_fork"):
        # Python 2.7
        return
    kept = threading.local()

    def before():
        kept.mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])

    def after():
        signal.pthread_sigmask(signal.SIG_SETMASK, kept.mask)

    def in_child():
        signal.set_wakeup_fd(-1)
        signal.signal(TIMEOUT_SIGNAL, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        after()

    os.register_at_fork(before=before, after_in_parent=after, after_in_child=in_child)


def listen_on(path):
    """The socket of this worker; None, with the reason logged, when there can be none."""
    try:
        return OwnSocket(path)
    except (OSError, socket.error) as error:
        log_problem("can't listen on %s: %s" % (path, error))
        return None


def is_native(other):
    """Whether the server in Rust can be loaded; the reason why not is logged."""
    try:
        import _mfserv_worker  # noqa: F401
    except ImportError as error:
        log_problem("the server mfserv can't be loaded, %s serves instead: %s" % (other, error))
        return False
    return True


def native_server():
    """The server in Rust; None, with the reason logged, where it can not be loaded."""
    if not is_native("waitress"):
        return None
    from mfserv_worker.native import serve as native

    return native


def serve(app, own_socket, timeout):
    """Serves with waitress."""
    clock = Clock(timeout)
    worker = Worker(Limits(app, clock), own_socket)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, worker.stop)
    watch(clock)
    worker.run()
    # nobody new from here
    own_socket.remove()
    worker.finish(own_socket.socket)


def watch(clock):
    thread = threading.Thread(target=clock.watch)
    thread.daemon = True
    thread.start()
