"""Collects what an ONNX file shows: metadata, read as text only, and its values for some pictures."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from saccade.export.errors import SourceError
from saccade.export.graph.quantized_graph import QuantizedWeights, quantized_weights
from saccade.export.sources.onnx_exporters import PixelFacts, exporter_of, pixel_facts
from saccade.export.sources.onnx_files import LARGEST_SIDE, OnnxSignature, OnnxTensor, read_model, run, signature_of
from saccade.export.sources.onnx_words import FileWords
from saccade.models.contract.preprocessing import preprocess
from saccade.models.contract.specs import PreprocessSpec, Task

Picture = NDArray[np.uint8]  # (height, width, 3) RGB, any size
_OPEN_SIDE = 256  # pixels, where neither the file nor its metadata fixes the size
_LABELS_KEY = "character"  # a label per line, as RapidOCR's tools write them into files that PaddlePaddle made
_GENERATED = 2  # pictures, where the caller has none
# Operators that move or copy numbers: what stands before them decides what the numbers are.
_CARRIERS = frozenset(("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Transpose", "Dropout"))
_AVERAGES = frozenset(("ReduceMean", "GlobalAveragePool", "Resize", "Upsample"))  # of probabilities: probabilities
_PROBABILITIES = frozenset(("Softmax", "Sigmoid", "HardSigmoid"))

Origin = Literal["said", "found", "assumed"]  # by the file or the recipe, by running it, by nobody
Found = tuple[str, object, Origin, str]  # word, value, origin, why


@dataclass(frozen=True, slots=True)
class UltralyticsFacts:
    """What an export by Ultralytics writes into `metadata_props`; None where the file lacks an entry.

    The export of its YOLOv5 repository writes names and stride only, and no task: those files are detectors of layout
    yolov5, or are not recognised by their metadata.
    """

    task: str
    names: tuple[str, ...] | None
    imgsz: tuple[int, int] | None  # height, width
    stride: int | None
    is_end2end: bool | None  # suppressed inside the file, by the network or by `nms=True`; None: it does not say
    is_yolov5: bool = False
    channels: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class OutputSign:
    """One output: how it is declared, which operator makes it, and its values (pictures, ...); None: it did not run."""

    tensor: OnnxTensor
    made_by: str
    values: NDArray[Any] | None

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Without the batch; measured where it ran."""
        return self.tensor.shape[1:] if self.values is None else self.values.shape[1:]

    def __str__(self) -> str:
        return f"{self.tensor.name!r} ({', '.join('?' if each is None else str(each) for each in ('n', *self.shape))})"


@dataclass(frozen=True, slots=True, eq=False)
class FileSigns:
    """Everything that recognition may look at."""

    file: str
    signature: OnnxSignature
    outputs: tuple[OutputSign, ...]
    ultralytics: UltralyticsFacts | None
    quantized: QuantizedWeights | None  # None: its weights are float
    size: tuple[int, int] | None  # width, height
    probed: tuple[int, int]  # width, height at which it ran; a guess where the size is not known
    pictures: NDArray[np.uint8]  # (count, height, width, 3) RGB that it ran on
    exporter: tuple[str, bool, str] | None = None  # as in `exporter_of`
    pixels: PixelFacts = field(default_factory=PixelFacts)
    labels: tuple[str, ...] | None = None  # of metadata, where no exporter's own rule is known


