"""Processor time of one step of recovery, of a network that learns from itself.

OMP_NUM_THREADS=1 python -m tests.load.recovery_step digits-segmenter --batch-size 16
"""

from __future__ import annotations

import argparse
import copy
import time
from itertools import pairwise
from pathlib import Path

from saccade.export.compression.recovery import Lesson, recover
from saccade.export.compression.spec import RecoverySpec
from saccade.export.compression.traced_network import traced_network
from saccade.export.data.datasets import DataStore
from saccade.export.pipeline import Listener, RunSettings, run_pipeline
from saccade.export.recipe import load_recipe
from saccade.export.steps import StepContext
from tests.load.beside import RECIPES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name of a recipe in models/recipes")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--work", type=Path, default=Path(".saccade/export"))
    options = parser.parse_args()
    loaded, data = load_recipe(RECIPES / f"{options.model}.yaml"), DataStore()
    quiet = Listener(started=lambda name: None, noted=lambda text: None, finished=lambda result: None)
    wrapped = run_pipeline(loaded, RunSettings(options.work, options.work, until="wrap"), data, quiet)[-1].artifact
    if wrapped is None:
        raise SystemExit("step wrap failed")
    context = StepContext(loaded, None, "dense", options.work, {"wrap": wrapped}, data, options.work, quiet.noted)
    network = traced_network(wrapped.directory, context)
    lesson = Lesson(data.split(loaded, "calibration").images, None, network.meaning)
    seconds: list[float] = []

    def clock(_: object) -> float:
        seconds.append(time.process_time())
        return 0.0

    spec = RecoverySpec(steps=options.steps, batch_size=options.batch_size, evaluate_every=1)
    recover(
        copy.deepcopy(network.module), network.module, {}, lesson, spec, network.first_raw, clock, lambda text: None
    )
    each = sorted(after - before for before, after in pairwise(seconds))
    print(f"{options.model}: {each[len(each) // 2]:.3f} s of processors per step ({each[0]:.3f} to {each[-1]:.3f})")


if __name__ == "__main__":
    main()
