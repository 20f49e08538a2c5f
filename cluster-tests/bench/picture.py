"""Bars: the figure of each proxy in each scenario, as a multiple of the best peer's. SVG without a library."""

from html import escape

import ratios

COLOURS = {"shoal": "#0b7285", "nginx": "#adb5bd", "haproxy": "#868e96", "varnish": "#ced4da", "caddy": "#dee2e6"}
LABEL, SCALE, BAR, GAP, HEAD = 110, 220, 13, 14, 56
# Longer bars are cut off and say so by their figure.
LONGEST = 2.5


def draw(results, versions, rounds):
    lines, y = [], HEAD
    for scenario, rows in results.items():
        lines.append(text(LABEL - 8, y + BAR * len(rows) / 2 + 4, scenario, "end", 13))
        for name, row in rows.items():
            ratio = ratios.beside_best(rows, name)
            ratio = 1 if ratio is None else ratio
            width = min(ratio, LONGEST) * SCALE
            colour = COLOURS.get(name, "#e9ecef")
            lines.append(f'<rect x="{LABEL}" y="{y}" width="{width:.1f}" height="{BAR - 2}" fill="{colour}"/>')
            if ratio > LONGEST:
                lines.append(text(LABEL + width - 10, y + BAR - 4, "»", "start", 12))
            label = f"{name} {row['figure']:.1f} {row['unit']} ({ratio:.2f})"
            lines.append(text(LABEL + width + 6, y + BAR - 4, label, "start", 10))
            y += BAR
        y += GAP
    lines.append(
        f'<line x1="{LABEL + SCALE}" y1="{HEAD - 6}" x2="{LABEL + SCALE}" y2="{y - GAP + 4}" stroke="#c92a2a"'
        ' stroke-dasharray="3 3"/>'
    )
    title = f"Cost of each kind of work, medians of {rounds} rounds; 1.00 = the best peer; shorter is better"
    names = " \u00b7 ".join(versions.values())
    width = LABEL + LONGEST * SCALE + 220
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{y + 6}" font-family="sans-serif">'
        f'<rect width="100%" height="100%" fill="white"/>{text(10, 20, title, "start", 14)}'
        f'{text(10, 38, names, "start", 10)}{"".join(lines)}</svg>\n'
    )


def text(x, y, words, anchor, size):
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-size="{size}">{escape(words)}</text>'
