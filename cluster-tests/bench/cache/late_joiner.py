"""Somebody asks for an object that is on its way: when he gets the first byte of its body."""

from rows import client, origin
from rows.row import ALONE, CACHES, THREE, Goal, Line, Row, Taken

OBJECTS, SIZE = 6, 100_000
# Before the first byte, and for all of it: who asks the origin by himself is seen by the delay.
DELAY_MS, FILL_MS = 300, 2000
# The first one joins so late, and each next one this much later.
JOINS_MS, APART_MS = 500, 150


def take(turn):
    """All objects at once, every other one with a length; of two joiners one asks where the fill was asked for."""
    asks, same, other = [], [], []
    for n in range(OBJECTS):
        framing = {"chunked": 1} if n % 2 else {}
        asked = {"cache": "max-age=3600", "size": SIZE, "delay": DELAY_MS, "drip": FILL_MS - DELAY_MS, **framing}
        target = origin.target(f"{turn.label}/{n}", **asked)
        first, elsewhere = (turn.addresses[(n + step) % len(turn.addresses)] for step in (0, 1))
        joins = JOINS_MS + n * APART_MS
        asks.append(client.Ask(first, target))
        same.append(client.Ask(first, target, joins))
        if elsewhere != first:
            other.append(client.Ask(elsewhere, target, joins + APART_MS / 2))
    answers = client.play(asks + same + other)
    slowest = lambda joined: max(answer.first_ms for answer in joined)
    figures = {"same": slowest(answers[OBJECTS : 2 * OBJECTS])}
    if other:
        figures["other"] = slowest(answers[2 * OBJECTS :])
    fetches = turn.origin.fetches()
    figures["fetches"] = max(fetches.get(ask.target, 0) for ask in asks)
    wrong = sum(not answer.is_right(ask.target) for ask, answer in zip(asks + same + other, answers))
    return Taken(figures, wrong)


ROWS = {
    "late-joiner": Row(
        (ALONE, THREE, *CACHES),
        {
            "same": Line("joining a fill of 2 s: first byte, same node", "ms", Goal(10)),
            "other": Line("the same on another node", "ms", Goal(15)),
            "fetches": Line("asked of the origin for each of them", "times", Goal(1)),
        },
        take,
        stays=True,
    )
}
