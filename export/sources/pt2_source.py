"""Loads networks saved by torch.export.save; the program's signature decides size, task and class count.

The program takes one float32 tensor (n, 3, height, width) of normalised images, and returns logits (n, classes),
vectors (n, dim) where the recipe says so, dense logits (n, classes, h, w), or boxes with scores.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saccade.export.errors import SourceError
from saccade.export.network import FORMS_BY_TASK, LibraryTransform, Network, NetworkRequest, SourceFacts
from saccade.export.sources.pt2_archive import ensure_harmless
from saccade.export.sources.raw_shapes import Shape, facts_from_shapes
from saccade.export.sources.specs import SourceSpec
from saccade.models.contract.specs import Task

_WANTED = "source: pt2 takes programs with one input of normalised images, float32 (n, 3, height, width)"
_RANKS = {Task.CLASSIFY: [2], Task.SEGMENT: [4], Task.DETECT: [3, 3], Task.EMBED: [2], Task.IMAGE: [4]}


def facts(source: SourceSpec, weights: Path | None) -> SourceFacts:
    """Raises SourceError when the file is missing, damaged, could run code, or takes something else than images."""
    program = _program(_file(weights))
    return facts_from_shapes([_shape(value) for value in _outputs(program)], _size(_images(program)))


def load(request: NetworkRequest) -> Network:
    """Raises SourceError when the program's size or outputs are not what the recipe's task needs."""
    path = _file(request.weights)
    program = _program(path)
    images, outputs = _images(program), [_shape(value) for value in _outputs(program)]
    size = (request.preprocess.width, request.preprocess.height)
    if _size(images) not in (None, size):
        raise SourceError(
            f"{path.name} takes images of {_size(images)} (width, height), the recipe's preprocess says {size}; "
            "leave width and height out, or export the program with dynamic sizes"
        )
    _ensure_outputs(path, outputs, request)
    form = FORMS_BY_TASK[request.task.task][0] if len(outputs) < 3 else "candidates"
    batch = _shape(images)[0]
    reason = "" if batch is None else f"{path.name} takes exactly one image"
    # Its own guards are Python text from the file, so they are not compiled; the checks above take their place.
    module = Pt2Network(program.module(check_guards=False))
    return Network(module.requires_grad_(False), form, not_batchable_reason=reason)


def digest(source: SourceSpec) -> str:
    """The version of torch; the program itself counts as weights."""
    return f"torch {version('torch')}"


def library_transform(request: NetworkRequest) -> LibraryTransform | None:
    """Returns None, because a program does not say how its pixels were made."""
    return None


class Pt2Network(nn.Module):
    """A saved program where a torch network is expected; it is in the mode it was exported in."""

    accepts_float64 = False  # its constants and checks of types are float32

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def train(self, mode: bool = True) -> Pt2Network:
        """A saved program has no other mode, and raises when asked for one."""
        self.training = mode
        return self

    def forward(self, images: Tensor) -> Any:
        return self.program(images)


def _file(weights: Path | None) -> Path:
    if weights is None:
        raise SourceError("source: pt2 needs `weights: network.pt2`")
    if weights.is_dir():
        raise SourceError(f"weights {weights} is a directory; name the .pt2 file in it")
    return weights


def _program(path: Path) -> Any:
    """The torch.export.ExportedProgram in a file."""
    try:
        stamp = path.stat().st_mtime_ns
    except OSError as error:
        raise SourceError(f"cannot read weights {path}: {error.strerror}; fix `weights`") from error
    return _loaded(path, stamp)


@lru_cache(maxsize=1)
def _loaded(path: Path, stamp: int) -> Any:
    ensure_harmless(path)
    try:
        with _quiet_loader():
            program = torch.export.load(path)
    except Exception as error:  # torch raises what the damaged part provokes
        raise SourceError(
            f"torch {version('torch')} cannot open {path.name}: {str(error).strip().partition(chr(10))[0]}; "
            "save it again with torch.export.save of the installed version"
        ) from error
    _ensure_takes_images(path, program)
    return program


@contextmanager
def _quiet_loader() -> Iterator[None]:
    """torch logs the whole traceback of a damaged archive before it raises; the error says enough."""
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _ensure_takes_images(path: Path, program: Any) -> None:
    inputs = _inputs(program)
    listed = "; ".join(_described(value) for value in inputs)
    if len(inputs) != 1 or not isinstance(inputs[0], Tensor):
        raise SourceError(f"{path.name} has {len(inputs)} inputs: {listed}. {_WANTED}")
    (images,) = inputs
    if images.dtype != torch.float32:
        raise SourceError(
            f"{path.name} takes {listed}. {_WANTED}; export it again from a float32 network, without its own conversion"
        )
    shape = _shape(images)
    if len(shape) != 4 or shape[1] not in (3, None):
        hint = "; channels come last here: export it with NCHW input" if len(shape) == 4 and shape[3] == 3 else ""
        raise SourceError(f"{path.name} takes {listed}. {_WANTED}{hint}")
    if shape[0] not in (1, None):
        raise SourceError(
            f"{path.name} takes exactly {shape[0]} images at once; export it with dynamic_shapes for the batch: "
            '({0: torch.export.Dim("batch")},)'
        )


def _ensure_outputs(path: Path, outputs: list[Shape], request: NetworkRequest) -> None:
    task, classes = request.task.task, request.classes
    if task is Task.EMBED:
        classes = request.task.dim  # columns of its only output
    if task is Task.IMAGE:
        classes = 3 if request.task.picture == "rgb" else 1
    if task is Task.INSTANCES:
        raise SourceError(
            f"{path.name}: source: pt2 serves no mask per object; give the network as a module or an ONNX file"
        )
    ranks = [len(shape) for shape in outputs]
    is_candidates = task is Task.DETECT and ranks == [3, 2, 2]
    fits = is_candidates or ranks == _RANKS[task]
    found = outputs[-1][2 if task is Task.DETECT else 1] if fits and not is_candidates else classes
    if not fits or found != classes:
        raise SourceError(
            f"{path.name} returns {outputs}; task: {task} with {request.classes} labels needs "
            f"{len(_RANKS[task])} of rank {_RANKS[task][0]} with {classes} columns. Give the recipe the labels it has, "
            "or export a program that returns the raw output only"
        )


def _inputs(program: Any) -> list[Any]:
    return [_value(program, name) for name in program.graph_signature.user_inputs]


def _images(program: Any) -> Tensor:
    (images,) = _inputs(program)
    assert isinstance(images, Tensor)
    return images


def _outputs(program: Any) -> list[Tensor]:
    values = [_value(program, name) for name in program.graph_signature.user_outputs]
    return [value for value in values if isinstance(value, Tensor)]


def _value(program: Any, name: Any) -> Any:
    nodes = {node.name: node for node in program.graph.nodes}
    return nodes[name].meta["val"] if name in nodes else name


def _shape(value: Tensor) -> Shape:
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def _size(images: Tensor) -> tuple[int, int] | None:
    """(width, height) where the program fixes them."""
    _, _, height, width = _shape(images)
    return None if height is None or width is None else (width, height)


def _described(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"{value!r}"
    sizes = ", ".join("?" if size is None else str(size) for size in _shape(value))
    return f"{str(value.dtype).removeprefix('torch.')} ({sizes})"
