"""Fifty clients ask for what may be served stale while it is asked for anew: nobody should wait for that."""

import statistics
import time

from rows import client, origin
from cache.cold import DELAY_MS, wave
from rows.row import ALONE, CACHES, THREE, Goal, Line, Row, Taken

FRESH_S = 1
# `Date` has whole seconds: a proxy may take an object for a second younger than it is.
STALE_AFTER_S = FRESH_S + 1.2


def take(turn):
    asked = f"max-age={FRESH_S}, stale-while-revalidate=60"
    target = origin.target(turn.label, cache=asked, delay=DELAY_MS)
    wrong = sum(not answer.is_right(target) for answer in client.play([client.Ask(turn.addresses[0], target)]))
    time.sleep(STALE_AFTER_S)
    before = turn.origin.fetches().get(target, 0)
    answers = wave(turn, target)
    # The validation may still be under way.
    time.sleep(2 * DELAY_MS / 1000)
    figures = {
        "median": statistics.median(answer.total_ms for answer in answers),
        "slowest": max(answer.total_ms for answer in answers),
        "fetches": turn.origin.fetches().get(target, 0) - before,
    }
    return Taken(figures, wrong + sum(not answer.is_right(target) for answer in answers))


ROWS = {
    "stale": Row(
        (ALONE, THREE, *CACHES),
        {
            "median": Line("50 clients, stale while it is validated: median", "ms", Goal(10)),
            "slowest": Line("the slowest of them", "ms"),
            "fetches": Line("asked of the origin meanwhile", "times", Goal(1)),
        },
        take,
        stays=True,
    )
}
