"""The kinds of work that are compared, and how each is measured."""

import dataclasses
import time

import idle
import measure

# Before what is idle is weighed: everybody may tidy up first.
SETTLING_S = 3


@dataclasses.dataclass
class Turn:
    figure: float
    per_second: float
    memory_mib: float
    wrong: int


@dataclasses.dataclass(frozen=True)
class Scenario:
    path: str
    # (url, pid, seconds, rate) -> Turn
    measure: object
    unit: str = "CPU µs/request"
    cached: bool = False
    tls: bool = False
    # Hosts with five routes each beside the one that is asked.
    hosts: int = 0
    # It has a rate to keep: half of what nginx can do.
    paced: bool = False


def cpu(load):
    """CPU time per request under all the load there can be."""

    def measured(url, pid, seconds, _rate):
        load(url, 1)
        before = measure.cpu_seconds(pid)
        answered, wrong, per_second = load(url, seconds)
        spent = measure.cpu_seconds(pid) - before
        return Turn(spent * 1e6 / max(answered, 1), per_second, measure.memory_mib(pid), wrong)

    return measured


def by_wrk(url, seconds):
    return measure.wrk(url, 64, seconds)


def by_few(url, seconds):
    return measure.wrk(url, 8, seconds)


def by_new_connections(url, seconds):
    return measure.wrk(url, 64, seconds, "Connection: close")


def by_h1(url, seconds):
    return measure.h2load(url, 64, seconds, streams=0)


def by_h2(url, seconds):
    return measure.h2load(url, 16, seconds, streams=32)


def by_handshakes(url, seconds):
    return measure.handshakes(url, 4, seconds)


def slowest(url, pid, seconds, rate):
    by_wrk(url, 1)
    answered, wrong, p99_us = measure.paced(url, 64, seconds, rate)
    return Turn(p99_us, answered / seconds, measure.memory_mib(pid), wrong)


def weight(connect, count):
    """Memory of each of `count` connections of a kind."""

    def measured(url, pid, _seconds, _rate):
        with connect(url, 100):
            pass  # what the first ones cost stays
        before = measure.memory_mib(pid)
        since = time.monotonic()
        with connect(url, count) as wrong:
            took = time.monotonic() - since
            time.sleep(SETTLING_S)
            after = measure.memory_mib(pid)
        return Turn((after - before) * 1024 / count, count / took, after, wrong)

    return measured


SCENARIOS = {
    "pass-1k": Scenario("/1k", cpu(by_wrk)),
    "pass-1k-many": Scenario("/1k", cpu(by_wrk), hosts=10_000),
    "pass-100k": Scenario("/100k", cpu(by_wrk)),
    "pass-10m": Scenario("/10m", cpu(by_few)),
    "churn-1k": Scenario("/1k", cpu(by_new_connections)),
    "tls-1k": Scenario("/1k", cpu(by_h1), tls=True),
    "tls-handshake": Scenario("", cpu(by_handshakes), "CPU µs/handshake", tls=True),
    "h2-1k": Scenario("/1k", cpu(by_h2), tls=True),
    "hit-1k": Scenario("/1k", cpu(by_wrk), cached=True),
    "hit-100k": Scenario("/100k", cpu(by_wrk), cached=True),
    "tls-hit-1k": Scenario("/1k", cpu(by_h1), cached=True, tls=True),
    "h2-hit-1k": Scenario("/1k", cpu(by_h2), cached=True, tls=True),
    "half-1k": Scenario("/1k", slowest, "99th percentile, µs", paced=True),
    "idle-10k": Scenario("/1k", weight(idle.http1, 10_000), "KiB/connection"),
    "idle-h2-1k": Scenario("/1k", weight(idle.http2, 1_000), "KiB/connection", tls=True),
}
