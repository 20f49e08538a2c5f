"""Asks each of some nodes again and again, and prints when it did, by the clock that all processes share, and how many
milliseconds the answer took."""

import sys
import time

from rows import client

PAUSE_S = 0.001
TARGET = "/1k"


def main(*addresses):
    connections = [client.Connection((ip, int(port))) for ip, port in (address.split(":") for address in addresses)]
    while True:
        for connection in connections:
            asked_at = time.monotonic()
            answer = connection.ask(TARGET)
            print(asked_at, answer.total_ms, flush=True)
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
