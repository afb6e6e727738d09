"""Reads detection data in YOLO's format: `data.yaml`, `images/`, `labels/*.txt`; faults name their file and line.

A label file has one line per object, `class x y width height`, with centre and size as fractions of the picture's
sides. A line `class x y x y x y ...` is a polygon, which counts as its bounding box where no mask is wanted. A picture
without a label file shows no object. Where data.yaml has `kpt_shape`, numbers after the box are points of a pose.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from saccade.export.data.bad_boxes import judge_bad_boxes, judge_repeated_boxes
from saccade.export.data.findings import Findings
from saccade.export.data.found_files import IMAGE_SUFFIXES, is_junk, pictures_below, text_of
from saccade.export.data.label_names import ids_by_name, ids_in_order
from saccade.export.data.outlines import Outline, outline_of_ring
from saccade.export.data.pictures import BoxTruth, Picture
from saccade.export.data.split_sources import SPLIT_NAMES
from saccade.export.errors import DataRefused

YOLO_FILES = ("data.yaml", "data.yml", "dataset.yaml")
_LISTS = frozenset(
    {"classes.txt", "train.txt", "val.txt", "valid.txt", "test.txt"}
)  # beside label files, of other tools
_FIELDS = 5  # class, x, y, width, height
_TRACKED = 7  # numbers of a box with confidence and track number, and of the shortest polygon
_TOLERANCE = 1.001  # fractions may exceed 1 by this factor, because they are written with few digits


@dataclass(frozen=True, slots=True)
class YoloFile:
    """Contents of a data.yaml: class names by id, and where the pictures of each split are."""

    path: Path
    names: tuple[str, ...]
    places: Mapping[str, tuple[Path, ...]]  # folders or list files, by the split's name in data.yaml
    has_points: bool = False  # the points of a pose follow each box


class YoloRow(NamedTuple):
    """One object: its line, class in data.yaml's order, centre and size in shares of the picture, and polygon."""

    line: int

    class_id: int
    box: tuple[float, ...]
    outline: Outline | None


def yolo_path(root: Path) -> Path | None:
    """Returns the data.yaml that `root` is or holds."""
    candidates = (
        [root, *(root / name for name in YOLO_FILES)]
        if root.suffix in (".yaml", ".yml")
        else [root / name for name in YOLO_FILES]
    )
    return next((path for path in candidates if path.is_file()), None)


def read_yolo_file(path: Path) -> YoloFile:
    """Reads a data.yaml. Raises DataRefused when names or splits are missing, or a place does not exist."""
    try:
        document = yaml.safe_load(text_of(path))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataRefused(f"{path} cannot be read as YAML: {error}") from error
    names = document.get("names") if isinstance(document, dict) else None
    if isinstance(names, dict) and sorted(str(key) for key in names) == [str(each + 1) for each in range(len(names))]:
        raise DataRefused(f"{path}: the numbers of `names` begin with 1: classes of label files count from 0")
    if isinstance(names, dict) and sorted(str(key) for key in names) == sorted(str(each) for each in range(len(names))):
        names = [name for _, name in sorted(names.items(), key=lambda item: int(item[0]))]
    if not isinstance(names, list) or not names:
        raise DataRefused(f"{path} names no classes: write `names: [first, second]`, or 0: first, 1: second, ...")
    for name in names:
        if isinstance(name, bool | None):
            raise DataRefused(
                f"{path}: YAML reads the name of a class as {name}: put yes, no, on, off or null in quotes"
            )
    if str(document.get("nc", len(names))) != str(len(names)):
        raise DataRefused(f"{path} says `nc: {document['nc']}` and names {len(names)} classes: make them agree")
    base = path.parent / str(document.get("path") or "")
    base = base if base.is_dir() else path.parent
    places = {
        key: tuple(_place(path, base, key, entry) for entry in _entries(value))
        for key, value in document.items()
        if str(key).lower() in SPLIT_NAMES and value
    }
    if not places:
        raise DataRefused(f"{path} names no pictures: write `train: images/train`, `val: images/val` and so on")
    return YoloFile(path, tuple(str(name) for name in names), places, document.get("kpt_shape") is not None)


