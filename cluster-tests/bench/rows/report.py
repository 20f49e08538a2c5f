"""The figures as a table: for who waits for it, and for README."""

import table
from rows.row import NAMES, OURS


def show(label, row, lines, notes):
    """What came of one row, as soon as it is there."""
    for key, line in row.lines.items():
        goal = f"  goal {line.goal}" if line.goal else ""
        print(f"\n{label}: {line.what}, {line.unit}{goal}")
        if not lines[key]:
            print("  not there")
        for name, summary in lines[key].items():
            spread = f"({summary['lowest']:.4g}–{summary['highest']:.4g})"
            ratio = line.ratio(lines[key], name)
            beside = f"{ratio:.2f} × best other" if ratio is not None and name in OURS else ""
            wrong = f"  {summary['wrong']} WRONG" if summary["wrong"] else ""
            reached = verdict(line, lines[key], name)
            print(f"  {name:20}{summary['figure']:10.2f} {spread:20}{beside:20}{reached}{wrong}".rstrip())
    for note in notes:
        print(f"  {note}")
    print(end="", flush=True)


def verdict(line, rows, name):
    met = line.is_met(rows, name) if name in OURS else None
    return "" if met is None else "reached" if met else "NOT REACHED"


def markdown(rows, results, versions, rounds, seconds, machine):
    seen = {name for lines, _ in results.values() for rows_of_line in lines.values() for name in rows_of_line}
    names = [name for name in NAMES if name in seen]
    out = ["| work | unit | " + " | ".join(names) + " | shoal ÷ best other | goal |", "|---" * (len(names) + 4) + "|"]
    for label, (lines, _) in results.items():
        for key, line in rows[label].lines.items():
            cells = [cell(line, lines[key], name) for name in names]
            ours = [name for name in OURS if name in lines[key]]
            ratios = [f"{ratio:.2f}" for name in ours if (ratio := line.ratio(lines[key], name)) is not None]
            out.append(
                f"| {line.what} (`{label}`) | {line.unit} | {' | '.join(cells)} | {', '.join(ratios) or '–'}"
                f" | {line.goal or '–'} |"
            )
    notes = [f"`{label}`: {note}." for label, (_, said) in results.items() for note in said]
    few = "" if rounds >= 3 else "A look, not a measurement: too few rounds. "
    how = few + f"Medians of {rounds} rounds (lowest–highest), of {seconds} s each where it is CPU time;"
    how += " ratios are medians of those of each round. **Bold**: goal not reached."
    return "\n".join(out + ["", " ".join([how, *notes]), "", f"{machine}. {' · '.join(versions.values())}."]) + "\n"


def cell(line, rows, name):
    if name not in rows:
        return "–"
    summary = rows[name]
    figure = f"{summary['figure']:.4g}"
    figure = f"**{figure}**" if verdict(line, rows, name) == "NOT REACHED" else figure
    wrong = f" **{summary['wrong']} wrong**" if summary["wrong"] else ""
    return f"{figure} ({summary['lowest']:.4g}–{summary['highest']:.4g}){wrong}"


def put(text, file, name):
    """Between the marks of the table `name`, or as the whole file."""
    table.put(text, file, f"<!-- {name}-bench: begin -->", f"<!-- {name}-bench: end -->")
