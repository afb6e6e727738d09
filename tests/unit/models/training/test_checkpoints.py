"""Shipped weights. Promises held here: they fit the networks, reach their targets, and stay small."""

import hashlib

import numpy as np
import pytest
import torch

from saccade.models.digits.digit_scenes import Split
from saccade.models.training import restoration, vit
from saccade.models.training.all import RUNS
from saccade.models.training.command import CHECKPOINT_DIR
from saccade.models.training.evaluation import classifier_top1, detector_map, inference_flops, segmenter_miou
from saccade.models.training.figures import TARGETS, checkpoint_path, load_checkpoint, read_figures
from saccade.models.training.runs import TrainingRun
from saccade.models.training.samples import crop_set, scene_set

SIZE_LIMIT_BYTES = 6 * 2**20  # a clone should stay small
VIT_LIMIT_BYTES = 4 * 2**20
SHIPPED = (*RUNS, vit.RUN, *restoration.RUNS)


@pytest.mark.parametrize("run", SHIPPED, ids=lambda run: run.name)
def test_a_checkpoint_loads_strictly_and_has_the_recorded_digest(run: TrainingRun) -> None:
    network = load_checkpoint(CHECKPOINT_DIR, run.name, run.network())
    figure = read_figures(CHECKPOINT_DIR)[run.name]
    assert hashlib.sha256(checkpoint_path(CHECKPOINT_DIR, run.name).read_bytes()).hexdigest() == figure.weights_sha256
    assert sum(parameter.numel() for parameter in network.parameters()) == figure.parameters
    assert inference_flops(network, run.image_size) == figure.flops
    assert all(torch.isfinite(tensor).all() for tensor in network.state_dict().values())


@pytest.mark.parametrize("run", SHIPPED, ids=lambda run: run.name)
def test_recorded_figures_reach_their_targets_on_the_test_split(run: TrainingRun) -> None:
    figure = read_figures(CHECKPOINT_DIR)[run.name]
    assert figure.metric == run.metric
    assert figure.value >= TARGETS[run.name]
    assert figure.command == run.command


def test_checkpoints_together_stay_within_six_mebibytes() -> None:
    assert sum(checkpoint_path(CHECKPOINT_DIR, run.name).stat().st_size for run in RUNS) <= SIZE_LIMIT_BYTES


def test_the_transformers_checkpoint_stays_within_four_mebibytes() -> None:
    assert checkpoint_path(CHECKPOINT_DIR, vit.RUN.name).stat().st_size <= VIT_LIMIT_BYTES


def test_restoring_networks_stay_within_half_a_mebibyte_each() -> None:
    assert all(checkpoint_path(CHECKPOINT_DIR, run.name).stat().st_size <= 2**19 for run in restoration.RUNS)


def test_training_everything_took_less_than_half_an_hour_of_two_cores() -> None:
    assert sum(figure.core_seconds for figure in read_figures(CHECKPOINT_DIR).values()) < 2 * 30 * 60


def test_shipped_weights_work_on_a_few_unseen_samples() -> None:
    classifier, detector, segmenter = (load_checkpoint(CHECKPOINT_DIR, run.name, run.network()) for run in RUNS)
    crops, scenes = crop_set(Split.TEST, 99, 50), scene_set(Split.TEST, 99, 12)
    assert classifier_top1(classifier, crops) >= 0.94
    assert detector_map(detector, scenes) >= 0.5
    assert segmenter_miou(segmenter, scenes) >= 0.6
    assert np.isfinite(crops.images).all()
