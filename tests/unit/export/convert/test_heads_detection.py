"""Detection heads. Promises: the graph answers what torchvision's own suppression and plain sorting answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from saccade.export.convert.detection_heads import BoxesHead, CandidatesHead
from saccade.export.convert.suppression import keep_per_class
from saccade.export.network import Network, Suppression
from saccade.export.qualification.plain_answers import plain_answer
from saccade.models.contract.specs import PreprocessSpec, Task, TaskSpec
from tests.support.conversion import ConvertedModule

PREPROCESS = PreprocessSpec(width=64, height=64, fit="letterbox")
CLASSES = 5
SUPPRESSION = Suppression(iou_threshold=0.4, score_threshold=0.2)


def boxes_of(images: int, rows: int) -> Tensor:
    """Crowded: most boxes overlap several others."""
    generator = torch.Generator().manual_seed(images)
    corners = torch.rand(images, rows, 2, generator=generator) * 30
    return torch.cat([corners, corners + 10 + torch.rand(images, rows, 2, generator=generator) * 25], -1)


def candidates_of(images: int, rows: int = 80) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(images)
    class_ids = torch.randint(0, CLASSES, (images, rows), generator=generator)
    return boxes_of(images, rows), torch.rand(images, rows, generator=generator), class_ids


def task_of(rows: int) -> TaskSpec:
    return TaskSpec(task=Task.DETECT, max_detections=rows)


class Suppressed(nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor, class_ids: Tensor) -> Tensor:
        return keep_per_class(boxes, scores, class_ids, CLASSES, 0.4, 0.2)


class Candidates(nn.Module):
    def __init__(self, rows: int) -> None:
        super().__init__()
        self.head = CandidatesHead(rows, CLASSES, SUPPRESSION)

    def forward(self, boxes: Tensor, scores: Tensor, class_ids: Tensor) -> tuple[Tensor, ...]:
        answer: tuple[Tensor, ...] = self.head((boxes, scores, class_ids))
        return answer


def test_boxes_head_equals_the_textbook_and_pads_with_zeros() -> None:
    torch.manual_seed(0)
    scores = torch.rand(4, 50, 6) * (torch.rand(4, 50, 6) < 0.05)
    raw = (boxes_of(4, 50), scores)

    found = BoxesHead(40)(raw)

    expected = plain_answer(Network(nn.Identity(), "boxes"), task_of(40), PREPROCESS, raw)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    for row in range(4):
        assert not found[0][row, int(found[3][row]) :].any()
        assert not found[1][row, int(found[3][row]) :].any()


def test_boxes_that_need_suppression_get_it_per_class() -> None:
    torch.manual_seed(0)
    raw = (boxes_of(3, 60), torch.rand(3, 60, CLASSES))

    found = BoxesHead(100, SUPPRESSION)(raw)

    network = Network(nn.Identity(), "boxes", SUPPRESSION)
    for one, other in zip(found, plain_answer(network, task_of(100), PREPROCESS, raw), strict=True):
        assert torch.equal(one, other)


def test_answer_has_its_rows_even_when_there_are_fewer_candidates() -> None:
    boxes, scores, class_ids, counts = CandidatesHead(100, CLASSES)(candidates_of(2, rows=7))

    assert (boxes.shape, scores.shape, class_ids.shape) == ((2, 100, 4), (2, 100), (2, 100))
    assert counts.tolist() == [7, 7]


def test_suppression_is_that_of_torchvision_image_by_image() -> None:
    boxes, scores, class_ids = candidates_of(6)

    keep = keep_per_class(boxes, scores, class_ids, CLASSES, 0.4, 0.2)

    for image in range(6):
        rows = torch.where(scores[image] > 0.2)[0]
        survivors = rows[batched_nms(boxes[image, rows], scores[image, rows], class_ids[image, rows], 0.4)]
        assert torch.where(keep[image])[0].tolist() == sorted(survivors.tolist())
        assert len(survivors) < len(rows)


@pytest.fixture(scope="module")
def converted() -> ConvertedModule:
    return ConvertedModule(Suppressed(), candidates_of(2))


@pytest.mark.parametrize("images", [1, 3, 8])
def test_converted_suppression_keeps_the_same_boxes(images: int, converted: ConvertedModule) -> None:
    inputs = candidates_of(images)

    (keep,) = converted(*inputs)

    np.testing.assert_array_equal(keep, Suppressed()(*inputs).numpy())


def test_converted_head_answers_as_the_textbook() -> None:
    converted_head = ConvertedModule(Candidates(40), candidates_of(2))
    network = Network(nn.Identity(), "candidates", SUPPRESSION)

    for images in (1, 3):
        inputs = candidates_of(images)
        expected = plain_answer(network, task_of(40), PREPROCESS, inputs)
        for found, tensor in zip(converted_head(*inputs), expected, strict=True):
            np.testing.assert_allclose(found, tensor.numpy(), rtol=1e-6)


def test_image_without_candidates_keeps_nothing(converted: ConvertedModule) -> None:
    boxes, scores, class_ids = candidates_of(2)

    (keep,) = converted(boxes, torch.zeros_like(scores), class_ids)

    assert not keep.any()
