"""Processes on a CPU of their own, the load they are given, and the CPU time they took."""

import contextlib
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse

TICKS = os.sysconf("SC_CLK_TCK")
PROXY_CPU, LOAD_CPU, ANY_CPU = "0", "1", "0,1"
# A turn takes some seconds; once h2load went on after its time.
LOAD_PATIENCE_S = 120

PORTS = range(20000, 32000)


def free_port():
    """Below those that connections get: none that is about to end shall hold it when a proxy wants to listen on it."""
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"no port between {PORTS[0]} and {PORTS[-1]} is free")


def listening(port, host="127.0.0.1"):
    with contextlib.suppress(OSError), socket.create_connection((host, port), 0.3):
        return True
    return False


def wait_for(what, deadline_s, look):
    until = time.monotonic() + deadline_s
    while not look():
        if time.monotonic() > until:
            raise TimeoutError(f"not within {deadline_s} s: {what}")
        time.sleep(0.02)


@contextlib.contextmanager
def running(name, argv, cpu, port, place):
    """The pid of a process group pinned to `cpu`, from when it listens to when its port is free again."""
    try:
        with started(argv, cpu, place) as child:
            wait_for(f"{name} listens", 20, lambda: child.poll() is not None or listening(port))
            if child.poll() is not None:
                raise RuntimeError(f"{name} ended with {child.returncode}: {(place / 'output').read_text()[-2000:]}")
            yield child.pid
    finally:
        wait_for(f"{name}'s port is free", 10, lambda: not listening(port))


@contextlib.contextmanager
def started(argv, cpu, place):
    """A process and everything it starts, on `cpu`; what it says goes to the file `output`."""
    with open(place / "output", "ab") as output:
        child = subprocess.Popen(
            ["taskset", "-c", cpu, *argv], stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(4)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def family(pid):
    """The process and everything below it."""
    yield pid
    for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in children.read_text().split():
                yield from family(int(child))


def cpu_seconds(pid):
    """User and system time of the whole family since it started."""
    total = 0
    for member in family(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # Fields 14 and 15 of stat(5); the name before them may contain anything.
            fields = pathlib.Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / TICKS


def memory_mib(pid):
    """Proportional set size of the whole family."""
    total = 0
    for member in family(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            found = re.search(r"^Pss:\s+(\d+)", pathlib.Path(f"/proc/{member}/smaps_rollup").read_text(), re.M)
            total += int(found.group(1)) if found else 0
    return total / 1024


def wrk(url, connections, seconds, *fields):
    """(requests answered, of which wrong, requests per second)"""
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s"]
    argv += [word for field in fields for word in ("-H", field)] + [url]
    text = pinned(argv)
    answered = int(re.search(r"(\d+) requests in", text).group(1))
    wrong = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", text))
    wrong += sum(int(n) for n in re.findall(r"(?:connect|read|write|timeout) (\d+)", text))
    return answered, wrong, float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1))


def h2load(url, connections, seconds, streams):
    """The same by h2load; streams = 0 is HTTP/1.1."""
    shape = ["--h1"] if streams == 0 else [f"-m{streams}"]
    text = pinned(["h2load", "-t1", f"-c{connections}", f"-D{seconds}", *shape, url])
    counts = {name: int(n) for n, name in re.findall(r"(\d+) (done|failed|errored|timeout)", text)}
    rate = float(re.search(r"finished in [\d.]+m?s, ([\d.]+) req/s", text).group(1))
    wrong = sum(counts.get(name, 0) for name in ("failed", "errored", "timeout"))
    other = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    return counts["done"], wrong + int(other.group(3)) + int(other.group(4)), rate


def paced(url, connections, seconds, rate):
    """(requests answered, of which wrong, 99th percentile of their times in microseconds) at `rate` a second, HTTP/1.1"""
    with tempfile.NamedTemporaryFile("r", prefix="shoal-bench-") as log:
        shape = ["--h1", f"--rps={max(rate / connections, 1):.0f}", f"--log-file={log.name}"]
        pinned(["h2load", "-t1", f"-c{connections}", f"-D{seconds}", *shape, url])
        rows = [line.split("\t") for line in log]
    times = sorted(int(row[2]) for row in rows)
    wrong = sum(row[1] != "200" for row in rows)
    return len(times), wrong, times[len(times) * 99 // 100] if times else 0


def handshakes(url, clients, seconds):
    """Full TLS handshakes, each on a connection of its own. wrk and h2load resume the sessions of closed connections."""
    address = urllib.parse.urlsplit(url).netloc
    argv = ["taskset", "-c", LOAD_CPU, "openssl", "s_time", "-connect", address, "-new", "-time", str(seconds)]
    running = [subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(clients)]
    texts = [client.communicate()[0] for client in running]
    done = [int(re.search(r"(\d+) connections in [\d.]+ real seconds", text).group(1)) for text in texts]
    return sum(done), sum(client.returncode != 0 for client in running), sum(done) / seconds


def pinned(argv, patience_s=LOAD_PATIENCE_S):
    """What a load generator prints; one that does not end by itself is ended."""
    run = subprocess.run(["taskset", "-c", LOAD_CPU, *argv], capture_output=True, text=True, timeout=patience_s)
    if run.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {run.stdout[-500:]}{run.stderr[-500:]}")
    return run.stdout
