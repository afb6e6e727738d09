"""Trains the digit classifier: writes digits-classifier.safetensors and its top-1 on unseen digits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from saccade.models.digits.digit_scenes import CROP_SIZE, Split
from saccade.models.networks.layers import as_float
from saccade.models.networks.resnet import digits_classifier
from saccade.models.training.augmentation import recoloured, shifted
from saccade.models.training.command import autocast, parse_options
from saccade.models.training.evaluation import classifier_top1
from saccade.models.training.loop import TrainingSchedule
from saccade.models.training.runs import TEST_SEED, TRAIN_SEED, TUNING_SEED, TrainingRun, execute
from saccade.models.training.samples import CropSet, crop_set

TRAIN_IMAGES, TUNING_IMAGES, TEST_IMAGES = 24_000, 1_000, 2_000
LABEL_SMOOTHING = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class ClassifierTrainee:
    """Cross-entropy over recoloured, shifted crops."""

    training: CropSet
    tuning: CropSet

    @property
    def examples(self) -> int:
        return len(self.training.images)

    def loss(self, network: nn.Module, indices: Tensor, rng: Generator) -> Tensor:
        images, truth = changed_crops(self.training, indices, rng)
        with autocast():
            logits = network(images)
        return functional.cross_entropy(logits.float(), truth, label_smoothing=LABEL_SMOOTHING)

    def tuning_metric(self, network: nn.Module) -> float:
        return classifier_top1(network, self.tuning)


def changed_crops(crops: CropSet, indices: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
    """Recoloured, shifted images (n, 3, 64, 64) of the given rows, channels last, and their class ids."""
    rows = indices.numpy()
    images = recoloured(as_float(torch.from_numpy(crops.images[rows])), rng)
    images, _, _ = shifted(images, None, 3, rng)
    return images.contiguous(memory_format=torch.channels_last), torch.from_numpy(crops.class_ids[rows])


def _trainee() -> ClassifierTrainee:
    return ClassifierTrainee(
        crop_set(Split.TRAIN, TRAIN_SEED, TRAIN_IMAGES), crop_set(Split.TUNING, TUNING_SEED, TUNING_IMAGES)
    )


def test_top1(network: nn.Module) -> float:
    """Top-1 on the test split's fixed samples."""
    return classifier_top1(network, crop_set(Split.TEST, TEST_SEED, TEST_IMAGES))


RUN = TrainingRun(
    name="digits-classifier",
    metric="top1",
    command="python -m saccade.models.training.classifier",
    network=digits_classifier,
    trainee=_trainee,
    test_metric=test_top1,
    schedule=TrainingSchedule(
        steps=3_000,
        batch_size=96,
        peak_lr=3e-3,
        warmup_steps=200,
        weight_decay=0.05,
        average_decay=0.998,
        evaluate_every=500,
        seed=1,
    ),
    image_size=CROP_SIZE,
    train_images=TRAIN_IMAGES,
    tuning_images=TUNING_IMAGES,
    test_images=TEST_IMAGES,
)

if __name__ == "__main__":
    execute(RUN, parse_options(__doc__))
