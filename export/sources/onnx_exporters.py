"""Reads from an ONNX file which program wrote it and how it wants its pixels: said in metadata, or found in the graph.

A program without a name of its own in the file is told by the names that it gives to inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from onnx import numpy_helper

from saccade.export.errors import SourceError

Range = tuple[float, float]
# ONNX's own list of metadata for images (docs/MetadataProps.md); Azure Custom Vision and Windows ML write it.
_RANGE_KEY, _FORMAT_KEY = "Image.NominalPixelRange", "Image.BitmapPixelFormat"
_RANGES: Mapping[str, Range] = {
    "nominalrange_0_255": (0.0, 255.0),
    "normalized_0_1": (0.0, 1.0),
    "normalized_1_1": (-1.0, 1.0),
    "nominalrange_16_235": (16.0, 235.0),
}
_FORMATS: Mapping[str, tuple[int, Literal["rgb", "bgr"]]] = {
    "gray8": (1, "rgb"),
    "rgb8": (3, "rgb"),
    "bgr8": (3, "bgr"),
}
_CARRIERS = frozenset(("Transpose", "Cast", "Identity"))
_LARGEST_UNIT = 30.0  # numbers of this size are subtracted from pixels of 0 to 255, never from pixels of 0 to 1


@dataclass(frozen=True, slots=True)
class Exporter:
    """A program that writes ONNX files, and the signs by which its files are known."""

    name: str
    producers: tuple[str, ...] = ()  # beginnings of `producer_name`
    input: str = ""
    outputs: frozenset[str] = frozenset()
    metadata: str = ""  # beginning of a key

    def why(self, model: onnx.ModelProto) -> str:
        """Returns by what the file is known as this program's; empty: it is not."""
        if model.producer_name.strip().lower().startswith(self.producers):
            return f"by its producer_name {model.producer_name!r}"
        outputs = {value.name for value in model.graph.output}
        inputs = {value.name for value in model.graph.input}
        if self.outputs and self.outputs <= outputs and self.input in (*inputs, ""):
            return f"by its outputs {', '.join(sorted(self.outputs))}"
        if self.input and not self.outputs and self.input in inputs:
            return f"by its input {self.input}"
        keys = [entry.key for entry in model.metadata_props if self.metadata and entry.key.startswith(self.metadata)]
        return f"by its metadata {keys[0]}" if keys else ""


# The first row that fits is taken. Only the first two programs write their own name into `producer_name`.
_EXPORTERS = (
    Exporter("tf2onnx (TensorFlow, Keras)", producers=("tf2onnx", "keras2onnx")),
    Exporter("Paddle2ONNX (PaddlePaddle)", producers=("paddle",)),
    Exporter("Azure Custom Vision", outputs=frozenset(("detected_boxes", "detected_classes", "detected_scores"))),
    Exporter("Azure Custom Vision", outputs=frozenset(("classLabel", "loss"))),
    Exporter("mmdeploy", input="input", outputs=frozenset(("dets", "labels"))),
    Exporter("optimum (transformers)", input="pixel_values"),
    Exporter("Custom Vision or another program of Windows ML", metadata="Image."),
)


@dataclass(frozen=True, slots=True)
class PixelFacts:
    """How the file wants its pixels; None where it does not say."""

    value_range: Range | None = None
    range_why: str = ""
    is_range_said: bool = False  # by metadata; else it was found in the graph
    channel_order: Literal["rgb", "bgr"] | None = None


def exporter_of(model: onnx.ModelProto) -> tuple[str, bool, str] | None:
    """Returns the program that wrote the file, whether the file says so itself, and the sign; None: nothing tells."""
    found = ((each.name, bool(each.producers), why) for each in _EXPORTERS if (why := each.why(model)))
    return next(found, None)


def pixel_facts(
    file: str, model: onnx.ModelProto, images: str, channels: int, *, is_range_known: bool = False
) -> PixelFacts:
    """Reads metadata, then the first operators; `images` is the input's name.

    is_range_known: the recipe says the range, which wins. Raises SourceError where metadata cannot be read, or
    contradicts the input or the operators.
    """
    metadata = {entry.key: entry.value.strip() for entry in model.metadata_props}
    order = _channel_order(file, metadata, channels)
    if is_range_known:
        return PixelFacts(channel_order=order)
    said = None if _RANGE_KEY not in metadata else _RANGES.get(metadata[_RANGE_KEY].lower())
    if _RANGE_KEY in metadata and said is None:
        raise SourceError(
            f"{file}: its metadata {_RANGE_KEY} is {metadata[_RANGE_KEY]!r}, which is none of {', '.join(_RANGES)}; "
            "write `value_range: [low, high]`"
        )
    found = _scaled_inside(model, images)
    if said is not None and found and said[1] <= 1.0:
        raise SourceError(
            f"{file} contradicts itself: its metadata says pixels of {said[0]:g} to {said[1]:g}, and its graph "
            f"{found}, as for pixels of 0 to 255; write `value_range: [low, high]`"
        )
    if said is not None:
        return PixelFacts(said, f"by the file's metadata {_RANGE_KEY}", is_range_said=True, channel_order=order)
    if found:
        return PixelFacts((0.0, 255.0), f"the graph {found}", channel_order=order)
    return PixelFacts(channel_order=order)


def _channel_order(file: str, metadata: Mapping[str, str], channels: int) -> Literal["rgb", "bgr"] | None:
    if _FORMAT_KEY not in metadata:
        return None
    said = _FORMATS.get(metadata[_FORMAT_KEY].lower())
    if said is None:
        raise SourceError(
            f"{file}: its metadata {_FORMAT_KEY} is {metadata[_FORMAT_KEY]!r}; Gray8, Rgb8 and Bgr8 are served: export "
            "the network for one of these"
        )
    if said[0] != channels:
        raise SourceError(
            f"{file} contradicts itself: its metadata says {metadata[_FORMAT_KEY]}, which has {said[0]} channels, and "
            f"its input has {channels}; export it again"
        )
    return said[1]


def _scaled_inside(model: onnx.ModelProto, images: str) -> str:
    """Returns how the graph scales its pixels first, such as "divides by 255"; empty: it does not."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants |= {node.output[0]: value for node in model.graph.node for value in _constant(node)}
    name = images
    while True:
        readers = [node for node in model.graph.node if name in node.input]
        if len(readers) != 1:
            return ""
        (node,) = readers
        if node.op_type not in _CARRIERS:
            break
        name = node.output[0]
    others = [constants[each] for each in node.input if each != name and each in constants]
    if len(node.input) != 2 or len(others) != 1 or others[0].data_location == onnx.TensorProto.EXTERNAL:
        return ""
    numbers = np.abs(numpy_helper.to_array(others[0]).astype(np.float64))
    low, high = float(numbers.min(initial=np.inf)), float(numbers.max(initial=0.0))
    match node.op_type:
        case "Mul" if low >= 1 / 256 and high <= 1 / _LARGEST_UNIT:
            return f"multiplies by {high:.3g}"
        case "Div" if node.input[0] == name and low >= _LARGEST_UNIT and high <= 256:
            return f"divides by {high:.4g}"
        case "Sub" if node.input[0] == name and low >= _LARGEST_UNIT and high <= 255:
            return f"subtracts {high:.4g}"
    return ""


def _constant(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    if node.op_type == "Constant":
        yield from (attribute.t for attribute in node.attribute if attribute.name == "value")
