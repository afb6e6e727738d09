"""Builds the network of an ONNX file and the decoding of its outputs, in torch; `onnx_source.py` knows what it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from saccade.export.convert.splice import output_shapes
from saccade.export.errors import SourceError
from saccade.export.network import Network, NetworkRequest
from saccade.export.sources.onnx_decoding import (
    ClassScores,
    Decoding,
    DenseScores,
    FirstPicture,
    FirstTensor,
    detection_decoding,
)
from saccade.export.sources.onnx_files import (
    OnnxSignature,
    has_one_image,
    parameter_count,
    read_model,
    run,
    signature_of,
)
from saccade.export.sources.onnx_masks import is_channels_last
from saccade.export.sources.onnx_recognition import Recognition, recognised
from saccade.export.sources.onnx_signs import FileSigns, signs_of
from saccade.export.sources.onnx_words import FileWords
from saccade.models.contract.specs import Task

_GREY = (0.299, 0.587, 0.114)  # weights of red, green and blue, as in Pillow's mode L


def built(path: Path, words: FileWords, request: NetworkRequest) -> Network:
    """Raises SourceError when the file's size or outputs are not what the recipe's task needs."""
    size = (request.preprocess.width, request.preprocess.height)
    signature = signature_of(path, words.input_layout, words.channels)
    if signature.size not in (None, size):
        raise SourceError(
            f"{path.name} takes images of {signature.size} (width, height), the recipe's preprocess says {size}; "
            "leave width and height out, or export the file with a dynamic size"
        )
    output_shapes(path, signature.shape(1, *size)[1:])  # refuses outputs without a row per image
    signs = signs_of(path, words, size=size)
    recognition = recognised(signs, words, request.task.task, request.classes, kind=request.task.picture)
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
        case Task.EMBED:
            return Decoding(FirstTensor(), "vectors")
        case Task.IMAGE:
            return Decoding(FirstPicture(channels_last=len(first.shape) == 3 and first.shape[2] in (1, 3)), "pixels")


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
