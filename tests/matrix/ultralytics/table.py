"""ULTRALYTICS.md. Promises: a line per network and form, also without a result; what disagrees says so."""

from __future__ import annotations

from collections.abc import Mapping

from tests.matrix.ultralytics.networks import ENTRIES, FORMS, LIBRARY, VERSION, Entry
from tests.matrix.ultralytics.rows import Row

TABLE_NAME = "ULTRALYTICS.md"
_HEADER = (
    *("network", "form", "input", "pictures", "theirs", "ours too", "surplus"),
    *("worst box IoU", "worst score difference", "worst mask IoU", "served", "agrees"),
)
_INTRODUCTION = f"""# The product beside {LIBRARY} {VERSION}

Made by `make matrix-ultralytics`. The library is in an environment of its own; it makes, trains and exports the
networks with its own settings and answers every picture with `predict` of the `.pt`, letterboxed to the exported input
(`rect=False`). On our side are `saccade-export init` and `run` without an edited line, and the published fp32 file
behind the serving decoder and preprocessing. Photographs have no labels, so `init` is called with `--unlabelled` for
them; the trained networks are judged by the labels of drawn scenes.

- **form**: what `export(format="onnx")` wrote, with `dynamic=True` or as it is.
- **pictures**: whole photographs that packages ship, of 256 to 1411 pixels a side, and unseen digit scenes.
- **theirs**, **ours too**: boxes at the library's threshold of 0.25 (at most 300 a picture), and how many of them have
  a twin of the same class with IoU 0.99, a score within 0.01 and, for masks, a mask IoU of 0.98. For `-cls`:
  first classes.
- **surplus**: our boxes that the library lacks, other than within 0.01 of the threshold, or of the last box of a full
  answer.
- **served**: answers over HTTP beside those of the published file, same pictures. Where it says "not run", the deploy
  graph was compared, and `run` and a server were left out (`--graph-only`).
- **agrees**: 99 % of theirs are ours too and nothing is surplus; first classes all equal, scores within 0.01.

Networks that are not trained have seeded weights whose heads are given real spread
(`tests/matrix/ultralytics/spread.py`): tens of boxes in most photographs, 300 in some, none in a few.
"""


def markdown(rows: Mapping[tuple[str, str], Row]) -> str:
    """The whole document."""
    lines = [_line(_HEADER), _line(["---"] * len(_HEADER))]
    notes = []
    for entry in ENTRIES:
        for form in FORMS:
            row = rows.get((entry.id, form))
            lines.append(_line(_cells(entry, form, row)))
            notes += [] if row is None or row.agrees else [_note(row)]
    return "\n".join([_INTRODUCTION, totals(rows), "", *lines, *(["", *notes] if notes else []), ""])


def totals(rows: Mapping[tuple[str, str], Row]) -> str:
    shown = [rows[entry.id, form] for entry in ENTRIES for form in FORMS if (entry.id, form) in rows]
    return f"**{sum(row.agrees for row in shown)}** of {len(ENTRIES) * len(FORMS)} agree; {len(shown)} were run."


def _cells(entry: Entry, form: str, row: Row | None) -> list[str]:
    begin = [f"`{entry.id}`", form, f"{entry.side}×{entry.side}"]
    if row is None or row.share is None:
        return [*begin, *[""] * (len(_HEADER) - 4), "not run yet" if row is None else "**no**"]
    pictures = f"{row.photographs} photographs" + (f", {row.scenes} scenes" if row.scenes else "")
    return [
        *(*begin, pictures, str(row.theirs), f"{row.same} ({row.same / max(row.theirs, 1):.2%})", str(row.surplus)),
        "" if row.task == "classify" else f"{row.worst_iou:.4f}",
        f"{row.worst_score:.4f}",
        "" if row.worst_mask_iou is None else f"{row.worst_mask_iou:.4f}",
        row.served or "not run",
        "yes" if row.agrees else "**no**",
    ]


def _note(row: Row) -> str:
    worst = ", ".join(f"{each.name} {each.same} of {each.theirs} and {each.surplus} surplus" for each in row.worst[:5])
    return f"- `{row.id}`, {row.form}: {' '.join(row.failure.split()) or worst}"


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
