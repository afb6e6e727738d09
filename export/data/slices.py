"""Reads which slices each picture belongs to, such as camera=north: from a CSV beside the recipe, or from folders.

The first column names a picture by its path below the data's folder, or by as much of the path's end as no other
picture has. Each further column is a tag. A picture without a tag belongs to the slice `untagged` of that column.
"""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from saccade.export.data.findings import Findings
from saccade.export.data.found_files import IMAGE_SUFFIXES
from saccade.export.data.label_tables import csv_rows
from saccade.export.data.pictures import ClassTruth, Picture
from saccade.export.errors import DataRefused
from saccade.export.recipe import FolderData, LoadedRecipe, fits_a_line

FOLDERS = "folders"
UNTAGGED = "untagged"
_MOST_VALUES = 100  # a column of more, such as times, is no tag: each slice would have a few pictures

Tags = Mapping[str, str]  # values by column


def slice_table(loaded: LoadedRecipe, slices: str | None) -> Path | None:
    """Returns the path of the CSV; None where there is none."""
    return None if slices in (None, FOLDERS) else loaded.beside(slices or "")


def slice_rows(
    loaded: LoadedRecipe,
    slices: str,
    parts: Mapping[str, Sequence[Picture]],
    test: Sequence[Path],
    findings: Findings,
) -> dict[str, tuple[int, ...]]:
    """Returns the rows of `test` by slice, the largest first; faults are added to `findings`.

    `parts` has all pictures by the folder of their split. Raises DataRefused for what is no table, and for folders
    that name no slice.
    """
    assert isinstance(loaded.recipe.data, FolderData)
    root, table = loaded.beside(loaded.recipe.data.path), slice_table(loaded, slices)
    pictures = [picture.path for each in parts.values() for picture in each]
    before = findings.complaints
    if table is None:
        columns, tags = ["folder"], _folder_tags(parts, root)
        if not any(tags.values()):
            raise DataRefused(f"data.slices: no picture of {root} lies in a folder below those of split and label")
    else:
        columns, tags = _table_tags(table, {picture: _below(picture, root) for picture in pictures}, findings)
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for column in columns:
        for row, picture in enumerate(test):
            rows[f"{column}={tags.get(picture, {}).get(column) or UNTAGGED}"].append(row)
    for name in rows:
        if not fits_a_line(name):
            raise DataRefused(f"data.slices: {name!r} has letters that cannot be shown in one line: write it otherwise")
    _complain_of_case("slices", rows, findings)
    if test and findings.complaints == before and all(len(found) == len(test) for found in rows.values()):
        text = f"data.slices tells no test pictures apart: all {len(test):,} are in {', '.join(rows)}"
        findings.complain("slices alike", text)
    return {name: tuple(rows[name]) for name in sorted(rows, key=lambda name: (-len(rows[name]), name))}


def _folder_tags(parts: Mapping[str, Sequence[Picture]], root: Path) -> dict[Path, Tags]:
    """A picture's slice is the first folder below its label's, or below the one that holds all of its split's."""
    tags: dict[Path, Tags] = {}
    for part, pictures in parts.items():
        folders = [_below(picture.path, root / part).parts[:-1] for picture in pictures]
        shared = len(os.path.commonprefix(folders))  # noqa: RUF071  # of tuples: folders such as `images`
        for picture, names in zip(pictures, folders, strict=True):
            below = names[1 if isinstance(picture.truth, ClassTruth) else shared :]
            tags[picture.path] = {"folder": _composed(below[0])} if below else {}
    return tags


def _table_tags(
    table: Path, places: Mapping[Path, PurePosixPath], findings: Findings
) -> tuple[list[str], dict[Path, Tags]]:
    """Returns the columns and each picture's tags."""
    if not table.is_file():
        raise DataRefused(
            f"data.slices: {table} is no file: name a CSV beside the recipe, or write `slices: {FOLDERS}`"
        )
    head, *lines = ([_composed(value) for value in row] for row in csv_rows(table, "tag"))
    columns, by_name = head[1:], _by_name(places)
    if _plain(head[0]) in by_name or Path(head[0]).suffix.lower() in IMAGE_SUFFIXES:
        raise DataRefused(
            f"{table} has no head, its first line names the picture {head[0]!r}: write a line `filename, first tag, "
            "second tag, ...` above it"
        )
    _complain_of_columns(table, columns, findings)
    tags: dict[Path, Tags] = {}
    for number, line in enumerate(lines, start=2):
        where = f"{table}, line {number}"
        found = by_name.get(_plain(line[0])) if line else None
        if not any(line):
            continue
        if len(line) != len(head):
            findings.complain("slice row", f"{where} has {len(line)} values and the head {len(head)}")
        elif found is None:
            findings.complain("slice file", f"{where}: {line[0]!r} names no picture: write its path below the data")
        elif len(found) > 1:
            several = f"{where}: {line[0]!r} names {len(found)} pictures: write more of the path, as {places[found[0]]}"
            findings.complain("slice name", several)
        elif found[0] in tags:
            findings.complain("slice twice", f"{where}: {line[0]!r} is there twice: keep one row per picture")
        else:
            tags[found[0]] = dict(zip(columns, line[1:], strict=True))
    for column in columns:
        values = {each[column] for each in tags.values() if column in each}
        if len(values) > _MOST_VALUES:
            text = f"{table}: column {column!r} has {len(values):,} values, so it is no tag: remove the column"
            findings.complain("slice values", text)
    return columns, tags


def _complain_of_columns(table: Path, columns: Sequence[str], findings: Findings) -> None:
    for column in sorted({column for column in columns if columns.count(column) > 1}):
        findings.complain("slice column", f"{table} has the column {column!r} twice: remove one of them")
    for column in (column for column in columns if "=" in column):
        text = f"{table}: column {column!r} has a `=`, which stands between column and tag: name it otherwise"
        findings.complain("slice equals", text)
    _complain_of_case(f"columns of {table}", dict.fromkeys(columns), findings)


def _complain_of_case(what: str, names: Iterable[str], findings: Findings) -> None:
    first: dict[str, str] = {}
    for name in sorted(names):
        other = first.setdefault(name.casefold(), name)
        if other != name:
            text = (
                f"data.slices: {what} differ only in case, {other!r} and {name!r}: write them alike, or name one anew"
            )
            findings.complain("slice case", text)


def _by_name(places: Mapping[Path, PurePosixPath]) -> dict[str, list[Path]]:
    """Returns the pictures that each path, or end of a path, means; a whole path means one picture."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for picture, place in places.items():
        for name in _ends(place):
            found[name].append(picture)
    whole: defaultdict[str, list[Path]] = defaultdict(list)
    for picture, place in places.items():
        whole[_composed(str(place))].append(picture)
    return {**found, **whole}


def _ends(place: PurePosixPath) -> Iterator[str]:
    for start in range(len(place.parts)):
        yield _composed("/".join(place.parts[start:]))


def _plain(name: str) -> str:
    return str(PurePosixPath(os.path.normpath(name.replace("\\", "/"))))


def _composed(name: str) -> str:
    """Returns accents as one letter each, since file systems and programs store them in two ways."""
    return unicodedata.normalize("NFC", name)


def _below(picture: Path, root: Path) -> PurePosixPath:
    return PurePosixPath(Path(os.path.relpath(picture, root)).as_posix())
