"""Step `data`, the first of every run: refuses bad data before conversion and reads unchanged files only once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from saccade.export.artifact import Detail
from saccade.export.data.check import check_data, ensure_good
from saccade.export.data.data_notes import size_notes
from saccade.export.data.data_report import DataReport
from saccade.export.data.familiar_pictures import why_no_trust
from saccade.export.data.slices import slice_table
from saccade.export.data.yolo_boxes import read_yolo_file, yolo_path
from saccade.export.errors import DataRefused
from saccade.export.qualification.corrupted_pictures import missing_library
from saccade.export.recipe import FolderData, LoadedRecipe
from saccade.export.steps import StepContext
from saccade.models.contract.specs import Task

DATA_JSON = "data.json"


def run_data(context: StepContext) -> Detail:
    """Checks the data. Raises DataRefused with every complaint, or with what must be installed before all others."""
    if missing := missing_library(context.loaded):
        raise DataRefused(missing)
    report = check_data(context.loaded, lambda read, total: context.note(f"{read:,} of {total:,} pictures"))
    ensure_good(report, str(context.loaded.given))
    (context.out / DATA_JSON).write_text(report.model_dump_json(indent=1))
    images: dict[str, str | float | int] = {split.name: split.images for split in report.splits}
    told = {"no_trust": why_no_trust(context.loaded, report.splits), "reason": next(size_notes(context.loaded), "")}
    return {**images, "notes": len(report.notes), **{key: text for key, text in told.items() if text}}


def read_data_report(path: Path) -> DataReport:
    return DataReport.model_validate_json(path.read_bytes())


def files_digest(loaded: LoadedRecipe) -> str:
    """Hashes names, sizes and times of all files, so that a changed file is read again. Raises DataRefused."""
    data = loaded.recipe.data
    if not isinstance(data, FolderData):
        return ""
    digest = hashlib.sha256()
    table = slice_table(loaded, data.slices)
    if table is not None and table.is_file():
        digest.update(table.read_bytes())
    for root in _roots(loaded.beside(data.path), loaded.recipe.task.task):
        for place, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                path = Path(place, name)
                facts = path.stat() if path.exists() else path.lstat()
                digest.update(f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _roots(root: Path, task: Task) -> list[Path]:
    """Returns the data folder and the folders that its data.yaml names outside of it."""
    yolo = yolo_path(root) if task.has_boxes else None
    if yolo is None:
        return [root]
    named = [place for places in read_yolo_file(yolo).places.values() for place in places]
    return [yolo.parent, *sorted({place for place in named if not place.is_relative_to(yolo.parent)})]
