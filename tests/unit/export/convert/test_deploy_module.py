"""Folding and answer heads. Promises: deploy tricks equal the textbook on random networks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from saccade.export.convert.answer_heads import ClassifyHead, SegmentHead
from saccade.export.convert.normalisation import fold_normalisation, normalise, relative_l2
from saccade.export.errors import GraphError
from saccade.export.network import Network
from saccade.export.qualification.plain_answers import plain_answer
from saccade.models.contract.specs import Normalisation, PreprocessSpec, Task, TaskSpec

PREPROCESS = PreprocessSpec(width=32, height=24, fit="letterbox")
SHIFTED = Normalisation(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def network(padding: int = 1, bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, padding, bias=bias), nn.ReLU(), nn.Conv2d(8, 4, 1))
    return layers.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("padding", "normalisation", "method"),
    [
        (1, Normalisation(), "first_convolution"),
        (1, Normalisation(std=(0.2, 0.3, 0.4)), "first_convolution"),
        (0, SHIFTED, "first_convolution"),
        (1, SHIFTED, "depthwise_convolution"),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_normalisation_folds_where_that_is_exact(
    padding: int, normalisation: Normalisation, method: str, bias: bool
) -> None:
    pixels = torch.randint(0, 256, (2, 3, 24, 32)).float()
    expected = network(padding, bias)(normalise(pixels, normalisation))

    folded = fold_normalisation(network(padding, bias), normalisation, 24, 32)

    assert folded.method == method
    assert folded.relative_error <= 1e-5
    assert relative_l2(folded.network(pixels), expected) <= 1e-5


class ReadsTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        total: Tensor = self.first(images) + self.second(images)
        return total


class AddsItsInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        total: Tensor = self.first(images) + images
        return total


class SharesItsWeights(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        total: Tensor = self.first(self.first(images))
        return total


class StandardisesItsWeights(nn.Conv2d):
    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.conv2d(images, self.weight - self.weight.mean(), self.bias)


@pytest.mark.parametrize("case", [ReadsTwice(), AddsItsInput(), SharesItsWeights(), StandardisesItsWeights(3, 4, 1)])
def test_network_whose_first_convolution_is_not_alone_gets_the_depthwise_front(case: nn.Module) -> None:
    network = case.eval().requires_grad_(False)
    pixels = torch.randint(0, 256, (2, 3, 8, 8)).float()
    expected = network(pixels / 255)

    folded = fold_normalisation(network, Normalisation(), 8, 8)

    assert folded.method == "depthwise_convolution"
    assert relative_l2(folded.network(pixels), expected) <= 1e-5


def test_fold_keeps_one_copy_of_the_network() -> None:
    convolutions = network(padding=0)

    folded = fold_normalisation(convolutions, SHIFTED, 24, 32)

    assert folded.network is convolutions


def test_normalisation_that_float32_cannot_hold_is_refused() -> None:
    with pytest.raises(GraphError, match="cannot be folded"):
        fold_normalisation(network(), Normalisation(std=(1e-44, 1.0, 1.0)), 8, 8)


def test_classify_head_equals_the_textbook() -> None:
    raw = torch.randn(5, 10)
    task = TaskSpec(task=Task.CLASSIFY, top_k=3)

    for found, expected in zip(
        ClassifyHead(3, "softmax")(raw),
        plain_answer(Network(nn.Identity(), "logits"), task, PREPROCESS, raw),
        strict=True,
    ):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("size", [(3, 4), (6, 16), (24, 32)])
def test_segment_head_equals_interpolate_and_argmax(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    raw = torch.randn(3, 5, *size)

    (found,) = SegmentHead(size, (24, 32))(raw)
    (expected,) = plain_answer(Network(nn.Identity(), "dense_logits"), TaskSpec(task=Task.SEGMENT), PREPROCESS, raw)

    assert found.dtype == torch.uint8
    # Both sum the same products in another order, so an exact tie may fall either way.
    assert (found != expected).float().mean() <= 1e-3