def signs_of(
    path: Path, words: FileWords, pictures: Sequence[Picture] = (), size: tuple[int, int] | None = None
) -> FileSigns:
    """Runs the file on the pictures, or on generated ones. Raises SourceError.

    size: (width, height) that the recipe says, where the file leaves it open.
    """
    signature = signature_of(path, words.input_layout, words.channels)
    if any(output.type == "tensor(string)" or not output.type.startswith("tensor(") for output in signature.outputs):
        raise SourceError(
            f"{path.name} answers with text or maps ({'; '.join(str(output) for output in signature.outputs)}); export "
            "it without the operators that make these of its scores, such as ZipMap"
        )
    model = read_model(path, with_data=False)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    ultralytics = ultralytics_facts(path.name, metadata)
    pixels = PixelFacts()
    if ultralytics is None:  # else its own rule is known
        is_known = words.value_range is not None
        pixels = pixel_facts(path.name, model, signature.images.name, signature.channels, is_range_known=is_known)
        words = words if is_known else words.model_copy(update={"value_range": pixels.value_range})
    said = None if ultralytics is None or ultralytics.imgsz is None else (ultralytics.imgsz[1], ultralytics.imgsz[0])
    found = signature.size or size or said
    probed = found or _guessed_size(signature)
    given = list(pictures) or _generated(*probed)
    is_letterboxed = ultralytics is not None and ultralytics.task != "classify"
    order = pixels.channel_order or "rgb"
    fit: Literal["letterbox", "stretch"] = "letterbox" if is_letterboxed else "stretch"
    spec = PreprocessSpec(width=probed[0], height=probed[1], fit=fit, channel_order=order)
    seen = np.stack([preprocess(picture, spec) for picture in given])
    values = _values(path, signature, words, seen)
    producers = {name: node for node in model.graph.node for name in node.output}
    ends = {value.name: _made_by(value.name, producers) for value in model.graph.output}
    return FileSigns(
        file=path.name,
        signature=signature,
        outputs=tuple(
            OutputSign(tensor, ends.get(tensor.name, ""), None if values is None else values[index])
            for index, tensor in enumerate(signature.outputs)
        ),
        ultralytics=ultralytics,
        quantized=quantized_weights(model),
        size=found,
        probed=probed,
        pictures=seen,
        exporter=exporter_of(model),
        pixels=pixels,
        labels=tuple(metadata[_LABELS_KEY].strip("\n").split("\n")) if metadata.get(_LABELS_KEY) else None,
    )


def answers_to(path: Path, signs: FileSigns, words: FileWords, pictures: NDArray[np.uint8]) -> list[NDArray[Any]]:
    """Every output for some pictures of the input's size. Raises SourceError where the file does not run."""
    is_known = words.value_range is not None
    words = words if is_known else words.model_copy(update={"value_range": signs.pixels.value_range})
    values = _values(path, signs.signature, words, pictures)
    if values is None:
        raise SourceError(f"{path.name} does not run on pictures of {pictures.shape[2]}x{pictures.shape[1]}")
    return values


def task_of_shapes(signs: FileSigns, outputs: tuple[OutputSign, ...]) -> Task | None:
    """Returns the task that the outputs' shapes tell, each without the batch; None where they tell none."""
    shapes = [output.shape for output in outputs]
    ranks = [len(shape) for shape in shapes]
    if ranks == [1] or (ranks == [3] and shapes[0][1:] == (1, 1)):
        return Task.CLASSIFY
    if ranks == [3] or (ranks == [2] and outputs[0].tensor.type in ("tensor(uint8)", "tensor(int32)", "tensor(int64)")):
        return Task.SEGMENT
    if set(ranks) == {3} and all(1 in (shape[0], shape[2]) for shape in shapes):
        return Task.SEGMENT  # saliency networks give their side outputs too
    if sorted(ranks) == [2, 3]:
        return Task.INSTANCES
    if set(ranks) == {3} and signs.size is not None and shapes[0] in _one_channel(*signs.size):
        return Task.SEGMENT  # and some their features; a detector's heat map is smaller than the picture
    if sorted(ranks) in ([0, 1, 1, 2], [1, 1, 1, 2]) and any(shape in ((), (1,)) for shape in shapes):
        return Task.DETECT  # boxes, scores and class ids behind suppression, and how many rows of them count
    is_boxes = ranks == [2] or (len(ranks) in (2, 3) and set(ranks) <= {1, 2} and 2 in ranks)
    return Task.DETECT if is_boxes else None


def _one_channel(width: int, height: int) -> tuple[tuple[int, ...], ...]:
    return (1, height, width), (height, width, 1)


