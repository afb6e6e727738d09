"""Says which outputs a task can read, and how a table of rows tells that it is a detector's."""

from __future__ import annotations

from saccade.export.errors import SourceError
from saccade.export.sources.onnx_box_values import holds_positions, is_class_first, is_end2end
from saccade.export.sources.onnx_signs import FileSigns, Origin, OutputSign
from saccade.models.contract.specs import Task

_WANTED = {
    Task.CLASSIFY: "one output of scores, float (batch, classes)",
    Task.SEGMENT: "scores, float (batch, classes, h, w) or (batch, 1, h, w), or class ids (batch, h, w)",
    Task.DETECT: "boxes, in one of the layouts of outputs.layout: yolov5, yolov8, yolox, end2end, detr or boxes",
    Task.INSTANCES: "rows of boxes with mask coefficients, and prototypes (batch, coefficients, h, w)",
}

YOLOX_STRIDES = (8, 16, 32)
ANCHORS_PER_CELL = 3  # of YOLOv3 to v7
_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32))  # plain, -p6, -p2, -tiny
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
        case Task.CLASSIFY:
            return len(shape) == 1 or (len(shape) == 3 and shape[1:] == (1, 1))
        case Task.SEGMENT:
            return len(shape) in (2, 3)
        case Task.DETECT | Task.INSTANCES:
            return len(shape) == 2


def ensure_rows_are_known(signs: FileSigns, output: OutputSign) -> None:
    """Raises SourceError for rows that look like a layout by their shape, and hold other numbers than it has."""
    if output.values is None or output.values.ndim != 3:
        return
    rows = output.values if output.values.shape[1] >= output.values.shape[2] else output.values.transpose(0, 2, 1)
    if is_class_first(rows):
        raise SourceError(
            f"{signs.file}: {output} holds rows of class, score and corners, as PaddleDetection writes them, which is "
            "no layout that is served; export the network without its own suppression, or with the corners first"
        )
    if holds_positions(rows[..., 4:]):
        raise SourceError(
            f"{signs.file}: behind the boxes of {output} are scores in 0..1 beside numbers as large as pixels, as "
            "networks for keypoints give them: keypoints are not served. Write outputs.layout if they are classes"
        )


def grid_counts(size: tuple[int, int] | None) -> list[int]:
    """The cells of the grids that YOLO networks have over pictures of (width, height)."""
    return [] if size is None else [grid_anchors(size, strides) for strides in _STRIDES]


def origin_of_rows(signs: FileSigns, output: OutputSign, coefficients: int = 0) -> tuple[Origin, str]:
    """How one tensor (rows, numbers) of known shape tells a detector, and why.

    A shape says so where it has as many rows as YOLO's grids have anchors over such pictures, one or three per cell.
    """
    rows, columns = int(output.shape[0] or 0), int(output.shape[1] or 0)
    if columns == 6 + coefficients and rows <= _END2END_ROWS and is_end2end(output.values):
        return "found", "six numbers per row: ordered corners, a score in 0..1, a whole number"
    anchors, size = max(rows, columns), signs.size
    if any(anchors in (count, ANCHORS_PER_CELL * count) for count in grid_counts(size)):
        return "said", f"by the shape of {output}"
    pictures = "pictures of an unknown size" if size is None else f"pictures of {size[0]}x{size[1]}"
    return "assumed", f"from the shape of {output} alone: {pictures} have another number of anchors in YOLO networks"


def grid_anchors(size: tuple[int, int], strides: tuple[int, ...]) -> int:
    """Returns the number of cells of all levels, for (width, height)."""
    width, height = size
    return sum((width // stride) * (height // stride) for stride in strides)
