"""Lists multi-label data as Roboflow exports it: rows of `_classes.csv` with 0 or 1 per label."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from saccade.export.data.findings import Findings
from saccade.export.data.found_files import pictures_below, text_of
from saccade.export.data.label_names import ids_by_name, ids_in_order
from saccade.export.data.pictures import LabelsTruth, Picture
from saccade.export.errors import DataRefused

LABEL_TABLE = "_classes.csv"
_SHOWN = {"0": False, "1": True}
_SEPARATORS = ",;\t"  # spreadsheets write a semicolon where the comma is decimal


def label_pictures(
    parts: Mapping[str, Path], labels: Sequence[str], in_order: bool, findings: Findings
) -> dict[str, list[Picture]]:
    """Lists the pictures of each part. Raises DataRefused when a table is missing or does not match the labels."""
    return {part: _part_pictures(root, labels, in_order, findings) for part, root in parts.items()}


def table_labels(path: Path) -> list[str]:
    """Returns the names in the head of a table. Raises DataRefused when it has none."""
    return _rows(path)[0][1:]


def _part_pictures(root: Path, labels: Sequence[str], in_order: bool, findings: Findings) -> list[Picture]:
    path = root / LABEL_TABLE
    head, *rows = _rows(path)
    ids = (ids_in_order if in_order else ids_by_name)(head[1:], labels, str(path))
    class_ids = [ids[name] for name in head[1:]]
    pictures: dict[Path, Picture] = {}
    for number, row in enumerate(rows, start=2):
        if not any(row):
            continue
        file = Path(os.path.normpath(root / row[0]))
        if len(row) != len(head) or any(value not in _SHOWN for value in row[1:]):
            given = f"write the file's name and {len(head) - 1} values 0 or 1, not {', '.join(row)!r}"
            what = f"{path}, line {number}: {given}"
            findings.complain("label table row", what)
        elif file in pictures:
            findings.complain("label table twice", f"{path}, line {number}: {row[0]!r} is there more than once")
        elif not file.is_file():
            findings.complain("label table file", f"{path}, line {number}: {row[0]!r} is not there: correct the row")
        else:
            shown = [class_id for class_id, value in zip(class_ids, row[1:], strict=True) if _SHOWN[value]]
            pictures[file] = Picture(file, LabelsTruth(tuple(sorted(shown))))
    for picture in pictures_below(root, findings):
        if picture not in pictures:
            findings.skip(f"in no row of {LABEL_TABLE}", picture)
    return list(pictures.values())


def _rows(path: Path) -> list[list[str]]:
    """Reads all rows, the head first. Raises DataRefused when there is no head with a label."""
    if not path.exists():
        raise DataRefused(
            f"{path} is not there: a network of several labels per picture needs it, with a head `filename, label, "
            "...` and 0 or 1 per label"
        )
    return csv_rows(path, "label")


def csv_rows(path: Path, columns: str) -> list[list[str]]:
    """Reads all rows of a table of pictures, the head first.

    Raises DataRefused for what is no such table; `columns` is what those behind the file's name are called.
    """
    try:
        lines = [line for line in text_of(path).splitlines() if not line.lower().startswith("sep=")]  # Excel's own line
        between = max(_SEPARATORS, key=(lines[0] if lines else "").count)
        rows = [[value.strip() for value in row] for row in csv.reader(lines, delimiter=between)]
    except UnicodeDecodeError as error:
        raise DataRefused(f"{path} is not UTF-8 (byte {error.start}): save it as CSV UTF-8") from error
    except (OSError, ValueError, csv.Error) as error:
        raise DataRefused(f"{path} cannot be read as CSV: {error}") from error
    if rows and len(rows[0]) > 1 and not all(rows[0]):
        raise DataRefused(
            f"{path}: column {rows[0].index('') + 1} of its head has no name: remove the column (pandas writes one "
            "without `index=False`), or the comma at the end"
        )
    if not rows or len(rows[0]) < 2:
        raise DataRefused(
            f"{path} names no {columns}s: begin it with a line `filename, first {columns}, second {columns}, ...`"
        )
    return rows
