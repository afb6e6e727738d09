"""Writes an export report as JSON, Markdown and HTML, with its plots and pictures."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from saccade.export.reports.export_report import REPORT_HTML, REPORT_JSON, REPORT_MARKDOWN, ExportReport
from saccade.export.reports.html_report import html
from saccade.export.reports.plots import drawers_of, write_plots
from saccade.export.reports.sections import sections_of
from saccade.export.reports.sections.blocks import Block, Cell, Code, Gallery, Plot, Row, Table, Text
from saccade.export.reports.sections.mistakes import example_file

Pictures = Mapping[str, Path]  # path of each picture that the report shows, by its name in the report


def write_report(report: ExportReport, directory: Path, pictures: Pictures) -> list[Path]:
    """Writes report.json, report.md, report.html, the plots and the pictures; returns the paths."""
    paths = [directory / name for name in (REPORT_JSON, REPORT_MARKDOWN, REPORT_HTML)]
    paths[0].write_text(report.model_dump_json(indent=2) + "\n")
    paths[1].write_text(markdown(report))
    paths[2].write_text(html(report, {name: path.read_bytes() for name, path in pictures.items() if path.exists()}))
    plots = write_plots(report, directory)
    copies = []
    for name, path in pictures.items():
        copies.append(directory / name)
        if path.exists() and path.resolve() != copies[-1].resolve():
            shutil.copyfile(path, copies[-1])
    return [*paths, *plots, *copies]


def pictures_beside(report: ExportReport, directory: Path) -> Pictures:
    """Returns the pictures of a report that was written into `directory`."""
    return {
        (name := example_file(variant.qualify.variant, example.file)): directory / name
        for variant in report.variants
        if variant.qualify.disagreements is not None
        for example in variant.qualify.disagreements.examples
    }


def markdown(report: ExportReport) -> str:
    """Returns the report as text; plots and pictures are files beside it."""
    drawn = set(drawers_of(report))
    lines = [f"# {report.model}", "", summary(report), ""]
    for section in sections_of(report):
        lines += [f"## {section.title}", ""]
        for block in section.blocks:
            lines += [*_written(block, drawn), ""]
    return "\n".join(lines).rstrip() + "\n"


def summary(report: ExportReport) -> str:
    """Returns one line that says which model and recipe this is."""
    return (
        f"{report.task.value}, {len(report.labels)} classes, source `{report.source}`, "
        f"weights `{report.weights[:19]}`, {report.created}."
    )


def _written(block: Block, drawn: set[str]) -> Iterator[str]:
    match block:
        case Text():
            yield f"**{_escaped(block.text)}**" if block.tone == "bad" else _escaped(block.text)
        case Code():
            yield from ("```", block.text, "```")
        case Plot():
            if block.name in drawn:
                yield f"![{block.alt}]({block.name}.png)"
        case Gallery():
            yield f"### {block.title}"
            for picture in block.pictures:
                yield from (
                    "",
                    f"![{picture.alt}]({picture.file})",
                    "",
                    *(f"- {_escaped(line)}" for line in picture.lines),
                )
        case Table():
            yield from ([f"### {block.title}", ""] if block.title else [])
            yield from _table(block)


def _table(table: Table) -> Iterator[str]:
    for row in (table.header, ("---",) * len(table.header), *table.rows):
        yield f"| {' | '.join(_cells(row))} |"


def _cells(row: Row) -> Iterator[str]:
    for cell in row:
        text = _escaped(cell.text if isinstance(cell, Cell) else cell)
        yield f"**{text}**" if isinstance(cell, Cell) and cell.tone == "bad" else text


def _escaped(text: str) -> str:
    """Escapes what would end a cell or a row of a table: a bar and a line break."""
    return text.replace("|", "\\|").replace("\n", " ")
