"""Reads an embedder's labels from its pictures' folders, because its network knows none."""

from __future__ import annotations

from pathlib import Path

from saccade.export.data.findings import Findings
from saccade.export.data.found_files import folders_in
from saccade.export.data.split_sources import SPLIT_NAMES
from saccade.export.errors import DataRefused

UNLABELLED = ("unlabelled",)  # of pictures in no folder, whose figures mean nothing
_DIGITS = tuple("0123456789")


def labels_of_folders(data: object, beside: Path) -> tuple[str, ...] | None:
    """Sorted names of the folders of pictures; data: as a recipe gives it. None: it cannot be looked at."""
    path = data.get("path") if isinstance(data, dict) else data
    if isinstance(data, dict) and data.get("dataset") == "digit_scenes":
        return _DIGITS
    if not isinstance(path, str) or not (root := beside / path).is_dir():
        return None
    folders = folders_in(root, Findings())
    splits = [folder for folder in folders if folder.name.lower() in SPLIT_NAMES]
    # A label may have a split's name too, as in `split_folder_names`; then its folder holds no other.
    inside = sorted({label.name for split in splits for label in _folders(split)})
    return tuple(inside or [folder.name for folder in folders if folder not in splits]) or UNLABELLED


def _folders(split: Path) -> list[Path]:
    try:
        return folders_in(split, Findings())
    except OSError as error:
        raise DataRefused(f"cannot read {split}: {error.strerror}") from error
