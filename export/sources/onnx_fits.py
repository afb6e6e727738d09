"""Says which outputs a task can read, and how a table of rows tells that it is a detector's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.export.errors import SourceError
from saccade.export.sources.onnx_box_values import (
    are_whole,
    ends_in_angle,
    follow_boxes,
    has_logarithmic_sizes,
    holds_positions,
    is_class_first,
    is_end2end,
    order_of_axes,
    sum_to_one,
)
from saccade.export.sources.onnx_signs import FileSigns, Origin, OutputSign
from saccade.models.contract.specs import PreprocessSpec, Task

_WANTED = {
    Task.CLASSIFY: "one output of scores, float (batch, classes)",
    Task.SEGMENT: "scores, float (batch, classes, h, w) or (batch, 1, h, w), or class ids (batch, h, w)",
    Task.DETECT: "boxes, in one of the layouts of outputs.layout: yolov5, yolov8, yolox, end2end, detr or boxes",
    Task.INSTANCES: "rows of boxes with mask coefficients, and prototypes (batch, coefficients, h, w)",
    Task.IMAGE: "one picture or depth, float (batch, 3, h, w), (batch, 1, h, w) or (batch, h, w)",
    Task.EMBED: "one output of vectors, float (batch, dim); name it in outputs.names where there are several",
}

YOLOX_STRIDES = (8, 16, 32)
# As Ultralytics and YOLOv5 to v10 make pictures.
LETTERBOX: Mapping[str, Any] = {"fit": "letterbox", "resample": "opencv", "antialias": False}
# As YOLOX's own programs make pictures, since its release 0.1.1.
YOLOX_PIXELS = PreprocessSpec(
    width=1,
    height=1,
    fit="letterbox",
    rounding="floor_each",
    anchor="top_left",
    resample="opencv",
    antialias=False,
    channel_order="bgr",
)
ASK = "write outputs.layout, and in `outputs` what its numbers mean"
ANCHORS_PER_CELL = 3  # of YOLOv3 to v7
_STRIDES = (
    (8, 16, 32),
    (8, 16, 32, 64),  # -p6
    (4, 8, 16, 32),  # -p2
    (16, 32),  # -tiny
    (8, 16),
    (8, 16, 32, 64, 128),
)
_OFFSETS = 5.0  # cells; centres that are counted from their cells stay within it
_LARGEST_SHARE = 1.5  # of the picture; sizes beyond it are no shares
_FOLLOWING = 0.5  # correlation of centres with the cells that they belong to
_NEARER = 0.8  # of one distance that another may have and be the smaller
_END2END_ROWS = 1000


def ensure_outputs_fit(signs: FileSigns, outputs: tuple[OutputSign, ...], task: Task, labels: int | None) -> None:
    """Raises SourceError where no output can be the task's."""
    if any(_fits(task, output.shape) for output in outputs):
        return
    given = "; ".join(str(output.tensor) for output in signs.outputs)
    count = "" if labels is None else f" with {labels} labels"
    raise SourceError(f"{signs.file} gives {given}. task: {task}{count} needs {_WANTED[task]}")


def _fits(task: Task, shape: tuple[int | None, ...]) -> bool:
    match task:
        case Task.CLASSIFY | Task.EMBED:
            return len(shape) == 1 or (len(shape) == 3 and shape[1:] == (1, 1))
        case Task.SEGMENT | Task.IMAGE:
            return len(shape) in (2, 3)
        case Task.DETECT | Task.INSTANCES:
            return len(shape) == 2


def ensure_rows_are_pictures(signs: FileSigns, output: OutputSign) -> None:
    """Raises SourceError for an output that does not begin with the batch, as declared or as it ran."""
    if 0 in (output.shape[-1:] if len(output.shape) < 3 else output.shape):
        raise SourceError(f"{signs.file}: output {output} holds no numbers, so there is no class to answer")
    declared = output.tensor.shape[0] if output.tensor.shape else None
    found, pictures = None if output.values is None else len(output.values), len(signs.pictures)
    if declared in (None, 1) and found in (None, pictures):
        return
    said = f"{found} rows for {pictures} pictures" if declared in (None, 1) else f"{declared} rows"
    raise SourceError(
        f"{signs.file}: output {output.tensor} has {said}, whatever the pictures are; a network whose outputs begin "
        "with the batch is served, such as (batch, classes)"
    )


def ensure_rows_are_known(signs: FileSigns, output: OutputSign, coefficients: int = 0) -> None:
    """Raises SourceError for rows that look like a layout by their shape, and hold other numbers than it has.

    coefficients: of masks, at the end of each row.
    """
    if output.values is None or output.values.ndim != 3:
        return
    rows = output.values if output.values.shape[1] >= output.values.shape[2] else output.values.transpose(0, 2, 1)
    if is_class_first(rows):
        raise SourceError(
            f"{signs.file}: {output} holds rows of class, score and corners, as PaddleDetection writes them, which is "
            "no layout that is served; export the network without its own suppression, or with the corners first"
        )
    rows = rows[..., : rows.shape[2] - coefficients]
    if rows.shape[2] == 6 and is_end2end(rows):
        return
    if holds_positions(rows[..., 4:]) or follow_boxes(rows):
        raise SourceError(
            f"{signs.file}: behind the boxes of {output} are scores in 0..1 beside numbers that are places, as "
            "networks for keypoints give them: keypoints are not served. Write outputs.layout if they are classes"
        )
    ensure_one_kind_of_scores(signs, output, rows[..., 4:])


