"""How much one proxy costs beside the best peer."""

import statistics


def best_other(rows):
    """The name of the one that costs least, Shoal apart; None = it is alone."""
    others = {name: row["figure"] for name, row in rows.items() if name != "shoal" and row["figure"] > 0}
    return min(others, key=others.get, default=None)


def beside_best(rows, name):
    """The median of what it came to in each round, divided by what the best other came to in the same one: whatever
    disturbs the machine for a while disturbs both. None = there is nobody to compare it with."""
    best = best_other(rows)
    if best is None:
        return None
    pairs = zip(rows[name]["rounds"], rows[best]["rounds"])
    return round(statistics.median(own / other for own, other in pairs if other > 0), 2)
