"""The best possible gain of 2:4, against multiply-adds counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from saccade.export.compression.sparsity.ceiling import SparseWork, sparse_work

BATCH = torch.export.Dim("batch", min=1, max=8)


class TwoLayers(nn.Module):
    """A convolution over 6 x 6 places and a linear layer over the pooled channels, and a product without weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.linear = nn.Linear(8, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.conv(images).flatten(2)
        features = features @ (features.transpose(1, 2) @ features)
        return self.linear(features.mean(2))


@pytest.fixture(scope="module")
def module() -> torch.fx.GraphModule:
    traced = torch.export.export(TwoLayers().eval(), (torch.zeros(2, 3, 6, 6),), dynamic_shapes=({0: BATCH},)).module()
    assert isinstance(traced, torch.fx.GraphModule)
    return traced


def test_work_is_counted_in_every_operator(module: torch.fx.GraphModule) -> None:
    conv, linear, attention = 3 * 8 * 9 * 36, 8 * 4, 2 * 8 * 36 * 36

    share = sparse_work(module, ["conv"], torch.zeros(1, 3, 6, 6)).share

    assert share == pytest.approx(conv / (conv + linear + attention))
    assert sparse_work(module, ["conv", "linear"], torch.zeros(1, 3, 6, 6)).share > share
    assert sparse_work(module, [], torch.zeros(1, 3, 6, 6)).share == 0.0


def test_half_of_the_claimed_work_can_be_saved() -> None:
    assert SparseWork(0.0).ceiling == 1.0
    assert SparseWork(0.178).ceiling == pytest.approx(1.0977, abs=1e-4)
    assert SparseWork(1.0).ceiling == 2.0


def test_form_that_cannot_reach_its_limit_is_refused_with_both_figures() -> None:
    assert SparseWork(0.178).refusal(1.03) == ""
    assert "do 4.0% of the multiply-adds, so the best possible gain is 1.02x" in SparseWork(0.04).refusal(1.03)
