"""2:4 by second order, against the plain least-squares solution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saccade.export.compression.sparsity.eligibility import weighted_layers
from saccade.export.compression.sparsity.masks import has_two_four, magnitude_mask
from saccade.export.compression.sparsity.second_order import (
    columns_of,
    prune_in_order,
    pruned_by_second_order,
    weight_of,
)
from saccade.export.compression.spec import SparsitySpec


def correlated(rows: int, columns: int) -> Tensor:
    """Inputs in which neighbours say nearly the same, so that one can stand in for the other."""
    rng = torch.Generator().manual_seed(0)
    causes = torch.randn(rows, columns // 2, generator=rng)
    return causes.repeat_interleave(2, 1) + 0.1 * torch.randn(rows, columns, generator=rng)


def output_error(inputs: Tensor, weight: Tensor, pruned: Tensor) -> float:
    return float((inputs @ (weight - pruned).T).norm() / (inputs @ weight.T).norm())


def test_update_beats_magnitude_on_correlated_inputs() -> None:
    inputs = correlated(512, 32)
    weight = torch.randn(16, 32, generator=torch.Generator().manual_seed(1))
    found = pruned_by_second_order(weight, inputs.T @ inputs)

    assert has_two_four(found.weight)
    assert torch.equal(found.weight != 0, found.mask)
    assert output_error(inputs, weight, found.weight) < 0.5 * output_error(
        inputs, weight, weight * magnitude_mask(weight)
    )


def test_update_is_near_the_best_for_its_own_mask() -> None:
    inputs = correlated(512, 16)
    weight = torch.randn(4, 16, generator=torch.Generator().manual_seed(2))
    found = pruned_by_second_order(weight, inputs.T @ inputs)
    best = torch.zeros_like(weight)
    for row, mask in enumerate(found.mask):
        solution = torch.linalg.lstsq(inputs[:, mask], inputs @ weight[row]).solution
        best[row, mask] = solution

    assert output_error(inputs, weight, found.weight) < 1.5 * output_error(inputs, weight, best) + 0.01


def test_silent_inputs_are_pruned_first() -> None:
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    inputs[:, :2] = 0.0
    found = pruned_by_second_order(torch.ones(1, 4), inputs.T @ inputs)

    assert found.mask.tolist() == [[False, False, True, True]]


def test_columns_put_the_input_channels_of_one_kernel_position_side_by_side() -> None:
    weight = torch.arange(2 * 4 * 3 * 3.0).reshape(2, 4, 3, 3)
    columns = columns_of(weight)

    assert torch.equal(columns[1, 4:8], weight[1, :, 0, 1])
    assert torch.equal(weight_of(columns, weight.shape), weight)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.classify = nn.Linear(16, 4)

    def forward(self, images: Tensor) -> Tensor:
        features = torch.relu(self.body(torch.relu(self.stem(images.float() / 255.0))))
        logits: Tensor = self.classify(features.mean((2, 3)))
        return logits


def test_pass_prunes_eligible_convolutions_along_channels_and_keeps_answers_close() -> None:
    torch.manual_seed(0)
    module = torch.export.export(Small().eval(), (torch.zeros(8, 3, 12, 12, dtype=torch.uint8),), strict=False).module()
    images = torch.randint(0, 256, (8, 3, 12, 12), dtype=torch.uint8)
    with torch.no_grad():
        before = module(images)
    output = next(node for node in module.graph.nodes if node.op == "output")
    layers = weighted_layers(module, [str(output.args[0][0])], SparsitySpec())
    told: list[str] = []
    pruned = prune_in_order(module, [layer for layer in layers if layer.is_eligible], images, told.append)
    second = module.get_parameter("body.weight").detach().clone()
    with torch.no_grad():
        error = float((module(images) - before).norm() / before.norm())

    assert [layer.reason for layer in layers] == [
        "first layer: it reads pixels",
        "",
        "last layer: it gives the answer",
    ]
    assert told == ["body"]
    assert list(pruned) == ["body.weight"]
    assert has_two_four(second)
    assert error < 0.15
