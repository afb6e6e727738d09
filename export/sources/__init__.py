"""Loads networks, with one file per library: first facts without building, then a float network in eval mode.

A library is imported when a recipe first names it: each takes seconds, and an exporter without it still works.
"""

from __future__ import annotations

import hashlib
from importlib import import_module
from pathlib import Path
from typing import Protocol, get_args

from saccade.export.errors import SourceError
from saccade.export.network import LibraryTransform, Network, NetworkRequest, SourceFacts
from saccade.export.sources.specs import SourceSpec
from saccade.export.sources.weights import weights_digest
from saccade.models.contract.specs import PictureKind, Task


class NetworkSource(Protocol):
    """What each file of this package offers as module-level functions."""

    def facts(self, source: SourceSpec, weights: Path | None) -> SourceFacts:
        """What the library says without building the network. Raises SourceError."""

    def load(self, request: NetworkRequest) -> Network:
        """The network with its weights. Raises SourceError."""

    def digest(self, source: SourceSpec) -> str:
        """Changes whenever the network's code outside of this package does: library version, or a user's source text.

        The code of this package is part of a step's identity already (`import_closure.py`); weights count apart.
        """

    def library_transform(self, request: NetworkRequest) -> LibraryTransform | None:
        """The library's own preprocessing, to be compared with; None where there is none."""


_MODULES = {
    "torchvision": "saccade.export.sources.torchvision_source",
    "timm": "saccade.export.sources.timm_source",
    "transformers": "saccade.export.sources.transformers_source",
    "module": "saccade.export.sources.module_source",
    "pt2": "saccade.export.sources.pt2_source",
    "onnx": "saccade.export.sources.onnx_source",
}


def source_of(spec: SourceSpec) -> NetworkSource:
    """The functions of one library. Raises SourceError when it is not installed."""
    try:
        module: NetworkSource = import_module(_MODULES[spec.kind])
    except ModuleNotFoundError as error:
        raise SourceError(f"source {spec.kind!r} needs {error.name!r}: install the export extra") from error
    return module


def source_facts(
    spec: SourceSpec, weights: Path | None, task: str | None = None, picture: str | None = None
) -> SourceFacts:
    """task, picture: what the recipe says.

    Vectors have the shape of scores, and pictures that of masks, of which a file must tell more to be understood.
    """
    if task == Task.EMBED and spec.kind == "onnx":
        from saccade.export.sources import onnx_source

        return onnx_source.vector_facts(spec, weights)
    if task == Task.IMAGE and spec.kind == "onnx":
        from saccade.export.sources import onnx_source

        kind: PictureKind | None = picture if picture in get_args(PictureKind) else None  # type: ignore[assignment]  # checked here
        return onnx_source.picture_facts(spec, weights, kind)
    if task == Task.IMAGE and spec.kind == "transformers":  # some model types serve other tasks too
        return source_of(spec).facts(spec.model_copy(update={"task": Task.IMAGE}), weights)
    return source_of(spec).facts(spec, weights)


def load_network(request: NetworkRequest) -> Network:
    """The recipe's network in the form its task's head takes. Raises SourceError."""
    return source_of(request.source).load(request)


def source_digest(request: NetworkRequest) -> str:
    """Changes whenever the network's code, arguments or weights change."""
    text = f"{source_of(request.source).digest(request.source)} {request.source.model_dump_json()}"
    weights = "random" if request.weights is None else weights_digest(request.weights)
    return hashlib.sha256(f"{text} {weights}".encode()).hexdigest()


def library_transform(request: NetworkRequest) -> LibraryTransform | None:
    return source_of(request.source).library_transform(request)
