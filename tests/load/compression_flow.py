"""Time and memory of compressing a network of ResNet-50's size: `python -m tests.load.compression_flow`.

Runs the pipeline's own steps, from tracing to the int8 file of the 2:4 network, on random weights: order of channels,
second-order masks, conversion, calibration. Recovery is left out, since its length is the recipe's choice.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import orjson
import yaml

from tests.load.export_memory import forget_peak, peak_bytes

_LAST_STEP = "precision.int8-trt-sparse24"


def resnet50(num_classes: int = 10):  # type: ignore[no-untyped-def]  # torch is imported late
    """Random weights from a seed."""
    import torch
    from torchvision.models import resnet50 as build

    torch.manual_seed(0)
    return build(num_classes=num_classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit-minutes", type=float, default=6.0, help="exit 1 when all steps take longer")
    parser.add_argument("--limit-gib", type=float, default=4.0, help="exit 1 when a step's peak is larger")
    parser.add_argument("--permutation-seconds", type=float, default=60.0, help="most time for the order of channels")
    arguments = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        peaks = _run(Path(scratch), arguments.permutation_seconds)
    seconds, peak = time.perf_counter() - start, max(peaks.values()) / 2**30
    print(f"all steps {seconds / 60:.1f} min, allowed {arguments.limit_minutes:g}")
    print(f"peak {peak:.2f} GiB, allowed {arguments.limit_gib:g}")
    sys.exit(seconds > 60 * arguments.limit_minutes or peak > arguments.limit_gib)


def _run(scratch: Path, permutation_seconds: float) -> dict[str, int]:
    """Peak bytes by step. Raises SystemExit with the reason when a step fails."""
    from saccade.export.compression.sparsity.mask_check import SPARSITY_FILE
    from saccade.export.data.datasets import DataStore
    from saccade.export.pipeline import Listener, RunSettings, run_pipeline
    from saccade.export.recipe import load_recipe

    recipe = scratch / "resnet50.yaml"
    recipe.write_text(yaml.safe_dump(recipe_document(permutation_seconds)))
    peaks: dict[str, int] = {}
    started = {"": 0.0}

    def finished(step: str) -> None:
        peaks[step] = peak_bytes()
        print(f"{step:34} {time.perf_counter() - started[step]:6.1f} s  {peaks[step] / 2**30:5.2f} GiB", flush=True)

    def begin(step: str) -> None:
        started[step] = time.perf_counter()
        forget_peak()

    listener = Listener(started=begin, noted=lambda text: None, finished=lambda result: finished(result.step))
    settings = RunSettings(scratch / "work", scratch / "repository", until=_LAST_STEP)
    results = run_pipeline(load_recipe(recipe), settings, DataStore(), listener)
    if results[-1].status == "failed":
        sys.exit(f"{results[-1].step} failed: {results[-1].detail['error']}")
    made = next(result.artifact for result in results if result.step == "compress.sparse24")
    assert made is not None
    layers = [layer for layer in orjson.loads(made.file(SPARSITY_FILE).read_bytes())["layers"] if layer["eligible"]]
    better = sum(layer["kept_magnitude_permuted"] > layer["kept_magnitude_identity"] for layer in layers)
    kept = [
        sum(layer[key] for layer in layers) / len(layers)
        for key in ("kept_magnitude_identity", "kept_magnitude_permuted")
    ]
    print(f"order of channels: {better} of {len(layers)} layers keep more, mean {kept[0]:.4f} to {kept[1]:.4f}")
    return peaks


def recipe_document(
    permutation_seconds: float, variants: Sequence[str] = ("fp32", "int8-trt-sparse24")
) -> dict[str, object]:
    """ResNet-50 at its own image size, ten classes, on random weights."""
    return {
        "model": "resnet50",
        "source": {"kind": "module", "factory": "tests.load.compression_flow:resnet50"},
        "task": {"task": "classify", "top_k": 3},
        "labels": [str(digit) for digit in range(10)],
        "preprocess": {"width": 224, "height": 224, "fit": "stretch"},
        "data": {"dataset": "digit_scenes", "images": {"calibration": 64, "tuning": 32, "test": 32}},
        "variants": list(variants),
        "sparsity": {"permutation_budget_s": permutation_seconds, "recovery": {"steps": 0}},
        "calibration": {"entropy": False, "percentiles": [99.99]},
        "gate": {"allow_random_weights": True, "mode": "parity"},
    }


if __name__ == "__main__":
    main()
