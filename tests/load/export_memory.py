"""Peak memory of exporting a large network: `python -m tests.load.export_memory --gigabytes 1`.

Runs the pipeline's own steps up to the optimised graph in this process and prints each step's peak resident memory,
beside the size of the weights. The network is a stack of linear layers: nothing but weights.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import yaml

_WIDTH = 4096  # one layer has 64 MiB
_LAYER_BYTES = _WIDTH * _WIDTH * 4
_LAST_STEP = "onnx_optimization"


def large_network(layers: int, num_classes: int = 10):  # type: ignore[no-untyped-def]  # torch is imported late
    """Patches to tokens, then residual linear layers."""
    import torch
    from torch import Tensor, nn

    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, _WIDTH, 16, 16)
            self.layers = nn.ModuleList(nn.Linear(_WIDTH, _WIDTH) for _ in range(layers))
            self.head = nn.Linear(_WIDTH, num_classes)

        def forward(self, images: Tensor) -> Tensor:
            tokens = self.stem(images).flatten(2).transpose(1, 2)
            for layer in self.layers:
                tokens = tokens + torch.relu(layer(tokens))
            out: Tensor = self.head(tokens.mean(1))
            return out

    return Large()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--limit", type=float, default=3.0, help="exit 1 when a peak exceeds this many sizes")
    arguments = parser.parse_args()
    layers = max(1, round(arguments.gigabytes * 1e9 / _LAYER_BYTES))
    size = layers * _LAYER_BYTES
    with tempfile.TemporaryDirectory() as scratch:
        peaks = _peaks_of_steps(Path(scratch), layers)
    for step, peak in peaks.items():
        print(f"{step:20} {peak / 1e9:6.2f} GB  {peak / size:5.2f} x")
    worst = max(peaks.values()) / size
    print(f"weights {size / 1e9:.2f} GB, peak {worst:.2f} x, allowed {arguments.limit:g} x")
    sys.exit(worst > arguments.limit)


def _peaks_of_steps(scratch: Path, layers: int) -> dict[str, int]:
    """Bytes by step. Raises SystemExit with the reason when a step fails."""
    from saccade.export.data.datasets import DataStore
    from saccade.export.pipeline import Listener, RunSettings, run_pipeline
    from saccade.export.recipe import load_recipe

    recipe = scratch / "large.yaml"
    recipe.write_text(yaml.safe_dump(_recipe(layers)))
    peaks: dict[str, int] = {}
    listener = Listener(
        started=lambda name: forget_peak(),
        noted=lambda text: None,
        finished=lambda result: peaks.update({result.step: peak_bytes()}),
    )
    settings = RunSettings(scratch / "work", scratch / "repository", until=_LAST_STEP)
    results = run_pipeline(load_recipe(recipe), settings, DataStore(), listener)
    if results[-1].status == "failed":
        print(peaks)
        sys.exit(f"{results[-1].step} failed: {results[-1].detail['error']}")
    return peaks


def _recipe(layers: int) -> dict[str, object]:
    return {
        "model": "large",
        "source": {
            "kind": "module",
            "factory": "tests.load.export_memory:large_network",
            "arguments": {"layers": layers},
        },
        "task": {"task": "classify", "top_k": 3},
        "labels": [str(digit) for digit in range(10)],
        "preprocess": {"width": 32, "height": 32, "fit": "stretch"},
        "data": {"dataset": "digit_scenes", "images": {"calibration": 32, "tuning": 32, "test": 32}},
        "gate": {"allow_random_weights": True, "mode": "parity"},
    }


def forget_peak() -> None:
    """Linux starts a new high-water mark."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
