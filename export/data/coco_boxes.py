"""Reads detection data in COCO's format and reports every fault together with the entry that has it.

A folder holds `annotations.json`, or `_annotations.coco.json` as Roboflow writes it, with file names relative to the
folder. Categories that no annotation uses are left out, because Roboflow's first one is the name of the project.
"""

from __future__ import annotations

import math
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import numpy as np

from saccade.export.data.bad_boxes import judge_bad_boxes, judge_repeated_boxes
from saccade.export.data.findings import Findings
from saccade.export.data.found_files import text_of
from saccade.export.data.label_names import ids_by_name, ids_in_order
from saccade.export.data.outlines import Outline, outline_of_coco
from saccade.export.data.pictures import BoxTruth, Picture
from saccade.export.errors import DataRefused

COCO_FILES = ("annotations.json", "_annotations.coco.json")
_JSON_WORDS = {  # msgspec's names of kinds
    "int": "a number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}
Box = tuple[float, float, float, float]


class CocoImage(msgspec.Struct, frozen=True):
    id: int
    file_name: str
    width: float | None = None
    height: float | None = None

    @property
    def name(self) -> str:
        """Returns the file's path without detours, so that `./a.png` and `b/../a.png` are one file."""
        return posixpath.normpath(self.file_name.replace("\\", "/"))


class CocoAnnotation(msgspec.Struct, frozen=True):
    image_id: int
    category_id: int
    id: int | None = None
    bbox: list[float | None] | None = None
    iscrowd: int | bool | None = 0
    segmentation: msgspec.Raw = msgspec.Raw(b"null")  # read for detectors with masks only

    @property
    def corners(self) -> Box | None:
        """Returns x1 y1 x2 y2, or None for a box that is missing, incomplete or without area."""
        values = [value for value in self.bbox or () if value is not None and math.isfinite(value)]
        if len(values) != 4 or min(values[2:]) <= 0:
            return None
        x, y, width, height = values
        return x, y, x + width, y + height


class CocoCategory(msgspec.Struct, frozen=True):
    id: int
    name: str


class CocoFile(msgspec.Struct, frozen=True):
    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[CocoCategory]


def coco_pictures(
    parts: Mapping[str, Path],
    labels: Sequence[str],
    in_order: bool,
    max_bad: float,
    findings: Findings,
    *,
    has_masks: bool = False,
) -> dict[str, list[Picture]]:
    """Lists the pictures of each part; has_masks: every object needs a `segmentation`.

    Raises DataRefused for a file that contradicts itself or the labels.
    """
    files = {part: _coco_path(root) for part, root in parts.items()}
    documents = {part: _document(path) for part, path in files.items()}
    used = {row.category_id for document in documents.values() for row in document.annotations}
    pictures = {}
    for part, path in files.items():
        document = documents[part]
        _ensure_consistent(path, document)
        ids = _class_ids(path, document, labels, in_order, used, findings)
        rows = _rows_by_image(path, document, max_bad, findings, has_masks=has_masks)
        pictures[part] = [
            Picture(
                path.parent / image.name,
                _truth(f"{path}, annotation", image, rows[image.id], ids, has_masks=has_masks),
            )
            for image in document.images
        ]
    return pictures


def found_coco(folders: Iterable[Path]) -> CocoFile | None:
    """Returns the first file in these folders that is COCO's; `check` says what is wrong with one that is not."""
    for path in (folder / name for folder in folders for name in COCO_FILES):
        if path.is_file():
            with suppress(DataRefused):
                return _document(path)
    return None


def _coco_path(root: Path) -> Path:
    for name in COCO_FILES:
        if (root / name).is_file():
            return root / name
    raise DataRefused(
        f"cannot read {root / COCO_FILES[0]}: detection data is COCO's {COCO_FILES[0]} or Roboflow's "
        f"{COCO_FILES[1]} in each split, or YOLO's data.yaml above them; pictures that nobody labelled need "
        "`gate: {mode: parity}` in the recipe (`saccade-export init --unlabelled` writes it)"
    )


def _document(path: Path) -> CocoFile:
    try:
        return msgspec.json.decode(text_of(path), type=CocoFile)
    except msgspec.ValidationError as error:
        raise DataRefused(_invalid_sentence(path, str(error))) from error
    except (msgspec.DecodeError, ValueError) as error:
        raise DataRefused(f"{path} is not JSON: {error}") from error
    except OSError as error:
        raise DataRefused(f"cannot read {path}: {error.strerror}") from error


def _invalid_sentence(path: Path, problem: str) -> str:
    """Rewords msgspec's error, such as "Expected `int`, got `str` - at `$.annotations[0].image_id`"."""
    what, _, place = problem.partition(" - at `$")
    place = place.strip(".`")
    kinds = re.fullmatch(r"Expected `(.+)`, got `(.+)`", what)
    if kinds is None:  # a key is missing
        return f"{path} is not COCO's format: {what[0].lower()}{what[1:]}" + (f" in {place}" if place else "")
    wanted = [_JSON_WORDS.get(kind, kind) for kind in kinds[1].split(" | ")]
    if kinds[2] == "str" and "a number" in wanted:
        return f'{path}: {place} is text and COCO has a number there: write 1, not "1"'
    if kinds[2] == "float" and "a number" in wanted:
        return f"{path}: {place} is a fraction and COCO has a whole number there: write 1, not 1.0"
    found, other = _JSON_WORDS.get(kinds[2], kinds[2]), " or ".join(dict.fromkeys(wanted))
    return f"{path}: {place or 'the document'} is {found} and COCO has {other} there: write it as COCO's format does"


def _ensure_consistent(path: Path, document: CocoFile) -> None:
    """Raises DataRefused for ids or files that occur twice, and for annotations of no image."""
    for what, values in (
        ("two images have the id", [image.id for image in document.images]),
        ("two images are the file", [image.name for image in document.images]),
        ("two categories have the id", [category.id for category in document.categories]),
    ):
        twice = _first_repeated(values)
        if twice is not None:
            raise DataRefused(f"{path}: {what} {twice!r}: give each its own")
    known = {image.id for image in document.images}
    strays = [row for row in document.annotations if row.image_id not in known]
    if strays:
        raise DataRefused(
            f"{path}: annotation {strays[0].id}{_such(strays)} belongs to image_id {strays[0].image_id}, and "
            "`images` lists none of that id: add the image or remove the annotation"
        )


def _first_repeated(values: Sequence[object]) -> object | None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def _class_ids(
    path: Path, document: CocoFile, labels: Sequence[str], in_order: bool, used: set[int], findings: Findings
) -> dict[int, int]:
    """Returns class ids by category id for the categories that any part uses."""
    known = {category.id for category in document.categories}
    strays = [row for row in document.annotations if row.category_id not in known]
    if strays:
        raise DataRefused(
            f"{path}: annotation {strays[0].id}{_such(strays)} has the category_id {strays[0].category_id}, "
            f"which is none of {_some_ids(known)}: correct it, or add the category"
        )
    categories = sorted(document.categories, key=lambda category: category.id)
    if in_order and len(categories) == len(labels):
        kept = categories
    else:
        kept = [category for category in categories if category.id in used]
        for category in categories:
            if category.id not in used:
                findings.note(
                    "unused category", f"{path}: category {category.name!r} is used by no annotation, so it is left out"
                )
    names = [category.name for category in kept]
    ids = ids_in_order(names, labels, str(path)) if in_order else ids_by_name(names, labels, str(path))
    return {category.id: ids[category.name] for category in kept}


def _such(rows: Sequence[CocoAnnotation]) -> str:
    return f" ({len(rows):,} such)" if len(rows) > 1 else ""


def _some_ids(known: set[int]) -> str:
    ids = sorted(known)
    return ", ".join(str(each) for each in ids[:8]) + (", ..." if len(ids) > 8 else "")


def _rows_by_image(
    path: Path, document: CocoFile, max_bad: float, findings: Findings, *, has_masks: bool
) -> dict[int, list[tuple[CocoAnnotation, Outline | None]]]:
    """Groups annotations that have a box, and a mask where there must be one, by image; each counts once.

    A few without or repeated give a note, and many give a complaint.
    """
    rows: dict[int, list[tuple[CocoAnnotation, Outline | None]]] = defaultdict(list)
    bad, repeated = [], []
    seen: set[tuple[object, ...]] = set()
    for row in document.annotations:
        outline = outline_of_coco(row.segmentation) if has_masks else None
        key = (row.image_id, row.category_id, row.corners, bool(row.iscrowd), outline)
        if row.corners is None or (has_masks and outline is None):
            bad.append(row)
        elif key in seen:
            repeated.append(row)
        else:
            seen.add(key)
            rows[row.image_id].append((row, outline))
    names = {image.id: image.file_name for image in document.images} if bad or repeated else {}
    if repeated:
        first = f"annotation {repeated[0].id} in {names[repeated[0].image_id]}"
        judge_repeated_boxes(str(path), len(repeated), len(document.annotations), first, max_bad, findings)
    if bad:
        what = "no usable segmentation" if bad[0].corners is not None else f"bbox {bad[0].bbox or 'null'}"
        first = f"annotation {bad[0].id} in {names[bad[0].image_id]} ({what})"
        judge_bad_boxes(str(path), len(bad), len(document.annotations), first, max_bad, findings)
    return rows


def _truth(
    file: str,
    image: CocoImage,
    found: Sequence[tuple[CocoAnnotation, Outline | None]],
    ids: Mapping[int, int],
    *,
    has_masks: bool,
) -> BoxTruth:
    rows = [row for row, _ in found]
    declared = (int(image.width), int(image.height)) if image.width and image.height else None
    return BoxTruth(
        np.array([row.corners for row in rows], np.float64).reshape(-1, 4),
        np.array([ids[row.category_id] for row in rows], np.int64),
        np.array([bool(row.iscrowd) for row in rows], np.bool_),
        declared=declared,
        outlines=tuple(outline for _, outline in found if outline is not None) if has_masks else None,
        file=file,
        entries=tuple(row.id for row in rows),
    )
