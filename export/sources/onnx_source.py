"""Loads networks that are ONNX files already; `onnx_recognition.py` finds out what a file is.

The file takes float images of one or three channels, in either order of dimensions; the recipe's words and what the
file shows decide how its outputs become one of the forms of `export/network.py`, inside the graph.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from saccade.export.errors import SourceError
from saccade.export.network import LibraryTransform, Network, NetworkRequest, SourceFacts
from saccade.export.sources.onnx_pictures import picture_pixels
from saccade.export.sources.onnx_recognition import recognised
from saccade.export.sources.onnx_signs import FileSigns, signs_of
from saccade.export.sources.onnx_unserved import Unrecognised
from saccade.export.sources.onnx_words import FileWords
from saccade.export.sources.specs import SourceSpec
from saccade.models.contract.specs import PictureKind, Task


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
        has_class_ids=found.labels is None and found.words.outputs.layout in ("end2end", "boxes"),
    )


def vector_facts(source: SourceSpec, weights: Path | None) -> SourceFacts:
    """Facts of a file whose recipe says task: embed: what its numbers would mean to others is not asked.

    Raises SourceError as `facts` does, and where no output, or more than one, holds vectors.
    """
    signs = signs_of(_file(weights), _words(source))
    found = recognised(signs, _words(source), Task.EMBED)
    return SourceFacts(
        task=found.task,
        preprocess=found.preprocess,
        normalisation=found.normalisation,
        quantized=_quantized(signs),
    )


def picture_facts(source: SourceSpec, weights: Path | None, kind: PictureKind | None) -> SourceFacts:
    """Facts of a file whose recipe says task: image, and perhaps what its pictures show. Raises SourceError."""
    file, words = _file(weights), _words(source)
    signs = signs_of(file, words)
    found = recognised(signs, words, Task.IMAGE, kind=kind)
    preprocess, note = picture_pixels(file, signs, found.words, found.task, found.preprocess)
    return SourceFacts(
        task=found.task,
        preprocess=preprocess,
        fit_note=note,
        value_range=words.value_range or signs.pixels.value_range,
        normalisation=found.normalisation,
        quantized=_quantized(signs),
    )


def load(request: NetworkRequest) -> Network:
    """Raises SourceError when the file's size or outputs are not what the recipe's task needs."""
    from saccade.export.sources.onnx_network import built  # torch takes seconds, and facts need none of it

    return built(_file(request.weights), _words(request.source), request)


def digest(source: SourceSpec) -> str:
    """Includes the version of the runtime that runs the file in eager mode."""
    return f"onnx {version('onnx')} onnxruntime {version('onnxruntime')}"


def library_transform(request: NetworkRequest) -> LibraryTransform | None:
    """Returns None, because a file does not say how its pixels were made."""
    return None


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
