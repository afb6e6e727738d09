"""Networks that are ONNX files already. Promises: sizes, task and class count come from the file, pixels stay ours.

The file takes normalised float images (n, 3, height, width) and gives, as `export/network.py` says, logits (n,
classes), dense logits (n, classes, h, w), or boxes with scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from saccade.export.convert.splice import output_shapes
from saccade.export.errors import SourceError
from saccade.export.network import LibraryTransform, Network, NetworkRequest, RawForm, SourceFacts
from saccade.export.sources.onnx_files import FLOAT, INT64, OnnxTensor, read_model, run, signature_of
from saccade.export.sources.raw_shapes import facts_from_shapes
from saccade.export.sources.specs import SourceSpec
from saccade.models.contract.specs import PreprocessSpec, Task

_WANTED = {
    Task.CLASSIFY: "one output of logits, float (batch, classes)",
    Task.SEGMENT: "one output of logits, float (batch, classes, h, w)",
    Task.DETECT: (
        "boxes float (batch, anchors, 4) with scores float (batch, anchors, classes), "
        "or boxes (batch, k, 4), scores (batch, k) and class ids int64 (batch, k)"
    ),
}


def facts(source: SourceSpec, weights: Path | None) -> SourceFacts:
    """Raises SourceError when the file is missing, damaged, or takes something else than images."""
    signature = signature_of(_file(weights))
    return facts_from_shapes([output.shape for output in signature.outputs], signature.size)


def load(request: NetworkRequest) -> Network:
    """Raises SourceError when the file's size or outputs are not what the recipe's task needs."""
    path = _file(request.weights)
    signature = signature_of(path)
    size = (request.preprocess.width, request.preprocess.height)
    if signature.size not in (None, size):
        raise SourceError(
            f"{path.name} takes images of {signature.size} (width, height), the recipe's preprocess says {size}; "
            "leave width and height out, or export the file with a dynamic size"
        )
    chosen = _chosen_outputs(path, signature.outputs, request)
    module = OnnxNetwork(path, chosen.indices).eval()
    reason = _not_batchable_reason(path, signature.images, request.preprocess)
    return Network(module, chosen.form, not_batchable_reason=reason)


def digest(source: SourceSpec) -> str:
    """Includes the version of the runtime that runs the file in eager mode."""
    return f"onnx {version('onnx')} onnxruntime {version('onnxruntime')}"


def library_transform(request: NetworkRequest) -> LibraryTransform | None:
    """A file does not say how its pixels were made."""
    return None


class OnnxNetwork(nn.Module):
    """An ONNX file where a torch network is expected; traced as one operator."""

    accepts_float64 = False  # its weights are not torch's: proofs run in float32

    def __init__(self, path: Path, outputs: tuple[int, ...]) -> None:
        super().__init__()
        self.path = str(path)
        self.outputs = outputs
        model = read_model(path, with_data=False)
        self.parameter_count = sum(prod(tensor.dims) for tensor in model.graph.initializer)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        found: list[Tensor] = torch.ops.saccade.onnx_network(images, self.path)
        chosen = tuple(found[index] for index in self.outputs)
        return chosen if len(chosen) > 1 else chosen[0]


@dataclass(frozen=True, slots=True)
class _Chosen:
    form: RawForm
    indices: tuple[int, ...]


def _file(weights: Path | None) -> Path:
    if weights is None:
        raise SourceError("source: onnx needs `weights: network.onnx`")
    if weights.is_dir():
        raise SourceError(f"weights {weights} is a directory; name the .onnx file in it")
    return weights


def _chosen_outputs(path: Path, outputs: tuple[OnnxTensor, ...], request: NetworkRequest) -> _Chosen:
    """Raises SourceError when the outputs are not the task's, naming those there are."""
    shapes = [shape for shape, _ in output_shapes(path, request.preprocess.height, request.preprocess.width)]
    types = [output.type for output in outputs]
    floats = {index: shape for index, shape in enumerate(shapes) if types[index] == FLOAT}
    chosen: _Chosen | None = None
    match request.task.task:
        case Task.CLASSIFY:
            chosen = _logits("logits", floats, 1, request.classes)
        case Task.SEGMENT:
            chosen = _logits("dense_logits", floats, 3, request.classes)
        case Task.DETECT:
            ids = [index for index, shape in enumerate(shapes) if types[index] == INT64 and len(shape) == 1]
            chosen = _boxes(floats, ids, request.classes)
    if chosen is None:
        given = "; ".join(str(output) for output in outputs)
        raise SourceError(
            f"{path.name} gives {given}. task: {request.task.task} with {request.classes} labels needs "
            f"{_WANTED[request.task.task]}"
        )
    return chosen


def _logits(form: RawForm, floats: dict[int, tuple[int, ...]], rank: int, classes: int) -> _Chosen | None:
    fitting = [index for index, shape in floats.items() if len(shape) == rank and shape[0] == classes]
    return _Chosen(form, (fitting[0],)) if len(fitting) == 1 else None


def _boxes(floats: dict[int, tuple[int, ...]], ids: Sequence[int], classes: int) -> _Chosen | None:
    boxes = [index for index, shape in floats.items() if len(shape) == 2 and shape[1] == 4]
    if len(ids) == 1:
        scores = [index for index, shape in floats.items() if len(shape) == 1]
        return _Chosen("candidates", (boxes[0], scores[0], ids[0])) if len(boxes) == len(scores) == 1 else None
    dense = [index for index, shape in floats.items() if len(shape) == 2 and shape[1] == classes]
    if classes == 4 and len(boxes) == 2:  # told apart by their order alone
        return _Chosen("boxes", (boxes[0], boxes[1]))
    return _Chosen("boxes", (boxes[0], dense[0])) if len(boxes) == len(dense) == 1 else None


def _not_batchable_reason(path: Path, images: OnnxTensor, preprocess: PreprocessSpec) -> str:
    """A file may claim a dynamic batch and still hold shapes of one image: two are tried."""
    if images.shape[0] == 1:
        return f"{path.name} takes exactly one image"
    pair = np.zeros((2, 3, preprocess.height, preprocess.width), np.float32)
    try:
        outputs = run(path, pair)
    except Exception as error:  # ONNX Runtime's errors share no public class
        return f"{path.name} claims any batch size but fails with two images: {str(error).partition(chr(10))[0]}"
    if any(len(output) != len(pair) for output in outputs):
        return f"{path.name} claims any batch size but answers two images with another number of rows"
    return ""
