"""Fifty clients ask at once for what nobody may keep, and once more when they have it: nobody should wait in vain."""

from rows import origin
from cache.cold import DELAY_MS, wave
from rows.row import ALONE, CACHES, THREE, Goal, Line, Row, Taken


def take(turn):
    target = origin.target(turn.label, cache="no-store", delay=DELAY_MS)
    waves = [wave(turn, target) for _ in range(2)]
    slowest = [max(answer.total_ms for answer in answers) for answers in waves]
    wrong = sum(not answer.is_right(target) for answers in waves for answer in answers)
    return Taken({"first": slowest[0], "second": slowest[1]}, wrong)


ROWS = {
    "uncacheable": Row(
        (ALONE, THREE, *CACHES),
        {
            "first": Line("50 clients, uncacheable, origin 300 ms: slowest of wave 1", "ms", Goal(650)),
            "second": Line("slowest of wave 2", "ms", Goal(330)),
        },
        take,
        stays=True,
    )
}
