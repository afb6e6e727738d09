"""Draws report-peers.json. Promises: one picture, a row per network, from recorded rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.load.peers.plan import LIMIT
from tests.load.peers.table import Name, Row, cell_of

_GUIDE: dict[str, Any] = {"color": "grey", "linewidth": 0.8, "linestyle": ":"}


def draw(document: Row, names: Sequence[Name], subjects: Sequence[str], file: Path) -> None:
    """Capacity, goodput against the rate, and p99 of what was accepted."""
    figure = Figure(figsize=(16, 4.5 * len(subjects)), layout="constrained")
    rows = figure.subplots(len(subjects), 3, squeeze=False)
    colors = {base: f"C{index}" for index, base in enumerate(dict.fromkeys(name.base for name in names))}
    for subject, (left, middle, right) in zip(subjects, rows, strict=True):
        _draw_capacities(left, document, names, subject, colors)
        _draw_loads(middle, right, document, names, subject, colors)
    handles, labels = rows[0][1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=8)
    figure.suptitle(f"{document['settings']['cores']} cores, JPEG to top-5 JSON")
    figure.savefig(file, dpi=100)


def _draw_loads(
    middle: Axes, right: Axes, document: Row, names: Sequence[Name], subject: str, colors: dict[str, str]
) -> None:
    for name in names:
        line = {"color": colors[name.base], "linestyle": "-" if name.base == name.server else "--", "label": name.title}
        cells = [(factor, cell_of(document, subject, name.server, factor)) for factor in _factors(document)]
        shares = [(factor, cell.median("goodput_share")) for factor, cell in cells]
        _plot(middle, [(factor, None if share is None else share * factor) for factor, share in shares], line)
        _plot(right, [(factor, cell.median("p99_ms")) for factor, cell in cells], line)
    objective_ms = document["settings"]["objective_ms"]
    middle.axline((0, 0), slope=1, **_GUIDE)
    middle.set_title(f"{subject}: right answers within {objective_ms:g} ms")
    middle.set(xlabel="rate / own capacity", ylabel="goodput / own capacity", xlim=(0, None), ylim=(0, None))
    right.axhline(objective_ms, **_GUIDE)
    right.set(title=f"{subject}: p99 of accepted", xlabel="rate / own capacity", ylabel="ms", xlim=(0, None))
    right.set_yscale("log")


def _factors(document: Row) -> list[float]:
    return [float(factor) for factor in document["settings"]["factors"]]


def _plot(axes: Axes, points: Sequence[tuple[float, float | None]], line: dict[str, Any]) -> None:
    known = [(x, y) for x, y in points if y is not None]
    axes.plot([x for x, _ in known], [y for _, y in known], marker="o", markersize=4, **line)


def _draw_capacities(axes: Axes, document: Row, names: Sequence[Name], subject: str, colors: dict[str, str]) -> None:
    bars = [("no server", LIMIT, "lightgrey"), *((name.title, name.server, colors[name.base]) for name in names)]
    found = [(title, cell_of(document, subject, server).median("per_second"), color) for title, server, color in bars]
    shown = [(title, value, color) for title, value, color in reversed(found) if value is not None]
    drawn = axes.barh([bar[0] for bar in shown], [bar[1] for bar in shown], color=[bar[2] for bar in shown])
    axes.bar_label(drawn, fmt="%.0f", padding=3)
    axes.set(title=f"{subject}: closed loop, {document['settings']['connections']} connections", xlabel="requests/s")
