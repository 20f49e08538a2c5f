"""The figures as a Markdown table, for people who read README."""

import os

import ratios

# Shoal with nothing but the route that is asked: no peer.
ALONE = "shoal alone"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def table(results, versions, rounds, seconds, machine, picture=""):
    names = list(versions)
    lines = ["| work | unit | " + " | ".join(names) + " | shoal ÷ best peer |", "|---" * (len(names) + 3) + "|"]
    for label, rows in results.items():
        unit = next(iter(rows.values()))["unit"]
        cells = [cell(rows.get(name)) for name in names]
        lines.append(f"| `{label}` | {unit} | " + " | ".join(cells) + f" | {ratio(rows)} |")
    said = " · ".join(versions.values())
    how = f"Medians of {rounds} rounds of {seconds} s (lowest–highest), less is better; ratios are medians of those of each round."
    lines += ["", f"{how} {machine}. {said}."]
    return "\n".join(lines + (["", f"![The same as a picture]({picture})"] if picture else [])) + "\n"


def cell(row):
    if row is None:
        return "–"
    wrong = f" **{row['wrong']} wrong**" if row["wrong"] else ""
    return f"{row['figure']:.1f} ({row['lowest']:.1f}–{row['highest']:.1f}){wrong}"


def ratio(rows):
    if ALONE in rows:
        return f"– (without them {rows[ALONE]['figure']:.1f})"
    beside = ratios.beside_best(rows, "shoal") if "shoal" in rows else None
    return "–" if beside is None else f"{beside:.2f}"


def put(text, file, begin=BEGIN, end=END):
    """Into `file`: between the marks if it has them, else as the whole of it."""
    old = file.read_text() if file.exists() else ""
    if begin in old and end in old:
        before, _, rest = old.partition(begin)
        text = f"{before}{begin}\n{text}{end}{rest.partition(end)[2]}"
    file.write_text(text)


def beside(picture, file):
    """How `file` names the picture; nothing if it is not below the same directory."""
    path = os.path.relpath(picture, file.parent)
    return "" if path.startswith("..") else path
