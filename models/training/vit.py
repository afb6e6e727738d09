"""Trains the digit transformer: writes digits-vit.safetensors and its top-1 on unseen digits.

The trained digits classifier gives its first stages to start from, and teaches (Touvron et al., Training data-efficient
image transformers & distillation through attention, arXiv 2012.12877): its answers on the very same changed crops count
as much as the labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from saccade.models.digits.digit_scenes import CROP_SIZE, Split
from saccade.models.networks.digits_vit import digits_vit
from saccade.models.networks.resnet import digits_classifier
from saccade.models.training.classifier import (
    LABEL_SMOOTHING,
    TEST_IMAGES,
    TRAIN_IMAGES,
    TUNING_IMAGES,
    changed_crops,
    test_top1,
)
from saccade.models.training.command import CHECKPOINT_DIR, autocast, parse_options
from saccade.models.training.evaluation import classifier_top1
from saccade.models.training.figures import load_checkpoint
from saccade.models.training.loop import TrainingSchedule
from saccade.models.training.runs import TRAIN_SEED, TUNING_SEED, TrainingRun, execute
from saccade.models.training.samples import CropSet, crop_set

_TEACHER_SHARE = 0.5  # of the loss; the labels have the rest


@dataclass(frozen=True, slots=True, eq=False)
class VitTrainee:
    """Labels and a teacher's answers over recoloured, shifted crops."""

    training: CropSet
    tuning: CropSet
    teacher: nn.Module

    @property
    def examples(self) -> int:
        return len(self.training.images)

    def loss(self, network: nn.Module, indices: Tensor, rng: Generator) -> Tensor:
        images, truth = changed_crops(self.training, indices, rng)
        with autocast():
            with torch.no_grad():
                taught = self.teacher(images)
            logits = network(images).float()
        by_labels = functional.cross_entropy(logits, truth, label_smoothing=LABEL_SMOOTHING)
        by_teacher = functional.cross_entropy(logits, taught.float().softmax(1))
        return _TEACHER_SHARE * by_teacher + (1.0 - _TEACHER_SHARE) * by_labels

    def tuning_metric(self, network: nn.Module) -> float:
        return classifier_top1(network, self.tuning)


def taught_vit() -> nn.Module:
    """The untrained transformer behind the trained classifier's first stages."""
    network = digits_vit()
    early = network.get_submodule("patch_embed.backbone")
    known = _teacher().state_dict()
    early.load_state_dict({name: known[name] for name in early.state_dict()})
    return network


def _teacher() -> nn.Module:
    return load_checkpoint(CHECKPOINT_DIR, "digits-classifier", digits_classifier())


def _trainee() -> VitTrainee:
    return VitTrainee(
        crop_set(Split.TRAIN, TRAIN_SEED, TRAIN_IMAGES),
        crop_set(Split.TUNING, TUNING_SEED, TUNING_IMAGES),
        _teacher(),
    )


RUN = TrainingRun(
    name="digits-vit",
    metric="top1",
    command="python -m saccade.models.training.vit",
    network=taught_vit,
    trainee=_trainee,
    test_metric=test_top1,
    schedule=TrainingSchedule(
        steps=1_200,
        batch_size=64,
        peak_lr=1.5e-3,
        warmup_steps=100,
        weight_decay=0.05,
        average_decay=0.995,
        evaluate_every=300,
        seed=4,
    ),
    image_size=CROP_SIZE,
    train_images=TRAIN_IMAGES,
    tuning_images=TUNING_IMAGES,
    test_images=TEST_IMAGES,
)

if __name__ == "__main__":
    execute(RUN, parse_options(__doc__))
