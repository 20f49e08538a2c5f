"""A hit on another node: how much longer it takes than one here. Each object is asked for once: what is asked for again
may have come here by then."""

import statistics

from rows import client, origin
from rows.row import THREE, Goal, Line, Row, Taken

OBJECTS = 600
# Connections between the nodes are made meanwhile.
WARM_UP = 30


def take(turn):
    targets = [origin.target(f"{turn.label}/{n}", cache="max-age=3600") for n in range(WARM_UP + OBJECTS)]
    asked_first, asked_then = turn.addresses[1], turn.addresses[0]
    with client.Connection(asked_first) as connection:
        wrong = sum(not connection.ask(target).is_right(target) for target in targets)
    times = {"local": [], "peer": []}
    with client.Connection(asked_then) as connection:
        for number, target in enumerate(targets):
            answer = connection.ask(target)
            where = source(answer.fields.get("cache-status", ""))
            wrong += where is None or not answer.is_right(target)
            if where and number >= WARM_UP:
                times[where].append(answer.total_ms)
    if not all(times.values()):
        raise RuntimeError(f"hits here: {len(times['local'])}, on peers: {len(times['peer'])}")
    here, there = (statistics.median(times[where]) for where in ("local", "peer"))
    return Taken({"added": there - here, "here": here}, wrong)


def source(status):
    """Where a hit lay; None = it was none."""
    if "; hit" not in status:
        return None
    return "peer" if "detail=peer" in status else "local"


ROWS = {
    "peer-hit": Row(
        (THREE,),
        {
            "added": Line("hit on a peer: added to the median of a hit here", "ms", Goal(0.5)),
            "here": Line("the same hit here", "ms"),
        },
        take,
        stays=True,
    )
}
