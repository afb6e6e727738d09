"""Your own pictures as labelled images. Promises: file formats of the field, splits disjoint, misfits named.

Below `path`, either one folder per split (`calibration`, `tuning`, `test`, and `train` for recovery) or one set, which
is divided by the digest of each file (a fifth to calibrate, a fifth to tune, the rest to test). A set looks like this:

- classify: a folder per label; where no folder is named like a label, sorted folders are class 0, 1, ... as in
  torchvision's ImageFolder
- detect: COCO's `annotations.json`, with file names relative to it; crowds are left out
- segment: `images/NAME.jpg` and `masks/NAME.png` with one byte per pixel: the class id, 255 where unlabelled
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from PIL import Image

from saccade.export.data.image_split import Split
from saccade.export.data.labelled_images import IGNORED, ClassSample, DetectSample, Sample, SegmentSample
from saccade.export.errors import DataRefused
from saccade.export.recipe import FolderData
from saccade.models.contract.specs import Task

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
ANNOTATIONS_FILE = "annotations.json"
_SPLITS: tuple[Split, ...] = ("calibration", "tuning", "test")
_DEFAULT_IMAGES: dict[Split, int] = {
    "calibration": 256,
    "tuning": 500,
    "test": 2000,
    "train": 4000,
}  # a few minutes per variant
_CALIBRATION_SHARE, _TUNING_SHARE = 51, 102  # of 256, by the first byte of a file's digest


@dataclass(frozen=True, slots=True)
class Picture:
    """A file and how to read its truth."""

    path: Path
    sample: Callable[[bytes], Sample]


def folder_samples(
    task: Task, labels: Sequence[str], data: FolderData, root: Path, name: Split
) -> tuple[list[Sample], int]:
    """The split's samples and how many more the folder holds. Raises DataRefused with what does not fit."""
    if not root.is_dir():
        raise DataRefused(f"data.path: {root} is no folder")
    has_splits = all((root / split).is_dir() for split in _SPLITS)
    listed = _LISTINGS[task](root / name if has_splits else root, labels)
    found = [(picture, picture.path.read_bytes) for picture in listed]
    chosen: list[Sample] = []
    left = 0
    limit = data.max_images.get(name, _DEFAULT_IMAGES[name])
    for picture, read in sorted(found, key=lambda each: _shuffle_key(each[0].path, root)):
        if len(chosen) == limit:
            left += 1
            continue
        encoded = read()
        if has_splits or split_of(encoded) == name:
            chosen.append(picture.sample(encoded))
    if not chosen:
        raise DataRefused(
            f"data.path: {root} holds no {task.value} pictures for split {name!r}: export/README.md shows the layout"
        )
    return chosen, left


def split_of(encoded: bytes) -> Split:
    """Where a picture of an undivided set belongs; equal files go to the same split."""
    first = hashlib.sha256(encoded).digest()[0]
    if first < _CALIBRATION_SHARE:
        return "calibration"
    return "tuning" if first < _TUNING_SHARE else "test"


def _shuffle_key(path: Path, root: Path) -> bytes:
    """Repeatable, and not by label: a limit must not leave the last labels out."""
    return hashlib.sha256(path.relative_to(root).as_posix().encode()).digest()


def _classify_pictures(root: Path, labels: Sequence[str]) -> list[Picture]:
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    class_ids = _ids_by_folder([folder.name for folder in folders], labels, root)
    pictures = []
    for folder in folders:
        class_id = class_ids[folder.name]
        pictures += [
            Picture(path, lambda encoded, class_id=class_id: ClassSample(encoded, class_id))  # type: ignore[misc]  # mypy cannot type a bound default
            for path in _images_below(folder)
        ]
    return pictures


