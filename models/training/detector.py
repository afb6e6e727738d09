"""Trains the digit detector: writes digits-detector.safetensors and its mAP on unseen digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Generator, Tensor, nn

from saccade.models.digits.digit_scenes import SCENE_SIZE, Split
from saccade.models.networks.layers import as_float
from saccade.models.networks.yolov10 import DualPredictions, YoloV10, digits_detector
from saccade.models.training.augmentation import recoloured
from saccade.models.training.command import autocast, parse_options
from saccade.models.training.detection_loss import detection_loss
from saccade.models.training.evaluation import detector_map
from saccade.models.training.loop import TrainingSchedule
from saccade.models.training.runs import TEST_SEED, TRAIN_SEED, TUNING_SEED, TrainingRun, execute
from saccade.models.training.samples import SceneSet, scene_set
from saccade.models.training.task_alignment import Truth

TRAIN_IMAGES, TUNING_IMAGES, TEST_IMAGES = 8_000, 200, 1_000


@dataclass(frozen=True, slots=True, eq=False)
class DetectorTrainee:
    """Dual-assignment loss over recoloured scenes."""

    training: SceneSet
    tuning: SceneSet

    @property
    def examples(self) -> int:
        return len(self.training.images)

    def loss(self, network: nn.Module, indices: Tensor, rng: Generator) -> Tensor:
        detector = cast(YoloV10, network)
        rows = indices.numpy()
        images = recoloured(as_float(torch.from_numpy(self.training.images[rows])), rng)
        truth = Truth(torch.from_numpy(self.training.boxes[rows]), torch.from_numpy(self.training.class_ids[rows]))
        with autocast():
            predictions = detector(images.contiguous(memory_format=torch.channels_last))
        return detection_loss(detector, cast(DualPredictions, predictions), truth)

    def tuning_metric(self, network: nn.Module) -> float:
        return detector_map(network, self.tuning)


def _trainee() -> DetectorTrainee:
    return DetectorTrainee(
        scene_set(Split.TRAIN, TRAIN_SEED, TRAIN_IMAGES), scene_set(Split.TUNING, TUNING_SEED, TUNING_IMAGES)
    )


def test_map(network: nn.Module) -> float:
    """mAP@[.50:.95] on the test split's fixed samples."""
    return detector_map(network, scene_set(Split.TEST, TEST_SEED, TEST_IMAGES))


RUN = TrainingRun(
    name="digits-detector",
    metric="map",
    command="python -m saccade.models.training.detector",
    network=digits_detector,
    trainee=_trainee,
    test_metric=test_map,
    schedule=TrainingSchedule(
        steps=3_000,
        batch_size=16,
        peak_lr=2e-3,
        warmup_steps=300,
        weight_decay=0.03,
        average_decay=0.998,
        evaluate_every=500,
        seed=2,
    ),
    image_size=SCENE_SIZE,
    train_images=TRAIN_IMAGES,
    tuning_images=TUNING_IMAGES,
    test_images=TEST_IMAGES,
)

if __name__ == "__main__":
    execute(RUN, parse_options(__doc__))
