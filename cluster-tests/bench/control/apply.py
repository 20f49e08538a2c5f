"""Changes one after the other, each of one object."""

import contextlib
import json

from control import etcd
from rows import cluster
from rows.admin import APPLIED, Admin
from rows.row import ETCD, THREE, Goal, Line, Row, Taken

CHANGES = 500


def take(turn):
    took, wrong = took_by_etcd(turn) if turn.name == ETCD else took_by_shoal(turn)
    took.sort()
    return Taken({"p50": took[len(took) // 2] * 1000, "p99": took[len(took) * 99 // 100] * 1000}, wrong)


def took_by_shoal(turn):
    """Until every node serves it, asked of each node in turn."""
    with contextlib.ExitStack() as stack:
        nodes = stack.enter_context(cluster.started(turn.stage, turn.label, turn.origin.address, is_warm=False))
        admins = [stack.enter_context(Admin(node.socket)) for node in nodes]
        took, wrong = [], 0
        # The first of each connection makes it.
        for n in range(-len(nodes), CHANGES):
            site = {"routes": {"changing": {"path": f"/changing/{n}", "upstream": "origin"}}}
            seconds, states, absent = admins[n % len(nodes)].apply(json.dumps(site))
            wrong += states != [APPLIED] * len(nodes) or absent > 0
            if n >= 0:
                took.append(seconds)
    return took, wrong


def took_by_etcd(turn):
    """Until a majority has it."""
    with etcd.started(turn.stage, turn.label) as members:
        took = [members[n % len(members)].put("changing", f"/changing/{n}") for n in range(-len(members), CHANGES)]
    return took[len(members) :], 0


ROWS = {
    "apply": Row(
        (THREE, ETCD),
        {
            "p50": Line("a route changed, in force on all of three nodes (etcd: put, on two of three): median", "ms", Goal(15), (ETCD,)),
            "p99": Line("its 99th percentile", "ms", Goal(50), (ETCD,)),
        },
        take,
    )
}
