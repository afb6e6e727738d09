"""Loads networks that are ONNX files already; `onnx_recognition.py` finds out what a file is.

The file takes float images of one or three channels, in either order of dimensions; the recipe's words and what the
file shows decide how its outputs become one of the forms of `export/network.py`, inside the graph.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from saccade.export.convert.splice import output_shapes
from saccade.export.errors import SourceError
from saccade.export.network import LibraryTransform, Network, NetworkRequest, SourceFacts
from saccade.export.sources.onnx_decoding import ClassScores, Decoding, DenseScores, detection_decoding
from saccade.export.sources.onnx_files import (
    OnnxSignature,
    has_one_image,
    parameter_count,
    read_model,
    run,
    signature_of,
)
from saccade.export.sources.onnx_recognition import Recognition, Unrecognised, is_channels_last, recognised
from saccade.export.sources.onnx_signs import FileSigns, signs_of
from saccade.export.sources.onnx_words import FileWords
from saccade.export.sources.specs import SourceSpec
from saccade.models.contract.specs import Task

_GREY = (0.299, 0.587, 0.114)  # weights of red, green and blue, as in Pillow's mode L


def facts(source: SourceSpec, weights: Path | None) -> SourceFacts:
    """Raises SourceError when the file is missing, damaged, contradicts itself, or takes something else than images."""
    signs = signs_of(_file(weights), _words(source))
    try:
        found = recognised(signs, _words(source))
    except Unrecognised as error:  # the recipe may say the task, and which outputs are meant
        return SourceFacts(preprocess=error.preprocess, normalisation=error.normalisation, quantized=_quantized(signs))
    is_guess = any(each.word == "outputs.objectness" and each.origin == "assumed" for each in found.findings)
    labels = None if is_guess else found.labels  # their number would be the guess
    return SourceFacts(
        task=found.task,
        labels=labels,
        preprocess=found.preprocess,
        normalisation=found.normalisation,
        quantized=_quantized(signs),
    )


def load(request: NetworkRequest) -> Network:
    """Raises SourceError when the file's size or outputs are not what the recipe's task needs."""
    path, words = _file(request.weights), _words(request.source)
    size = (request.preprocess.width, request.preprocess.height)
    signature = signature_of(path, words.input_layout, words.channels)
    if signature.size not in (None, size):
        raise SourceError(
            f"{path.name} takes images of {signature.size} (width, height), the recipe's preprocess says {size}; "
            "leave width and height out, or export the file with a dynamic size"
        )
    output_shapes(path, signature.shape(1, *size)[1:])  # refuses outputs without a row per image
    signs = signs_of(path, words, size=size)
    recognition = recognised(signs, words, request.task.task, request.classes)
    decoding = _decoding(signs, recognition, request)
    names = [output.name for output in signature.outputs]
    chosen = tuple(names.index(name) for name in recognition.words.outputs.names or ())
    return Network(
        OnnxNetwork(path, signature, chosen, decoding.module).eval(),
        decoding.form,
        decoding.suppression,
        dense_outputs=decoding.dense_outputs,
        not_batchable_reason=_not_batchable_reason(path, signature, size),
    )


def digest(source: SourceSpec) -> str:
    """Includes the version of the runtime that runs the file in eager mode."""
    return f"onnx {version('onnx')} onnxruntime {version('onnxruntime')}"


def library_transform(request: NetworkRequest) -> LibraryTransform | None:
    """Returns None, because a file does not say how its pixels were made."""
    return None


class OnnxNetwork(nn.Module):
    """An ONNX file where a torch network is expected; traced as one operator between its input and its decoding."""

    accepts_float64 = False  # its weights are not torch's: proofs run in float32
    grey: Tensor

    def __init__(self, path: Path, signature: OnnxSignature, outputs: tuple[int, ...], decoding: nn.Module) -> None:
        super().__init__()
        self.path = str(path)
        self.channels = signature.channels
        self.layout = signature.layout
        self.outputs = outputs
        self.decoding = decoding
        self.register_buffer("grey", torch.tensor(_GREY).view(1, 3, 1, 1))
        self.parameter_count = parameter_count(read_model(path, with_data=False).graph)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        if self.channels == 1:
            images = (images * self.grey).sum(1, keepdim=True)
        if self.layout == "nhwc":
            images = images.permute(0, 2, 3, 1).contiguous()
        found: list[Tensor] = torch.ops.saccade.onnx_network(images, self.path)
        decoded: Tensor | tuple[Tensor, ...] = self.decoding([found[index] for index in self.outputs])
        return decoded


def _quantized(signs: FileSigns) -> str:
    return "" if signs.quantized is None else signs.quantized.sign


def _file(weights: Path | None) -> Path:
    if weights is None:
        raise SourceError("source: onnx needs `weights: network.onnx`")
    if weights.is_dir():
        raise SourceError(f"weights {weights} is a directory; name the .onnx file in it")
    return weights


def _words(source: SourceSpec) -> FileWords:
    assert isinstance(source, FileWords)  # sources/__init__.py chose this file by its kind
    return source


def _decoding(signs: FileSigns, recognition: Recognition, request: NetworkRequest) -> Decoding:
    words = recognition.words.outputs
    first = next(output for output in signs.outputs if words.names and output.tensor.name == words.names[0])
    match request.task.task:
        case Task.CLASSIFY:
            return Decoding(ClassScores(words), "logits" if words.scores == "logits" else "probabilities")
        case Task.SEGMENT:
            channels_last = is_channels_last(signs, first)
            return Decoding(DenseScores(words, request.classes, channels_last=channels_last), "dense_logits")
        case Task.DETECT | Task.INSTANCES:
            size = (request.preprocess.width, request.preprocess.height)
            return detection_decoding(words, int(first.shape[-1] or 0), request.classes, size)


def _not_batchable_reason(path: Path, signature: OnnxSignature, size: tuple[int, int]) -> str:
    """A file may claim a dynamic batch and still hold shapes of one image: two are tried."""
    if has_one_image(path):
        return f"{path.name} takes exactly one image, and two together do not get what each gets alone"
    pair = np.zeros(signature.shape(2, *size), np.float32)
    try:
        outputs = run(path, pair)
    except Exception as error:  # ONNX Runtime's errors share no public class
        return f"{path.name} claims any batch size but fails with two images: {str(error).partition(chr(10))[0]}"
    if any(len(output) != len(pair) for output in outputs):
        return f"{path.name} claims any batch size but answers two images with another number of rows"
    return ""
