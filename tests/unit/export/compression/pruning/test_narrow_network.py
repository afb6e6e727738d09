"""Whole channels leave networks of every wiring. Promises: tiny networks, traced as the exporter traces them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from saccade.export.compression.pruning import budget, channels
from saccade.export.compression.pruning.budget import narrow_network
from saccade.export.compression.pruning.costs import counted_multiply_adds
from saccade.export.compression.pruning.importance import gate_gradients
from saccade.export.compression.pruning.narrowing import widths_of
from saccade.export.compression.recovery_loss import Meaning
from saccade.export.compression.spec import PruningSpec
from saccade.export.compression.traced_network import TracedNetwork
from saccade.export.convert.trace import traced
from saccade.export.errors import GraphError


class Residual(nn.Module):
    """A sum ties the channels of both sides; the head keeps its classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.first = nn.Conv2d(16, 32, 3, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.second = nn.Conv2d(32, 16, 1)
        self.classify = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        stem = torch.relu(self.stem(images))
        merged = torch.relu(stem + self.second(torch.relu(self.norm(self.first(stem)))))
        logits: Tensor = self.classify(merged.mean((2, 3)))
        return logits


class Branches(nn.Module):
    """Chunks that become unequal, a concatenation, a depthwise layer, a slice, flattening into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 32, 1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.leave = nn.Conv2d(48, 16, 1)
        self.late = nn.Conv2d(8, 16, 1)
        self.classify = nn.Linear(16 * 4, 5)

    def forward(self, images: Tensor) -> Tensor:
        left, right = torch.relu(self.enter(images)).chunk(2, 1)
        joined = torch.relu(self.leave(torch.cat([left, right, torch.sigmoid(self.depthwise(right))], 1)))
        pooled = functional.adaptive_avg_pool2d(torch.relu(self.late(joined[:, 8:])), 2)
        logits: Tensor = self.classify(pooled.flatten(1))
        return logits


class Attention(nn.Module):
    """Heads and LayerNorms fix the stream; values and the hidden layer may shrink."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.norm = nn.LayerNorm(16)
        self.query, self.key, self.value = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 32)
        self.project = nn.Linear(32, 16)
        self.mlp = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))
        self.classify = nn.Linear(16, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        stream = self.embed(tokens)
        normed = self.norm(stream)
        batch, count, _ = normed.shape
        query, key = (layer(normed).reshape(batch, count, 2, 8).transpose(1, 2) for layer in (self.query, self.key))
        value = self.value(normed).reshape(batch, count, 2, 16).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        stream = stream + self.project(mixed.transpose(1, 2).reshape(batch, count, 32))
        logits: Tensor = self.classify(self.norm(stream + self.mlp(stream)).mean(1))
        return logits


SHAPES: dict[type[nn.Module], tuple[int, ...]] = {Residual: (3, 6, 6), Branches: (3, 6, 6), Attention: (7, 6)}


def network_of(kind: type[nn.Module]) -> TracedNetwork:
    torch.manual_seed(0)
    program = traced(kind().eval(), torch.zeros(1, *SHAPES[kind])).program
    return TracedNetwork(program, program.module(), first_raw=0, meaning="distribution", answers=1)


def inputs_of(kind: type[nn.Module], count: int = 3) -> Tensor:
    return torch.randn(count, *SHAPES[kind], generator=torch.Generator().manual_seed(1))


def spec_of(**fields: Any) -> PruningSpec:
    return PruningSpec(**{"flop_share": 0.6, "round_to": 4, **fields})


def output_widths(module: fx.GraphModule) -> dict[str, int]:
    return {layer: shape[0] for layer, shape in widths_of(module).items()}


@pytest.mark.parametrize(("kind", "share"), [(Residual, 0.5), (Branches, 0.6), (Attention, 0.8)])
def test_pruned_network_is_within_its_budget_and_answers_in_the_same_shape(kind: type[nn.Module], share: float) -> None:
    network, inputs = network_of(kind), inputs_of(kind)

    narrow, error = narrow_network(network, inputs, spec_of(flop_share=share))

    assert error <= 1e-5
    dense_work, work = counted_multiply_adds(network.module, inputs), counted_multiply_adds(narrow, inputs)
    assert 0.3 * dense_work < work <= share * dense_work
    with torch.no_grad():
        assert narrow(inputs).shape == network.module(inputs).shape


@pytest.mark.parametrize("kind", SHAPES)
def test_widths_stay_multiples_and_the_last_layer_keeps_its_own(kind: type[nn.Module]) -> None:
    network = network_of(kind)

    narrow, _ = narrow_network(network, inputs_of(kind), spec_of(flop_share=0.8))

    before, after = output_widths(network.module), output_widths(narrow)
    changed = {layer for layer in before if after[layer] != before[layer]}
    assert changed
    assert all(after[layer] % 4 == 0 and after[layer] < before[layer] for layer in changed)
    assert "classify" not in changed


def test_both_sides_of_a_residual_sum_lose_the_same_channels() -> None:
    narrow, _ = narrow_network(network_of(Residual), inputs_of(Residual), spec_of(flop_share=0.3))

    widths = output_widths(narrow)
    assert widths["stem"] == widths["second"] < 16
    assert widths_of(narrow)["classify"] == (5, widths["stem"])


def test_channels_that_carry_nothing_leave_first_and_nobody_notices() -> None:
    network, inputs = network_of(Residual), inputs_of(Residual)
    weights = dict(network.module.named_parameters())
    with torch.no_grad():
        weights["second.weight"][:, ::2] = 0.0
        weights["first.weight"][::2] = 0.0
        before = network.module(inputs)
        narrow, _ = narrow_network(network, inputs, spec_of(flop_share=0.6, keep_dense=("stem",)))
        after = narrow(inputs)

    assert output_widths(narrow)["first"] == 16
    torch.testing.assert_close(after, before)


def test_large_weights_that_read_silence_leave_before_small_ones_that_are_heard() -> None:
    network, inputs = network_of(Residual), inputs_of(Residual)
    weights = dict(network.module.named_parameters())
    with torch.no_grad():
        weights["norm.bias"][::2] = -100.0  # behind the ReLU these channels are always 0
        weights["second.weight"][:, ::2] *= 100.0
        before = network.module(inputs)
        narrow, _ = narrow_network(network, inputs, spec_of(flop_share=0.6, keep_dense=("stem",)))

        torch.testing.assert_close(narrow(inputs), before)
    assert output_widths(narrow)["first"] == 16


@pytest.mark.parametrize("meaning", ["distribution", "numbers"])
def test_importance_is_the_same_every_time_and_changes_no_weight(meaning: Meaning) -> None:
    network, inputs = replace(network_of(Branches), meaning=meaning), inputs_of(Branches)
    before = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}

    first, second = gate_gradients(network, inputs), gate_gradients(network, inputs)

    assert first["leave.weight", 1].shape == (6, 48)  # two draws of three images
    assert all(np.array_equal(rows, second[place]) and np.abs(rows).max() > 0.0 for place, rows in first.items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.module.state_dict().items())


