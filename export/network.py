"""Defines what a source passes on: a network in one form per task, independent of the library it comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.models.contract.specs import Normalisation, PreprocessSpec, Task, TaskSpec

if TYPE_CHECKING:
    from torch import nn

    from saccade.export.sources.specs import SourceSpec

LibraryTransform = Callable[[Image.Image], NDArray[np.float32]]
"""The library's own preprocessing of one RGB image: normalised (3, h, w), as its training code would feed it."""

RawForm = Literal[
    "logits",
    "probabilities",
    "dense_logits",
    "boxes",
    "candidates",
    "prototype_masks",
    "box_masks",
    "vectors",
    "pixels",
]
"""What `Network.module` returns, besides extra named outputs:

- logits: (n, classes), for classify
- probabilities: (n, classes) in 0..1, for classify: answered as they are; they need not sum to 1
- dense_logits: (n, classes, h, w) at any stride, for segment; the largest value wins
- boxes: boxes (n, anchors, 4) x1 y1 x2 y2 in model pixels and scores (n, anchors, classes) in 0..1, for detect
- candidates: boxes (n, k, 4), scores (n, k), class_ids (n, k) int64; one class per row, for detect
- prototype_masks: candidates, then coefficients (n, k, c) and prototypes (n, c, h, w), for segment-instances
- box_masks: candidates, then probabilities (n, k, h, w) over each box, for segment-instances
- vectors: (n, dim) of any length, for embed: answered with the length 1
- pixels: (n, 3, h, w) colours, or (n, 1, h, w) or (n, h, w) grey values or depths, for image
"""


@dataclass(frozen=True, slots=True)
class Suppression:
    """Non-maximum suppression that the answer still needs; absent for networks that are NMS-free."""

    iou_threshold: float
    score_threshold: float  # rows below it are no candidates
    per_class: bool = True  # False: boxes of other classes are suppressed too


@dataclass(frozen=True, slots=True)
class Network:
    """A loaded network. `module` is in eval mode, float32, and takes normalised NCHW (n, 3, height, width)."""

    module: nn.Module
    form: RawForm
    suppression: Suppression | None = None
    # Outputs of `module` after those of `form`, by name: logits or features, when the recipe asks for them.
    extra_outputs: tuple[str, ...] = ()
    # True: bars of a letterbox are zero *after* normalisation.
    zero_bars: bool = False
    # True: as `zero_bars`, and `module` takes (images, mask (n, h, w) bool); the mask is False on bars.
    takes_padding_mask: bool = False
    # Outputs of `module` after the extra ones: tensors before sorting and decoding. Where there are any, they mark the
    # network's end for proofs and quantisation, because sorted rows swap places at the smallest rounding.
    dense_outputs: int = 0
    # Set: `module` takes exactly one image, for this reason.
    not_batchable_reason: str = ""


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What a library says about a network without building it; where it is None, the recipe must say it."""

    task: TaskSpec | None = None
    labels: tuple[str, ...] | None = None  # class_id is the index
    preprocess: PreprocessSpec | None = None
    normalisation: Normalisation | None = None
    # fit: crop: the share of the shortest edge that the cut keeps, for a recipe that changes width and height only.
    crop_share: float | None = None
    quantized: str = ""  # what shows that the weights are int8 already, so that no float network exists; empty: float
    # Its graph ends in class numbers, which may count from 1: then the label of 0 stands for no class.
    has_class_ids: bool = False
    fit_note: str = ""  # a sentence for people, where running the network decided that pictures are resized
    value_range: tuple[float, float] | None = None  # task image: what the file or the recipe makes of black and white
    is_embedder: bool = False  # it has vectors and no classes
    # How many numbers its vectors have for pictures of (width, height), where a recipe says task: embed; it may build
    # the network, and raises SourceError. None: the recipe must say `dim`.
    embedding_dim: Callable[[int, int], int] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class NetworkRequest:
    """The network to build, with the facts that the recipe settled."""

    source: SourceSpec
    weights: Path | None  # a file or directory; None: random weights
    task: TaskSpec
    classes: int
    preprocess: PreprocessSpec
    normalisation: Normalisation
    extra_outputs: tuple[str, ...] = ()


FORMS_BY_TASK: dict[Task, tuple[RawForm, ...]] = {
    Task.CLASSIFY: ("logits", "probabilities"),
    Task.DETECT: ("boxes", "candidates"),
    Task.SEGMENT: ("dense_logits",),
    Task.INSTANCES: ("prototype_masks", "box_masks"),
    Task.EMBED: ("vectors",),
    Task.IMAGE: ("pixels",),
}
