"""One network in one exported form beside its library. Promises: plain frozen values and a pure verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson
from pydantic import TypeAdapter

from saccade.export.qualification.picture_answers import SAME_SCORE, PictureDifference, agreement_share
from saccade.models.contract.specs import Frozen
from tests.matrix.rows import replace_file
from tests.matrix.ultralytics.networks import ENTRIES, FORMS, Form

RESULTS_NAME = "ultralytics.json"
LEAST_SHARE = 0.99
_ORDER = {(entry.id, form): place for place, (entry, form) in enumerate((e, f) for e in ENTRIES for f in FORMS)}


class Worst(Frozen):
    """A picture whose answers differ."""

    name: str
    theirs: int
    same: int
    surplus: int


class Row(Frozen):
    """What was found. Counts are of boxes, of objects with masks, or of pictures where the task is to classify."""

    id: str
    form: Form
    key: str
    library: str
    task: str
    side: int  # of the exported input, pixels
    photographs: int = 0
    scenes: int = 0
    theirs: int = 0
    same: int = 0
    surplus: int = 0
    share: float | None = None
    worst_iou: float | None = None
    worst_score: float | None = None  # largest difference of a matched score
    worst_mask_iou: float | None = None
    worst: tuple[Worst, ...] = ()
    published: str = ""  # the variant whose file was compared; empty: the deploy graph before `run` judges it
    served: str = ""  # what a server's answers were beside that file
    seconds: float = 0.0
    failure: str = ""

    @property
    def agrees(self) -> bool:
        """As asked: 99 % of the library's answers, nothing beyond the threshold's edge, first classes all equal."""
        if self.failure or self.share is None or self.worst_score is None or not self.theirs:
            return False
        if self.task == "classify":
            return self.same == self.theirs and self.worst_score <= SAME_SCORE
        return self.same >= LEAST_SHARE * self.theirs and self.surplus == 0


_ROWS: TypeAdapter[list[Row]] = TypeAdapter(list[Row])


def counted(found: Sequence[PictureDifference]) -> dict[str, object]:
    """Figures of a row from those of its pictures; at least one."""
    differing = [each for each in found if each.same < each.theirs or each.surplus]
    masks = [each.worst_mask_iou for each in found if each.worst_mask_iou is not None]
    return {
        "theirs": sum(each.theirs for each in found),
        "same": sum(each.same for each in found),
        "surplus": sum(each.surplus for each in found),
        "share": agreement_share(list(found)),
        "worst_iou": min(each.worst_iou for each in found),
        "worst_score": max(each.worst_score for each in found),
        "worst_mask_iou": min(masks, default=None),
        "worst": tuple(
            Worst(name=each.name, theirs=each.theirs, same=each.same, surplus=each.surplus) for each in differing
        ),
    }


def read_rows(folder: Path) -> dict[tuple[str, str], Row]:
    """By network and form; empty where there is no file yet."""
    path = folder / RESULTS_NAME
    return {(row.id, row.form): row for row in _ROWS.validate_json(path.read_bytes())} if path.exists() else {}


def write_rows(folder: Path, rows: Sequence[Row]) -> list[Row]:
    """Replaces the file as a whole, rows in the order of the networks; those of no network any more are left out."""
    listed = sorted((row for row in rows if (row.id, row.form) in _ORDER), key=lambda row: _ORDER[row.id, row.form])
    document = [row.model_dump(mode="json") for row in listed]
    replace_file(folder / RESULTS_NAME, orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return listed
