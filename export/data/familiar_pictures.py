"""How many different pictures the score of unfamiliarity needs, so that a run says early where there are fewer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from saccade.export.data.data_report import SplitFacts
from saccade.export.data.image_split import Split
from saccade.export.recipe import LoadedRecipe
from saccade.export.variants import TRAITS
from saccade.models.contract.specs import Task

LEAST: Mapping[Split, int] = {"calibration": 32, "tuning": 20}  # to fit it, and to say where its threshold lies


def too_few(name: Split, different: int) -> str:
    """Why a version will have no such score; empty where a split has enough different pictures."""
    if different >= LEAST[name]:
        return ""
    return (
        f"what is familiar is fitted on at least {LEAST[name]} different {name} pictures, and the data has "
        f"{different}: add some and export again"
    )


def why_no_trust(loaded: LoadedRecipe, splits: Sequence[SplitFacts]) -> str:
    """The reason, of variants that would have the score if there were data; else empty."""
    if loaded.recipe.task.task is Task.IMAGE or all(TRAITS[name].needs_gpu for name in loaded.recipe.variants):
        return ""
    different = {split.name: split.different for split in splits}
    return next((text for name in LEAST if (text := too_few(name, different.get(name, 0)))), "")
