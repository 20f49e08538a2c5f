"""A proxy with very many objects on disk is stopped, or killed, and started again: when it serves, and what it has."""

import os
import signal
import time

import measure
import peers
from cache import load
from rows import client
from rows.row import ALONE, NGINX, Goal, Line, Row, Taken

# Of room on disk for each.
ROOM = 4096
RAM_MIB = 64
# So many more are being written when it is killed.
LAST = 50
# For a proxy to stop, and for it to serve again.
STOP_S, START_S = 60, 120


def take(turn):
    if not peers.has_disk():
        return None
    room_mib = max(256, turn.objects * ROOM >> 20)
    ram_mib = RAM_MIB if turn.name == ALONE else room_mib
    front = peers.Front(measure.free_port(), cached=True, room_mib=ram_mib, disk=f"{room_mib}MiB")
    with turn.stage.room(turn.label) as place:
        extra = [measure.free_port] if turn.name == ALONE else []
        argv = peers.ARGV[turn.name](place, turn.stage.origin, front, *extra)
        with measure.started(argv, measure.PROXY_CPU, place) as process:
            serving(process, front, load.path(0), wants_hit=False)
            wrong = load.ask_for(front.url, 0, turn.objects)
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_S)
        figures = {}
        with measure.started(argv, measure.PROXY_CPU, place) as process:
            figures["stopped"] = serving(process, front, load.path(0))
            missing, not_right = load.missing(front.url, turn.stage.origin, 0, turn.objects)
            figures["stopped-kept"] = 100 * (1 - missing)
            more = turn.objects // LAST
            wrong += not_right + load.ask_for(front.url, turn.objects, more)
            os.killpg(process.pid, signal.SIGKILL)
        with measure.started(argv, measure.PROXY_CPU, place) as process:
            figures["killed"] = serving(process, front, load.path(0))
            missing, not_right = load.missing(front.url, turn.stage.origin, 0, turn.objects + more)
            figures["killed-kept"] = 100 * (1 - missing)
    return Taken(figures, wrong + not_right)


def serving(process, front, path, wants_hit=True):
    """Seconds until an answer comes: out of the cache, if it is wanted so."""
    since = time.monotonic()

    def serves():
        if process.poll() is not None:
            raise RuntimeError(f"it ended with {process.returncode}")
        with client.Connection(("127.0.0.1", front.port)) as connection:
            answer = connection.ask(path)
        return answer.status == 200 and (not wants_hit or is_hit(answer))

    measure.wait_for("it serves", START_S, serves)
    return time.monotonic() - since


def is_hit(answer):
    """Shoal says it; of nginx it is seen by `kept`."""
    return "; hit" in answer.fields.get("cache-status", "; hit")


ROWS = {
    "restart": Row(
        (ALONE, NGINX),
        {
            "stopped": Line("start with all objects on disk, after a clean stop", "s", Goal(3)),
            "stopped-kept": Line("of these, not asked of the origin again", "%", Goal(99.9, is_least=True)),
            "killed": Line("start with all objects on disk, after kill -9", "s", Goal(3)),
            "killed-kept": Line("of these, not asked of the origin again", "%", Goal(99, is_least=True)),
        },
        take,
    )
}
