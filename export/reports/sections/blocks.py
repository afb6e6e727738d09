"""Defines the blocks that a report consists of; Markdown and HTML write the same blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Tone = Literal["", "good", "bad", "pending", "marked"]


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of a table with its meaning to the reader; `heat` is 0..1 where cells are compared by colour."""

    text: str
    tone: Tone = ""
    heat: float | None = None


Row = tuple[str | Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    title: str = ""
    is_folded: bool = False  # shown on request, where the medium can fold


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Code:
    """Text for the reader to copy."""

    text: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot of `saccade.export.reports.plots`, by name."""

    name: str
    alt: str


@dataclass(frozen=True, slots=True)
class ReportPicture:
    """An image file beside the report."""

    file: str
    alt: str
    lines: tuple[str, ...]  # text below the picture


@dataclass(frozen=True, slots=True)
class Gallery:
    title: str
    pictures: tuple[ReportPicture, ...]
    is_wide: bool = False  # each picture has a row of its own


Block = Table | Text | Code | Plot | Gallery


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    blocks: tuple[Block, ...]

    @property
    def anchor(self) -> str:
        return "".join(letter if letter.isalnum() else "-" for letter in self.title.lower()).strip("-")


def fact_table(facts: Sequence[tuple[str, object]], title: str = "", header: tuple[str, str] = ("", "value")) -> Table:
    """Returns a table of two columns: a name and its value."""
    return Table(header, tuple((name, str(value)) for name, value in facts), title)


def figure(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
