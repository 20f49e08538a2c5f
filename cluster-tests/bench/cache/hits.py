"""Hits in the memory of the node that is asked: what they cost the proxy."""

from rows.row import ALONE, HAPROXY, NGINX, VARNISH, Goal, Line, Row, Taken
from scenarios import SCENARIOS


def hit(scenario, what, names, goal):
    """The same work as in the other table."""

    def take(turn):
        came = turn.stage.take_turn(turn.label, turn.name, SCENARIOS[scenario], None)
        return came and Taken({"cpu": came.figure}, came.wrong)

    return Row((ALONE, *names), {"cpu": Line(what, "CPU µs/request", goal, names)}, take)


ROWS = {
    "hit-1k": hit("hit-1k", "hit, 1 KiB", (NGINX, HAPROXY, VARNISH), Goal(0.70, (NGINX, HAPROXY, VARNISH))),
    "hit-1k-tls": hit("tls-hit-1k", "hit over TLS, HTTP/1.1, 1 KiB", (NGINX, HAPROXY), Goal(0.80, (NGINX, HAPROXY))),
    "hit-1k-h2": hit("h2-hit-1k", "hit over HTTP/2, 1 KiB", (NGINX, HAPROXY), Goal(1.00, (NGINX, HAPROXY))),
    # nginx stands beside it: it sends files without reading them.
    "hit-100k": hit("hit-100k", "hit, 100 KiB", (NGINX, HAPROXY, VARNISH), Goal(0.90, (HAPROXY, VARNISH))),
}
