"""Lists pictures that nobody labelled: `gate: {mode: parity}` compares answers with the float network's only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from saccade.export.data.coco_boxes import COCO_FILES
from saccade.export.data.findings import Findings
from saccade.export.data.found_files import folders_in, pictures_below
from saccade.export.data.label_names import plain_name
from saccade.export.data.label_tables import LABEL_TABLE
from saccade.export.data.pictures import Picture, UnlabelledTruth
from saccade.models.contract.specs import Task


def lacks_labels(
    task: Task, parts: Mapping[str, Path], labels: Sequence[str], in_order: bool, *, multi_label: bool
) -> bool:
    """Tells whether a part lacks what its layout keeps labels in; data with a data.yaml is not asked about."""
    known = {plain_name(label) for label in labels}
    return any(_lacks_labels(task, root, known, in_order, multi_label=multi_label) for root in parts.values())


def _lacks_labels(task: Task, root: Path, known: set[str], in_order: bool, *, multi_label: bool) -> bool:
    match task:
        case Task.CLASSIFY if multi_label or _has(root, LABEL_TABLE):
            return not _has(root, LABEL_TABLE)
        case Task.CLASSIFY:
            names = {plain_name(folder.name) for folder in folders_in(root, Findings())}
            return not (names if in_order else names & known)
        case Task.DETECT | Task.INSTANCES:
            return not _has(root, *COCO_FILES)
        case Task.SEGMENT:
            return not _has(root, "masks")


def unlabelled_pictures(
    task: Task, parts: Mapping[str, Path], findings: Findings, *, multi_label: bool
) -> dict[str, list[Picture]]:
    """Lists every picture of each part, and notes that figures about its truth mean nothing.

    Where some parts are labelled, their labels are not used.
    """
    where = " and ".join(str(root) for root in parts.values())
    findings.note(
        "unlabelled",
        f"{where}: not all pictures have labels, so none are used, and figures that need them mean nothing",
    )
    truth = UnlabelledTruth(task, multi_label)
    return {part: [Picture(path, truth) for path in pictures_below(root, findings)] for part, root in parts.items()}


def _has(root: Path, *names: str) -> bool:
    return any((root / name).exists() for name in names)
