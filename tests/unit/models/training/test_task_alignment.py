"""Assignment of anchors to truth. Promises held here: one truth per anchor, one anchor per truth for one-to-one."""

import pytest
import torch

from saccade.models.networks.yolov10 import anchor_points, digits_detector
from saccade.models.training.detection_loss import ONE_TO_MANY, ONE_TO_ONE, complete_iou, detection_loss
from saccade.models.training.task_alignment import Truth, assign, box_iou

ANCHORS, STRIDES = anchor_points(256)


def random_case(seed: int) -> tuple[torch.Tensor, torch.Tensor, Truth]:
    """Predictions around their anchors and five crowded objects, one of them padding."""
    rng = torch.Generator().manual_seed(seed)
    half = (1.0 + 4.0 * torch.rand(2, len(ANCHORS), 2, generator=rng)) * STRIDES
    boxes = torch.cat([ANCHORS - half, ANCHORS + half], -1)
    scores = torch.rand(2, len(ANCHORS), 10, generator=rng)
    corners = torch.rand(2, 5, 2, generator=rng) * 100
    truth_boxes = torch.cat([corners, corners + 40 + 60 * torch.rand(2, 5, 2, generator=rng)], -1)
    class_ids = torch.randint(0, 10, (2, 5), generator=rng)
    class_ids[:, 4], truth_boxes[:, 4] = -1, 0.0
    return boxes, scores, Truth(truth_boxes, class_ids)


@pytest.mark.parametrize("seed", range(5))
def test_one_to_one_gives_each_truth_at_most_one_anchor(seed: int) -> None:
    boxes, scores, truth = random_case(seed)
    found = assign(boxes, scores, ANCHORS, truth, ONE_TO_ONE)
    for image in range(2):
        rows = found.rows[image][found.positive[image]]
        assert 0 < len(rows) == len(set(rows.tolist()))
        assert 4 not in rows


@pytest.mark.parametrize("seed", range(5))
def test_one_to_one_picks_among_the_anchors_of_one_to_many(seed: int) -> None:
    boxes, scores, truth = random_case(seed)
    one = assign(boxes, scores, ANCHORS, truth, ONE_TO_ONE)
    many = assign(boxes, scores, ANCHORS, truth, ONE_TO_MANY)
    assert int(many.positive.sum()) > int(one.positive.sum())
    assert bool(many.positive[one.positive].float().mean() > 0.7)  # a rival truth may have taken the others
    assert torch.bincount(many.rows[0][many.positive[0]]).max() <= 10


def test_targets_name_the_truths_class_and_box_and_nothing_else() -> None:
    boxes, scores, truth = random_case(9)
    found = assign(boxes, scores, ANCHORS, truth, ONE_TO_MANY)
    assert float(found.scores[~found.positive].abs().max()) == 0.0
    for image, anchor in found.positive.nonzero().tolist():
        row = int(found.rows[image, anchor])
        assert int(found.scores[image, anchor].argmax()) == int(truth.class_ids[image, row])
        assert torch.equal(found.boxes[image, anchor], truth.boxes[image, row])
        x1, y1, x2, y2 = truth.boxes[image, row].tolist()
        assert x1 < float(ANCHORS[anchor, 0]) < x2
        assert y1 < float(ANCHORS[anchor, 1]) < y2


def test_an_image_without_objects_has_no_positive_anchor_and_a_finite_loss() -> None:
    network = digits_detector().train()
    truth = Truth(torch.zeros(1, 3, 4), torch.full((1, 3), -1))
    loss = detection_loss(network, network(torch.rand(1, 3, 256, 256)), truth)
    assert bool(torch.isfinite(loss))


def test_overlap_of_equal_boxes_is_one_and_of_distant_ones_nothing() -> None:
    box, far = torch.tensor([[10.0, 10.0, 30.0, 50.0]]), torch.tensor([[100.0, 100.0, 120.0, 140.0]])
    assert float(box_iou(box[None], box[None])) == pytest.approx(1.0, abs=1e-6)
    assert float(box_iou(box[None], far[None])) == 0.0
    assert float(complete_iou(box, box)) == pytest.approx(1.0, abs=1e-6)
    assert float(complete_iou(box, far)) < 0.0  # still tells which way to move
