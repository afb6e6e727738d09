"""The digit transformer. Promises held here: logits per image, one checkpoint for every keep rate, a dynamic batch."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from saccade.models.networks.digits_vit import digits_vit
from saccade.models.networks.evit import kept_count, reorganised_layers
from saccade.models.networks.resnet import digits_classifier
from saccade.models.training.command import CHECKPOINT_DIR
from saccade.models.training.figures import load_checkpoint
from saccade.models.training.samples import CropSet
from saccade.models.training.vit import VitTrainee, taught_vit

SIZE, TOKENS = 64, 64


def small(keep_rate: float = 1.0) -> Any:
    torch.manual_seed(0)
    return digits_vit(width=32, depth=4, heads=2, keep_rate=keep_rate).eval()


@torch.no_grad()
def logits(network: Any, images: Tensor) -> Tensor:
    answer: Tensor = network(images)
    return answer


def test_it_answers_one_row_of_logits_per_image_and_images_do_not_touch() -> None:
    network, images = small(), torch.rand(3, 3, SIZE, SIZE)
    together = logits(network, images)
    assert together.shape == (3, 10)
    assert torch.allclose(together[1:2], logits(network, images[1:2]), atol=1e-5)


def test_every_keep_rate_loads_the_same_checkpoint() -> None:
    whole = small().state_dict()
    for keep_rate in (0.9, 0.5):
        small(keep_rate).load_state_dict(whole, strict=True)


def test_token_counts_follow_the_keep_rate() -> None:
    network = small(0.5)
    counts: list[int] = []
    for block in network.blocks:
        block.register_forward_hook(lambda module, inputs, output: counts.append(output.shape[1]))
    logits(network, torch.rand(1, 3, SIZE, SIZE))
    expected = [1 + TOKENS]
    for _ in range(3):
        expected.append(2 + kept_count(expected[-1] - 1, 0.5))
    assert counts == expected


def test_tokens_are_dropped_behind_each_quarter_of_the_depth() -> None:
    assert reorganised_layers(12) == (3, 6, 9)  # as published
    assert reorganised_layers(6) == (1, 3, 4)


def test_exported_program_keeps_a_dynamic_batch() -> None:
    network = small(0.7)
    batch = torch.export.Dim("batch", min=1, max=16)
    program = torch.export.export(network, (torch.rand(2, 3, SIZE, SIZE),), dynamic_shapes=({0: batch},))
    images = torch.rand(5, 3, SIZE, SIZE)
    assert torch.allclose(program.module()(images), logits(network, images), atol=1e-5)


def test_training_starts_from_the_classifiers_first_stages() -> None:
    taught = taught_vit().get_submodule("patch_embed.backbone").state_dict()
    teacher = load_checkpoint(CHECKPOINT_DIR, "digits-classifier", digits_classifier()).state_dict()
    assert taught
    assert all(torch.equal(tensor, teacher[name]) for name, tensor in taught.items())


def test_the_loss_falls_when_a_batch_is_repeated_and_its_chance_is_seeded() -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), np.uint8)
    crops = CropSet(images, np.arange(8, dtype=np.int64))
    trainee = VitTrainee(crops, crops, digits_classifier().eval())
    network = small().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        loss = trainee.loss(network, torch.arange(8), Generator().manual_seed(1))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships it untyped
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert trainee.examples == 8


@pytest.mark.parametrize("keep_rate", [0.0, 1.1])
def test_impossible_keep_rate_is_refused(keep_rate: float) -> None:
    with pytest.raises(ValueError, match="keep_rate"):
        digits_vit(keep_rate=keep_rate)
