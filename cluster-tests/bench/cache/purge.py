"""How long it takes until every node has acknowledged a purge: with all three there, and with one cut off."""

import contextlib
import os
import tempfile
import time

from rows import client, cluster, cut
from rows.admin import APPLIED, HOST, URL, Admin
from rows.row import THREE, Goal, Line, Row, Taken

PURGES = 500
# What a node's lease may last, and what the acknowledgement may take beyond it.
LEASE_S, BEYOND_S = 2, 0.5
# So long it is looked at what the node that is cut off answers.
AFTERWARDS_S = 4


def take_all(turn):
    """Purges one after the other, at each node in turn."""
    with contextlib.ExitStack() as stack:
        nodes = stack.enter_context(cluster.started(turn.stage, turn.label, turn.origin.address))
        admins = [stack.enter_context(Admin(node.socket)) for node in nodes]
        disk = stack.enter_context(tempfile.TemporaryFile(dir=os.path.dirname(nodes[0].socket)))
        took, fsyncs, wrong = [], [], 0
        for n in range(PURGES + len(nodes)):
            seconds, states, absent = admins[n % len(nodes)].purge(URL, f"http://{client.HOST}/{turn.label}/{n}")
            wrong += states != [APPLIED] * len(nodes) or absent > 0
            # The first of each connection makes it.
            if n >= len(nodes):
                took.append(seconds * 1000)
                fsyncs.append(write_through(disk) * 1000)
    took.sort()
    fsyncs.sort()
    figures = {"p99": took[len(took) * 99 // 100], "p50": took[len(took) // 2]}
    return Taken(figures | {"fsync": fsyncs[len(fsyncs) * 99 // 100]}, wrong)


def write_through(file):
    """Seconds that the disk takes for what a log does: some bytes, and not to return before they lie on it."""
    since = time.monotonic()
    os.write(file.fileno(), bytes(4096))
    os.fdatasync(file.fileno())
    return time.monotonic() - since


def take_cut(turn):
    """A node is cut off and everything is purged at once: a follower, and of another cluster the leader. None of them has
    been cut off before: who was lately is given more time."""
    figures, wrong, how = {}, 0, ""
    for role in ("voter", "leader"):
        with cut.started(turn.stage, f"{turn.label}-{role}") as parted:
            nodes, how = parted.nodes, parted.how
            victim = next(node for node in nodes if role_of(node, nodes[0]) == role)
            asked = next(node for node in nodes if node is not victim)
            with Admin(asked.socket) as admin, parted.watched(victim) as answers, parted.apart(victim):
                seconds, states, absent = admin.purge(HOST, client.HOST)
                acknowledged_at = time.monotonic()
                time.sleep(AFTERWARDS_S)
        wrong += len(states) + absent != len(nodes) or states.count(APPLIED) < len(nodes) - 1
        figures[role] = seconds
        if parted.beside:
            figures[f"{role}-old"] = max([0, *(asked_at - acknowledged_at for asked_at in answers)])
    return Taken(figures, wrong, f"cut off by {how}")


def role_of(node, asked):
    return next(member["role"] for member in asked.status()["nodes"] if member["node"] == node.name)


ROWS = {
    "purge": Row(
        (THREE,),
        {
            "p99": Line("purge acknowledged by all of three: 99th percentile", "ms", Goal(25)),
            "p50": Line("its median", "ms"),
            "fsync": Line("a write and fsync on the same disk, after each of them: 99th percentile", "ms"),
        },
        take_all,
    ),
    "purge-cut": Row(
        (THREE,),
        {
            "voter": Line("purge acknowledged, a follower was just cut off", "s", Goal(LEASE_S + BEYOND_S)),
            "voter-old": Line("after that it still answered what was purged, for", "s", Goal(0)),
            "leader": Line("purge acknowledged, the leader was just cut off", "s", Goal(LEASE_S + BEYOND_S)),
            "leader-old": Line("after that it still answered what was purged, for", "s", Goal(0)),
        },
        take_cut,
    ),
}
