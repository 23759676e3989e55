"""Measures what one request costs a WSGI server on a unix socket.

usage: PYTHON bench.py [REQUESTS]     PYTHON has the candidates installed

Prints, per server and app: CPU microseconds per request of the server's
processes (utime + stime of /proc/PID/stat), over kept and over fresh
connections; PSS in MiB; boot: milliseconds from exec to the first answer; and
whether a second connection is served while a first one stays open and idle.
A server's CPU is measured, so that the speed of this client does not matter.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SERVERS = ["mfserv_wsgi", "waitress", "waitress_threads", "gunicorn_sync", "cheroot", "wsgiref", "granian", "bjoern"]
TICK = os.sysconf("SC_CLK_TCK")
HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: 0123456789abcdef\r\nAccept: */*\r\n"


def command(server, app, path):
    if server == "granian":
        target = "serve:hello" if app == "hello" else "serve:flask_app"
        factory = [] if app == "hello" else ["--factory"]
        return [sys.executable, "-m", "granian", "--interface", "wsgi", "--uds", path, "--workers", "1",
                "--blocking-threads", "1", "--no-access-log", "--working-dir", HERE, *factory, target]
    return [sys.executable, os.path.join(HERE, "serve.py"), server, app, path]


def family(pid):
    pids, todo = [], [pid]
    while todo:
        one = todo.pop()
        pids.append(one)
        try:
            with open(f"/proc/{one}/task/{one}/children") as f:
                todo += [int(child) for child in f.read().split()]
        except OSError:
            pass
    return pids


def cpu(pid):
    total = 0
    for one in family(pid):
        with open(f"/proc/{one}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def pss(pid):
    total = 0
    for one in family(pid):
        with open(f"/proc/{one}/smaps_rollup") as f:
            total += sum(int(line.split()[1]) for line in f if line.startswith("Pss:"))
    return total / 1024


def connect(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(5)
    sock.connect(path)
    return sock


def request(sock, close):
    """One request; returns (status line, whether the server keeps the connection)."""
    sock.sendall(HEAD + (b"Connection: close\r\n\r\n" if close else b"\r\n"))
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(65536)
        if not part:
            raise OSError("closed")
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    lower = head.lower()
    length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += sock.recv(65536)
    kept = b"connection: close" not in lower and not lower.startswith(b"http/1.0")
    return head.split(b"\r\n")[0], kept


def first_answer(path, process, patience=15):
    start = time.monotonic()
    while time.monotonic() - start < patience:
        try:
            sock = connect(path)
            status, kept = request(sock, False)
            sock.close()
            assert b"200" in status, status
            return kept
        except OSError:
            if process.poll() is not None:
                return None
            time.sleep(0.002)
    return None


def idle_neighbour(path):
    """Is a request served while another connection stays open and idle?"""
    first, second = connect(path), connect(path)
    try:
        request(first, False)
        second.settimeout(1.5)
        request(second, True)
        return "yes"
    except OSError:
        return "NO"
    finally:
        first.close()
        second.close()


def per_request(path, pid, count, close):
    before, sock = cpu(pid), None
    for _ in range(count):
        if sock is None:
            sock = connect(path)
        _, kept = request(sock, close)
        if close or not kept:
            sock.close()
            sock = None
    return (cpu(pid) - before) / count * 1e6


def measure(server, app, count):
    with tempfile.TemporaryDirectory() as folder:
        boots = []
        for turn in range(3):
            path = os.path.join(folder, f"s{turn}")
            start = time.monotonic()
            process = subprocess.Popen(command(server, app, path), stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL, cwd=HERE, start_new_session=True)
            try:
                kept = first_answer(path, process)
                if kept is None:
                    return f"| {server} | {app} | does not start |"
                boots.append((time.monotonic() - start) * 1000)
                if turn == 2:
                    neighbour = idle_neighbour(path) if kept else "-"
                    per_request(path, process.pid, count // 10, True)
                    fresh = per_request(path, process.pid, count, True)
                    keep = f"{per_request(path, process.pid, count, False):.0f}" if kept else "-"
                    return (f"| {server} | {app} | {keep} | {fresh:.0f} | {pss(process.pid):.1f} | "
                            f"{sorted(boots)[1]:.0f} | {neighbour} |")
            except TimeoutError:
                return f"| {server} | {app} | no answer within 5 s |"
            finally:
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                process.wait()


if __name__ == "__main__":
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 10000
    print("| server | app | kept µs | fresh µs | PSS MiB | boot ms | idle neighbour served |")
    print("|---|---|---|---|---|---|---|")
    for one in SERVERS:
        for app in ("hello", "flask"):
            print(measure(one, app, requests), flush=True)
