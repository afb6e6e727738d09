"""Renders reports as HTML pages, each one file without scripts and external resources; all data is escaped."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from functools import cache, partial

import jinja2
from markupsafe import Markup

from saccade.export.reports.export_report import ExportReport
from saccade.export.reports.plots import svg_plots
from saccade.export.reports.sections import sections_of
from saccade.export.reports.sections.blocks import Block, Cell, Section, Table

TEMPLATE = "report.html.j2"
_MOST_BYTES = 1_900_000  # size of the page; pictures beyond it stay files beside it
_NUMBER = re.compile(r"^[\[(+\-]?[\d.]+([eE][+-]?\d+)?%?( ?[\[(].*[\])])?$|^\[[^\]]*\]$|^-$")


def html(report: ExportReport, pictures: Mapping[str, bytes]) -> str:
    """Renders the page; `pictures` are JPEG files by name, and those that would make it too large are left out."""
    labels, created = f"{len(report.labels)} classes", report.created
    about = f"{report.task.value}, {labels}, source {report.source}, weights {report.weights[:19]}, {created}"
    return page(f"{report.model}: export report", report.model, about, sections_of(report), pictures, svg_plots(report))


def page(
    title: str,
    heading: str,
    about: str,
    sections: Sequence[Section],
    pictures: Mapping[str, bytes],
    plots: Mapping[str, str] | None = None,
) -> str:
    """Renders a page of these sections; `plots` are SVG by name."""
    template = _environment().get_template(TEMPLATE)
    drawn = {name: Markup(svg) for name, svg in (plots or {}).items()}
    render = partial(template.render, title=title, heading=heading, about=about, sections=sections, plots=drawn)
    without = len(render(pictures={}).encode())
    text: str = render(pictures=_inlined(pictures, _MOST_BYTES - without))
    return text


def _inlined(pictures: Mapping[str, bytes], most_bytes: int) -> dict[str, str]:
    """Returns data URLs, first pictures of all variants before second ones, as many as fit."""
    urls: dict[str, str] = {}
    # a stable sort, so that variants keep their order
    for name in sorted(pictures, key=lambda name: name.rpartition("-")[2]):
        url = f"data:image/jpeg;base64,{base64.b64encode(pictures[name]).decode()}"
        if len(url) <= most_bytes:
            most_bytes -= len(url)
            urls[name] = url
    return urls


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("saccade.export.reports", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"kind": _kind, "css": _css_classes, "text": _text, "heat": _heat, "is_numeric": _is_numeric}
    return environment


def _kind(block: Block) -> str:
    return type(block).__name__


def _text(cell: str | Cell) -> str:
    return cell.text if isinstance(cell, Cell) else cell


def _css_classes(cell: str | Cell) -> str:
    """Returns a cell's classes: its tone, numbers to the right, digests broken anywhere."""
    text = _text(cell)
    names: list[str] = [cell.tone] if isinstance(cell, Cell) and cell.tone else []
    if _NUMBER.match(text):
        names.append("number")
    elif re.fullmatch(r"(sha256:)?[0-9a-f]{32,}", text):
        names.append("digest")
    elif len(text) > 40:
        names.append("long")
    return " ".join(names)


def _heat(cell: str | Cell) -> str:
    """Returns the strength of a cell's colour in per cent; empty where cells are not compared."""
    return "" if not isinstance(cell, Cell) or cell.heat is None else str(round(100 * cell.heat))


def _is_numeric(table: Table, column: int) -> bool:
    """Returns whether a column's heading belongs to the right, over its numbers."""
    cells = [row[column] for row in table.rows if column < len(row)]
    return bool(cells) and all(_heat(cell) or _NUMBER.match(_text(cell)) for cell in cells)
