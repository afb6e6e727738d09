"""Types that export and service share: tasks, tensors, preprocessing. They are frozen, validated and free of torch."""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ModelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Side = Annotated[int, Field(gt=0, le=8192)]  # pixels
VariantName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,30}$")]


class Frozen(BaseModel):
    """Base of everything written to or read from a manifest: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Task(StrEnum):
    CLASSIFY = "classify"
    DETECT = "detect"
    SEGMENT = "segment"
    INSTANCES = "segment-instances"  # a detector whose boxes come with a mask each
    EMBED = "embed"  # a vector of length 1 per picture, for search by likeness
    IMAGE = "image"  # a picture per picture: denoised, enlarged, restyled, or the depth of each pixel

    @property
    def has_boxes(self) -> bool:
        """Whether the answer begins with boxes, scores, class_ids and counts."""
        return self in (Task.DETECT, Task.INSTANCES)


class TensorSpec(Frozen):
    """One input or output of a deploy graph; `shape` is per image, without the leading batch dimension."""

    name: str
    dtype: Literal["uint8", "float32", "int32"]
    shape: tuple[Annotated[int, Field(gt=0)], ...]  # () for one number per image


# opencv: INTER_LINEAR of OpenCV on bytes, which has no antialiasing and rounds on its own.
Resample = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming", "opencv"]


class PreprocessSpec(Frozen):
    """How a decoded RGB image becomes the network's uint8 input; the same rule in training, evaluation and serving.

    The image is resized, then placed on a canvas of width x height. `fit` says to which size:
    - stretch: exactly width x height;
    - letterbox: by one factor, the largest that fits into width x height and, where they are given, keeps the shorter
      side within `shortest_edge` and the longer one within `longest_edge`; the rest of the canvas is `pad_value`;
    - crop: the shorter side becomes `shortest_edge`, or the image becomes exactly `resize_to`, or it is resized by one
      factor until it covers `cover`; then the centre is cut out. Outside of a smaller image is `pad_value`;
    - tile: task image alone. Nothing is resized: the server cuts the image into tiles of width x height that overlap,
      while training and evaluation take the centre. Outside of a smaller image it is mirrored.

    `rounding` says how sides become whole numbers:
    - round: each side is round(side x factor), as timm's ResizeKeepRatio does;
    - floor: the shorter side is exact and the longer one is cut down, int(edge x long / short): torchvision's and
      transformers' shortest edge. With `longest_edge`: transformers' rule for detectors (DETR and its like);
    - floor_each: each side is int(side x factor): torchvision's detectors, transformers' max_height and max_width.
    """

    width: int = Field(gt=0, le=8192)
    height: int = Field(gt=0, le=8192)
    fit: Literal["stretch", "letterbox", "crop", "tile"]
    shortest_edge: int | None = Field(default=None, gt=0, le=8192)
    longest_edge: int | None = Field(default=None, gt=0, le=8192)  # letterbox only
    resize_to: tuple[Side, Side] | None = None  # crop: (width, height) before the cut, whatever the image's shape
    cover: tuple[Side, Side] | None = None  # crop: (width, height) that the resized image covers
    rounding: Literal["round", "floor", "floor_each"] = "round"
    multiple_of: int = Field(default=1, gt=0, le=256)  # letterbox: sides are then cut down to multiples (YOLOS: 16)
    # tile: how many pixels inwards what lies beyond a tile changes its answer; None: not measured yet
    margin: int | None = Field(default=None, ge=0, le=4096)
    anchor: Literal["center", "top_left"] = "center"  # letterbox: where the image lies
    crop_offset: Literal["round", "floor"] = "round"  # of half the overhang: torchvision, timm | transformers
    resample: Resample = "bilinear"
    # True: the filter's support grows with the downscale factor, as in Pillow; nearest takes the pixel at the centre.
    # False: torch's interpolate without antialiasing; nearest takes the pixel at the corner. Not for other filters.
    antialias: bool = True
    pad_value: int = Field(default=114, ge=0, le=255)  # grey of the bars, all three channels
    channel_order: Literal["rgb", "bgr"] = "rgb"
    # turned: upright by its EXIF orientation, as Pillow's exif_transpose. as stored: EXIF is ignored, as by a pipeline
    # that never turned its pictures; answers are then in pixels of the stored picture.
    exif: Literal["turned", "as stored"] = "turned"

    @model_validator(mode="after")
    def _fields_fit_together(self) -> PreprocessSpec:
        cuts = {"shortest_edge": self.shortest_edge, "resize_to": self.resize_to, "cover": self.cover}
        given = [name for name, value in cuts.items() if value is not None]
        if self.fit == "crop" and len(given) != 1:
            raise ValueError(f"fit: crop needs exactly one of {', '.join(cuts)}")
        if self.fit != "crop" and (self.resize_to or self.cover):
            raise ValueError("resize_to and cover belong to fit: crop")
        if self.fit in ("stretch", "tile") and self.shortest_edge:
            raise ValueError(f"fit: {self.fit} ends at width x height; shortest_edge does not apply")
        if self.margin is not None and (self.fit != "tile" or 4 * self.margin > min(self.width, self.height)):
            raise ValueError("margin belongs to fit: tile, and is at most a quarter of its width and height")
        if self.fit != "letterbox" and (self.longest_edge or self.multiple_of > 1 or self.anchor != "center"):
            raise ValueError("longest_edge, multiple_of and anchor belong to fit: letterbox")
        if self.fit == "letterbox" and self.rounding == "floor" and self.shortest_edge is None:
            raise ValueError("rounding: floor starts from shortest_edge; for a letterbox without it say floor_each")
        if self.cover and self.rounding != "round":
            raise ValueError("cover rounds each side; say rounding: round")
        if self.resample == "opencv" and self.antialias:
            raise ValueError("resample: opencv does not antialias; say antialias: false")
        if not self.antialias and self.resample not in ("nearest", "bilinear", "bicubic", "opencv"):
            raise ValueError(f"antialias: false exists for nearest, bilinear and bicubic, not for {self.resample}")
        return self


class Normalisation(Frozen):
    """What the network expects: (pixel / 255 - mean) / std, per channel in the order that `preprocess` gives them."""

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


class MaskSpec(Frozen):
    """How the graph gives a mask per detection, which `instance_masks.py` brings to source pixels.

    - prototypes: coefficients (K, channels) times prototypes (channels, height, width) over the whole input; the mask
      is what lies above zero, cut at the box. Ultralytics' -seg networks.
    - queries: the same without the cut: the boxes come from the masks. Mask2Former and its like.
    - boxes: probabilities (K, height, width), square, over each box. Mask R-CNN.
    """

    form: Literal["prototypes", "queries", "boxes"]
    height: Side
    width: Side
    channels: int = Field(default=1, gt=0, le=4096)


MASK_CLASSES = 256  # a pixel's class is one byte
# rgb: three channels from 0 (black) to 1. grey: one such channel. depth: one number of any size.
PictureKind = Literal["rgb", "grey", "depth"]


class TaskSpec(Frozen):
    """What the deploy graph answers and how requests may narrow it."""

    task: Task
    top_k: int = Field(default=0, ge=0)  # classify: classes the graph returns per image
    max_detections: int = Field(default=0, ge=0)  # detections: K rows of the fixed-size answer
    # detections, and classify with multi_label: what a request gets when it does not say
    score_threshold: float = Field(default=0.25, ge=0.0, le=1.0)
    multi_label: bool = False  # classify: a picture shows any number of labels; the graph returns all, best first
    # classify: logits are divided by it before the softmax, so that scores are the shares of right answers
    temperature: float = Field(default=1.0, ge=0.05, le=20.0)
    background_id: int | None = None  # segment: the class that is never reported as a segment
    masks: MaskSpec | None = None  # segment-instances
    dim: int = Field(default=0, ge=0, le=65_536)  # embed: how many numbers a vector has
    picture: PictureKind | None = None  # image
    scale: int = Field(default=1, ge=1, le=8)  # image: pixels of the answer per pixel of the picture, on each side
    values: tuple[float, float] = (0.0, 1.0)  # image: what black and white are in the network's own output

    @model_validator(mode="after")
    def _sizes_match_task(self) -> TaskSpec:
        if self.task is Task.CLASSIFY and self.top_k == 0:
            raise ValueError("a classifier needs top_k ≥ 1")
        if self.task.has_boxes and self.max_detections == 0:
            raise ValueError("a detector needs max_detections ≥ 1")
        if self.multi_label and self.task is not Task.CLASSIFY:
            raise ValueError(f"multi_label belongs to task: classify, and this one is {self.task}")
        if self.temperature != 1.0 and (self.task is not Task.CLASSIFY or self.multi_label):
            raise ValueError(
                f"temperature scales scores that add up to 1, of task: classify; this one is {self.task}"
                f"{' with multi_label' if self.multi_label else ''}: leave it out"
            )
        if (self.task is Task.INSTANCES) != (self.masks is not None):
            raise ValueError("masks belong to task: segment-instances, which needs them")
        if self.task is Task.EMBED and self.dim == 0:
            raise ValueError(
                "an embedder needs dim ≥ 1, how many numbers its vectors have, as in {task: embed, dim: 384}"
            )
        if self.task is not Task.EMBED and self.dim:
            raise ValueError(f"dim belongs to task: embed, and this one is {self.task}")
        if self.task is Task.IMAGE and self.picture is None:
            raise ValueError("task: image needs picture: rgb, grey or depth, as in {task: image, picture: rgb}")
        if self.task is not Task.IMAGE and (self.picture or self.scale > 1 or self.values != (0.0, 1.0)):
            raise ValueError(f"picture, scale and values belong to task: image, and this one is {self.task}")
        if not self.values[0] < self.values[1]:
            raise ValueError("values must ascend: what black is, then white, as in [0, 255]")
        if self.picture == "depth" and (self.scale > 1 or self.values != (0.0, 1.0)):
            raise ValueError("scale and values belong to colours: a depth is answered as the network gives it")
        return self

    def ensure_shown_whole(self, preprocess: PreprocessSpec) -> None:
        """Raises ValueError where `preprocess` is not for this task: tiles for labels, or a cut for pictures."""
        if self.task is Task.IMAGE and preprocess.fit == "crop":
            raise ValueError("fit: crop cuts parts of a picture away, which its answer must show: write fit: stretch")
        if self.task is not Task.IMAGE and preprocess.fit == "tile":
            raise ValueError(f"fit: tile belongs to task: image, and this one is {self.task}")

    def ensure_fits(self, labels: int) -> None:
        """Raises ValueError when so many labels cannot be answered as the task says."""
        if self.top_k > labels:
            raise ValueError(f"top_k {self.top_k} exceeds the {labels} labels")
        if self.multi_label and self.top_k != labels:
            raise ValueError("task.multi_label answers every label above score_threshold: leave top_k out")
        if self.task is Task.SEGMENT and labels > MASK_CLASSES:
            raise ValueError(f"labels are {labels}, and a mask tells at most {MASK_CLASSES} classes apart")


def input_tensor(preprocess: PreprocessSpec) -> TensorSpec:
    """The input of every deploy graph: uint8 images, channels last."""
    return TensorSpec(name="images", dtype="uint8", shape=(preprocess.height, preprocess.width, 3))


@lru_cache(maxsize=256)  # every request asks, and building the specs takes longer than hashing what they follow from
def output_tensors(task: TaskSpec, preprocess: PreprocessSpec) -> tuple[TensorSpec, ...]:
    """The fixed answer of each task. Boxes are x1 y1 x2 y2 in model pixels; rows past `counts` are padding."""
    match task.task:
        case Task.CLASSIFY:
            return (
                TensorSpec(name="scores", dtype="float32", shape=(task.top_k,)),
                TensorSpec(name="class_ids", dtype="int32", shape=(task.top_k,)),
            )
        case Task.DETECT | Task.INSTANCES:
            rows = task.max_detections
            return (
                TensorSpec(name="boxes", dtype="float32", shape=(rows, 4)),
                TensorSpec(name="scores", dtype="float32", shape=(rows,)),
                TensorSpec(name="class_ids", dtype="int32", shape=(rows,)),
                TensorSpec(name="counts", dtype="int32", shape=()),
                *_mask_tensors(task.masks, rows),
            )
        case Task.SEGMENT:
            return (TensorSpec(name="mask", dtype="uint8", shape=(preprocess.height, preprocess.width)),)
        case Task.EMBED:
            return (TensorSpec(name="embedding", dtype="float32", shape=(task.dim,)),)
        case Task.IMAGE:
            size = (preprocess.height * task.scale, preprocess.width * task.scale)
            name = "depth" if task.picture == "depth" else "image"
            return (TensorSpec(name=name, dtype="float32", shape=(*size, 3) if task.picture == "rgb" else size),)


def _mask_tensors(masks: MaskSpec | None, rows: int) -> tuple[TensorSpec, ...]:
    if masks is None:
        return ()
    cells = (masks.height, masks.width)
    if masks.form == "boxes":
        return (TensorSpec(name="masks", dtype="float32", shape=(rows, *cells)),)
    return (
        TensorSpec(name="coefficients", dtype="float32", shape=(rows, masks.channels)),
        TensorSpec(name="prototypes", dtype="float32", shape=(masks.channels, *cells)),
    )
