"""2:4 along input channels, at each fixed output channel and kernel position."""

from __future__ import annotations

import pytest
import torch

from saccade.export.compression.sparsity.masks import (
    best_two_of_four,
    has_two_four,
    kept_magnitude,
    magnitude_mask,
    random_mask,
)


def test_the_two_largest_of_every_four_input_channels_stay() -> None:
    weight = torch.tensor([[1.0, -4.0, 3.0, 2.0, 0.5, 0.1, 0.2, -0.3]])

    assert magnitude_mask(weight).tolist() == [[False, True, True, False, True, False, False, True]]


def test_each_kernel_position_has_its_own_mask() -> None:
    weight = torch.zeros(1, 4, 1, 2)
    weight[0, :, 0, 0] = torch.tensor([4.0, 3.0, 2.0, 1.0])
    weight[0, :, 0, 1] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    mask = magnitude_mask(weight)

    assert mask[0, :, 0, 0].tolist() == [True, True, False, False]
    assert mask[0, :, 0, 1].tolist() == [False, False, True, True]


def test_pattern_along_kernel_positions_is_not_two_four() -> None:
    """What a mask over the flattened kernel would give: legal in rows of 4, wrong along channels."""
    weight = torch.ones(1, 4, 2, 2)
    weight[:, :, 1] = 0.0

    assert has_two_four(weight.transpose(1, 2).reshape(1, 8, 2)[:, 4:])
    assert not has_two_four(weight)


def test_masked_weights_hold_the_pattern_and_one_more_breaks_it() -> None:
    weight = torch.randn(6, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    pruned = weight * magnitude_mask(weight)

    assert has_two_four(pruned)
    broken = pruned.clone()
    broken[0, :4, 1, 1] = 1.0
    assert not has_two_four(broken)


def test_random_masks_repeat_by_seed_and_keep_less() -> None:
    weight = torch.randn(16, 16, 1, 1, generator=torch.Generator().manual_seed(0))
    mask = random_mask(weight, 3)

    assert torch.equal(mask, random_mask(weight, 3))
    assert has_two_four(weight * mask)
    assert (weight * mask).abs().sum() / weight.abs().sum() < kept_magnitude(weight)


def test_ties_keep_the_earlier_channels() -> None:
    assert best_two_of_four(torch.ones(1, 4)).tolist() == [[True, True, False, False]]


def test_kept_magnitude_is_a_share() -> None:
    assert kept_magnitude(torch.tensor([[1.0, -4.0, 3.0, 2.0], [0.0, 5.0, -5.0, 0.0]])) == pytest.approx(17 / 20)
    assert kept_magnitude(torch.zeros(1, 4)) == 0.0


@pytest.mark.parametrize("shape", [(2, 6), (8,)])
def test_other_channel_counts_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="multiple of four"):
        magnitude_mask(torch.ones(shape))
