"""Says which outputs a task can read."""

from __future__ import annotations

from saccade.export.errors import SourceError
from saccade.export.sources.onnx_box_values import holds_positions, is_class_first
from saccade.export.sources.onnx_signs import FileSigns, OutputSign
from saccade.models.contract.specs import Task

_WANTED = {
    Task.CLASSIFY: "one output of scores, float (batch, classes)",
    Task.SEGMENT: "scores, float (batch, classes, h, w) or (batch, 1, h, w), or class ids (batch, h, w)",
    Task.DETECT: "boxes, in one of the layouts of outputs.layout: yolov5, yolov8, yolox, end2end, detr or boxes",
    Task.INSTANCES: "rows of boxes with mask coefficients, and prototypes (batch, coefficients, h, w)",
}


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
