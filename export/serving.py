"""Opens variants the way the service does. Promises: the same backend class and session options as in production."""

from __future__ import annotations

from pathlib import Path

from export.bare_graph import bare_input
from export.benchmark import usable_threads
from export.large_files import weight_files
from export.recipe import Recipe
from models.specs import TensorSpec, input_tensor, output_tensors
from service.backends.base import LoadRequest
from service.backends.onnxruntime_backend import OnnxRuntimeBackend


def open_backend(file: Path, recipe: Recipe) -> OnnxRuntimeBackend:
    """Raises BackendError when the file does not have the contract's tensors."""
    return _open(file, recipe, input_tensor(recipe.preprocess), recipe.qualify.allow_spinning)


def open_racing_backends(deploy: Path, bare: Path, recipe: Recipe) -> tuple[OnnxRuntimeBackend, OnnxRuntimeBackend]:
    """The deploy graph and its bare twin, to be timed in turns."""
    # Without spinning: threads of the one would still burn the cores while the other runs.
    return (
        _open(deploy, recipe, input_tensor(recipe.preprocess), allow_spinning=False),
        _open(bare, recipe, bare_input(recipe.preprocess), allow_spinning=False),
    )


def _open(file: Path, recipe: Recipe, images: TensorSpec, allow_spinning: bool) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(
        LoadRequest(
            file=file,
            input=images,
            outputs=output_tensors(recipe.task, recipe.preprocess),
            device="cpu",
            threads=usable_threads(recipe.qualify.threads),
            allow_spinning=allow_spinning,
            external_data=tuple((file.parent / name, None) for name in weight_files(file)),
        )
    )
