"""Bars, lines and an interval as SVG, in the colors of the page. Every text is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from engine.text import shown

WIDTH = 620


def text(given: object, most: int = 120) -> str:
    """Text that others wrote, for HTML: nothing in it is markup, or turns the direction of its line."""
    return escape(shown(given, most), quote=True)


def bars(
    edges: Sequence[tuple[float, float]], parts: Sequence[tuple[str, str, Sequence[int]]], x: str, log: bool = False
) -> str:
    """A histogram: a bar per bin, its parts on one another.

    Args: edges: left and right of each bin; parts: name, class of the style sheet, samples of each bin; x: what the
          values are; log: heights grow with the logarithm
    """
    from math import log10

    totals = [sum(counts[i] for _, _, counts in parts) for i in range(len(edges))]
    most, height, left = max([*totals, 1]), 150, 56

    def high(n: int) -> float:
        return height * (log10(n + 1) / log10(most + 1) if log else n / most)

    wide = (WIDTH - left) / max(1, len(edges))
    body = []
    for i, (low, up) in enumerate(edges):
        below = 0
        for name, style, counts in parts:
            if counts[i]:
                bottom, top = high(below), high(below + counts[i])
                tip = f"<title>{low:.3g} to {up:.3g}: {counts[i]:,} {text(name)}</title>"
                body.append(
                    f'<rect class="{style}" x="{left + i * wide:.1f}" y="{10 + height - top:.1f}" '
                    f'width="{max(1.0, wide - 1):.1f}" height="{top - bottom:.1f}">{tip}</rect>'
                )
            below += counts[i]
    ends = f"{edges[0][0]:.3g}" if edges else "", f"{edges[-1][1]:.3g}" if edges else ""
    axis = (
        f'<line class="axis" x1="{left}" x2="{WIDTH}" y1="{10 + height}" y2="{10 + height}"/>'
        f'<text x="{left - 6}" y="20" class="end">{most:,}</text>'
        f'<text x="{left}" y="{height + 28}">{ends[0]}</text><text x="{WIDTH}" y="{height + 28}" class="end">{ends[1]}</text>'
        f'<text x="{(WIDTH + left) / 2:.0f}" y="{height + 28}" class="middle">{text(x)}</text>'
    )
    return _svg(height + 36, "".join(body) + axis, x) + _legend([(name, style) for name, style, _ in parts])


def lines(curves: Sequence[tuple[str, Sequence[tuple[float, float]]]], x: str, y: str) -> str:
    """Lines through points, x and y as they come; the y axis holds what occurs."""
    points = [point for _, curve in curves for point in curve]
    low_x, high_x = min(p[0] for p in points), max(p[0] for p in points)
    low_y, high_y = min(p[1] for p in points), max(p[1] for p in points)
    height, left = 220, 56

    def at(point: tuple[float, float]) -> str:
        across = (point[0] - low_x) / ((high_x - low_x) or 1)
        up = (point[1] - low_y) / ((high_y - low_y) or 1)
        return f"{left + across * (WIDTH - left - 8):.1f},{10 + (1 - up) * height:.1f}"

    body = "".join(
        f'<polyline class="line c{i % 6}" points="{" ".join(map(at, curve))}"><title>{text(name)}</title></polyline>'
        for i, (name, curve) in enumerate(curves)
    )
    axis = (
        f'<line class="axis" x1="{left}" x2="{WIDTH}" y1="{10 + height}" y2="{10 + height}"/>'
        f'<text x="{left - 6}" y="16" class="end">{high_y:.3g}</text>'
        f'<text x="{left - 6}" y="{height + 10}" class="end">{low_y:.3g}</text>'
        f'<text x="{left}" y="{height + 28}">{low_x:.3g}</text>'
        f'<text x="{WIDTH}" y="{height + 28}" class="end">{high_x:.3g}</text>'
        f'<text x="{(WIDTH + left) / 2:.0f}" y="{height + 28}" class="middle">{text(x)}</text>'
    )
    return _svg(height + 36, body + axis, f"{y} by {x}") + _legend(
        [(n, f"c{i % 6}") for i, (n, _) in enumerate(curves)]
    )


def interval(share: float, low: float | None, high: float | None) -> str:
    """A share on a line from 0, with its interval; all 0..1."""
    most = min(1.0, max(0.02, 1.4 * max(share, high or 0)))

    def at(value: float) -> float:
        return 8 + (WIDTH - 16) * min(1.0, value / most)

    band = ""
    if low is not None and high is not None:
        band = f'<rect class="band" x="{at(low):.1f}" y="8" width="{max(1.0, at(high) - at(low)):.1f}" height="16"/>'
    body = (
        f'<line class="axis" x1="8" x2="{WIDTH - 8}" y1="16" y2="16"/>{band}<circle class="dot" cx="{at(share):.1f}" '
        f'cy="16" r="6"/><text x="8" y="44">0 %</text><text x="{WIDTH - 8}" y="44" class="end">{100 * most:.3g} %</text>'
    )
    return _svg(50, body, f"{100 * share:.1f} % of the labels look wrong")


def _svg(height: int, body: str, name: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{text(name)}">{body}</svg>'


def _legend(parts: Sequence[tuple[str, str]]) -> str:
    items = "".join(
        f'<span><svg viewBox="0 0 10 10" class="key" aria-hidden="true"><rect class="{s} fill" width="10" height="10"/></svg>'
        f"{text(name)}</span>"
        for name, s in parts
    )
    return f'<p class="legend">{items}</p>'
