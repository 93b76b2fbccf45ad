"""What a process costs (from /proc), and what a client saw (from wrk)."""

import os
import re
import signal
import socket
import ssl
import subprocess
import time

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A measurement that must not be published, and why."""


def process_tree(root):
    """The pids of `root` and all its descendants that are alive."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = stat_fields(int(name))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting.extend(children.get(pid, []))
    return found


def stat_fields(pid):
    """/proc/PID/stat from the field after the name on (0: state, 1: parent); None for a process that has gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def cpu_seconds(pids):
    """User and system time of all threads of `pids`, and of children they have waited for."""
    ticks = 0
    for pid in pids:
        fields = stat_fields(pid)
        if fields is None:
            raise Failed(f"process {pid} ended while it was measured")
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / TICKS_PER_SECOND


def sum_kib(pids, file_name, key):
    """The sum over `pids` of a `Key:  N kB` line of /proc/PID/FILE."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/{file_name}", encoding="ascii", errors="replace") as file:
            found = re.search(rf"^{key}:\s+(\d+) kB", file.read(), re.MULTILINE)
        total += int(found.group(1)) if found else 0
    return total


def peak_kib(pids):
    """The largest resident memory so far. Pages that processes share count once for each."""
    return sum_kib(pids, "status", "VmHWM")


def resident_kib(pids):
    """Resident memory now; smaps_rollup is exact where VmRSS may lag by some pages for each thread."""
    return sum_kib(pids, "smaps_rollup", "Rss")


def free_port():
    """A loopback port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(process, port, log, deadline_s=15.0):
    """Returns when `port` accepts; raises Failed with the end of the log when the process ends or time is up."""
    until = time.monotonic() + deadline_s
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    with open(log, encoding="utf-8", errors="replace") as file:
        said = " | ".join(file.read().strip().splitlines()[-3:])
    state = "did not listen in time" if process.poll() is None else f"ended with {process.returncode}"
    raise Failed(f"{state}: {said or 'it said nothing'}")


def stop(process):
    """Ends a process that we started and its children: asked first, then forced."""
    if process.poll() is None:
        born = {pid: started_at(pid) for pid in process_tree(process.pid)}
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pid, start in born.items():
            if start is not None and started_at(pid) == start:
                os.kill(pid, signal.SIGKILL)
                wait_until_gone(pid, start)


def wait_until_gone(pid, start, deadline_s=2.0):
    until = time.monotonic() + deadline_s
    while started_at(pid) == start and time.monotonic() < until:
        time.sleep(0.01)


def started_at(pid):
    """When `pid` began, in ticks since boot: tells a process from a later one with its number."""
    fields = stat_fields(pid)
    return fields[19] if fields and fields[0] != "Z" else None


def wrk(url, core, connections, seconds, script=None, close=False):
    """One run of wrk with one thread. Returns requests, requests/s, p50 and p99 in µs.

    Raises Failed when an answer was not 2xx, a connection broke, or wrk said something unknown."""
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    if close:
        command += ["-H", "Connection: close"]
    if script:
        command += ["-s", script]
    done = subprocess.run(command + [url], capture_output=True, text=True, timeout=seconds + 30, check=False)
    return parse_wrk(done.stdout, done.stderr)


def parse_wrk(text, errors=""):
    """The figures of wrk's report."""
    total = re.search(r"(\d+) requests in ", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    p50, p99 = (re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s)$", text, re.MULTILINE) for percent in (50, 99))
    if not (total and rate and p50 and p99) or int(total.group(1)) == 0:
        raise Failed(f"wrk gave no figures: {(errors or text).strip()[-200:]}")
    for pattern in (r"Non-2xx or 3xx responses: \d+", r"Socket errors: .*"):
        bad = re.search(pattern, text)
        if bad:
            raise Failed(bad.group(0))
    unit_us = {"us": 1.0, "ms": 1e3, "s": 1e6}
    return {
        "requests": int(total.group(1)),
        "rate": float(rate.group(1)),
        "p50_us": float(p50.group(1)) * unit_us[p50.group(2)],
        "p99_us": float(p99.group(1)) * unit_us[p99.group(2)],
    }


def h2load(url, core, connections, seconds, grpc_call=None):
    """One run of h2load with one thread, 10 streams at once on each connection. Returns requests and requests/s.
    `grpc_call`: the file of a message to send instead of a GET.

    Raises Failed when an answer was not 2xx, a stream failed, or h2load said something unknown."""
    command = ["taskset", "-c", str(core), "h2load", "-t1", f"-c{connections}", "-m10", f"-D{seconds}", url]
    if grpc_call:
        command += ["-d", grpc_call, "-H", "content-type: application/grpc", "-H", "te: trailers"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    return parse_h2load(done.stdout, done.stderr)


def parse_h2load(text, errors=""):
    """The figures of h2load's report. It knows no percentiles."""
    rate = re.search(r"^finished in [\d.]+\w+, ([\d.]+) req/s", text, re.MULTILINE)
    counts = re.search(r"^requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text, re.MULTILINE)
    codes = re.search(r"^status codes: (\d+) 2xx", text, re.MULTILINE)
    if not (rate and counts and codes) or int(counts.group(1)) == 0:
        raise Failed(f"h2load gave no figures: {(errors or text).strip()[-200:]}")
    succeeded, *bad = (int(count) for count in counts.groups())
    # One that was under way at the end has a status and no end.
    if any(bad) or int(codes.group(1)) < succeeded:
        raise Failed(counts.group(0))
    return {"requests": succeeded, "rate": float(rate.group(1))}


def connect(port, tls):
    """A connection to the proxy; over TLS its certificate is not looked at."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=5)
    if not tls:
        return plain
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(plain, server_hostname="localhost")


def hold_idle(port, count, host="localhost"):
    """`count` connections that have each had one answer and now wait. The caller closes them."""
    held = []
    request = f"GET /small HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    try:
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", port), timeout=10)
            held.append(connection)
            connection.sendall(request)
            read_answer(connection)
    except OSError as error:
        close_all(held)
        raise Failed(f"connection {len(held)} of {count}: {error}") from error
    return held


def read_answer(connection):
    """Reads one answer with a Content-Length or chunked; returns its head and body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += receive(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length:\s*(\d+)", head, re.IGNORECASE)
    while len(body) < int(length.group(1)) if length else not body.endswith(b"0\r\n\r\n"):
        body += receive(connection)
    return head, body


def receive(connection):
    chunk = connection.recv(65536)
    if not chunk:
        raise ConnectionError("closed before the answer was complete")
    return chunk


def still_open(connections):
    """How many of `connections` the other side has not closed."""
    count = 0
    for connection in connections:
        connection.setblocking(False)
        try:
            connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            count += 1
        except OSError:
            pass
    return count


def close_all(connections):
    for connection in connections:
        connection.close()