def ultralytics_facts(file: str, metadata: Mapping[str, str]) -> UltralyticsFacts | None:
    """None for a file of someone else. Raises SourceError for an entry that cannot be read."""
    if not {"names", "stride"} <= metadata.keys():
        return None
    names = _literal(file, "names", metadata)
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise SourceError(f"{file}: its metadata 'names' number the classes {[*names][:4]} ..., not from 0 on")
        names = [names[index] for index in range(len(names))]
    if names is not None and not isinstance(names, list | tuple):
        raise SourceError(f"{file}: its metadata 'names' is no list of names: {metadata['names'][:60]!r}")
    imgsz = _literal(file, "imgsz", metadata)
    imgsz = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
    is_size = isinstance(imgsz, list | tuple) and len(imgsz) == 2 and all(isinstance(side, int) for side in imgsz)
    if imgsz is not None and not is_size:
        raise SourceError(
            f"{file}: its metadata 'imgsz' is no size, [height, width]: {metadata['imgsz'][:60]!r}; export it again"
        )
    if is_size and not all(0 < side <= LARGEST_SIDE for side in imgsz):
        raise SourceError(
            f"{file}: its metadata says pictures of {tuple(imgsz)}; 1 to {LARGEST_SIDE} pixels a side are served"
        )
    arguments = _literal(file, "args", metadata)
    has_nms = isinstance(arguments, dict) and bool(arguments.get("nms"))
    stride = metadata["stride"]
    return UltralyticsFacts(
        task=metadata.get("task", "detect").strip().lower(),
        names=None if names is None else tuple(str(name) for name in names),
        imgsz=(int(imgsz[0]), int(imgsz[1])) if is_size else None,
        stride=int(stride) if re.fullmatch(r"\d+", stride) else None,
        is_end2end=has_nms or {"True": True, "False": False}.get(metadata.get("end2end", "")),
        is_yolov5="task" not in metadata,
        channels=int(metadata["channels"]) if metadata.get("channels", "").isdecimal() else None,
    )


def _literal(file: str, key: str, metadata: Mapping[str, str]) -> Any:
    """Ultralytics writes Python's own notation."""
    if key not in metadata:
        return None
    try:
        return ast.literal_eval(metadata[key])
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise SourceError(f"{file}: its metadata {key!r} cannot be read: {metadata[key][:60]!r}") from error


def _guessed_size(signature: OnnxSignature) -> tuple[int, int]:
    """(width, height) of the sides that the file fixes, and a usual one for the others."""
    height, width = signature.images.shape[2:] if signature.layout == "nchw" else signature.images.shape[1:3]
    return width or _OPEN_SIDE, height or _OPEN_SIDE


def _values(
    path: Path, signature: OnnxSignature, words: FileWords, pictures: NDArray[np.uint8]
) -> list[NDArray[Any]] | None:
    """Every output for the pictures; None when the file cannot run at this size."""
    pixels = pictures.astype(np.float32)
    if signature.channels == 1:
        pixels = pixels @ np.array([[0.299], [0.587], [0.114]], np.float32)
    low, high = words.value_range or (0.0, 1.0)
    images = pixels / np.float32(255.0) * np.float32(high - low) + np.float32(low)
    if signature.layout == "nchw":
        images = images.transpose(0, 3, 1, 2)
    try:
        parts = [run(path, np.ascontiguousarray(images[index : index + 1])) for index in range(len(images))]
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
    except Exception as error:  # ONNX Runtime's errors share no public class
        if signature.size is None:
            return None  # the size was a guess, which such a file need not take
        reason = str(error).partition("\n")[0]
        width, height = pictures.shape[2], pictures.shape[1]
        raise SourceError(f"{path.name} cannot be run on a picture of {width}x{height}: {reason}") from error


def _generated(width: int, height: int) -> list[Picture]:
    """Coloured blocks, always the same ones."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (_GENERATED, -(-height // 8), -(-width // 8), 3), np.uint8)
    return [np.kron(each, np.ones((8, 8, 1), np.uint8))[:height, :width] for each in blocks]


def _made_by(name: str, producers: Mapping[str, onnx.NodeProto]) -> str:
    """The operator behind an output, looking through those that move numbers or average probabilities."""
    average = ""
    while name in producers:
        node = producers[name]
        if node.op_type not in _CARRIERS | _AVERAGES:
            return str(node.op_type) if not average or node.op_type in _PROBABILITIES else average
        if node.op_type in _AVERAGES:
            average = average or str(node.op_type)
        name = node.input[0]
    return average
