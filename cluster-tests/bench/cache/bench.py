"""What the cache costs and how long it takes, on one node and on three, beside nginx, haproxy and varnish.

  side_by_side cache                     every row
  side_by_side cache hit-1k cold purge   these
  side_by_side cache --rounds 5 --markdown README.md
                                         a table as well; in a file with the marks <!-- cache-bench: begin --> and
                                         <!-- cache-bench: end --> between these, and else as the whole file

Whoever can do the same work does it in the same round; ratios are medians of those of each round. `shoal` is one node on
a CPU of its own, as the others are; `shoal ×3` is three nodes on loopback, which share all CPUs with what asks them.
Needs what side_by_side needs; for nodes that are cut off by more than SIGSTOP root, unshare, ip and nft.
"""

import argparse
import json
import pathlib
import sys
import time
import traceback

import peers
import stage
from cache import cold, hits, late_joiner, memory, node_loss, peer_hit, purge, restart, stale, uncacheable
from cache import origin, report, row

ROOMS = (hits, peer_hit, memory, cold, late_joiner, uncacheable, stale, node_loss, purge, restart)
ROWS = {label: what for room in ROOMS for label, what in room.ROWS.items()}


def main(arguments):
    asked = read(arguments)
    if stage.lacking():
        sys.exit(f"side_by_side: {stage.lacking()}")
    if not peers.installed("shoal"):
        sys.exit(f"side_by_side: there is no {peers.shoal_binary()}: build it, or say by SHOAL_BIN where it is")
    names = [name for name in row.NAMES if peers.installed(row.program(name))]
    if asked.only:
        names = [name for name in names if row.program(name) in asked.only.split(",")]
    versions = {program: peers.version(program) for program in dict.fromkeys(row.program(name) for name in names)}
    print(" · ".join(versions.values()))
    results, failed = {}, []
    with stage.opened(asked.rounds, asked.seconds) as place, origin.started(place) as slow:
        for label in asked.rows or ROWS:
            since = time.monotonic()
            try:
                results[label] = row.run(ROWS[label], label, names, place, slow, asked.objects)
            except Exception as error:
                # The others are still worth their time.
                traceback.print_exc()
                failed.append(f"{label}: {error}")
                continue
            report.show(label, ROWS[label], *results[label])
            print(f"  {time.monotonic() - since:.0f} s")
    if asked.markdown:
        text = report.markdown(ROWS, results, versions, asked.rounds, asked.seconds, stage.machine())
        report.put(text, asked.markdown)
        print(f"\ntable: {asked.markdown}")
    print("\n" + json.dumps(machine_readable(asked, versions, results)))
    if failed:
        sys.exit("not measured: " + "; ".join(failed))


def read(arguments):
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("side_by_side cache", description=__doc__, formatter_class=shape)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="of load in each turn whose CPU time is measured")
    parser.add_argument("--objects", type=int, default=1_000_000, help="where there are very many")
    parser.add_argument("--markdown", type=pathlib.Path, help="a file for the table")
    parser.add_argument("--only", default="", help="proxies, separated by commas")
    asked = parser.parse_args(arguments)
    unknown = [label for label in asked.rows if label not in ROWS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; rows are {', '.join(ROWS)}")
    return asked


def machine_readable(asked, versions, results):
    lines = {
        label: {
            key: {
                "unit": ROWS[label].lines[key].unit,
                "goal": str(ROWS[label].lines[key].goal or ""),
                "figures": rows,
                "ratios": {name: ROWS[label].lines[key].ratio(rows, name) for name in rows},
                "reached": {name: ROWS[label].lines[key].is_met(rows, name) for name in row.OURS if name in rows},
            }
            for key, rows in lines.items()
        }
        for label, (lines, _) in results.items()
    }
    notes = {label: said for label, (_, said) in results.items() if said}
    shape = {"rounds": asked.rounds, "seconds": asked.seconds, "objects": asked.objects, "versions": versions}
    return {**shape, "results": lines, "notes": notes}
