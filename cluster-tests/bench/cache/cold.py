"""Fifty clients ask at once for what nobody has: how often the origin is asked, and how long the last one waits."""

from rows import client, origin
from rows.row import ALONE, CACHES, THREE, Goal, Line, Row, Taken

CLIENTS = 50
DELAY_MS = 300


def wave(turn, target):
    """Answers to all clients, spread over all addresses, which ask at the same time."""
    asks = [client.Ask(turn.addresses[n % len(turn.addresses)], target) for n in range(CLIENTS)]
    return client.play(asks)


def take(turn):
    target = origin.target(turn.label, cache="max-age=3600", delay=DELAY_MS)
    answers = wave(turn, target)
    return Taken(
        {
            "fetches": turn.origin.fetches().get(target, 0),
            "slowest": max(answer.total_ms for answer in answers),
        },
        sum(not answer.is_right(target) for answer in answers),
    )


ROWS = {
    "cold": Row(
        (ALONE, THREE, *CACHES),
        {
            "fetches": Line("50 clients, cold object: asked of the origin", "times", Goal(1)),
            "slowest": Line("the slowest of them, origin 300 ms", "ms", Goal(330)),
        },
        take,
        stays=True,
    )
}
