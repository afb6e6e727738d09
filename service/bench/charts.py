"""Plots as inline SVG. Promises: pure text, no script, nothing fetched; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from html import escape

Point = tuple[float, float]

_WIDTH, _HEIGHT = 720, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 14, 62
_MOST_DOTS = 60  # beyond, a line alone
_TICKS = 5
_PERCENTS = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999)


class Scale(StrEnum):
    LINEAR = "linear"
    LOG = "log"
    PERCENTILE = "percentile"  # as much room from 90 to 99 as from 99 to 99.9


@dataclass(frozen=True, slots=True)
class Series:
    """`colour` is a number of the style sheet's; a point without a value breaks the line."""

    name: str
    colour: int
    points: Sequence[tuple[float, float | None]]


@dataclass(frozen=True, slots=True)
class Axis:
    label: str
    scale: Scale = Scale.LINEAR


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a bar."""

    name: str
    share: float
    text: str


def line_chart(x: Axis, y: Axis, series: Sequence[Series], level: tuple[str, float] | None = None) -> str:
    """Lines over a common x; `level` is a named horizontal line."""
    points = [(point[0], point[1]) for item in series for point in item.points if point[1] is not None]
    if not points:
        return "<p>nothing was measured</p>"
    heights = [value for _, value in points] + ([level[1]] if level else [])
    to_x = _place(x.scale, [value for value, _ in points], _LEFT, _WIDTH - _RIGHT)
    to_y = _place(y.scale, heights, _HEIGHT - _BOTTOM, _TOP)
    parts = [_grid(x, y, to_x, to_y)]
    if level:
        at = f"{to_y.of(level[1]):.1f}"
        parts.append(f'<line class="level" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(
            f'<text class="level-name" x="{_WIDTH - _RIGHT}" y="{float(at) - 4:.1f}">{escape(level[0])}</text>'
        )
    for item in series:
        parts += _line(item, to_x.of, to_y.of)
    parts.append(_legend([(item.name, item.colour) for item in series], _HEIGHT - 8))
    return _svg(_HEIGHT, parts, f"{y.label} by {x.label}")


def shares_bar(parts: Sequence[Part]) -> str:
    """One bar, divided."""
    drawn, left = [], 0.0
    for number, part in enumerate(parts):
        width = max(0.0, part.share) * _WIDTH
        drawn.append(
            f'<rect class="fill{number}" x="{left:.1f}" y="6" width="{width:.1f}" height="34">'
            f"<title>{escape(part.name)}: {escape(part.text)}</title></rect>"
        )
        left += width
    rows = -(-len(parts) // 3)
    for number, part in enumerate(parts):
        x, y = (number % 3) * _WIDTH / 3, 64 + 20 * (number // 3)
        drawn.append(f'<rect class="fill{number}" x="{x:.0f}" y="{y - 10}" width="10" height="10"/>')
        drawn.append(f'<text x="{x + 16:.0f}" y="{y}">{escape(part.name)} {escape(part.text)}</text>')
    return _svg(58 + 20 * rows, drawn, "shares")


def ticks_of(low: float, high: float, count: int = _TICKS) -> tuple[float, ...]:
    """Round numbers from at most `low` to at least `high`."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(number * step for number in range(first, last + 1))


def number_text(value: float) -> str:
    """Short: 0.25, 12, 1.5k."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


# Where values lie


@dataclass(frozen=True, slots=True)
class _Placed:
    of: Callable[[float], float]
    ticks: tuple[tuple[float, str], ...]  # value, text


def _place(scale: Scale, values: Sequence[float], start: float, end: float) -> _Placed:
    low, high = min(values), max(values)
    if scale is Scale.PERCENTILE:
        most = max((value for value in values if value < 100.0), default=0.0)
        far = _decades(most) + 0.3  # where the maximum stands
        shown = [(value, f"{value:g} %") for value in _PERCENTS if _decades(value) <= far - 0.3]
        return _Placed(lambda value: start + (end - start) * min(_decades(value), far) / far, (*shown, (100.0, "max")))
    if scale is Scale.LOG:
        bottom = math.floor(math.log10(max(low, 1e-3)))
        top = max(math.ceil(math.log10(max(high, 1e-3))), bottom + 1)
        steps = (1.0, 2.0, 5.0) if top - bottom <= 2 else (1.0,)
        shown = [
            (step * 10.0**power, number_text(step * 10.0**power))
            for power in range(bottom, top + 1)
            for step in (steps if power < top else (1.0,))
        ]
        return _Placed(
            lambda value: start + (end - start) * (math.log10(max(value, 1e-3)) - bottom) / (top - bottom), tuple(shown)
        )
    ticks = ticks_of(min(0.0, low), high)
    span = ticks[-1] - ticks[0]
    return _Placed(
        lambda value: start + (end - start) * (value - ticks[0]) / span,
        tuple((tick, number_text(tick)) for tick in ticks),
    )


def _decades(percent: float) -> float:
    return math.inf if percent >= 100.0 else -math.log10(1.0 - percent / 100.0)


# Pieces


def _grid(x: Axis, y: Axis, to_x: _Placed, to_y: _Placed) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for value, text in to_y.ticks:
        at = to_y.of(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="y-tick" x="{_LEFT - 6}" y="{at + 4:.1f}">{text}</text>')
    for value, text in to_x.ticks:
        at = to_x.of(value)
        if at <= right + 0.5:
            parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{bottom}"/>')
            parts.append(f'<text class="x-tick" x="{at:.1f}" y="{bottom + 16}">{text}</text>')
    parts.append(f'<text class="x-tick" x="{(_LEFT + right) / 2:.0f}" y="{bottom + 33}">{escape(x.label)}</text>')
    middle = (_TOP + bottom) / 2
    parts.append(f'<text class="x-tick" transform="translate(14 {middle:.0f}) rotate(-90)">{escape(y.label)}</text>')
    return "".join(parts)


def _line(series: Series, to_x: Callable[[float], float], to_y: Callable[[float], float]) -> list[str]:
    path, pen = [], "M"
    dots = []
    for x, y in series.points:
        if y is None:
            pen = "M"
            continue
        path.append(f"{pen}{to_x(x):.1f} {to_y(y):.1f}")
        pen = "L"
        dots.append(
            f'<circle class="fill{series.colour}" cx="{to_x(x):.1f}" cy="{to_y(y):.1f}" r="2.5">'
            f"<title>{escape(series.name)}: {number_text(y)} at {x:g}</title></circle>"
        )
    line = f'<path class="stroke{series.colour}" d="{"".join(path)}"/>'
    return [line, *(dots if len(dots) <= _MOST_DOTS else ())]


def _legend(names: Sequence[tuple[str, int]], y: int) -> str:
    parts, x = [], float(_LEFT)
    for name, colour in names:
        parts.append(f'<rect class="fill{colour}" x="{x:.0f}" y="{y - 9}" width="10" height="10"/>')
        parts.append(f'<text x="{x + 15:.0f}" y="{y}">{escape(name)}</text>')
        x += 15 + 7.2 * len(name) + 18
    return "".join(parts)


def _svg(height: int, parts: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(label, quote=True)}">'
        f"{''.join(parts)}</svg>"
    )
