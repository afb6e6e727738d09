"""Loads a user's own pictures in the usual layouts, as labelled images in disjoint splits.

Below `path` lies either one folder per split (`test`, `tuning` or `val`, `train`, `calibration`; not all are needed),
or one set of pictures, which is divided by the digest of each file. A set has one of these layouts:

- classify, embed: a folder per label (`data/class_folders.py`); classify with several labels per picture: Roboflow's
  `_classes.csv` (`data/label_tables.py`)
- detect: COCO's `annotations.json`, Roboflow's `_annotations.coco.json` (`data/coco_boxes.py`), or a `data.yaml` with
  YOLO's label files (`data/yolo_boxes.py`)
- segment-instances: the same, with COCO's `segmentation` of each object, or a polygon in each of YOLO's lines
- segment: `images/NAME.jpg` and `masks/NAME.png` with one byte per pixel: the class id, or 255 where unlabelled
- image: `input/NAME.png` beside `target/NAME.png`, or clean pictures alone (`data/picture_pairs.py`)
- any pictures, where no label is needed (`data/unlabelled.py`)
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from saccade.export.data.class_folders import class_pictures
from saccade.export.data.coco_boxes import coco_pictures
from saccade.export.data.findings import Findings
from saccade.export.data.found_files import folders_in
from saccade.export.data.image_split import Split
from saccade.export.data.label_tables import LABEL_TABLE, label_pictures
from saccade.export.data.labelled_images import Sample
from saccade.export.data.mask_folders import mask_pictures
from saccade.export.data.picture_pairs import pair_pictures
from saccade.export.data.pictures import ClassTruth, LabelsTruth, Picture
from saccade.export.data.split_sources import (
    UNDIVIDED,
    SplitSource,
    completed_sources,
    split_folder_names,
)
from saccade.export.data.unlabelled import parts_without_labels, unlabelled_pictures
from saccade.export.data.yolo_boxes import read_yolo_file, yolo_path, yolo_pictures
from saccade.export.errors import DataRefused
from saccade.export.recipe import FolderData
from saccade.models.contract.specs import Task, TaskSpec
from saccade.service.errors import SaccadeError
from saccade.service.vision.image_decoder import USUAL_LIMITS, ImageLimits, decode_image

_DEFAULT_IMAGES: dict[Split, int] = {
    "calibration": 256,
    "tuning": 500,
    "test": 2000,
    "train": 4000,
}  # these limits keep a run to a few minutes per variant


@dataclass(frozen=True, slots=True)
class Listing:
    """Every picture of a folder before it is read, in a repeatable order that does not follow the labels."""

    sources: Mapping[Split, SplitSource]
    pictures: Mapping[str, tuple[Picture, ...]]  # pictures by the folder of their source


def split_sources(task: Task, labels: Sequence[str], root: Path, findings: Findings) -> dict[Split, SplitSource]:
    """Returns where each split's pictures come from. Raises DataRefused when nothing is left to measure on."""
    yolo = yolo_path(root) if task.has_boxes else None
    if yolo is not None:
        return completed_sources(split_folder_names(list(read_yolo_file(yolo).places), (), str(yolo)), str(yolo))
    if not root.is_dir():
        raise DataRefused(f"data.path: {root} is no folder")
    folders = [folder.name for folder in folders_in(root, findings)]
    given = split_folder_names(folders, labels, str(root))
    for name in folders if given else ():
        if name not in given.values():
            findings.skip("beside the splits", root / name)
    return completed_sources(given, str(root)) if given else dict(UNDIVIDED)


