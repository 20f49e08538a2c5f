"""Asks a node over and over for one of the objects that it has in its own memory, from inside of a network namespace: a
program of its own, as it has to be there.

Prints, for each answer that is right, when it was asked for, by the clock that all processes share.
"""

import sys
import time

from rows import client

PAUSE_S = 0.002


def main(host, port, *targets):
    # From the node to itself nothing is lost.
    with client.Connection((host, int(port)), (host, 0)) as connection:
        target = here(connection, targets)
        while True:
            asked_at = time.monotonic()
            if connection.ask(target).is_right(target):
                print(asked_at, flush=True)
            time.sleep(PAUSE_S)


def here(connection, targets):
    """The first that does not have to be fetched from elsewhere."""
    while True:
        for target in targets:
            if "detail=local" in connection.ask(target).fields.get("cache-status", ""):
                return target
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
