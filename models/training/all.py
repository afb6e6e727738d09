"""Trains all reference networks one after the other. A rerun does not train a finished network again."""

from __future__ import annotations

from saccade.models.training import classifier, detector, segmenter
from saccade.models.training.command import parse_options
from saccade.models.training.runs import execute

RUNS = (classifier.RUN, detector.RUN, segmenter.RUN)

if __name__ == "__main__":
    options = parse_options(__doc__)
    figures = [execute(run, options) for run in RUNS]
    wall, core = sum(figure.seconds for figure in figures), sum(figure.core_seconds for figure in figures)
    print(f"all: {wall:.0f} s of training, {core:.0f} core-seconds", flush=True)
