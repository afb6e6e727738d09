"""Settles what `wrap` finds out: whether images may share a batch, and how tiles of a picture must overlap.

A network that must not batch is measured and served alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from saccade.export.artifact import Artifact
from saccade.export.recipe import LoadedRecipe

MARGIN = "tile_margin"  # key in the results of wrap, for networks of tiles
_FACT = "not_batchable_reason"  # key in the results of wrap (found by tracing) and onnx_from_torch (found by trying)


def not_batchable_reason(made: Mapping[str, Artifact]) -> str:
    """Returns the reason from the first finished step that found one; empty when images may share a batch."""
    return next((str(artifact.detail[_FACT]) for artifact in made.values() if artifact.detail.get(_FACT)), "")


def settled(loaded: LoadedRecipe, made: Mapping[str, Artifact]) -> LoadedRecipe:
    """Returns the recipe with the tiles' margin, and with batches of one where images must not share one."""
    margin = made["wrap"].detail.get(MARGIN) if "wrap" in made else None
    if margin is not None:
        preprocess = loaded.recipe.preprocess.model_copy(update={"margin": int(margin)})
        loaded = loaded.model_copy(update={"recipe": loaded.recipe.model_copy(update={"preprocess": preprocess})})
    if not not_batchable_reason(made):
        return loaded
    recipe = loaded.recipe
    qualify = recipe.qualify.model_copy(
        update={"parity_batch_sizes": (1,), "compare_batch_sizes": (1,), "evaluate_batch_size": 1}
    )
    return loaded.model_copy(
        update={"recipe": recipe.model_copy(update={"qualify": qualify, "allowed_batch_sizes": (1,)})}
    )
