"""Lists classification data with one folder per label, matched by name or, when the recipe asks for it, by order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from saccade.export.data.findings import Findings
from saccade.export.data.found_files import folders_in, is_junk, pictures_below
from saccade.export.data.label_names import ids_by_name, ids_in_order
from saccade.export.data.pictures import ClassTruth, Picture
from saccade.export.errors import DataRefused


def class_pictures(
    parts: Mapping[str, Path], labels: Sequence[str], in_order: bool, findings: Findings
) -> dict[str, list[Picture]]:
    """Lists the pictures of each part. Raises DataRefused when the folders do not match the labels."""
    folders = {name: folders_in(root, findings) for name, root in parts.items()}
    names = sorted({folder.name for found in folders.values() for folder in found})
    where = " and ".join(str(root) for root in parts.values())
    if not names:
        raise DataRefused(f"{where} has no folders: put the pictures of each label into a folder of its name")
    match = ids_in_order if in_order else ids_by_name
    ids = match(names, labels, where)
    for root in parts.values():
        for path in sorted(root.iterdir()):
            if path.is_file() and not is_junk(path.name):
                findings.skip("in no label's folder", path)
    return {
        part: [
            Picture(path, ClassTruth(ids[folder.name])) for folder in found for path in pictures_below(folder, findings)
        ]
        for part, found in folders.items()
    }
