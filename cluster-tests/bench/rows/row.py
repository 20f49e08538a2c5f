"""A kind of work that is measured: who takes part, and which figures come of a turn."""

import contextlib
import dataclasses
import statistics

import measure
import peers
import ratios
from rows import cluster

ALONE, THREE = "shoal", "shoal ×3"
NGINX, UNLOCKED, HAPROXY, VARNISH = "nginx", "nginx without lock", "haproxy", "varnish"
CACHES = (NGINX, UNLOCKED, HAPROXY, VARNISH)
ETCD = "etcd ×3"
OURS = (ALONE, THREE)
NAMES = (*OURS, *CACHES, ETCD)


@dataclasses.dataclass(frozen=True)
class Goal:
    """What Shoal wants to reach: `figure`, or that many times the best of `beside`."""

    figure: float
    beside: tuple = ()
    is_least: bool = False

    def __str__(self):
        return f"{'≥' if self.is_least else '≤'} {self.figure:g}{' ×' if self.beside else ''}"

    def is_met(self, reached):
        return reached >= self.figure if self.is_least else reached <= self.figure


@dataclasses.dataclass(frozen=True)
class Line:
    """One figure of a row."""

    what: str
    unit: str
    goal: Goal = None
    # Without a goal that says so: beside whom it is put.
    beside: tuple = CACHES

    def ratio(self, rows, name):
        """What one proxy came to, as a multiple of the best of the others; None = nobody else does this."""
        beside = self.goal.beside if self.goal and self.goal.beside else self.beside
        return ratios.beside(rows, name, ratios.best_of(rows, beside))

    def is_met(self, rows, name):
        """None = there is nothing to reach, or nobody to compare it with."""
        reached = self.ratio(rows, name) if self.goal and self.goal.beside else rows[name]["figure"]
        return None if self.goal is None or reached is None else self.goal.is_met(reached)


@dataclasses.dataclass
class Turn:
    """What a row's function gets."""

    stage: object
    origin: object
    name: str
    number: int
    # Of the row and the round: no two turns ask for the same objects.
    label: str
    # Where the contestant listens, if it runs throughout the row.
    addresses: list
    objects: int


@dataclasses.dataclass
class Taken:
    """What a turn came to: a figure for each line, and how many answers were wrong."""

    figures: dict
    wrong: int = 0
    # What should be known about it.
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    names: tuple
    lines: dict
    # (turn) -> Taken; None = it cannot do this.
    take: object
    # The contestants run throughout the row, and are idle while it is not their turn.
    stays: bool = False


def run(row, label, names, stage, origin, objects):
    """({line: {name: summary}}, notes) after all rounds."""
    names = [name for name in row.names if name in names]
    taken = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        start = lambda name: stack.enter_context(playing(stage, name, label, origin.address))
        running = {name: start(name) if row.stays else [] for name in names}
        for number in range(stage.rounds):
            # Who goes first changes from round to round.
            shift = number % len(names) if names else 0
            for name in names[shift:] + names[:shift]:
                label_now = f"{label}-{number}-{NAMES.index(name)}"
                turn = Turn(stage, origin, name, number, label_now, running[name], objects)
                came = row.take(turn)
                if came:
                    taken[name].append(came)
    did = lambda line: {name: came for name, came in taken.items() if any(line in turn.figures for turn in came)}
    lines = {line: {name: summary(came, line) for name, came in did(line).items()} for line in row.lines}
    return lines, sorted({f"{name}: {turn.note}" for name, came in taken.items() for turn in came if turn.note})


@contextlib.contextmanager
def playing(stage, name, label, origin_address):
    """The addresses of a contestant, while it runs."""
    if name == THREE:
        with cluster.started(stage, f"{label}-three", origin_address) as nodes:
            yield [node.http for node in nodes]
        return
    front = peers.Front(measure.free_port(), cached=True, lock=name != UNLOCKED)
    with stage.proxy(f"{label}-{NAMES.index(name)}", program(name), front, origin_address):
        yield [("127.0.0.1", front.port)]


def program(name):
    return {THREE: "shoal", UNLOCKED: "nginx", ETCD: "etcd"}.get(name, name)


def summary(turns, line):
    figures = [turn.figures[line] for turn in turns if line in turn.figures]
    return {
        "figure": round(statistics.median(figures), 2),
        "rounds": [round(figure, 2) for figure in figures],
        "lowest": round(min(figures), 2),
        "highest": round(max(figures), 2),
        "wrong": sum(turn.wrong for turn in turns),
    }
