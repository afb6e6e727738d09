"""Lists pictures that nobody labelled: `gate: {mode: parity}` compares answers with the float network's only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from saccade.export.data.coco_boxes import COCO_FILES
from saccade.export.data.findings import Findings
from saccade.export.data.found_files import folders_in, pictures_below
from saccade.export.data.label_names import plain_name
from saccade.export.data.label_tables import LABEL_TABLE
from saccade.export.data.pictures import Picture, UnlabelledTruth
from saccade.models.contract.specs import Task


def parts_without_labels(
    task: Task, parts: Mapping[str, Path], labels: Sequence[str], in_order: bool, *, multi_label: bool
) -> tuple[str, ...]:
    """Returns the parts that lack what their layout keeps labels in; data with a data.yaml is not asked about."""
    known = {plain_name(label) for label in labels}
    return tuple(
        part for part, root in parts.items() if _lacks_labels(task, root, known, in_order, multi_label=multi_label)
    )


def _lacks_labels(task: Task, root: Path, known: set[str], in_order: bool, *, multi_label: bool) -> bool:
    match task:
        case Task.CLASSIFY if multi_label or _has(root, LABEL_TABLE):
            return not _has(root, LABEL_TABLE)
        case Task.CLASSIFY | Task.EMBED:
            names = {plain_name(folder.name) for folder in folders_in(root, Findings())}
            return not (names if in_order else names & known)
        case Task.DETECT | Task.INSTANCES:
            return not _has(root, *COCO_FILES)
        case Task.SEGMENT:
            return not _has(root, "masks")
        case Task.IMAGE:
            return not _has(root, "target")


def unlabelled_pictures(
    task: Task, parts: Mapping[str, Path], lacking: Collection[str], findings: Findings, *, multi_label: bool
) -> dict[str, list[Picture]]:
    """Lists every picture of each part, and notes that figures about its truth mean nothing.

    lacking: parts without labels; where others have labels, these are not used.
    """
    where = " and ".join(str(root) for root in parts.values())
    said = "no picture has labels" if len(lacking) == len(parts) else "not all pictures have labels, so none are used"
    findings.note("unlabelled", f"{where}: {said}, and figures that need them mean nothing")
    truth = UnlabelledTruth(task, multi_label)
    return {part: [Picture(path, truth) for path in pictures_below(root, findings)] for part, root in parts.items()}


def _has(root: Path, *names: str) -> bool:
    return any((root / name).exists() for name in names)
