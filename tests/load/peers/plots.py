"""Draws report-peers.json. Promises: one picture per network, from recorded rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from tests.load.peers.plan import LIMIT
from tests.load.peers.table import Name, Row, cell_of


def draw(document: Row, names: Sequence[Name], subject: str, file: Path) -> None:
    """Capacity, goodput against the rate, and p99 of what was accepted."""
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(17, 5.5), layout="constrained")
    colors = {base: f"C{index}" for index, base in enumerate(dict.fromkeys(name.base for name in names))}
    _capacities(left, document, names, subject, colors)
    for name in names:
        factors = [
            factor for factor in document["settings"]["factors"] if cell_of(document, subject, name.server, factor).rows
        ]
        cells = [cell_of(document, subject, name.server, factor) for factor in factors]
        style = {
            "color": colors[name.base],
            "linestyle": "-" if name.base == name.server else "--",
            "marker": "o",
            "markersize": 4,
            "label": name.title,
        }
        shares = [(cell.median("goodput_share") or 0.0) * factor for cell, factor in zip(cells, factors, strict=True)]
        middle.plot(factors, shares, **style)
        known = [(factor, cell.median("p99_ms")) for factor, cell in zip(factors, cells, strict=True)]
        right.plot(
            *zip(*[(x, y) for x, y in known if y], strict=True) if any(y for _, y in known) else ([], []), **style
        )
    objective_ms = document["settings"]["objective_ms"]
    middle.axline((0, 0), slope=1, color="grey", linewidth=0.8, linestyle=":")
    middle.set(
        title=f"goodput within {objective_ms:g} ms", xlabel="rate / own capacity", ylabel="goodput / own capacity"
    )
    middle.set(xlim=(0, None), ylim=(0, 1.1))
    right.axhline(objective_ms, color="grey", linewidth=0.8, linestyle=":")
    right.set(title="p99 of accepted", xlabel="rate / own capacity", ylabel="ms", yscale="log", xlim=(0, None))
    middle.legend(fontsize=7)
    figure.suptitle(f"{subject}, {document['settings']['cores']} cores, JPEG to top-5 JSON")
    figure.savefig(file, dpi=120)
    plt.close(figure)


def _capacities(axes: plt.Axes, document: Row, names: Sequence[Name], subject: str, colors: dict[str, str]) -> None:
    bars = [
        (name.title, cell_of(document, subject, name.server).median("per_second"), colors[name.base]) for name in names
    ]
    bars = [("no server", cell_of(document, subject, LIMIT).median("per_second"), "lightgrey"), *bars]
    shown = [(title, value, color) for title, value, color in bars if value is not None][::-1]
    drawn = axes.barh(
        [title for title, _, _ in shown], [value for _, value, _ in shown], color=[color for *_, color in shown]
    )
    axes.bar_label(drawn, fmt="%.0f", padding=3)
    axes.set(title=f"closed loop, {document['settings']['connections']} connections", xlabel="requests/s")
