"""Says which outputs a task can read."""

from __future__ import annotations

from saccade.export.errors import SourceError
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
