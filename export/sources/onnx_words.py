"""Defines recipe words for what an ONNX file cannot say; each is optional, and a wrong one is refused by name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from saccade.models.contract.specs import Frozen

Layout = Literal["yolov5", "yolov8", "yolov8-seg", "yolox", "end2end", "detr", "boxes"]
ScoreKind = Literal["logits", "probabilities", "sigmoid"]
InputLayout = Literal["nchw", "nhwc"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class SuppressionWords(Frozen):
    """Non-maximum suppression behind the decoded boxes. The values are those that Ultralytics predicts with."""

    iou: Fraction = 0.7
    per_class: bool = True


class OutputWords(Frozen):
    """`outputs`: which tensors of the file are the answer, and what their numbers mean.

    Layouts of detectors, with the batch left out:
    - yolov5: (anchors, 4 + 1 + classes), the fifth number is objectness unless `objectness: false`
    - yolov8: (4 + classes, anchors); yolov8-seg: (4 + classes + mask coefficients, anchors)
    - yolox: (anchors, 4 + 1 + classes) whose boxes count from their grid cell, sizes as logarithms
    - end2end: (rows, 6): x1 y1 x2 y2 score class, suppressed already; mask coefficients may follow
    - detr: logits (queries, classes or classes + 1) and boxes (queries, 4)
    - boxes: boxes (rows, 4) with scores (rows, classes); or with scores (rows,) and class ids (rows,), to which the
      number of detections (1,) may belong, beyond which rows hold nothing; or boxes and score in one (rows, 5) with
      class ids (rows,)

    Layouts with one tensor of rows take mask prototypes (coefficients, h, w) as a second one: task segment-instances.
    """

    names: tuple[str, ...] | None = Field(default=None, min_length=1)  # outputs to read, in the layout's order
    layout: Layout | None = None
    boxes: Literal["xyxy", "cxcywh"] | None = None
    units: Literal["pixels", "relative"] | None = None  # of the network's input, or 0..1 of it
    # probabilities: taken as they are. logits: softmax follows. sigmoid: raw numbers, each becomes its own probability.
    scores: ScoreKind | None = None
    objectness: bool | None = None
    suppression: SuppressionWords | Literal["none"] | None = None
    # segment, one channel: the foreground's probability lies above it. classify: every label above it is answered.
    threshold: Fraction | None = None


class FileWords(Frozen):
    """Words of `source: onnx`; in a recipe they may also stand at the top."""

    kind: Literal["onnx"] = "onnx"
    outputs: OutputWords = OutputWords()
    input_layout: InputLayout | None = None
    channels: Literal[1, 3] | None = None  # 1: the picture is turned grey first, as Pillow's mode L does
    value_range: tuple[float, float] | None = None  # what black and white become, such as [0, 255] or [-1, 1]

    @field_validator("value_range")
    @classmethod
    def _range_ascends(cls, given: tuple[float, float] | None) -> tuple[float, float] | None:
        if given is not None and not given[0] < given[1]:
            raise ValueError(f"must ascend, got {list(given)}; write what black becomes, then white")
        return given


TOP_WORDS = tuple(name for name in FileWords.model_fields if name != "kind")
