"""What corrupted pictures cost the variants of reference networks, as rows for export/README.md.

    python -m tests.load.corruption_figures digits-classifier digits-detector --pictures 500

Needs the extra `corruptions`.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import get_args

import yaml

from saccade.export.data.datasets import DataStore
from saccade.export.gate.limits import CorruptionLimits
from saccade.export.pipeline import Listener, RunSettings, run_pipeline
from saccade.export.qualification.corruption_step import STEP, read_corruptions
from saccade.export.qualification.qualify_report import CorruptionReport
from saccade.export.recipe import load_recipe
from saccade.export.variants import VariantKind

RECIPES = Path(__file__).parents[2] / "models" / "recipes"
_VARIANTS: tuple[VariantKind, ...] = ("fp32", "int8-cpu", "int8-trt-sparse24")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="names of recipes in models/recipes")
    parser.add_argument("--pictures", type=int, default=CorruptionLimits().pictures)
    parser.add_argument("--variant", action="append", choices=get_args(VariantKind))
    parser.add_argument("--work", type=Path, default=Path(".saccade"))
    options = parser.parse_args()
    print("| network, variant | clean | mean of 45 | below eager, mean (upper end) | worst kind against eager |")
    print("|---|---|---|---|---|")
    for model in options.models:
        for name, found in measured(model, options.pictures, options.variant or _VARIANTS, options.work).items():
            print(f"| {model}, {name} {row(found)}", flush=True)


def measured(model: str, pictures: int, variants: tuple[VariantKind, ...], work: Path) -> dict[str, CorruptionReport]:
    """Runs the recipe with corruptions up to their step; what it needs is taken from the cache where it is there."""
    recipe = yaml.safe_load((RECIPES / f"{model}.yaml").read_text())
    recipe["gate"] = recipe.get("gate", {}) | {STEP: {"pictures": pictures}}
    recipe["weights"] = str(RECIPES / recipe["weights"])
    recipe["sparsity"]["recovered"] = str(RECIPES / recipe["sparsity"]["recovered"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{model}.yaml"
        path.write_text(yaml.safe_dump(recipe))
        loaded = load_recipe(path).with_variants(variants)
        quiet = Listener(started=lambda name: None, noted=lambda text: None, finished=lambda result: None)
        result = run_pipeline(loaded, RunSettings(work, work / "none", until=STEP), DataStore(), quiet)[-1]
    if result.artifact is None:
        raise SystemExit(f"{model}: {result.step} failed: {result.detail.get('error')}")
    print(f"{model}: step {STEP} took {result.artifact.seconds:.0f} s", flush=True)
    return dict(read_corruptions({STEP: result.artifact}))


def row(found: CorruptionReport) -> str:
    worst = found.kinds[0]
    share = worst.eager_drop
    return (
        f"| {found.clean:.4f} | {found.clean * (1.0 - found.clean_drop.value):.4f} | {found.eager_drop.value:+.1%} "
        f"({found.eager_drop.judged:+.1%}) | {worst.kind} {share.value:+.1%} ({share.judged:+.1%}) |"
    )


if __name__ == "__main__":
    main()
