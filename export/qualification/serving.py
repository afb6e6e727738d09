"""Opens variants with the backend class and session options that the service uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import onnx

from saccade.export.extras.marks import extras_in
from saccade.export.graph.large_files import load_graph, weight_files
from saccade.export.precision.emulation import runnable_file
from saccade.export.qualification.bare_graph import bare_input
from saccade.export.qualification.benchmark import usable_threads
from saccade.export.recipe import Recipe
from saccade.export.variants import TRAITS, VariantTraits
from saccade.models.contract.specs import TensorSpec, input_tensor, output_tensors
from saccade.service.backends.base import Backend, LoadRequest
from saccade.service.backends.onnxruntime_backend import OnnxRuntimeBackend
from saccade.service.backends.openvino_backend import OpenVinoBackend

_FLOAT = TRAITS["fp32"]


def open_backend(file: Path, recipe: Recipe, traits: VariantTraits = _FLOAT) -> Backend:
    """Opens a variant's file in the runtime that serves it. Raises BackendError or RuntimeMissing.

    A file in fp16 or bf16 is opened as its emulation, because CPUs have no such kernels or round less.
    """
    with runnable_file(file) as runnable:
        return _open(runnable, recipe, traits, input_tensor(recipe.preprocess), recipe.qualify.allow_spinning)


def open_racing_backends(
    deploy: Path, bare: Path, recipe: Recipe, traits: VariantTraits = _FLOAT
) -> tuple[Backend, Backend]:
    """Opens the deploy graph and its bare form, to be timed in turns."""
    # Spinning is off, because idle threads of one session would use the cores while the other runs.
    return (
        _open(deploy, recipe, traits, input_tensor(recipe.preprocess), allow_spinning=False),
        _open(bare, recipe, traits, bare_input(recipe.preprocess), allow_spinning=False),
    )


def open_racing_backend(file: Path, recipe: Recipe, traits: VariantTraits = _FLOAT) -> Backend:
    """Opens one of several deploy graphs that are timed in turns, without spinning for the same reason."""
    return _open(file, recipe, traits, input_tensor(recipe.preprocess), allow_spinning=False)


def computed_precisions(backend: Backend) -> Mapping[str, str] | None:
    """The precision of each product by the names of its nodes, where the runtime decides it and not the file."""
    return backend.layer_precisions if isinstance(backend, OpenVinoBackend) else None


def _open(file: Path, recipe: Recipe, traits: VariantTraits, images: TensorSpec, allow_spinning: bool) -> Backend:
    request = LoadRequest(
        file=file,
        input=images,
        outputs=output_tensors(recipe.task, recipe.preprocess),
        device="cpu",
        threads=usable_threads(recipe.qualify.threads),
        allow_spinning=allow_spinning,
        external_data=tuple((file.parent / name, None) for name in weight_files(file)),
        merges_dequantized=not _has_float8(file),
        extras=extras_in(load_graph(file)),
    )
    if traits.is_openvino:
        return OpenVinoBackend(replace(request, precision=traits.precision))
    return OnnxRuntimeBackend(request)


def _has_float8(file: Path) -> bool:
    """Tells whether a file has float8 weights: ONNX Runtime 1.31 turns such Q/DQ pairs into wrong int8 kernels."""
    return any(tensor.data_type == onnx.TensorProto.FLOAT8E4M3FN for tensor in load_graph(file).graph.initializer)