def list_pictures(
    task: Task,
    labels: Sequence[str],
    data: FolderData,
    root: Path,
    findings: Findings,
    *,
    multi_label: bool = False,
    needs_labels: bool = True,
    spec: TaskSpec | None = None,
) -> Listing:
    """Lists all pictures. Raises DataRefused for data that cannot be used; smaller faults are added to `findings`.

    needs_labels: false where pictures without any labels will do. spec: of task image, whose targets depend on it.
    """
    sources = split_sources(task, labels, root, findings)
    parts = {source.folder: root / source.folder for source in sources.values()}
    has_masks = task is Task.INSTANCES
    in_order, max_bad = data.order == "sorted", data.limits.max_bad_boxes
    yolo = yolo_path(root) if task.has_boxes else None
    if not needs_labels and yolo is None:
        lacking = parts_without_labels(task, parts, labels, in_order, multi_label=multi_label)
        if lacking:
            found = unlabelled_pictures(task, parts, lacking, findings, multi_label=multi_label)
            return Listing(sources, _shuffled(found, root))
    match task:
        case Task.CLASSIFY if multi_label:
            pictures = label_pictures(parts, labels, in_order, findings)
        case Task.CLASSIFY | Task.EMBED if any((part / LABEL_TABLE).exists() for part in parts.values()):
            raise DataRefused(
                f"data.path: {root} has a {LABEL_TABLE}, so its pictures may show several labels: "
                + (
                    "write `task: {multi_label: true}`"
                    if task is Task.CLASSIFY
                    else "an embedder needs a folder per label"
                )
            )
        case Task.CLASSIFY | Task.EMBED:
            pictures = class_pictures(parts, labels, in_order, findings)
        case Task.DETECT | Task.INSTANCES if yolo is not None:
            pictures = yolo_pictures(read_yolo_file(yolo), labels, in_order, max_bad, findings, has_masks=has_masks)
        case Task.DETECT | Task.INSTANCES:
            pictures = coco_pictures(parts, labels, in_order, max_bad, findings, has_masks=has_masks)
        case Task.SEGMENT:
            pictures = mask_pictures(parts, labels, findings)
        case Task.IMAGE:
            assert spec is not None
            pairs = pair_pictures(parts, spec, data.noise, findings)
            pictures = {part: [Picture(*each) for each in found] for part, found in pairs.items()}
    return Listing(sources, _shuffled(pictures, root))


def folder_samples(
    task: Task,
    labels: Sequence[str],
    data: FolderData,
    root: Path,
    name: Split,
    *,
    limits: ImageLimits = USUAL_LIMITS,
    multi_label: bool = False,
    needs_labels: bool = True,
    spec: TaskSpec | None = None,
) -> tuple[list[Sample], int]:
    """Returns the split's samples and how many more the folder holds. Raises DataRefused naming what does not fit."""
    findings = Findings()
    listing = list_pictures(
        task, labels, data, root, findings, multi_label=multi_label, needs_labels=needs_labels, spec=spec
    )
    findings.ensure_no_complaints()
    if name not in listing.sources:
        raise DataRefused(f"data.path: {root} has no split {name!r}: add a folder of that name")
    source = listing.sources[name]
    listed = listing.pictures[source.folder]
    chosen: list[Sample] = []
    limit = image_limit(data, name)
    for number, picture in enumerate(listed):
        if len(chosen) == limit:
            return chosen, len(listed) - number
        encoded = picture.path.read_bytes()
        if source.holds(encoded):
            chosen.append(_sample(picture, encoded, limits))
    if not chosen:
        raise DataRefused(
            f"data.path: {root} holds no {task.value} pictures for split {name!r}: export/README.md shows the layout"
        )
    return chosen, 0


def image_limit(data: FolderData, name: Split) -> int:
    """Returns how many images of a split a run uses at most."""
    return data.max_images.get(name, _DEFAULT_IMAGES[name])


def _sample(picture: Picture, encoded: bytes, limits: ImageLimits) -> Sample:
    if isinstance(picture.truth, ClassTruth | LabelsTruth):
        return picture.sample(encoded, (0, 0))  # the size matters to boxes and masks only
    try:
        height, width, _ = decode_image(encoded, limits).shape
    except SaccadeError as error:
        raise DataRefused(f"{picture.path} would be refused when served: {error}") from error
    return picture.sample(encoded, (width, height), limits)


def _shuffled(pictures: Mapping[str, Sequence[Picture]], root: Path) -> dict[str, tuple[Picture, ...]]:
    """Shuffles the pictures repeatably, so that a limit does not cut off the last labels."""

    def key(picture: Picture) -> bytes:
        return hashlib.sha256(os.fsencode(Path(os.path.relpath(picture.path, root)).as_posix())).digest()

    return {folder: tuple(sorted(found, key=key)) for folder, found in pictures.items()}
