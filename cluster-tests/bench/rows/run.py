"""A table of rows, each a kind of work: who takes part does it in the same round, so that ratios are of one round.

`shoal` is one node on a CPU of its own, as the others are; `shoal ×3` is three nodes on loopback, which share all CPUs with
what asks them.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
import time
import traceback

import peers
import stage
from rows import origin, report, row


@dataclasses.dataclass(frozen=True)
class Group:
    """Rows that make a table together."""

    # How side_by_side is asked for it, and how the marks in a file are called.
    name: str
    # Of the command.
    what: str
    rows: dict


def main(group, arguments):
    asked = read(group, arguments)
    if stage.lacking():
        sys.exit(f"side_by_side: {stage.lacking()}")
    if not peers.installed("shoal"):
        sys.exit(f"side_by_side: there is no {peers.shoal_binary()}: build it, or say by SHOAL_BIN where it is")
    taking_part = {name for what in group.rows.values() for name in what.names}
    names = [name for name in row.NAMES if name in taking_part and peers.installed(row.program(name))]
    if asked.only:
        names = [name for name in names if row.program(name) in asked.only.split(",")]
    versions = {program: peers.version(program) for program in dict.fromkeys(row.program(name) for name in names)}
    print(" · ".join(versions.values()))
    results, failed = {}, []
    with stage.opened(asked.rounds, asked.seconds) as place, origin.started(place) as slow:
        for label in asked.rows or group.rows:
            since = time.monotonic()
            try:
                results[label] = row.run(group.rows[label], label, names, place, slow, asked.objects)
            except Exception as error:
                # The others are still worth their time.
                traceback.print_exc()
                failed.append(f"{label}: {error}")
                continue
            report.show(label, group.rows[label], *results[label])
            print(f"  {time.monotonic() - since:.0f} s")
    if asked.markdown:
        text = report.markdown(group.rows, results, versions, asked.rounds, asked.seconds, stage.machine())
        report.put(text, asked.markdown, group.name)
        print(f"\ntable: {asked.markdown}")
    print("\n" + json.dumps(machine_readable(group, asked, versions, results)))
    if failed:
        sys.exit("not measured: " + "; ".join(failed))


def read(group, arguments):
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(f"side_by_side {group.name}", description=group.what, formatter_class=shape)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(group.rows))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="of load in each turn whose CPU time is measured")
    parser.add_argument("--objects", type=int, default=1_000_000, help="where there are very many")
    parser.add_argument("--markdown", type=pathlib.Path, help="a file for the table")
    parser.add_argument("--only", default="", help="proxies, separated by commas")
    asked = parser.parse_args(arguments)
    unknown = [label for label in asked.rows if label not in group.rows]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; rows are {', '.join(group.rows)}")
    return asked


def machine_readable(group, asked, versions, results):
    lines = {
        label: {
            key: {
                "unit": group.rows[label].lines[key].unit,
                "goal": str(group.rows[label].lines[key].goal or ""),
                "figures": rows,
                "ratios": {name: group.rows[label].lines[key].ratio(rows, name) for name in rows},
                "reached": {name: group.rows[label].lines[key].is_met(rows, name) for name in row.OURS if name in rows},
            }
            for key, rows in lines.items()
        }
        for label, (lines, _) in results.items()
    }
    notes = {label: said for label, (_, said) in results.items() if said}
    shape = {"rounds": asked.rounds, "seconds": asked.seconds, "objects": asked.objects, "versions": versions}
    return {**shape, "results": lines, "notes": notes}
