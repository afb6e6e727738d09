"""Draws report-peers.json. Promises: one picture, a row per network, from recorded rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.load.peers.plan import LIMIT
from tests.load.peers.summary import with_best
from tests.load.peers.table import Name, Row, cell_of

Bar = tuple[str, float | None, str]  # title, requests/s, what is written beside it


def draw(document: Row, names: Sequence[Name], subjects: Sequence[str], file: Path) -> None:
    """On the left what each server carries, on the right what it answers in time at the highest multiple of that."""
    settings = document["settings"]
    most = max(settings["factors"], default=0.0)
    servers = with_best(names)
    figure = Figure(figsize=(13, 2.9 * len(subjects)), layout="constrained")
    for subject, (left, right) in zip(subjects, figure.subplots(len(subjects), 2, squeeze=False), strict=True):
        bars: list[Bar] = [("no server", cell_of(document, subject, LIMIT).median("per_second"), "")]
        bars += [(each.title, cell_of(document, subject, each.server).median("per_second"), "") for each, _ in servers]
        _draw(left, bars, f"{subject}: closed loop, {settings['connections']} connections")
        late = [_overload(document, subject, *each, most) for each in servers] if most else []
        _draw(right, late, f"{subject}: right within {settings['objective_ms']:g} ms at {most:g} x its own rate")
    figure.suptitle(f"{settings['cores']} cores, JPEG to top-5 JSON, requests/s")
    figure.savefig(file, dpi=100)


def _overload(document: Row, subject: str, name: Name, server: str, factor: float) -> Bar:
    cell = cell_of(document, subject, server, factor)
    share = cell.median("goodput_share")
    return name.title, cell.median("goodput_per_second"), "" if share is None else f" ({share * factor:.2f} of it)"


def _draw(axes: Axes, bars: Sequence[Bar], title: str) -> None:
    shown = [(name, value, note) for name, value, note in reversed(bars) if value is not None]
    colors = ["C0" if name == "saccade" else "lightgrey" if name == "no server" else "C7" for name, _, _ in shown]
    drawn = axes.barh([name for name, _, _ in shown], [value for _, value, _ in shown], color=colors)
    axes.bar_label(drawn, [f"{value:.0f}{note}" for _, value, note in shown], padding=3)
    axes.set_title(title)
    axes.margins(x=0.3)
