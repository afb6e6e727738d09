"""Reads which classes the data shows, for networks whose files name none."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from saccade.export.data.coco_boxes import found_coco
from saccade.export.data.findings import Findings
from saccade.export.data.found_files import is_junk, pictures_below
from saccade.export.data.labelled_images import IGNORED
from saccade.export.data.split_sources import SPLIT_NAMES
from saccade.export.data.yolo_boxes import read_yolo_file, yolo_path
from saccade.export.errors import DataRefused

_MASKS = 200  # that are read


def class_names(data: Path) -> list[str]:
    """Returns names of data.yaml or of COCO's categories by id, else of folders; empty when the data has none."""
    yolo = yolo_path(data)
    if yolo is not None:
        try:
            return list(read_yolo_file(yolo).names)
        except DataRefused:  # `check` says what is wrong
            return []
    root = _part(data)
    found = found_coco((root, data))
    if found is not None:
        used = {row.category_id for row in found.annotations}
        kept = [each for each in found.categories if each.id in used or each.id != 0]  # Roboflow's root has the id 0
        return [each.name for each in sorted(kept, key=lambda each: each.id)]
    return sorted(each.name for each in root.iterdir() if each.is_dir() and not is_junk(each.name))


def mask_classes(data: Path) -> int:
    """Returns how many classes the first masks of the data count, from 0 on; 0 without masks."""
    most = -1
    for path in islice(pictures_below(_part(data) / "masks", Findings()), _MASKS):
        try:
            with Image.open(path) as image:
                values = np.asarray(image) if image.mode in ("L", "P") else np.empty(0, np.uint8)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # `check` says what is wrong
            continue
        most = max(most, int(values[values != IGNORED].max(initial=0)) if values.size else most)
    return most + 1


def _part(data: Path) -> Path:
    """Returns the first split's folder, or the data's own."""
    splits = sorted(each for each in data.iterdir() if each.is_dir() and each.name.lower() in SPLIT_NAMES)
    return splits[0] if splits else data
