"""Folding and answer heads. Promises: deploy tricks equal the textbook on random networks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from export.answer_heads import ClassifyHead, DetectHead, SegmentHead, plain_answer
from export.errors import GraphError
from export.normalisation import fold_normalisation
from models.specs import Normalisation, PreprocessSpec, Task, TaskSpec

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
    folded = fold_normalisation(network(padding, bias), normalisation, 24, 32)

    assert folded.method == method
    assert folded.relative_error <= 1e-5


def test_network_that_reads_its_input_twice_gets_the_depthwise_front() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, images: Tensor) -> Tensor:
            total: Tensor = self.first(images) + self.second(images)
            return total

    folded = fold_normalisation(Twice().eval().requires_grad_(False), Normalisation(), 8, 8)

    assert folded.method == "depthwise_convolution"


def test_fold_that_cannot_be_proven_is_refused() -> None:
    class Unstable(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images + torch.rand_like(images)

    with pytest.raises(GraphError, match="cannot be folded"):
        fold_normalisation(Unstable(), Normalisation(), 8, 8)


def test_classify_head_equals_the_textbook() -> None:
    raw = torch.randn(5, 10)
    task = TaskSpec(task=Task.CLASSIFY, top_k=3)

    for found, expected in zip(ClassifyHead(3)(raw), plain_answer(task, PREPROCESS, raw), strict=True):
        assert torch.equal(found, expected)


def test_detect_head_equals_the_textbook_and_pads_with_zeros() -> None:
    torch.manual_seed(0)
    boxes = torch.rand(4, 50, 4) * 32
    scores = torch.rand(4, 50, 6) * (torch.rand(4, 50, 6) < 0.05)
    task = TaskSpec(task=Task.DETECT, max_detections=40)

    found = DetectHead(40)((boxes, scores))

    for one, other in zip(found, plain_answer(task, PREPROCESS, (boxes, scores)), strict=True):
        assert torch.equal(one, other)
    for row in range(4):
        assert not found[0][row, int(found[3][row]) :].any()
        assert not found[1][row, int(found[3][row]) :].any()


@pytest.mark.parametrize("size", [(3, 4), (6, 16), (24, 32)])
def test_segment_head_equals_interpolate_and_argmax(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    raw = torch.randn(3, 5, *size)

    (found,) = SegmentHead(size, (24, 32))(raw)
    (expected,) = plain_answer(TaskSpec(task=Task.SEGMENT), PREPROCESS, raw)

    assert found.dtype == torch.uint8
    # Both sum the same products in another order, so an exact tie may fall either way.
    assert (found != expected).float().mean() <= 1e-3
