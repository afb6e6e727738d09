"""Typed answers. Values are frozen; masks are read when they are first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from saccade.service.client.drawing import drawn_classes, drawn_heat, drawn_objects, drawn_segments
from saccade.service.client.errors import UnexpectedAnswer
from saccade.service.client.explanations import heat_from
from saccade.service.client.masks import MaskSource
from saccade.service.client.pictures import Picture, opened
from saccade.service.client.produced import pixels_from
from saccade.service.client.vectors import vector_from

if TYPE_CHECKING:
    from PIL import Image

    from saccade.service.client.explanations import HeatMap
    from saccade.service.client.masks import BoolArray
    from saccade.service.client.produced import PixelArray
    from saccade.service.client.vectors import FloatArray

Box: TypeAlias = tuple[float, float, float, float]  # x1 y1 x2 y2, source pixels


@dataclass(frozen=True, slots=True)
class Served:
    """Who answered, and where the time went."""

    model: str
    version: str
    variant: str
    request_id: str
    timings_ms: Mapping[str, float]
    ladder_level: int | None  # which of a ladder's variants; 0 answers best, None without a ladder


@dataclass(frozen=True, slots=True)
class PictureQuality:
    score: float  # 0 to 1, 1: as good as the network's own pictures
    reasons: tuple[str, ...]  # empty for a picture that is good enough


@dataclass(frozen=True, slots=True)
class Trust:
    """How unlike the pictures of the version's export a picture is."""

    score: float
    threshold: float
    familiar: bool  # whether the score is at most the threshold


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What every task's answer has; `document` is the prediction's own JSON."""

    width: int  # of the picture that was sent, upright
    height: int
    warning: str  # why parts of a damaged picture may be lost; empty for a sound one
    served: Served
    document: Mapping[str, Any] = field(repr=False, compare=False)
    quality: PictureQuality | None = None  # where it was asked for, or the server always says it

    @property
    def trust(self) -> Trust | None:
        """None where the request had no `trust`."""
        found = self.document.get("trust")
        return None if found is None else Trust(found["score"], found["threshold"], found["familiar"])

    @cached_property
    def explanation(self) -> HeatMap | None:
        """Where the network looked: (height, width) uint8, 255 where most; None where the request had no `explain`.

        Raises UnexpectedAnswer.
        """
        found = self.document.get("explanation")
        return None if found is None else heat_from(found, self.width, self.height)

    def _picture(self, image: Picture) -> Image.Image:
        """The picture to draw into, with its explanation in it where there is one."""
        found = opened(image, (self.width, self.height))
        return found if self.explanation is None else drawn_heat(found, self.explanation)


@dataclass(frozen=True, slots=True)
class ScoredClass:
    label: str
    class_id: int
    score: float


@dataclass(frozen=True, kw_only=True)
class Classification(Prediction):
    classes: tuple[ScoredClass, ...]  # best first

    def draw(self, image: Picture) -> Image.Image:
        """The picture with its best labels. Raises OSError or ValueError."""
        return drawn_classes(self._picture(image), self.classes)


@dataclass(frozen=True)
class DetectedObject:
    label: str
    class_id: int
    score: float
    box: Box
    area: int | None  # pixels of the mask; None where the network gives boxes alone
    _mask: MaskSource = field(repr=False, compare=False)

    @property
    def has_mask(self) -> bool:
        return self._mask.is_there

    @cached_property
    def mask(self) -> BoolArray:
        """(height, width). Raises ValueError where the answer has none."""
        return self._mask.read()


@dataclass(frozen=True, kw_only=True)
class Detections(Prediction):
    """Boxes, with a mask each where the model's task is segment-instances."""

    detections: tuple[DetectedObject, ...]  # best first

    def draw(self, image: Picture) -> Image.Image:
        """The picture with boxes, and masks where there are some. Raises OSError or ValueError."""
        masked = [item for item in self.detections if item.has_mask]
        return drawn_objects(drawn_segments(self._picture(image), masked), self.detections)


@dataclass(frozen=True)
class Segment:
    label: str
    class_id: int
    area: int  # pixels
    _mask: MaskSource = field(repr=False, compare=False)

    @cached_property
    def mask(self) -> BoolArray:
        """(height, width). Raises ValueError where the answer was asked to have none."""
        return self._mask.read()


@dataclass(frozen=True, kw_only=True)
class Segmentation(Prediction):
    segments: tuple[Segment, ...]  # without the background

    def draw(self, image: Picture) -> Image.Image:
        """The picture with its segments in colours. Raises OSError or ValueError."""
        return drawn_segments(self._picture(image), self.segments)


