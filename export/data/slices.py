"""Reads which slices each picture belongs to, such as camera=north: from a CSV beside the recipe, or from folders.

The first column names a picture by its path below the data's folder, or by as much of the path's end as no other
picture has. Each further column is a tag. A picture without a tag belongs to the slice `untagged` of that column.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from saccade.export.data.findings import Findings
from saccade.export.data.label_tables import csv_rows
from saccade.export.data.split_sources import SPLIT_NAMES
from saccade.export.errors import DataRefused
from saccade.export.recipe import FolderData, LoadedRecipe
from saccade.models.contract.specs import Task

FOLDERS = "folders"
UNTAGGED = "untagged"
_MOST_VALUES = 100  # a column of more, such as times, is no tag: each slice would have a few pictures

Tags = Mapping[str, str]  # values by column


def slice_table(loaded: LoadedRecipe, slices: str | None) -> Path | None:
    """Returns the path of the CSV; None where there is none."""
    return None if slices in (None, FOLDERS) else loaded.beside(slices or "")


def slice_rows(
    loaded: LoadedRecipe, slices: str, pictures: Sequence[Path], test: Sequence[Path], findings: Findings
) -> dict[str, tuple[int, ...]]:
    """Returns the rows of `test` by slice, the largest first; faults of the table are added to `findings`.

    Raises DataRefused for what is no table, and for folders that name no slice.
    """
    assert isinstance(loaded.recipe.data, FolderData)
    root, table = loaded.beside(loaded.recipe.data.path), slice_table(loaded, slices)
    if table is None:
        tags = _folder_tags(pictures, root, loaded.recipe.task.task)
        if not any(tags.values()):
            raise DataRefused(f"data.slices: no picture of {root} lies in a folder below those of split and label")
    else:
        tags = _table_tags(table, {picture: _below(picture, root) for picture in pictures}, findings)
    columns = dict.fromkeys(column for each in tags.values() for column in each)
    rows: defaultdict[str, list[int]] = defaultdict(list)
    for column in columns:
        for row, picture in enumerate(test):
            rows[f"{column}={tags.get(picture, {}).get(column) or UNTAGGED}"].append(row)
    return {name: tuple(rows[name]) for name in sorted(rows, key=lambda name: (-len(rows[name]), name))}


def _folder_tags(pictures: Sequence[Path], root: Path, task: Task) -> dict[Path, Tags]:
    """A picture's slice is the first folder below those that its layout asks for: split, label or `images`."""
    tags: dict[Path, Tags] = {}
    for picture in pictures:
        folders = [part for part in _below(picture, root).parts[:-1] if part.lower() not in (*SPLIT_NAMES, "images")]
        named = folders[1:] if task in (Task.CLASSIFY, Task.EMBED) else folders
        tags[picture] = {"folder": named[0]} if named else {}
    return tags


def _table_tags(table: Path, places: Mapping[Path, PurePosixPath], findings: Findings) -> dict[Path, Tags]:
    if not table.is_file():
        raise DataRefused(
            f"data.slices: {table} is no file: name a CSV beside the recipe, or write `slices: {FOLDERS}`"
        )
    head, *lines = csv_rows(table, "tag")
    columns = head[1:]
    for column in sorted({column for column in columns if columns.count(column) > 1}):
        findings.complain("slice column", f"{table} has the column {column!r} twice: remove one of them")
    by_name = _by_name(places)
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
    return tags


def _by_name(places: Mapping[Path, PurePosixPath]) -> dict[str, list[Path]]:
    """Returns the pictures that each path, or end of a path, means; a whole path means one picture."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for picture, place in places.items():
        for name in _ends(place):
            found[name].append(picture)
    return {**found, **{str(place): [picture] for picture, place in places.items()}}


def _ends(place: PurePosixPath) -> Iterator[str]:
    for start in range(len(place.parts)):
        yield "/".join(place.parts[start:])


def _plain(name: str) -> str:
    return str(PurePosixPath(os.path.normpath(name.replace("\\", "/"))))


def _below(picture: Path, root: Path) -> PurePosixPath:
    return PurePosixPath(Path(os.path.relpath(picture, root)).as_posix())