def _ids_by_folder(names: list[str], labels: Sequence[str], root: Path) -> dict[str, int]:
    known = {label: class_id for class_id, label in enumerate(labels)}
    if not any(name in known for name in names) and len(names) == len(labels):
        return {name: class_id for class_id, name in enumerate(names)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DataRefused(
            f"{root} has the folder {unknown[0]!r} ({len(unknown)} such), which is none of the {len(labels)} labels "
            f"({', '.join(labels[:3])}, ...): rename it, or set `labels`"
        )
    return known


def _detect_pictures(root: Path, labels: Sequence[str]) -> list[Picture]:
    document = _coco_document(root / ANNOTATIONS_FILE)
    class_ids = _ids_by_category(document, labels, root)
    rows: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in document["annotations"]:
        if not row.get("iscrowd"):
            rows[row["image_id"]].append(row)
    pictures = []
    for image in document["images"]:
        truth = _boxes_of(rows[image["id"]], class_ids)
        pictures.append(
            Picture(root / image["file_name"], lambda encoded, truth=truth: DetectSample(encoded, *truth))  # type: ignore[misc]  # as above
        )
    missing = [picture.path.name for picture in pictures if not picture.path.is_file()]
    if missing:
        raise DataRefused(f"{root / ANNOTATIONS_FILE} lists {missing[0]!r} ({len(missing)} such), which is not there")
    return pictures


def _coco_document(path: Path) -> dict[str, Any]:
    try:
        document = orjson.loads(path.read_bytes())
    except OSError as error:
        raise DataRefused(f"cannot read {path}: {error.strerror}; detection data is COCO's format") from error
    except orjson.JSONDecodeError as error:
        raise DataRefused(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict) or not {"images", "annotations", "categories"} <= document.keys():
        raise DataRefused(f"{path} lacks images, annotations or categories, which COCO's format has")
    return document


def _ids_by_category(document: Mapping[str, Any], labels: Sequence[str], root: Path) -> dict[int, int]:
    known = {label: class_id for class_id, label in enumerate(labels)}
    unknown = [row["name"] for row in document["categories"] if row["name"] not in known]
    if unknown:
        raise DataRefused(
            f"{root / ANNOTATIONS_FILE} has the category {unknown[0]!r} ({len(unknown)} such), which is none of the "
            f"{len(labels)} labels: rename it, or set `labels`"
        )
    return {row["id"]: known[row["name"]] for row in document["categories"]}


def _boxes_of(
    rows: list[dict[str, Any]], class_ids: Mapping[int, int]
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.int64]]]:
    boxes = np.array([row["bbox"] for row in rows], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]  # COCO gives x, y, width, height
    return boxes, np.array([class_ids[row["category_id"]] for row in rows], np.int64)


def _segment_pictures(root: Path, labels: Sequence[str]) -> list[Picture]:
    masks = {path.stem: path for path in (root / "masks").glob("*.png")}
    images = _images_below(root / "images")
    lonely = [path.name for path in images if path.stem not in masks]
    if lonely:
        raise DataRefused(
            f"{root / 'images'} has {lonely[0]!r} ({len(lonely)} such) without a PNG of its name in masks"
        )
    return [
        Picture(
            path,
            lambda encoded, mask=masks[path.stem]: SegmentSample(encoded, _mask_from(mask, len(labels))),  # type: ignore[misc]  # as above
        )
        for path in images
    ]


def _mask_from(path: Path, classes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(path, formats=("PNG",)) as image:
        if image.mode not in ("L", "P"):
            raise DataRefused(f"{path} is {image.mode}; masks are 8-bit PNG with one class id per pixel")
        mask = np.asarray(image)
    strange = mask[(mask >= classes) & (mask != IGNORED)]
    if strange.size:
        raise DataRefused(f"{path} has class id {int(strange[0])}, the recipe has {classes} labels")
    return mask


def _images_below(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


_LISTINGS: dict[Task, Callable[[Path, Sequence[str]], list[Picture]]] = {
    Task.CLASSIFY: _classify_pictures,
    Task.DETECT: _detect_pictures,
    Task.SEGMENT: _segment_pictures,
}
