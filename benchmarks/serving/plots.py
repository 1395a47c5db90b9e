"""Line plots as SVG text: nothing to install, nothing fetched by whoever reads the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

Points = Sequence[tuple[float, float]]

WIDTH: Final = 720
HEIGHT: Final = 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 200, 36, 48
_COLOURS: Final = ("#1f5fa8", "#c2571a", "#2f7d4f", "#7a4aa0", "#8a6d1d", "#5b6770")


@dataclass(frozen=True, slots=True)
class Axis:
    """Where values of one direction fall.

    Attributes:
        label: with the unit.
        low: value at the axis' start.
        high: value at its end.
        log: equal distances are equal ratios.
    """

    label: str
    low: float
    high: float
    log: bool

    def share(self, value: float) -> float:
        """0 at the start, 1 at the end."""
        if self.log:
            return (math.log10(value) - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round values on the axis."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found = [factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
            inside = [value for value in found if self.low * 0.999 <= value <= self.high * 1.001]
            whole = [value for value in inside if math.log10(value) == round(math.log10(value))]
            return whole if len(inside) > 9 else inside
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / 4))
        step *= next(factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (factor * step) <= 6)
        first = math.ceil(self.low / step)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def axis(label: str, values: Sequence[float], *, log: bool) -> Axis:
    """An axis that holds all values; a linear one begins at 0.

    Raises:
        ValueError: if there is no value, or one that a logarithm cannot show.
    """
    if not values or (log and min(values) <= 0):
        raise ValueError(f"axis {label!r} needs values, above 0 if it is logarithmic; got {list(values)[:5]}")
    low, high = (min(values), max(values)) if log else (0.0, max(values) or 1.0)
    return Axis(label, low if low < high else low / 2, high if low < high else high * 2, log)


def line_plot(title: str, across: Axis, up: Axis, series: Mapping[str, Points]) -> str:
    """A plot of several named lines; points that cannot be shown are the caller's fault."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="20" font-size="14" fill="#222222">{escape(title)}</text>',
        *_grid(across, up),
    ]
    for number, (name, points) in enumerate(series.items()):
        parts += _line(name, points, (across, up), number)
    return "\n".join([*parts, "</svg>", ""])


def _grid(across: Axis, up: Axis) -> list[str]:
    parts = []
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    for value in across.ticks():
        x = _x(across, value)
        parts.append(f'<line x1="{x}" y1="{_TOP}" x2="{x}" y2="{bottom}" stroke="#e3e6ea"/>')
        parts.append(f'<text x="{x}" y="{bottom + 16}" text-anchor="middle" fill="#444444">{_short(value)}</text>')
    for value in up.ticks():
        y = _y(up, value)
        parts.append(f'<line x1="{_LEFT}" y1="{y}" x2="{right}" y2="{y}" stroke="#e3e6ea"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end" fill="#444444">{_short(value)}</text>')
    middle = (_LEFT + right) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle" fill="#222222">{escape(across.label)}</text>'
    )
    turned = f'transform="rotate(-90 16 {(_TOP + bottom) / 2})"'
    y = (_TOP + bottom) / 2
    parts.append(f'<text x="16" y="{y}" text-anchor="middle" fill="#222222" {turned}>{escape(up.label)}</text>')
    return parts


def _line(name: str, points: Points, axes: tuple[Axis, Axis], number: int) -> list[str]:
    colour = _COLOURS[number % len(_COLOURS)]
    places = [(_x(axes[0], x), _y(axes[1], y)) for x, y in points]
    path = " ".join(f"{x},{y}" for x, y in places)
    y = _TOP + 8 + 20 * number
    left = WIDTH - _RIGHT + 12
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in places),
        f'<line x1="{left}" y1="{y}" x2="{left + 18}" y2="{y}" stroke="{colour}" stroke-width="3"/>',
        f'<text x="{left + 24}" y="{y + 4}" fill="#222222">{escape(name)}</text>',
    ]


def _x(across: Axis, value: float) -> float:
    return round(_LEFT + across.share(value) * (WIDTH - _RIGHT - _LEFT), 1)


def _y(up: Axis, value: float) -> float:
    return round(HEIGHT - _BOTTOM - up.share(value) * (HEIGHT - _BOTTOM - _TOP), 1)


def _short(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    if value >= 1e3:
        return f"{value / 1e3:g}k"
    return f"{value:.3g}"
