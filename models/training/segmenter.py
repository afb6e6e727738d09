"""Trains the digit segmenter: writes digits-segmenter.safetensors and its mIoU on unseen digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from saccade.models.digits.digit_scenes import SCENE_SIZE, Split
from saccade.models.networks.ddrnet import OUTPUT_STRIDE, SegmentationLogits, digits_segmenter
from saccade.models.networks.layers import as_float
from saccade.models.training.augmentation import recoloured, shifted
from saccade.models.training.command import autocast, parse_options
from saccade.models.training.evaluation import segmenter_miou
from saccade.models.training.loop import TrainingSchedule
from saccade.models.training.runs import TEST_SEED, TRAIN_SEED, TUNING_SEED, TrainingRun, execute
from saccade.models.training.samples import SceneSet, scene_set

TRAIN_IMAGES, TUNING_IMAGES, TEST_IMAGES = 8_000, 150, 600
_AUXILIARY_WEIGHT = 0.4  # as in the paper
_DIGIT_WEIGHT = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class SegmenterTrainee:
    """Cross-entropy of both heads over recoloured, shifted scenes."""

    training: SceneSet
    tuning: SceneSet

    @property
    def examples(self) -> int:
        return len(self.training.images)

    def loss(self, network: nn.Module, indices: Tensor, rng: Generator) -> Tensor:
        rows = indices.numpy()
        images = recoloured(as_float(torch.from_numpy(self.training.images[rows])), rng)
        images, masks, _ = shifted(images, torch.from_numpy(self.training.masks[rows]), 16, rng)
        with autocast():
            logits = cast(SegmentationLogits, network(images.contiguous(memory_format=torch.channels_last)))
        truth = _every_second_pixel(cast(Tensor, masks), rng)
        return _pixel_loss(logits.main, truth) + _AUXILIARY_WEIGHT * _pixel_loss(logits.auxiliary, truth)

    def tuning_metric(self, network: nn.Module) -> float:
        return segmenter_miou(network, self.tuning)


def _every_second_pixel(masks: Tensor, rng: Generator) -> Tensor:
    """Half-size truth (n, h / 2, w / 2) at a quarter of the loss's cost.

    The random phase keeps it free of a half-pixel bias.
    """
    phase = torch.randint(0, 2, (2,), generator=rng)
    return masks[:, int(phase[0]) :: 2, int(phase[1]) :: 2].long()


def _pixel_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy over all pixels, plus one among the digits alone on digit pixels.

    Nine pixels in ten are background, so the first term learns where digits are long before it learns their classes.
    The second term learns classes faster. It ignores background, so it does not move the strokes' edges as class
    weights would.
    """
    enlarged = functional.interpolate(logits.float(), scale_factor=OUTPUT_STRIDE / 2, mode="bilinear")
    digit_truth = truth - 1  # background becomes -1, which the second term ignores
    among_digits = functional.cross_entropy(enlarged[:, 1:], digit_truth, ignore_index=-1, reduction="sum")
    digit_pixels = (digit_truth >= 0).sum().clamp_min(1)
    return functional.cross_entropy(enlarged, truth) + _DIGIT_WEIGHT * among_digits / digit_pixels


def _trainee() -> SegmenterTrainee:
    return SegmenterTrainee(
        scene_set(Split.TRAIN, TRAIN_SEED, TRAIN_IMAGES), scene_set(Split.TUNING, TUNING_SEED, TUNING_IMAGES)
    )


def test_miou(network: nn.Module) -> float:
    """mIoU on the test split's fixed samples."""
    return segmenter_miou(network, scene_set(Split.TEST, TEST_SEED, TEST_IMAGES))


RUN = TrainingRun(
    name="digits-segmenter",
    metric="miou",
    command="python -m saccade.models.training.segmenter",
    network=digits_segmenter,
    trainee=_trainee,
    test_metric=test_miou,
    schedule=TrainingSchedule(
        steps=5_000,
        batch_size=16,
        peak_lr=3e-3,
        warmup_steps=200,
        weight_decay=0.03,
        average_decay=0.997,
        evaluate_every=500,
        seed=3,
    ),
    image_size=SCENE_SIZE,
    train_images=TRAIN_IMAGES,
    tuning_images=TUNING_IMAGES,
    test_images=TEST_IMAGES,
)

if __name__ == "__main__":
    execute(RUN, parse_options(__doc__))
