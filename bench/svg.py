"""Bars and curves as SVG: text, rectangles, lines, nothing else."""

import math
from collections.abc import Mapping

WIDTH, ROW, LABEL = 720, 28, 190
COLOURS = ("#1f6f8b", "#c2571a", "#5b8c3a", "#7a4fa3")


def bars(title: str, values: Mapping[str, float]) -> str:
    """One bar for each value, longest first."""
    most = max(values.values())
    height = ROW * (len(values) + 2)
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="13">']
    lines.append(f'<text x="8" y="{ROW - 8}" font-weight="bold">{title}</text>')
    for row, (name, value) in enumerate(sorted(values.items(), key=lambda item: -item[1]), 1):
        length = (WIDTH - LABEL - 110) * value / most
        colour = "#1f6f8b" if name.startswith("cabrank") else "#b0b7bf"
        lines.append(f'<text x="8" y="{row * ROW + 18}">{name}</text>')
        lines.append(f'<rect x="{LABEL}" y="{row * ROW + 4}" width="{length:.0f}" height="18" fill="{colour}"/>')
        lines.append(f'<text x="{LABEL + length + 6:.0f}" y="{row * ROW + 18}">{value:,.0f}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def curve(title: str, points: Mapping[str, Mapping[float, float]], *, x: str, y: str) -> str:
    """A line for each name over a logarithmic x axis, from 0 up."""
    width, height, left, bottom = WIDTH - 160, 260, 60, 300
    xs = sorted({at for line in points.values() for at in line})
    low, high = math.log10(xs[0]), math.log10(xs[-1])
    most = max(value for line in points.values() for value in line.values()) * 1.1

    def place(at: float, value: float) -> str:
        return f"{left + width * (math.log10(at) - low) / (high - low):.0f},{bottom - height * value / most:.0f}"

    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{bottom + 50}" font-family="sans-serif" font-size="13">']
    lines.append(f'<text x="8" y="18" font-weight="bold">{title}</text>')
    lines.append(f'<path d="M{left},{bottom - height} V{bottom} H{left + width}" fill="none" stroke="#888"/>')
    lines.append(f'<text x="{left - 8}" y="{bottom - height + 4}" text-anchor="end">{most:,.3g}</text>')
    lines.append(f'<text x="{left - 8}" y="{bottom}" text-anchor="end">0</text><text x="8" y="{bottom + 38}">{y}; {x}</text>')
    lines += [f'<text x="{place(at, 0).split(",")[0]}" y="{bottom + 18}" text-anchor="middle">{_figure(at)}</text>' for at in xs]
    for (name, line), colour in zip(points.items(), COLOURS, strict=False):
        drawn = " ".join(place(at, value) for at, value in sorted(line.items()))
        end = place(*max(line.items())).split(",")
        lines.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines.append(f'<text x="{int(end[0]) + 8}" y="{int(end[1]) + 4}" fill="{colour}">{name}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"
