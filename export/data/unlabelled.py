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
    """Tells whether no part has what its layout keeps labels in; data with a data.yaml is not asked about."""
    match task:
        case Task.CLASSIFY if multi_label or _have(parts, LABEL_TABLE):
            return not _have(parts, LABEL_TABLE)
        case Task.CLASSIFY:
            names = {plain_name(folder.name) for root in parts.values() for folder in folders_in(root, Findings())}
            return not (names if in_order else names & {plain_name(label) for label in labels})
        case Task.DETECT | Task.INSTANCES:
            return not _have(parts, *COCO_FILES)
        case Task.SEGMENT:
            return not _have(parts, "masks")


def unlabelled_pictures(
    task: Task, parts: Mapping[str, Path], findings: Findings, *, multi_label: bool
) -> dict[str, list[Picture]]:
    """Lists every picture of each part, and notes that figures about its truth mean nothing."""
    where = " and ".join(str(root) for root in parts.values())
    findings.note("unlabelled", f"{where}: no picture has a label, so every figure that needs the truth means nothing")
    truth = UnlabelledTruth(task, multi_label)
    return {part: [Picture(path, truth) for path in pictures_below(root, findings)] for part, root in parts.items()}


def _have(parts: Mapping[str, Path], *names: str) -> bool:
    return any((root / name).exists() for root in parts.values() for name in names)
