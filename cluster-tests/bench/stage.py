"""An origin, a certificate, and room for proxies, one at a time."""

import contextlib
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile

import measure
import peers
import table


class Stage:
    """Where proxies take turns: each is started anew, measured, and ended."""

    def __init__(self, root, origin, certificate, rounds, seconds):
        self.root, self.origin, self.certificate = root, origin, certificate
        self.rounds, self.seconds = rounds, seconds

    def take_turn(self, label, name, scenario, rate):
        """One proxy through warm-up and measurement. None = it cannot do this."""
        chain, key = self.certificate if scenario.tls else ("", "")
        hosts = 0 if name == table.ALONE else scenario.hosts
        front = peers.Front(measure.free_port(), scenario.cached, chain, key, hosts)
        program = "shoal" if name == table.ALONE else name
        with self.proxy(label, program, front) as pid:
            return pid and scenario.measure(front.url + scenario.path, pid, self.seconds, rate)

    @contextlib.contextmanager
    def proxy(self, label, program, front, origin=None):
        """The pid of a proxy that has a CPU for itself, while it runs. None = there is no configuration for this."""
        with self.room(f"{label}-{program}") as place:
            extra = [measure.free_port] if program == "shoal" else []
            argv = peers.ARGV[program](place, origin or self.origin, front, *extra)
            if argv is None:
                yield None
                return
            with measure.running(program, argv, measure.PROXY_CPU, front.port, place) as pid:
                yield pid

    @contextlib.contextmanager
    def room(self, label):
        """A directory for as long as a turn takes."""
        place = self.root / label.replace(" ", "-")
        place.mkdir(mode=0o777)
        place.chmod(0o777)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def opened(rounds, seconds):
    """A stage with an origin that runs."""
    # What this program does itself belongs to the load.
    os.sched_setaffinity(0, {int(measure.LOAD_CPU)})
    # Whoever ends it ends what it has started, too.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as directory:
        root = pathlib.Path(directory)
        root.chmod(0o755)
        files, certificate = prepare(root)
        place, port = root / "origin", measure.free_port()
        place.mkdir()
        argv = peers.origin(place, port, files)
        with measure.running("origin", argv, measure.LOAD_CPU, port, place):
            yield Stage(root, f"127.0.0.1:{port}", certificate, rounds, seconds)


def lacking():
    """Why nothing can be measured here; empty = it can."""
    needed = [program for program in ("nginx", "wrk", "h2load", "taskset", "openssl") if not shutil.which(program)]
    return f"needs two CPUs and: {', '.join(needed)}" if needed or os.cpu_count() < 2 else ""


def summary(taken, unit):
    median = lambda field: statistics.median(getattr(turn, field) for turn in taken)
    figures = [turn.figure for turn in taken]
    return {
        "figure": round(median("figure"), 2),
        "rounds": [round(figure, 2) for figure in figures],
        "unit": unit,
        "lowest": round(min(figures), 2),
        "highest": round(max(figures), 2),
        "per_second": round(median("per_second")),
        "memory_mib": round(median("memory_mib"), 1),
        "wrong": sum(turn.wrong for turn in taken),
    }


def machine():
    """What it was measured on."""
    cpus = pathlib.Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in cpus.splitlines() if line.startswith("model name")), "")
    return f"{model or os.uname().machine}, {os.cpu_count()} CPUs, Linux {'.'.join(os.uname().release.split('.')[:2])}"


def prepare(root):
    """Files to serve and a certificate."""
    files = root / "files"
    files.mkdir()
    for name, size in (("1k", 1024), ("100k", 102_400), ("10m", 10 << 20)):
        (files / name).write_bytes(os.urandom(size))
    chain, key = root / "chain.pem", root / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-nodes", "-days", "7", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        + ["-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-out", chain, "-keyout", key],
        check=True,
        capture_output=True,
    )
    key.chmod(0o644)
    return files, (str(chain), str(key))
