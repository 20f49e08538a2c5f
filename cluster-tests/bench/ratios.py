"""How much one proxy costs beside the best peer."""

import statistics


def best_other(rows):
    """The name of the one that costs least, Shoal apart; None = it is alone."""
    return best_of(rows, [name for name in rows if name != "shoal"])


def best_of(rows, names):
    """The one of `names` that costs least; None = there is none."""
    others = {name: rows[name]["figure"] for name in names if name in rows and rows[name]["figure"] > 0}
    return min(others, key=others.get, default=None)


def beside_best(rows, name):
    """What one proxy costs, divided by what the best other does. None = there is nobody to compare it with."""
    return beside(rows, name, best_other(rows))


def beside(rows, name, other):
    """The median of what it came to in each round, divided by what the other came to in the same one: whatever disturbs
    the machine for a while disturbs both. None = there is no other."""
    if other is None:
        return None
    pairs = zip(rows[name]["rounds"], rows[other]["rounds"])
    return round(statistics.median(own / theirs for own, theirs in pairs if theirs > 0), 2)