def ensure_yolox_grid(signs: FileSigns, output: OutputSign) -> None:
    """Raises SourceError for rows that are not one per cell."""
    if signs.size is None or output.shape[0] != grid_anchors(signs.size, YOLOX_STRIDES):
        raise SourceError(
            f"{signs.file}: layout yolox needs one row per cell of strides 8, 16 and 32, found {output} for pictures "
            f"of {signs.size}; {ASK}"
        )


def ensure_same_rows(signs: FileSigns, outputs: Sequence[OutputSign]) -> None:
    """Raises SourceError where boxes, scores and class ids are of different numbers of rows."""
    if len({output.shape[0] for output in outputs} - {None}) > 1:
        listed = "; ".join(str(output) for output in outputs)
        raise SourceError(f"{signs.file} contradicts itself: {listed} have different numbers of rows; {ASK}")


def ensure_ids_are_labels(signs: FileSigns, ids: OutputSign, labels: int | None) -> None:
    """Raises SourceError for a class id that no label has; -1 marks a row of no box."""
    if ids.values is None or not ids.values.size:
        return
    if not are_whole(ids.values):
        raise SourceError(
            f"{signs.file}: {ids} would be class numbers and holds others, from {ids.values.min():.3g} to "
            f"{ids.values.max():.3g}; export scores as (batch, classes, h, w), of a foreground as (batch, 1, h, w)"
        )
    least, most = int(ids.values.min()), int(ids.values.max())
    if least < -1 or (labels is not None and most >= labels):
        wrong = least if least < -1 else most
        raise SourceError(f"{signs.file}: {ids} answers class {wrong}, and labels are {labels or 'counted from 0'}")


def ensure_one_kind_of_scores(signs: FileSigns, output: OutputSign, scores: NDArray[Any]) -> None:
    """Raises SourceError for an angle behind the scores, and for scores that sum to 1.

    scores: (pictures, rows, columns), all that stand behind the boxes.
    """
    if ends_in_angle(scores):
        last = scores[..., -1]
        raise SourceError(
            f"{signs.file}: behind the boxes of {output} are scores in 0..1 and one last number from {last.min():.3g} "
            f"to {last.max():.3g}, as networks for rotated boxes give an angle: rotated boxes are not served. If all "
            "are raw scores, write `outputs: {layout: ..., scores: sigmoid}`"
        )
    if sum_to_one(scores, 2):
        raise SourceError(
            f"{signs.file}: the numbers behind each box of {output} sum to 1, so one of them is the background, which "
            "would be answered as a class or taken for objectness; export the network without that column, or write "
            "`outputs: {layout: ..., objectness: false, scores: probabilities}` if all are classes"
        )


def ensure_no_background(signs: FileSigns, scores: OutputSign, classes: int | None) -> None:
    """Raises SourceError where one of the columns is no class but the background.

    Rows that sum to 1 show it, and raw scores of one column more than there are classes.
    """
    values = scores.values
    if values is None or values.ndim != 3:
        return
    if sum_to_one(values, 2):
        raise SourceError(
            f"{signs.file}: every row of {scores} sums to 1, so one of its columns is the background, as SSD networks "
            "have it, and would be answered as a class; export the network without that column, or write "
            "`outputs: {layout: boxes, scores: probabilities}` if all are classes"
        )
    columns = values.shape[2]
    if values.size and values.min() < 0 and classes == columns - 1:
        raise SourceError(
            f"{signs.file}: {scores} holds raw scores in {columns} columns for {classes} classes, so one of them is "
            "the background under a softmax that is still to come, as in SSD networks; export the network with its "
            "softmax and without that column, or write `outputs: {layout: boxes, scores: sigmoid}` and "
            f"{columns} `labels` if all are classes, or outputs: {{layout: detr, suppression: {{iou: 0.5}}}} if the "
            "background is the last column"
        )


def centres_origin(signs: FileSigns, boxes: NDArray[Any], *, is_relative: bool) -> tuple[Origin, str]:
    """How it is known that places with sizes are centres; boxes: (pictures, rows, 4), not negative sizes.

    Raises SourceError for corners at the upper left with sizes, where the cells of the rows show it.
    """
    assumed = "by the signs of the four numbers, which do not show whether the first two are a centre or a corner"
    size = signs.size
    if size is None or boxes.shape[1] != grid_anchors(size, YOLOX_STRIDES):
        return "assumed", assumed
    cells, strides = yolox_grid(size)
    places = (cells + np.float32(0.5)) * strides / (np.array(size, np.float32) if is_relative else np.float32(1.0))
    far = [
        float(np.abs(boxes[..., :2] + boxes[..., 2:] * shift - places).mean()) for shift in (0.0, 0.5)
    ]  # of centres, and of corners moved by half a size
    if far[1] < _NEARER * far[0] and _follow(boxes[..., :2], places):
        raise SourceError(
            f"{signs.file}: its boxes are x1 y1 and sizes, which is no form that is served; export corners or centres, "
            "or write `outputs: {boxes: cxcywh}` if they are centres"
        )
    if far[0] < _NEARER * far[1] and _follow(boxes[..., :2], places):
        return "found", "by the signs of the four numbers, and by the cells that the centres follow"
    return "assumed", assumed