def yolo_pictures(
    file: YoloFile,
    labels: Sequence[str],
    in_order: bool,
    max_bad: float,
    findings: Findings,
    *,
    has_masks: bool = False,
) -> dict[str, list[Picture]]:
    """Lists pictures by the split's name in data.yaml. Raises DataRefused when names do not match the labels."""
    ids = (ids_in_order if in_order else ids_by_name)(file.names, labels, str(file.path))
    class_ids = [ids[name] for name in file.names]
    return {
        split: _part_pictures(places, class_ids, max_bad, findings, has_masks=has_masks, has_points=file.has_points)
        for split, places in file.places.items()
    }


def _entries(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _place(path: Path, base: Path, key: str, entry: str) -> Path:
    """Resolves a path of data.yaml; Roboflow writes `../train/images` for `train/images`, as YOLO's reader knows."""
    for candidate in (base / entry, base / entry.removeprefix("../"), path.parent / entry):
        if candidate.exists():
            return candidate
    raise DataRefused(f"{path}: `{key}: {entry}` is not there, looked for as {base / entry}: correct the path")


def _part_pictures(
    places: Sequence[Path],
    class_ids: Sequence[int],
    max_bad: float,
    findings: Findings,
    *,
    has_masks: bool,
    has_points: bool,
) -> list[Picture]:
    paths = [path for place in places for path in _pictures_at(place, findings)]
    pictures: list[Picture] = []
    seen: set[str] = set()
    bad: list[str] = []
    repeated: list[str] = []
    tracked: list[str] = []
    boxes = 0
    files: dict[Path, Path] = {}  # pictures by their label file
    for path in paths:
        if (whole := os.path.abspath(path)) in seen:
            findings.skip("listed more than once", path)
            continue
        seen.add(whole)
        file = _label_path(path)
        files[file] = path
        once: dict[tuple[float, ...], YoloRow] = {}
        rows = _rows(file, len(class_ids), findings, has_masks=has_masks, has_points=has_points)
        for numbers, row in rows:
            if min(row.box[2:]) <= 0:
                bad.append(f"in {file}, line {row.line}")
            elif once.setdefault(numbers, row) is not row:
                repeated.append(f"in {file}, line {row.line}")
        boxes += len(rows)
        for numbers, row in rows:
            if not has_points and _is_tracked_box(numbers):
                tracked.append(f"{file}, line {row.line},")
        pictures.append(Picture(path, _truth(file, list(once.values()), class_ids, has_masks=has_masks)))
    _tell_stray_files(files, findings)
    if 2 * len(tracked) > boxes:  # a polygon of three points seldom ends at a border
        findings.complain(
            f"seven numbers {places[0]}",
            f"{places[0]}: {tracked[0]} has seven numbers, as {len(tracked):,} lines have, and the last is whole: "
            "write `class x y width height` alone, without confidence and track number",
        )
    for found, judge in ((bad, judge_bad_boxes), (repeated, judge_repeated_boxes)):
        judge(str(places[0]), len(found), boxes, found[0] if found else "", max_bad, findings)
    return pictures


def _is_tracked_box(numbers: Sequence[float]) -> bool:
    """Tells whether a line is a box inside the picture with confidence and a whole number, rather than a polygon."""
    if len(numbers) != _TRACKED or not numbers[-1].is_integer():
        return False
    _, x, y, width, height, confidence, _ = numbers
    return 0 <= confidence <= 1 and all(
        half - 0.01 <= centre <= 1.01 - half for centre, half in ((x, width / 2), (y, height / 2))
    )


def _tell_stray_files(files: Mapping[Path, Path], findings: Findings) -> None:
    """Tells of label files that no picture has; one that has another name only by its case was meant."""
    missed = {str(file).casefold(): file for file in files if not file.exists()}
    for folder in sorted({file.parent for file in files if file.parent.is_dir()}):
        for found in sorted(folder.iterdir()):
            if found.suffix.lower() != ".txt" or found in files or found.name in _LISTS or is_junk(found.name):
                continue
            meant = missed.get(str(found).casefold())
            if meant is None:
                findings.skip("a label file without a picture", found)
            else:
                findings.complain("case of a label file", f"{found} would not be read: rename it to {meant.name}")


def _pictures_at(place: Path, findings: Findings) -> Iterator[Path]:
    """Yields the pictures of a folder, or of a text file that lists them."""
    if place.is_dir():
        yield from pictures_below(place, findings)
        return
    if place.suffix.lower() in IMAGE_SUFFIXES:
        yield place
        return
    for line in text_of(place).split("\n"):
        if line.strip():
            path = place.parent / line.strip()
            if path.is_file():
                yield path
            else:
                findings.complain(
                    f"listed {place}", f"{place} lists {line.strip()!r}, which is not there: correct the line"
                )


def _label_path(path: Path) -> Path:
    """Returns the label file of a picture: `.../images/a.jpg` has `.../labels/a.txt`."""
    parts = list(path.with_suffix(".txt").parts)
    places = [index for index, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts)


def _rows(
    path: Path, classes: int, findings: Findings, *, has_masks: bool, has_points: bool
) -> list[tuple[tuple[float, ...], YoloRow]]:
    """Reads each object, with all numbers of its line."""
    if not path.is_file():
        findings.note("no label file", f"{path} is not there: its picture counts as one without objects")
        return []
    rows: list[tuple[tuple[float, ...], YoloRow]] = []
    try:
        text = text_of(path)
    except ValueError as error:
        findings.complain("label text", f"{path} is no text: {error}")
        return rows
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            words = line.split()
            row = _row(number, words[:_FIELDS] if has_points else words, classes, has_masks=has_masks)
            rows.append((tuple(float(word) for word in words), row))
        except ValueError as error:
            findings.complain("label line", f"{path}, line {number}: {error}")
    return rows


def _row(line: int, words: Sequence[str], classes: int, *, has_masks: bool) -> YoloRow:
    """Parses one line. Raises ValueError with a sentence."""
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise ValueError(f"{' '.join(words)!r} is not five numbers: write `class x y width height`") from None
    is_polygon = len(values) > _FIELDS and len(values) % 2 == 1
    if len(values) != _FIELDS and not is_polygon:
        raise ValueError(f"there are {len(values)} numbers: write `class x y width height`")
    if not (values[0].is_integer() and 0 <= values[0] < classes):
        raise ValueError(f"class {words[0]} is none of 0 to {classes - 1}: correct it, or add its name to data.yaml")
    shares = np.array(values[1:])
    if not np.isfinite(shares).all() or shares.max() > _TOLERANCE:
        raise ValueError(f"{shares.max():g} is no share of the picture: divide pixels by its width and height")
    if has_masks and not is_polygon:
        raise ValueError("it has a box and no polygon: write `class x y x y x y ...` for a network with masks")
    outline = outline_of_ring(values[1:]) if is_polygon else None
    if is_polygon:
        corners = shares.reshape(-1, 2)
        low, high = corners.min(0), corners.max(0)
        shares = np.concatenate([(low + high) / 2, high - low])
    return YoloRow(line, int(values[0]), tuple(shares.tolist()), outline)


def _truth(file: Path, rows: Sequence[YoloRow], class_ids: Sequence[int], *, has_masks: bool) -> BoxTruth:
    table = np.array([row.box for row in rows], np.float64).reshape(-1, 4)
    centres, halves = table[:, :2], table[:, 2:] / 2
    return BoxTruth(
        np.concatenate([centres - halves, centres + halves], axis=1),
        np.array([class_ids[row.class_id] for row in rows], np.int64),
        np.zeros(len(rows), np.bool_),
        in_shares=True,
        outlines=tuple(row.outline for row in rows if row.outline is not None) if has_masks else None,
        file=f"{file}, line",
        entries=tuple(row.line for row in rows),
    )
