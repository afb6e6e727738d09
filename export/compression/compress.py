"""Step `compress`: makes one form of the weights and writes the same files as step `wrap`, so that it can replace
it.
"""

from __future__ import annotations

from collections.abc import Callable

from saccade.export.artifact import Detail, file_sha256
from saccade.export.compression.pruning.prune import run_prune
from saccade.export.compression.sparsity.sparsify import run_sparsify
from saccade.export.errors import RecipeError
from saccade.export.recipe import LoadedRecipe
from saccade.export.steps import StepContext
from saccade.export.variants import Form


def run_compress(context: StepContext) -> Detail:
    """Writes the traced deploy module of one form of the weights."""
    maker = _MAKERS.get(context.form)
    if maker is None:
        raise RecipeError(f"nothing makes the form {context.form!r}")
    return maker(context)


def recovered_digest(loaded: LoadedRecipe) -> str:
    """The digest of the weights of an earlier recovery, or "" when the recipe names none. Raises RecipeError."""
    path = loaded.recovered_path
    if path is None:
        return ""
    try:
        return file_sha256(path)
    except OSError as error:
        raise RecipeError(f"sparsity.recovered: cannot read {path}: {error.strerror}") from error


_MAKERS: dict[Form, Callable[[StepContext], Detail]] = {"sparse24": run_sparsify, "pruned": run_prune}
