"""Measures the checkpoints on the test split again. Exits with 1 when a figure misses its target or its record."""

from __future__ import annotations

import sys

import torch

from saccade.models.networks.layers import trained_parameters
from saccade.models.training import restoration, vit
from saccade.models.training.all import RUNS
from saccade.models.training.command import Options, parse_options
from saccade.models.training.figures import TARGETS, load_checkpoint, read_figures

_TOLERANCE = 0.002  # another CPU's rounding may flip a few borderline answers


def evaluate(options: Options) -> bool:
    """Prints one line per network; True when all are as recorded and reach their targets."""
    torch.set_num_threads(options.threads)
    recorded = read_figures(options.checkpoint_dir)
    good = True
    for run in (*RUNS, vit.RUN, *restoration.RUNS):
        network = load_checkpoint(options.checkpoint_dir, run.name, run.network())
        value, target, record = run.test_metric(network), TARGETS[run.name], recorded[run.name].value
        passed = value >= target and abs(value - record) <= _TOLERANCE
        good &= passed
        print(
            f"{run.name}: {run.metric} {value:.4f} on {run.test_images} test images, recorded {record:.4f}, "
            f"target {target:.2f}, {trained_parameters(network):,} parameters: {'ok' if passed else 'MISSED'}",
            flush=True,
        )
    return good


if __name__ == "__main__":
    sys.exit(0 if evaluate(parse_options(__doc__)) else 1)
