"""Channels removed and answers learned back: what a reference network keeps, and whether it gets faster.

    python -m tests.load.pruned_recovery digits-segmenter --flop-share 0.95 --round-to 8 --steps 450 --train 3000

Prints the tuning metric on the way, the test metric against the dense file on the same pictures, and the speed of both
files in turns, in ONNX Runtime on the processor.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import orjson

from saccade.export.compression.spec import PRUNING_FILE, PruningSpec, RecoverySpec
from saccade.export.data.datasets import DataStore
from saccade.export.graph.onnx_graph import MODEL_FILE
from saccade.export.pipeline import Listener, RunSettings, run_pipeline
from saccade.export.recipe import LoadedRecipe, load_recipe
from saccade.export.variants import VariantKind
from tests.load.beside import RECIPES, Compared, print_beside

_DENSE: VariantKind = "fp32"
_PRUNED: VariantKind = "fp32-pruned"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name of a recipe in models/recipes")
    parser.add_argument("--flop-share", type=float, default=0.85)
    parser.add_argument("--round-to", type=int, default=4)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--peak-lr", type=float, default=3e-4)
    parser.add_argument("--train", type=int, default=2000, help="pictures to learn from")
    parser.add_argument("--work", type=Path, default=Path(".saccade/export"))
    options = parser.parse_args()
    steps = options.steps
    recovery = RecoverySpec(
        steps=steps, batch_size=options.batch_size, peak_lr=options.peak_lr, evaluate_every=max(1, steps // 3)
    )
    spec = PruningSpec(flop_share=options.flop_share, round_to=options.round_to, recovery=recovery)
    loaded, data = pruned(load_recipe(RECIPES / f"{options.model}.yaml"), spec, options.train), DataStore()
    files = files_of(loaded, options.work, data)
    dense = Compared("the dense network", _DENSE, files[_DENSE])
    print_beside(Compared(_PRUNED, _PRUNED, files[_PRUNED]), dense, loaded, data)


def pruned(loaded: LoadedRecipe, spec: PruningSpec, train: int) -> LoadedRecipe:
    """The recipe with the dense and the pruned variant alone, and so many pictures to learn from."""
    document = loaded.recipe.model_dump(mode="json")
    document |= {"variants": [_DENSE, _PRUNED], "pruning": spec.model_dump(mode="json")}
    document["data"]["images"]["train"] = train
    return loaded.model_copy(update={"recipe": type(loaded.recipe).model_validate(document)})


def files_of(loaded: LoadedRecipe, work: Path, data: DataStore) -> dict[str, Path]:
    """The dense and the pruned file. Raises SystemExit with the reason when a step fails."""
    start_s = time.process_time()
    listener = Listener(
        started=lambda name: None, noted=lambda text: print(f"  {text}", flush=True), finished=lambda result: None
    )
    steps = [f"precision.{name}" for name in (_DENSE, _PRUNED)]
    settings = [RunSettings(work, work / "none", until=step) for step in steps]
    made = {}
    for result in (result for each in settings for result in run_pipeline(loaded, each, data, listener)):
        if result.artifact is None:
            raise SystemExit(f"{result.step} failed: {result.detail.get('error')}")
        made[result.step] = result.artifact
    said = orjson.loads(made["compress.pruned"].file(PRUNING_FILE).read_bytes())
    print(f"multiply-adds {said['multiply_adds'] / said['dense_multiply_adds']:.3f}, parameters "
          f"{said['parameters'] / said['dense_parameters']:.3f} of the dense network's; tuning metric dense "
          f"{said['dense_tuning_metric']:.4f}, one-shot {said['one_shot_tuning_metric']:.4f}, recovered "
          f"{said['tuning_metric']:.4f}; {time.process_time() - start_s:.0f} s of processors", flush=True)  # fmt: skip
    return {name: made[f"precision.{name}"].file(MODEL_FILE) for name in (_DENSE, _PRUNED)}


if __name__ == "__main__":
    main()
