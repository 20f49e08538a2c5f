"""What an object of 1 KiB takes in memory, when there are very many: beyond these where it lies there itself, its fields
and its key included; and for knowing where it is when it lies on disk.

haproxy has all its memory from the start, and nginx keeps objects in files: of them there is nothing to see."""

import measure
import peers
from cache import load
from rows.row import ALONE, VARNISH, Goal, Line, Row, Taken

SIZE = 1024
# What the first ones cost, in buffers and threads, stays out of it; on disk, all that stay in memory as well.
FIRST, FIRST_ON_DISK = 2000, 40_000
# Of room for each.
ROOM = 4096
ON_DISK_MIB = 32


def take_ram(turn):
    room_mib = max(256, turn.objects * ROOM >> 20)
    front = peers.Front(measure.free_port(), cached=True, room_mib=room_mib, disk="off")
    grown, wrong, note = weigh(turn, front, FIRST)
    beyond = grown - SIZE
    return Taken({"ram": beyond, "own": beyond - load.head_size(turn.stage.origin, FIRST + turn.objects)}, wrong, note)


def take_disk(turn):
    if not peers.has_disk():
        return None
    disk_mib = max(256, turn.objects * ROOM >> 20)
    front = peers.Front(measure.free_port(), cached=True, room_mib=ON_DISK_MIB, disk=f"{disk_mib}MiB")
    grown, wrong, note = weigh(turn, front, FIRST_ON_DISK)
    return Taken({"disk": grown}, wrong, note)


def weigh(turn, front, first):
    """(bytes by which each object makes the proxy grow, wrong answers, what to know about it)"""
    with turn.stage.proxy(turn.label, turn.name, front) as pid:
        wrong = load.ask_for(front.url, 0, first)
        before = measure.memory_mib(pid)
        wrong += load.ask_for(front.url, first, turn.objects)
        grown = measure.memory_mib(pid) - before
        missing, not_right = load.missing(front.url, turn.stage.origin, first, turn.objects)
    note = f"{missing:.1%} of the objects were not kept" if missing > 0.005 else ""
    return grown * (1 << 20) / turn.objects, wrong + not_right, note


ROWS = {
    "memory": Row(
        (ALONE, VARNISH),
        {
            "ram": Line("memory of an object of 1 KiB beyond these", "B", Goal(400)),
            "own": Line("the same beyond its fields and its key, too", "B"),
        },
        take_ram,
    ),
    "disk-index": Row(
        (ALONE,),
        {"disk": Line("memory of an object of 1 KiB on disk", "B", Goal(110))},
        take_disk,
    ),
}
