"""Tracing. Promises: what torch says of harmless caches of a module does not stand in the middle of a run."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from saccade.export.convert.trace import traced


class Caching(nn.Module):
    """Keeps a tensor that it makes of its weights, as LeViT does with its attention biases."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.ones(3))
        self.cache = torch.zeros(3)

    def forward(self, images: Tensor) -> Tensor:
        self.cache = self.bias * 2
        return images.float().mean((1, 2)) + self.cache


def test_a_module_that_keeps_a_tensor_is_traced_without_a_word() -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = traced(Caching().eval(), torch.zeros(1, 8, 8, 3, dtype=torch.uint8))

    assert found.not_batchable_reason == ""
    assert not [each for each in said if "assigned during export" in str(each.message)]
