"""A bar chart as SVG: text, rectangles, nothing else."""

from collections.abc import Mapping

WIDTH, ROW, LABEL = 720, 28, 190


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
