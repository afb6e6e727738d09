"""Two files of one recipe beside each other: their metric on the test split, and their speed in turns."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from saccade.export.data.datasets import DataStore
from saccade.export.qualification.accuracy import evaluate
from saccade.export.qualification.evidence import Evidence, accuracy_of
from saccade.export.qualification.serving import open_backend
from saccade.export.qualification.speed_step import timed_files
from saccade.export.recipe import LoadedRecipe
from saccade.export.variants import TRAITS, VariantKind
from saccade.models.contract.paired_speed import paired_speed

RECIPES = Path(__file__).parents[2] / "models" / "recipes"


@dataclass(frozen=True, slots=True)
class Compared:
    """A file, and what to call it."""

    name: str
    variant: VariantKind
    file: Path


def print_beside(new: Compared, old: Compared, loaded: LoadedRecipe, data: DataStore) -> None:
    """Prints what `new` loses and gains against `old`, both in ONNX Runtime on the processor, with intervals."""
    recipe, test = loaded.recipe, data.split(loaded, "test")

    def answers(file: Path) -> Evidence:
        with closing(open_backend(file, recipe)) as backend:
            return evaluate(backend.infer, test, recipe.task, len(recipe.labels), recipe.qualify.evaluate_batch_size)

    found = accuracy_of(answers(new.file), answers(old.file), recipe.qualify.bootstrap_resamples)
    print(
        f"{found.metric} of {new.name} on {found.images} test pictures: {found.value.value:.4f}, drop against "
        f"{old.name} {found.drop.value:+.4f} ({found.drop.low:+.4f} to {found.drop.high:+.4f})",
        flush=True,
    )
    timings = timed_files({each.name: (each.file, TRAITS[each.variant]) for each in (new, old)}, recipe, test.images)
    speed = paired_speed(
        timings.medians(new.name),
        timings.medians(old.name),
        against=old.variant,
        device_kind="cpu",
        batch_sizes=recipe.allowed_batch_sizes,
    )
    assert speed is not None
    print(f"{speed.ratio:.3f} times as fast as {old.name} ({speed.ci_low:.3f} to {speed.ci_high:.3f}, {speed.rounds} "
          f"rounds, batches {speed.batch_sizes}), load {os.getloadavg()[0]:.0f}")  # fmt: skip
