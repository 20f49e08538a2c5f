"""A change of very many objects at once, and what those see of it who ask meanwhile."""

import json
import re
import time

import measure
from rows import client, cluster, origin
from rows.row import THREE, Goal, Line, Row, Taken

ROUTES = 10_000
# Each time every route changes.
CHANGES = 5


def take(turn):
    with cluster.started(turn.stage, turn.label, turn.origin.address, is_warm=False) as nodes:
        place = nodes[0].place.parent
        change(nodes[0], place, 0)
        took = []
        argv = origin.script("paced", *(f"{ip}:{port}" for ip, port in (node.http for node in nodes)))
        room = place / "paced"
        room.mkdir()
        with measure.started(argv, measure.ANY_CPU, room):
            measure.wait_for("nodes answer", 20, lambda: (room / "output").stat().st_size)
            quiet_from = time.monotonic()
            time.sleep(2)
            spans = [(quiet_from, time.monotonic())]
            for n in range(1, CHANGES + 1):
                since = time.monotonic()
                took.append(change(nodes[n % len(nodes)], place, n))
                spans.append((since, time.monotonic()))
        compiled = [ms for node in nodes for ms in activations(node)]
        answers = [tuple(map(float, line.split())) for line in (room / "output").read_text().splitlines()]
        slowest = [max((ms for at, ms in answers if since <= at <= until), default=0) for since, until in spans]
        wrong = sum(ms >= client.PATIENCE_S * 1000 for _, ms in answers)
    took.sort()
    figures = {"compiled": max(compiled)} if compiled else {}
    return Taken(figures | {"took": took[len(took) // 2], "slowest": max(slowest[1:]), "quiet": slowest[0]}, wrong)


def activations(node):
    """Milliseconds that each of the changes took it, from when it had them to when it served them."""
    text = (node.place / "output").read_text()
    return [int(ms) for ms in re.findall(r"revision is in force .*took_ms=(\d+)", text)[-CHANGES:]]


def change(node, place, number):
    """Milliseconds until every node served it, as the node that was asked tells."""
    file = place / f"{number}.json"
    routes = {f"r{n}": {"hosts": [f"h{n}.example"], "path_prefix": f"/{number}", "upstream": "origin"} for n in range(ROUTES)}
    file.write_text(json.dumps({"routes": routes}))
    answer = node.verb("-o", "json", "apply", "-f", str(file))
    if not answer:
        raise RuntimeError("the change was refused")
    return json.loads(answer)["elapsed_ms"]


ROWS = {
    "apply-10k": Row(
        (THREE,),
        {
            "took": Line("10,000 routes changed at once, in force on all of three nodes", "ms"),
            "compiled": Line("of that, compiled and swapped in by the slowest node", "ms", Goal(150)),
            "slowest": Line("the slowest answer meanwhile", "ms"),
            "quiet": Line("the slowest answer in two seconds before", "ms"),
        },
        take,
    )
}
