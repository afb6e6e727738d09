"""What EViT's token reduction costs and gains on this CPU: `python -m tests.load.token_reduction`.

One trained checkpoint is exported at every keep rate; their graphs are measured on the test split and take turns at
batch 8. Speed ratios are against keep rate 1 with a 95 % interval; below 1 the dropped tokens did not pay for sorting
and gathering the others.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import yaml

from saccade.export.data.datasets import DataStore
from saccade.export.graph.onnx_graph import MODEL_FILE
from saccade.export.pipeline import Listener, RunSettings, run_pipeline
from saccade.export.qualification.accuracy import evaluate
from saccade.export.qualification.benchmark import cpu_name, seconds_per_run, speed_ratio, usable_threads
from saccade.export.qualification.evidence import point_value
from saccade.export.qualification.serving import open_backend
from saccade.export.recipe import LoadedRecipe, load_recipe

RECIPE = Path("models/recipes/extra/digits-vit.yaml")
KEEP_RATES = (1.0, 0.9, 0.7, 0.5)
_BATCH = 8


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--seconds", type=float, default=30.0, help="for the timed turns")
    arguments = parser.parse_args()
    data = DataStore()
    with tempfile.TemporaryDirectory() as scratch:
        recipes = [_at_keep_rate(arguments.recipe, rate, Path(scratch)) for rate in KEEP_RATES]
        files = [_optimised(loaded, data, Path(scratch)) for loaded in recipes]
        backends = [open_backend(file, loaded.recipe) for file, loaded in zip(files, recipes, strict=True)]
        recipe, test = recipes[0].recipe, data.split(recipes[0], "test")
        sizes = (recipe.task, len(recipe.labels), recipe.qualify.evaluate_batch_size)
        scores = [point_value(evaluate(backend.infer, test, *sizes)) for backend in backends]
        images = test.images[:_BATCH]
        seconds = seconds_per_run(
            [lambda backend=backend: backend.infer(images) for backend in backends],  # type: ignore[misc]  # bound now
            repeats=1000,
            budget_s=arguments.seconds,
        )
        for backend in backends:
            backend.close()
    threads = usable_threads(recipe.qualify.threads)
    model = load_recipe(arguments.recipe).recipe.model
    print(f"{model} on {len(test.samples)} test images; {cpu_name()}, {threads} threads, {len(seconds)} turns\n")
    print(f"| keep rate | top-1 | ms, batch {_BATCH} | speed against keep rate 1 |")
    print("|---|---|---|---|")
    for column, (rate, score) in enumerate(zip(KEEP_RATES, scores, strict=True)):
        ratio = speed_ratio(seconds[:, [column, 0]], _BATCH)
        milliseconds = 1e3 * float(np.median(seconds[:, column]))
        speed = f"{ratio.ratio:.2f} ({ratio.ci_low:.2f}-{ratio.ci_high:.2f})"
        print(f"| {rate} | {score:.4f} | {milliseconds:.2f} | {speed} |")


def _at_keep_rate(recipe: Path, rate: float, scratch: Path) -> LoadedRecipe:
    """The same recipe with the factory's keep rate, written beside nothing of the original."""
    document = yaml.safe_load(recipe.read_text())
    document["model"] = f"{document['model']}-keep-{rate:g}"
    document["source"].setdefault("arguments", {})["keep_rate"] = rate
    document["weights"] = str((recipe.parent / document["weights"]).resolve())
    path = scratch / f"keep-{rate:g}.yaml"
    path.write_text(yaml.safe_dump(document))
    return load_recipe(path)


def _optimised(loaded: LoadedRecipe, data: DataStore, scratch: Path) -> Path:
    """The fp32 graph. Raises SystemExit with the reason when a step fails."""
    quiet = Listener(started=lambda name: None, noted=lambda text: None, finished=lambda result: None)
    settings = RunSettings(scratch / "work", scratch / "repository", until="onnx_optimization")
    result = run_pipeline(loaded, settings, data, quiet)[-1]
    if result.artifact is None:
        raise SystemExit(f"{loaded.recipe.model}, {result.step} failed: {result.detail['error']}")
    return result.artifact.file(MODEL_FILE)


if __name__ == "__main__":
    main()
