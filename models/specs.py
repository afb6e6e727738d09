"""Nouns that export and service share: tasks, tensors, preprocessing. Promises: frozen, validated, free of torch."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
VariantName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,30}$")]


class Frozen(BaseModel):
    """Base of everything written to or read from a manifest: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Task(StrEnum):
    CLASSIFY = "classify"
    DETECT = "detect"
    SEGMENT = "segment"


class TensorSpec(Frozen):
    """One input or output of a deploy graph; `shape` is per image, without the leading batch dimension."""

    name: str
    dtype: Literal["uint8", "float32", "int32"]
    shape: tuple[Annotated[int, Field(gt=0)], ...]  # () for one number per image


class PreprocessSpec(Frozen):
    """How a decoded RGB image becomes the network's uint8 input; the same rule in training, evaluation and serving.

    The image is first resized, then placed on a canvas of width x height:
    - stretch: resized to exactly width x height;
    - letterbox: resized by one factor so that it fits into width x height, with bars of `pad_value`;
    - crop: resized so that its shorter side is `shortest_edge` (or to exactly `resize_to`), then the centre is cut out;
      what lies outside the resized image is `pad_value`.
    """

    width: int = Field(gt=0, le=8192)
    height: int = Field(gt=0, le=8192)
    fit: Literal["stretch", "letterbox", "crop"]
    shortest_edge: int | None = Field(default=None, gt=0, le=8192)  # letterbox: the shorter side never grows beyond it
    longest_edge: int | None = Field(default=None, gt=0, le=8192)  # letterbox: the longer side never grows beyond it
    resize_to: tuple[int, int] | None = None  # crop: (width, height) before the cut, whatever the image's shape
    rounding: Literal["round", "floor"] = "round"  # of the side that follows from the other one
    anchor: Literal["center", "top_left"] = "center"  # letterbox: where the image lies
    resample: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"] = "bilinear"
    antialias: bool = True  # the support of the filter grows with the downscale factor, as in Pillow
    pad_value: int = Field(default=114, ge=0, le=255)  # grey of the bars, all three channels
    channel_order: Literal["rgb", "bgr"] = "rgb"

    @model_validator(mode="after")
    def _fields_fit_together(self) -> PreprocessSpec:
        if self.fit == "crop" and (self.shortest_edge is None) == (self.resize_to is None):
            raise ValueError("fit: crop needs exactly one of shortest_edge and resize_to")
        if self.fit != "crop" and self.resize_to is not None:
            raise ValueError("resize_to belongs to fit: crop")
        if self.fit == "stretch" and (self.shortest_edge or self.longest_edge):
            raise ValueError("fit: stretch resizes to width x height; shortest_edge and longest_edge do not apply")
        return self


class Normalisation(Frozen):
    """What the network expects: (pixel / 255 - mean) / std, per channel in the order that `preprocess` gives them."""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


class TaskSpec(Frozen):
    """What the deploy graph answers and how requests may narrow it."""

    task: Task
    top_k: int = Field(default=0, ge=0)  # classify: classes the graph returns per image
    max_detections: int = Field(default=0, ge=0)  # detect: K rows of the fixed-size answer
    score_threshold: float = Field(default=0.25, ge=0.0, le=1.0)  # detect: what a request gets when it does not say
    background_id: int | None = None  # segment: the class that is never reported as a segment

    @model_validator(mode="after")
    def _sizes_match_task(self) -> TaskSpec:
        if self.task is Task.CLASSIFY and self.top_k == 0:
            raise ValueError("a classifier needs top_k ≥ 1")
        if self.task is Task.DETECT and self.max_detections == 0:
            raise ValueError("a detector needs max_detections ≥ 1")
        return self


def input_tensor(preprocess: PreprocessSpec) -> TensorSpec:
    """Deploy graphs take uint8 images, channels last."""
    return TensorSpec(name="images", dtype="uint8", shape=(preprocess.height, preprocess.width, 3))


def output_tensors(task: TaskSpec, preprocess: PreprocessSpec) -> tuple[TensorSpec, ...]:
    """The fixed answer of each task. Boxes are x1 y1 x2 y2 in model pixels; rows past `counts` are padding."""
    match task.task:
        case Task.CLASSIFY:
            return (
                TensorSpec(name="scores", dtype="float32", shape=(task.top_k,)),
                TensorSpec(name="class_ids", dtype="int32", shape=(task.top_k,)),
            )
        case Task.DETECT:
            rows = task.max_detections
            return (
                TensorSpec(name="boxes", dtype="float32", shape=(rows, 4)),
                TensorSpec(name="scores", dtype="float32", shape=(rows,)),
                TensorSpec(name="class_ids", dtype="int32", shape=(rows,)),
                TensorSpec(name="counts", dtype="int32", shape=()),
            )
        case Task.SEGMENT:
            return (TensorSpec(name="mask", dtype="uint8", shape=(preprocess.height, preprocess.width)),)
