"""What the dense teacher is worth: `python -m tests.load.recovery_teachers models/recipes/digits-classifier.yaml`.

The same 2:4 masks (by magnitude, which hurts most) recover from labels, from the teacher and from both, with
equal steps and images. Prints the tuning metric on the way.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

_SHARES = {"labels (plain fine-tuning)": 1.0, "teacher (function matching)": 0.0, "half and half": 0.5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    table = Table("learns from", "seed", "one-shot", *(f"after {share:.0%}" for share in (0.25, 0.5, 0.75, 1.0)))
    for name, share in _SHARES.items():
        for seed in range(arguments.seeds):
            values = _history(arguments.recipe, share, arguments.steps, seed)
            table.add_row(name, str(seed), *(f"{value:.4f}" for value in values))
    Console(width=120).print(table)


def _history(path: Path, labels_share: float, steps: int, seed: int) -> list[float]:
    """Tuning metrics of one recovery. Raises SystemExit with the reason when it fails."""
    from saccade.export.cli.recover import from_scratch
    from saccade.export.compression.sparsity.mask_check import SPARSITY_FILE
    from saccade.export.data.datasets import DataStore
    from saccade.export.pipeline import Listener, RunSettings, run_pipeline
    from saccade.export.recipe import load_recipe

    loaded = from_scratch(load_recipe(path))
    recovery = loaded.recipe.sparsity.recovery.model_copy(
        update={"steps": steps, "evaluate_every": max(1, steps // 4), "labels_share": labels_share, "seed": seed}
    )
    sparsity = loaded.recipe.sparsity.model_copy(
        update={"method": "magnitude", "permutation": False, "recovery": recovery}
    )
    loaded = loaded.model_copy(update={"recipe": loaded.recipe.model_copy(update={"sparsity": sparsity})})
    silent = Listener(started=lambda name: None, noted=lambda text: None, finished=lambda result: None)
    with tempfile.TemporaryDirectory() as scratch:
        settings = RunSettings(Path(scratch), Path(scratch), until="compress.sparse24")
        last = run_pipeline(loaded, settings, DataStore(), silent)[-1]
        if last.artifact is None:
            raise SystemExit(f"{last.step} failed: {last.detail['error']}")
        document = orjson.loads(last.artifact.file(SPARSITY_FILE).read_bytes())
    return [float(point["tuning_metric"]) for point in document["recovery"]["history"]]


if __name__ == "__main__":
    main()
