"""One of three nodes is killed: what those see that ask the others, and how much has to be fetched again."""

import math

import measure
from rows import client, cluster, origin
from rows.admin import Admin
from rows.row import THREE, Goal, Line, Row, Taken

OBJECTS = 300
SIZE = 4096
# Requests to the survivors: each object before the kill, and twice afterwards, once by each of them.
PASSES = 3
PER_SECOND = 300
COPIES = 2


def take(turn):
    targets = [origin.target(f"{turn.label}/{n}", cache="max-age=3600", size=SIZE) for n in range(OBJECTS)]
    with cluster.started(turn.stage, turn.label, turn.origin.address) as nodes:
        wrong = warm(nodes, targets)
        copied(nodes[0], targets)
        before = turn.origin.fetches()
        victim = nodes[turn.number % len(nodes)]
        survivors = [node for node in nodes if node is not victim]
        asks = [
            client.Ask(survivors[(n + n // OBJECTS) % 2].http, targets[n % OBJECTS], n * 1000 / PER_SECOND)
            for n in range(PASSES * OBJECTS)
        ]
        role = next(node["role"] for node in victim.status()["nodes"] if node["node"] == victim.name)
        answers = client.play(asks, [(asks[OBJECTS].at_ms, victim.kill)])
        after = turn.origin.fetches()
    errors = sum(not answer.is_right(ask.target) for ask, answer in zip(asks, answers))
    kept = sum(before.get(target) == after.get(target) for target in targets)
    times = sorted(answer.total_ms for answer in answers[OBJECTS:])
    figures = {
        "errors": errors,
        "kept": math.floor(1000 * kept / OBJECTS) / 10,
        "p99": times[len(times) * 99 // 100],
        "slowest": times[-1],
    }
    return Taken(figures, wrong, f"killed: the {role}")


def copied(node, targets):
    """Waits until both owners of every object hold it."""
    with Admin(node.socket) as admin:
        for target in targets:
            url = f"http://{client.HOST}{target}"
            measure.wait_for(f"two nodes hold {url}", 20, lambda: admin.copies(url) == COPIES)


def warm(nodes, targets):
    wrong = 0
    for n, node in enumerate(nodes):
        with client.Connection(node.http) as connection:
            wrong += sum(not connection.ask(target).is_right(target) for target in targets[n :: len(nodes)])
    return wrong


ROWS = {
    "node-loss": Row(
        (THREE,),
        {
            "errors": Line("kill -9 of one of three: errors on the others, of 900 requests", "errors", Goal(0)),
            "kept": Line("of 300 warm objects, served without the origin", "%", Goal(100, is_least=True)),
            "p99": Line("99th percentile after the kill", "ms"),
            "slowest": Line("the slowest after the kill", "ms"),
        },
        take,
    )
}