def _follow(centres: NDArray[Any], places: NDArray[Any]) -> bool:
    """centres: (pictures, rows, 2); places: (rows, 2)."""
    mean = centres.mean(0)
    likeness = [np.corrcoef(mean[:, axis], places[:, axis])[0, 1] for axis in range(2)]
    return bool(min(likeness) >= _FOLLOWING)


def axes_origin(signs: FileSigns, boxes: NDArray[Any], *, is_relative: bool) -> tuple[Origin, str]:
    """How it is known that corners are x1 y1 x2 y2; boxes: (pictures, rows, 4) corners.

    Raises SourceError for y1 x1 y2 x2, as TensorFlow orders them.
    """
    size = signs.size
    places = np.zeros((0, 2), np.float32)
    if size is not None and boxes.shape[1] == grid_anchors(size, YOLOX_STRIDES):
        cells, strides = yolox_grid(size)
        places = cells * strides
    order = order_of_axes(boxes, places, None if is_relative else size)
    if order == "yx":
        raise SourceError(
            f"{signs.file}: its boxes are y1 x1 y2 x2, as TensorFlow orders them, and would be answered mirrored; "
            "export the network with x before y, or write `outputs: {boxes: xyxy}` if they are so"
        )
    if not order:
        return "assumed", "by order and sign of the four numbers, which do not show whether x or y comes first"
    return "found", "by order, sign and reach of the four numbers"


def grid_counts(size: tuple[int, int] | None) -> list[int]:
    """The cells of the grids that YOLO networks have over pictures of (width, height)."""
    return [] if size is None else [grid_anchors(size, strides) for strides in _STRIDES]


def count_from_cells(signs: FileSigns, output: OutputSign) -> bool:
    """Whether rows of cx cy w h are YOLOX's own, which its users decode: offsets from cells, logarithms of sizes."""
    values = output.values
    if has_logarithmic_sizes(values):
        return True
    if values is None or signs.size is None or values.shape[1] != grid_anchors(signs.size, YOLOX_STRIDES):
        return False
    centres, sizes = values[..., :2], values[..., 2:4]
    if np.abs(centres).max() > _OFFSETS or (sizes.min() >= 0 and sizes.max() <= _LARGEST_SHARE):
        return False
    cells, strides = yolox_grid(signs.size)
    places = np.broadcast_to((cells * strides)[None], centres.shape)
    likeness = [np.corrcoef(centres[..., axis].ravel(), places[..., axis].ravel())[0, 1] for axis in range(2)]
    return not min(likeness) >= _FOLLOWING


def origin_of_rows(signs: FileSigns, output: OutputSign, coefficients: int = 0) -> tuple[Origin, str]:
    """How one tensor (rows, numbers) of known shape tells a detector, and why.

    A shape says so where it has as many rows as YOLO's grids have anchors over such pictures, one or three per cell.
    Raises SourceError for other shapes over pictures of a known size, unless mask prototypes tell a detector too.
    """
    rows, columns = int(output.shape[0] or 0), int(output.shape[1] or 0)
    if looks_end2end(output, coefficients):
        return "found", "six numbers per row: ordered corners, a score in 0..1, a whole number"
    anchors, size = max(rows, columns), signs.size
    if any(anchors in (count, ANCHORS_PER_CELL * count) for count in grid_counts(size)):
        return "said", f"by the shape of {output}"
    if size is not None and not coefficients:
        raise SourceError(
            f"{signs.file} is no detector that is known: {output} has no row for each cell, or three for each, of a "
            f"YOLO network over pictures of {size[0]}x{size[1]}; write outputs.layout if its rows are boxes"
        )
    return "assumed", f"from the shape of {output} alone: pictures of another size than is known may fit it"


def looks_end2end(output: OutputSign, coefficients: int = 0) -> bool:
    """Whether rows are as few and as wide as those that were suppressed already, and their values agree."""
    rows, columns = int(output.shape[0] or 0), int(output.shape[1] or 0)
    return columns == 6 + coefficients and rows <= _END2END_ROWS and is_end2end(output.values)


def grid_anchors(size: tuple[int, int], strides: tuple[int, ...]) -> int:
    """Returns the number of cells of all levels, for (width, height)."""
    width, height = size
    return sum((width // stride) * (height // stride) for stride in strides)


def yolox_grid(size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns the cells (anchors, 2) x y and their strides (anchors, 1) in pixels, for (width, height)."""
    width, height = size
    rows = [(x, y, stride) for stride in YOLOX_STRIDES for y in range(height // stride) for x in range(width // stride)]
    table = np.array(rows, np.float32).reshape(-1, 3)
    return table[:, :2].copy(), table[:, 2:].copy()
