"""Renders drawings as PNG or SVG without a display; equal figures give equal bytes, and SVG uses the page's colours."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from saccade.export.reports.export_report import ExportReport

Drawer = Callable[[Figure, ExportReport], None]

_SIZE_INCHES = (6.4, 3.8)
_DPI = 110
_INK = "#010203"  # replaced by the page's text colour, which differs in dark mode
_STYLE: dict[Any, Any] = {  # matplotlib's stub names every key in its type
    "svg.fonttype": "none",  # keeps text as text
    "svg.hashsalt": "saccade",  # makes ids reproducible
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "legend.framealpha": 0.0,
}
_SVG_STYLE: dict[Any, Any] = (
    _STYLE
    | {f"{name}.color": _INK for name in ("text", "xtick", "ytick", "grid")}
    | {"axes.edgecolor": _INK, "axes.labelcolor": _INK, "axes.facecolor": "none", "figure.facecolor": "none"}
)


def write_png(path: Path, draw: Drawer, report: ExportReport) -> Path:
    with matplotlib.rc_context(_STYLE):
        figure = _drawn(draw, report)
        # Without a fixed Software field two equal plots would differ in bytes between matplotlib versions.
        figure.savefig(path, dpi=_DPI, metadata={"Software": "saccade"})
    return path


def svg(name: str, draw: Drawer, report: ExportReport) -> str:
    """Returns an SVG element for a page: without prologue, with ids of its own, as wide as the page allows."""
    stream = io.StringIO()
    with matplotlib.rc_context(_SVG_STYLE):
        _drawn(draw, report).savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return _for_page(stream.getvalue(), name)


def _for_page(text: str, name: str) -> str:
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    prefix = re.sub(r"[^a-z0-9]+", "-", name.lower())
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt" ', "", text, count=1)
    text = re.sub(r'\bd="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), text)  # half the size, same look
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font: \1 sans-serif", text)
    return text.replace(_INK, "currentColor")


def _drawn(draw: Drawer, report: ExportReport) -> Figure:
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure, report)
    return figure