def test_narrow_network_is_traced_for_any_batch() -> None:
    narrow, _ = narrow_network(network_of(Branches), inputs_of(Branches), spec_of())

    trace = traced(narrow, torch.zeros(1, *SHAPES[Branches]))

    assert trace.not_batchable_reason == ""
    inputs = inputs_of(Branches, count=5)
    with torch.no_grad():
        torch.testing.assert_close(trace.program.module()(inputs), narrow(inputs))


def test_layers_that_the_recipe_keeps_keep_their_width() -> None:
    network = network_of(Residual)

    narrow, _ = narrow_network(network, inputs_of(Residual), spec_of(keep_dense=("first",), flop_share=0.9))

    assert output_widths(narrow)["first"] == 32
    assert output_widths(narrow)["stem"] < 16


def test_budget_out_of_reach_is_refused_with_what_stands_in_its_way() -> None:
    with pytest.raises(GraphError, match=r"flop_share 0\.1 cannot be met: 1\.000 is the least .* 4 of 4 layers .*stem"):
        narrow_network(network_of(Residual), inputs_of(Residual), spec_of(flop_share=0.1, keep_dense=("stem", "first")))


def test_wrong_rule_is_caught_by_the_proof_which_names_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given: nobody says that a LayerNorm sees how many channels there are.
    monkeypatch.setattr(budget, "network_elements", channels.apply_rules)

    with pytest.raises(GraphError, match=r"channels of embed, .* cannot leave"):
        narrow_network(network_of(Attention), inputs_of(Attention), spec_of(flop_share=0.5))
