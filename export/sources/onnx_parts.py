"""Tells which outputs of layout `boxes` hold boxes, scores, class ids and the number of detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.export.errors import SourceError
from saccade.export.sources.onnx_box_values import are_whole
from saccade.export.sources.onnx_fits import ASK, ensure_same_rows
from saccade.export.sources.onnx_pairs import boxes_and_scores, kind_of_name, words_of
from saccade.export.sources.onnx_signs import FileSigns, Found, OutputSign
from saccade.export.sources.onnx_words import OutputWords

_COUNTS = frozenset(("num", "nums", "number", "count", "valid"))


@dataclass(frozen=True, slots=True)
class Parts:
    """Values of rows beyond the count are those of the picture's first row, because they may be anything."""

    boxes: OutputSign  # (rows, 4), or (rows, 5) with the score
    scores: OutputSign  # (rows, classes), (rows,) beside class ids, or the boxes again
    ids: OutputSign | None = None  # (rows,)
    count: OutputSign | None = None  # () or (1,): rows from it on hold nothing

    @property
    def names(self) -> tuple[str, ...]:
        """In the order in which layout `boxes` reads them."""
        scores = None if self.scores is self.boxes else self.scores
        return tuple(each.tensor.name for each in (self.boxes, scores, self.ids, self.count) if each is not None)


def parts_of(signs: FileSigns, outputs: Sequence[OutputSign], given: OutputWords, findings: list[Found]) -> Parts:
    """Raises SourceError where the outputs are none of the layout's forms, or contradict each other."""
    count = _count(outputs)
    tables = [each for each in outputs if each is not count]
    ensure_same_rows(signs, tables)
    if count is not None:
        _ensure_counts_rows(signs, count, tables[0])
    seen = [each if count is None else _counted(each, count) for each in tables]
    flat = [each for each in seen if len(each.shape) == 1]
    wide = [each for each in seen if len(each.shape) == 2]
    ids = _ids(flat)
    rest = [each for each in flat if each is not ids]
    width = wide[0].shape[1] if wide else None
    match (len(wide), len(rest), ids is not None, count is not None):
        case (1, 0, True, False) if width == 5:
            return Parts(wide[0], wide[0], ids)
        case (1, 1, True, _) if width == 4:
            return Parts(wide[0], rest[0], ids, count)
        case (2, 0, False, False) if 4 in (wide[0].shape[1], wide[1].shape[1]):
            return Parts(*boxes_and_scores(signs, (wide[0], wide[1]), given, findings))
    raise SourceError(
        f"{signs.file}: layout boxes reads boxes (rows, 4) with scores (rows, classes), or with scores (rows,) and "
        "class ids (rows,), to which a number of detections (1,) may belong, or (rows, 5) with class ids; found "
        f"{'; '.join(str(each) for each in outputs)}. Write outputs.names"
    )


def ensure_not_tensorflow(signs: FileSigns, outputs: Sequence[OutputSign], given: OutputWords) -> None:
    """Raises SourceError for the outputs of TensorFlow's Object Detection API, whatever else is beside them.

    A recipe that says what the boxes are is believed.
    """
    by_name = {" ".join(words_of(each.tensor.name)): each for each in outputs}
    ids = by_name.get("detection classes")
    if ids is None or "detection boxes" not in by_name or "int" in ids.tensor.type or given.boxes is not None:
        return
    raise SourceError(
        f"{signs.file} has the outputs of TensorFlow's Object Detection API: boxes are y1 x1 y2 x2 and classes count "
        "from 1, in float, and both would be answered wrongly. Export it with a last step that gives "
        "num_detections, boxes[..., [1, 0, 3, 2]], scores, and classes - 1 as int32, under the names num_dets, boxes, "
        "scores and classes: that is read without further words"
    )


def _count(outputs: Sequence[OutputSign]) -> OutputSign | None:
    """The number of detections, one per picture, among four outputs."""
    if len(outputs) != 4:
        return None
    single = [each for each in outputs if each.shape in ((), (1,))]
    if len(single) > 1:
        single = [each for each in single if _COUNTS & set(words_of(each.tensor.name))]
    return single[0] if len(single) == 1 else None


def _ensure_counts_rows(signs: FileSigns, count: OutputSign, table: OutputSign) -> None:
    rows, values = table.shape[0], count.values
    if values is None or rows is None or not values.size:
        return
    if not are_whole(values) or values.min() < 0 or values.max() > rows:
        raise SourceError(
            f"{signs.file}: {count} would be the number of detections and reaches from {values.min():.3g} to "
            f"{values.max():.3g}, and there are {rows} rows; {ASK}"
        )


def _counted(output: OutputSign, count: OutputSign) -> OutputSign:
    """The same output without what stands beyond the count; without values, where no picture has a row."""
    if output.values is None or count.values is None:
        return output
    counts = count.values.reshape(-1).astype(np.int64)
    rows = np.arange(output.values.shape[1])
    kept: list[NDArray[Any]] = [
        values[np.where(rows < most, rows, 0)] for values, most in zip(output.values, counts, strict=True) if most
    ]
    return replace(output, values=np.stack(kept) if kept else None)


def _ids(flat: Sequence[OutputSign]) -> OutputSign | None:
    """Class ids: of an integer type; else told by one name; else the one row of whole numbers among several."""
    whole = [each for each in flat if "int" in each.tensor.type]
    if not whole and len(flat) > 1:
        named = [each for each in flat if kind_of_name(each.tensor.name) == "ids"]
        whole = named if len(named) == 1 else [each for each in flat if _counts_classes(each.values)]
    elif not whole:
        whole = [each for each in flat if _counts_classes(each.values)]
    return whole[0] if len(whole) == 1 else None


def _counts_classes(values: NDArray[Any] | None) -> bool:
    return values is not None and are_whole(values) and bool(values.min(initial=0) >= -1)
