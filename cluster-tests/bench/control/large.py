"""A change of very many objects at once, and what those see of it who ask meanwhile."""

import json
import re
import statistics
import time

import measure
from rows import client, cluster, origin
from rows.row import ALONE, THREE, Goal, Line, Row, Taken

ROUTES = 10_000
# Each time every route changes.
CHANGES = 10
# Between two of them: before each it is seen how slow answers are without it.
PAUSE_S = 1


def take(turn):
    shape = {"count": 1, "cpu": measure.PROXY_CPU} if turn.name == ALONE else {}
    with cluster.started(turn.stage, turn.label, turn.origin.address, is_warm=False, **shape) as nodes:
        place = nodes[0].place.parent
        files = [written(place, number) for number in range(CHANGES + 1)]
        change(nodes[0], files[0])
        took, changed, quiet = [], [], []
        load = measure.LOAD_CPU if turn.name == ALONE else measure.ANY_CPU
        argv = origin.script("paced", *(f"{ip}:{port}" for ip, port in (node.http for node in nodes)))
        room = place / "paced"
        room.mkdir()
        with measure.started(argv, load, room):
            measure.wait_for("nodes answer", 20, lambda: (room / "output").stat().st_size)
            for number, file in enumerate(files[1:]):
                time.sleep(PAUSE_S)
                since = time.monotonic()
                took.append(change(nodes[number % len(nodes)], file))
                until = time.monotonic()
                changed.append((since, until))
                quiet.append((since - min(until - since, PAUSE_S), since))
        compiled = [ms for node in nodes for ms in activations(node)]
        answers = [tuple(map(float, line.split())) for line in (room / "output").read_text().splitlines()]
        wrong = sum(ms >= client.PATIENCE_S * 1000 for _, ms in answers)
    slow, slow_before = slowest(answers, changed), slowest(answers, quiet)
    figures = {"took": statistics.median(took), "slowest": max(slow), "before": max(slow_before)}
    figures |= {"usual": statistics.median(slow), "usual-before": statistics.median(slow_before)}
    figures["delay"] = max(0, figures["usual"] - figures["usual-before"])
    return Taken(figures | ({"compiled": max(compiled)} if compiled else {}), wrong)


def slowest(answers, spans):
    """Milliseconds of the slowest answer of each span."""
    return [max((ms for at, ms in answers if since <= at <= until), default=0) for since, until in spans]


def activations(node):
    """Milliseconds that each of the changes took it, from when it had them to when it served them."""
    text = (node.place / "output").read_text()
    return [int(ms) for ms in re.findall(r"revision is in force .*took_ms=(\d+)", text)[-CHANGES:]]


def written(place, number):
    file = place / f"{number}.json"
    routes = {f"r{n}": {"hosts": [f"h{n}.example"], "path_prefix": f"/{number}", "upstream": "origin"} for n in range(ROUTES)}
    file.write_text(json.dumps({"routes": routes}))
    return file


def change(node, file):
    """Milliseconds until every node served it, as the node that was asked tells."""
    # Whoever changes something has a machine of his own: his command leaves the CPUs to the others.
    answer = node.verb("-o", "json", "apply", "-f", str(file), before=("nice", "-n", "19"))
    if not answer:
        raise RuntimeError("the change was refused")
    return json.loads(answer)["elapsed_ms"]


ROWS = {
    "apply-10k": Row(
        (ALONE, THREE),
        {
            "took": Line("10,000 routes changed at once, in force on all nodes", "ms"),
            "compiled": Line("of that, compiled and swapped in by the slowest node, at most", "ms", Goal(150)),
            "slowest": Line("the slowest answer meanwhile, at most", "ms"),
            "before": Line("the same in as long a time before each change", "ms"),
            "usual": Line("the slowest answer meanwhile, in the median of the changes", "ms"),
            "usual-before": Line("the same in as long a time before", "ms"),
            "delay": Line("by how much that is longer", "ms", Goal(5)),
        },
        take,
    )
}