@dataclass(frozen=True, kw_only=True)
class Embedding(Prediction):
    """A vector of length 1: the product of two is their cosine."""

    vector: FloatArray = field(compare=False)  # (dim,) float32 or float16, as the request asked

    def draw(self, image: Picture) -> Image.Image:
        """The picture with the explanation. Raises ValueError without one: a vector has no place in the picture."""
        if self.explanation is None:
            raise ValueError("a vector has no place in the picture")
        return self._picture(image)


@dataclass(frozen=True, kw_only=True)
class ProducedPicture(Prediction):
    """What a network makes of the picture: another one, or the depth of each of its pixels."""

    # (h, w, 3) or (h, w) uint8; depths (h, w) float32, in the network's own unit
    pixels: PixelArray = field(compare=False)
    is_depth: bool

    @property
    def image(self) -> Image.Image:
        """The picture itself; depths as greys, from the smallest (black) to the largest (white)."""
        import numpy as np
        from PIL import Image

        if not self.is_depth:
            return Image.fromarray(self.pixels)
        least, span = float(self.pixels.min()), float(np.ptp(self.pixels))
        return Image.fromarray(((self.pixels - least) * (255.0 / (span or 1.0))).round().astype(np.uint8))

    def draw(self, image: Picture) -> Image.Image:
        """`self.image`: of the picture that was sent nothing is left to draw on."""
        return self.image


AnyPrediction: TypeAlias = Classification | Detections | Segmentation | Embedding | ProducedPicture


@dataclass(frozen=True, slots=True)
class Version:
    version: str
    state: str  # building, loading, warming, ready, failed, unloading or quarantined
    reason: str  # why it is not ready; empty when it is
    variant: str
    device: str


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model as /v1/models has it; `document` is all of its JSON."""

    name: str
    task: str | None
    labels: Mapping[str, str]  # traffic labels and the versions they name
    class_labels: tuple[str, ...]
    default_version: str | None
    versions: tuple[Version, ...]  # newest first
    document: Mapping[str, Any] = field(repr=False, compare=False)


def prediction_from(document: Mapping[str, Any], served: Served) -> AnyPrediction:
    """Raises KeyError or UnexpectedAnswer."""
    width, height = document["width"], document["height"]
    shared: dict[str, Any] = {
        "width": width,
        "height": height,
        "warning": document.get("warning", ""),
        "served": served,
        "document": document,
        "quality": _quality(document.get("quality")),
    }
    if "classes" in document:
        classes = tuple(ScoredClass(item["label"], item["class_id"], item["score"]) for item in document["classes"])
        return Classification(classes=classes, **shared)
    if "segments" in document:
        segments = tuple(
            Segment(item["label"], item["class_id"], item["area"], _segment_mask(document, item))
            for item in document["segments"]
        )
        return Segmentation(segments=segments, **shared)
    if "embedding" in document:
        return Embedding(vector=vector_from(document["embedding"]), **shared)
    for kind in ("image", "depth"):
        if kind in document:
            return ProducedPicture(pixels=pixels_from(document[kind]), is_depth=kind == "depth", **shared)
    if "detections" not in document:
        raise UnexpectedAnswer(f"this client does not know answers with {', '.join(document)}; is it older?")
    objects = tuple(
        DetectedObject(
            item["label"],
            item["class_id"],
            item["score"],
            _box(item),
            item.get("area"),
            MaskSource(item, width, height),
        )
        for item in document["detections"]
    )
    return Detections(detections=objects, **shared)


def _quality(document: Mapping[str, Any] | None) -> PictureQuality | None:
    return None if document is None else PictureQuality(document["score"], tuple(document["reasons"]))


def model_from(document: Mapping[str, Any]) -> Model:
    """Raises KeyError."""
    versions = tuple(
        Version(item["version"], item["state"], item["reason"], item["variant"], item["device"])
        for item in document["versions"]
    )
    return Model(
        name=document["name"],
        task=document["task"],
        labels=document["labels"],
        class_labels=tuple(document["class_labels"]),
        default_version=document["default_version"],
        versions=versions,
        document=document,
    )


def _box(item: Mapping[str, Any]) -> Box:
    x1, y1, x2, y2 = item["box"]
    return x1, y1, x2, y2


def _segment_mask(prediction: Mapping[str, Any], item: Mapping[str, Any]) -> MaskSource:
    width, height = prediction["width"], prediction["height"]
    if "mask_png" in prediction:  # one picture of class ids for all segments
        return MaskSource({"mask_png": prediction["mask_png"]}, width, height, item["class_id"])
    return MaskSource(item, width, height)
