"""Channels that may change places, in networks of every wiring."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from saccade.export.compression.sparsity.channel_groups import ChannelGroup, channel_groups, permuted


def traced(module: nn.Module, *shape: int) -> fx.GraphModule:
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(module.eval(), (torch.zeros(2, *shape),), dynamic_shapes=({0: batch},), strict=False)
    return program.module()


def shuffled_everywhere(module: fx.GraphModule) -> list[ChannelGroup]:
    """Side effect: every group of the module is put into a random order."""
    groups = channel_groups(module)
    rng = np.random.default_rng(1)
    for group in groups:
        state = {name: tensor.detach() for name, tensor in module.state_dict().items()}
        module.load_state_dict(state | permuted(state, group, rng.permutation(group.size)))
    return groups


class Residual(nn.Module):
    """A sum ties the channels of both of its sides."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first = nn.Conv2d(8, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 8, 1)
        self.classify = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        stem = torch.relu(self.stem(images))
        merged = torch.relu(stem + self.second(torch.relu(self.norm(self.first(stem)))))
        logits: Tensor = self.classify(merged.mean((2, 3)))
        return logits


class Branches(nn.Module):
    """Chunk, concatenation, a depthwise layer, flattening into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 16, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.leave = nn.Conv2d(24, 12, 1)
        self.classify = nn.Linear(12 * 4, 5)

    def forward(self, images: Tensor) -> Tensor:
        left, right = torch.relu(self.enter(images)).chunk(2, 1)
        joined = torch.cat([left, right, torch.relu(self.depthwise(right))], 1)
        pooled = functional.adaptive_avg_pool2d(torch.relu(self.leave(joined)), 2)
        logits: Tensor = self.classify(pooled.flatten(1))
        return logits


class Attention(nn.Module):
    """Tokens, heads, a LayerNorm and a residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Linear(16, 48)
        self.project = nn.Linear(16, 16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.embed = nn.Linear(6, 16)
        self.classify = nn.Linear(16, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        stream = self.embed(tokens)
        batch, count, width = stream.shape
        qkv = self.qkv(self.norm(stream)).reshape(batch, count, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        stream = stream + self.project(mixed.transpose(1, 2).reshape(batch, count, width))
        stream = stream + self.mlp(stream)
        logits: Tensor = self.classify(stream.mean(1))
        return logits


CASES: list[tuple[type[nn.Module], tuple[int, ...]]] = [
    (Residual, (3, 6, 6)),
    (Branches, (3, 6, 6)),
    (Attention, (7, 6)),
]


@pytest.mark.parametrize(("kind", "shape"), CASES, ids=[kind.__name__ for kind, _ in CASES])
def test_any_order_of_all_groups_keeps_the_function(kind: type[nn.Module], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    module = traced(kind(), *shape)
    inputs = torch.randn(3, *shape)
    with torch.no_grad():
        before = module(inputs)
        groups = shuffled_everywhere(module)
        after = module(inputs)

    assert groups
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def axis_one(groups: list[ChannelGroup]) -> dict[str, int]:
    """How many input channels of each weight may move."""
    counts: dict[str, int] = {}
    for group in groups:
        for (name, axis), positions in group.positions.items():
            if axis == 1 and name.endswith("weight"):
                counts[name] = counts.get(name, 0) + int(positions.size)
    return counts


def test_residual_sum_moves_both_sides_together() -> None:
    groups = channel_groups(traced(Residual(), 3, 6, 6))
    stream = next(group for group in groups if ("stem.weight", 0) in group.positions)

    assert {("stem.weight", 0), ("second.weight", 0), ("first.weight", 1), ("classify.weight", 1)} <= set(
        stream.positions
    )
    assert axis_one(groups) == {"first.weight": 8, "second.weight": 16, "classify.weight": 8}


def test_flattened_channels_move_as_blocks_and_concatenated_ones_twice() -> None:
    groups = channel_groups(traced(Branches(), 3, 6, 6))
    flattened = next(group for group in groups if ("classify.weight", 1) in group.positions)
    right = next(group for group in groups if ("depthwise.weight", 0) in group.positions)

    assert flattened.positions["classify.weight", 1].tolist()[1] == [4, 5, 6, 7]
    assert right.positions["leave.weight", 1].shape == (8, 2)


def test_answers_and_pixels_stay_in_place() -> None:
    for kind, shape in CASES:
        for group in channel_groups(traced(kind(), *shape)):
            names = set(group.positions)
            assert not {("classify.weight", 0), ("stem.weight", 1), ("enter.weight", 1), ("embed.weight", 1)} & names


class Unknown(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, images: Tensor) -> Any:
        return self.second(torch.roll(self.first(images), 1, 1))


def test_operator_without_a_rule_pins_its_channels() -> None:
    assert channel_groups(traced(Unknown(), 3, 4, 4)) == []
