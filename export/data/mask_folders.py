"""Lists segmentation data: every `images/NAME.jpg` needs a `masks/NAME.png`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from saccade.export.data.findings import Findings
from saccade.export.data.found_files import folders_in, pictures_below
from saccade.export.data.label_names import ensure_labels_differ
from saccade.export.data.pictures import MaskTruth, Picture
from saccade.export.data.split_sources import SPLIT_NAMES
from saccade.export.errors import DataRefused


def mask_pictures(parts: Mapping[str, Path], labels: Sequence[str], findings: Findings) -> dict[str, list[Picture]]:
    """Lists each part's pictures; mask values are indices of the labels. Raises DataRefused for another layout."""
    ensure_labels_differ(labels)
    return {part: _pictures_in(root, len(labels), findings) for part, root in parts.items()}


def _pictures_in(root: Path, classes: int, findings: Findings) -> list[Picture]:
    images, masks = root / "images", root / "masks"
    for folder in (images, masks):
        if not folder.is_dir():
            raise DataRefused(
                f"{folder} is not there: segmentation data is {root}/images/NAME.jpg, {root}/masks/NAME.png"
            )
    splits = [folder for folder in folders_in(images, findings) if folder.name.lower() in SPLIT_NAMES]
    if splits:
        name = splits[0].name
        raise DataRefused(
            f"{splits[0]} is a split inside of images: move it to {root / name / 'images'}, and its masks likewise"
        )
    mask_by_name = _masks_by_name(masks, findings)
    pictures: list[Picture] = []
    owners: dict[str, Path] = {}  # pictures by the file that is their mask, whatever links lead to it
    for path in pictures_below(images, findings):
        mask = mask_by_name.get(_name(path, images))
        if mask is None:
            findings.complain("no mask", f"{path} has no mask: save it as {masks / _name(path, images)}.png")
            continue
        owner = owners.setdefault(os.path.realpath(mask), path)
        if owner != path:
            text = f"{owner} and {path} share the mask {mask}: give each its own, or remove one of them"
            findings.complain("shared mask", text)
        pictures.append(Picture(path, MaskTruth(mask, classes)))
    for name in sorted(mask_by_name.keys() - {_name(picture.path, images) for picture in pictures}):
        findings.skip("a mask without a picture", mask_by_name[name])
    return pictures


def _masks_by_name(root: Path, findings: Findings) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in pictures_below(root, findings):
        if path.suffix.lower() != ".png":
            findings.skip("no PNG among masks", path)
            continue
        first = found.setdefault(_name(path, root), path)
        if first != path:
            findings.complain("two masks", f"{first} and {path} are masks of one name: remove one of them")
    return found


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).with_suffix("").as_posix()
