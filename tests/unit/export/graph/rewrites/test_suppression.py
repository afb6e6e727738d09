"""Suppression by rounds. Promises: every flag as NonMaxSuppression gives it, however crowded; no more than it knows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.export.convert.onnx_optimization import slim
from saccade.export.convert.suppression import keep_per_class, nms_keep
from saccade.export.graph.onnx_graph import op_counts
from saccade.export.graph.rewrites.suppression_for_tensorrt import use_rounds_for_suppression
from tests.support.conversion import ConvertedModule

CLASSES, ROWS = 5, 120
IOU_THRESHOLD, SCORE_THRESHOLD = 0.45, 0.2
Inputs = tuple[Tensor, Tensor, Tensor]


class Suppressed(nn.Module):
    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, boxes: Tensor, scores: Tensor, class_ids: Tensor) -> Tensor:
        return keep_per_class(boxes, scores, class_ids, self.classes, IOU_THRESHOLD, SCORE_THRESHOLD)


class Twice(nn.Module):
    """As Faster R-CNN: what one suppression leaves goes into the next, whose classes are constants."""

    def forward(self, boxes: Tensor, scores: Tensor, class_ids: Tensor) -> tuple[Tensor, Tensor]:
        levels = torch.arange(ROWS).div(50, rounding_mode="floor").unsqueeze(0).expand_as(scores)
        first = keep_per_class(boxes, scores, levels, 3, 0.7, -0.5)
        left = torch.where(first, scores, 0.0)
        return first, keep_per_class(boxes, left, class_ids, CLASSES, IOU_THRESHOLD, SCORE_THRESHOLD)


class SeveralClassesPerRow(nn.Module):
    def forward(self, boxes: Tensor, scores: Tensor) -> Tensor:
        keep: Tensor = nms_keep(boxes, torch.stack([scores, 1.0 - scores], 1), IOU_THRESHOLD, SCORE_THRESHOLD)
        return keep


@dataclass(frozen=True, slots=True)
class Pair:
    """One graph with the operator and one with rounds."""

    original: onnxruntime.InferenceSession
    rewritten: onnxruntime.InferenceSession
    model: onnx.ModelProto  # the rewritten one

    def flags(self, inputs: Inputs) -> NDArray[np.bool_]:
        """Of both graphs, which are equal."""
        feed = {f"input_{index}": tensor.numpy() for index, tensor in enumerate(inputs)}
        expected, found = self.original.run(None, feed), self.rewritten.run(None, feed)
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(one, other)
        return np.asarray(found[-1])


@pytest.fixture(scope="module")
def per_class() -> bytes:
    """The graph of `Suppressed`."""
    return slim(ConvertedModule(Suppressed(), random_boxes(2)).model).SerializeToString()


@pytest.fixture(scope="module")
def pair(per_class: bytes) -> Pair:
    return pair_of(onnx.load_model_from_string(per_class), 1)


def pair_of(model: onnx.ModelProto, count: int) -> Pair:
    """Rewrites the graph, which takes `count` rewrites."""
    original = session_of(model)
    assert use_rounds_for_suppression(model) == count
    onnx.checker.check_model(model, full_check=True)
    return Pair(original, session_of(model), model)


def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it names constants that only the removed operator read
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def random_boxes(images: int, seed: int = 0, side: float = 30.0) -> Inputs:
    """Crowded: most boxes overlap many others. Class 5 is none that is asked for."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(images, ROWS, 2, generator=generator) * side
    sizes = 10 + torch.rand(images, ROWS, 2, generator=generator) * 25
    class_ids = torch.randint(0, CLASSES + 1, (images, ROWS), generator=generator)
    return torch.cat([corners, corners + sizes], -1), torch.rand(images, ROWS, generator=generator), class_ids


def in_a_row(images: int, step: float) -> Inputs:
    """Boxes of one class, 100 wide, each `step` beside the one before it and a little worse."""
    left = torch.arange(ROWS) * step
    boxes = torch.stack([left, torch.zeros(ROWS), left + 100, torch.full((ROWS,), 100.0)], -1)
    scores = torch.linspace(0.95, 0.3, ROWS)
    return boxes.expand(images, -1, -1), scores.expand(images, -1), torch.ones(images, ROWS, dtype=torch.int64)


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("side", [5.0, 30.0, 200.0])
def test_random_crowds_keep_the_same_boxes(pair: Pair, images: int, side: float) -> None:
    for seed in range(10):
        inputs = random_boxes(images, seed, side)

        flags = pair.flags(inputs)

        assert 0 < flags.sum() < (inputs[1] > SCORE_THRESHOLD).sum()


@pytest.mark.parametrize("images", [1, 3])
def test_chain_of_every_box_is_followed_to_its_end(pair: Pair, images: int) -> None:
    flags = pair.flags(in_a_row(images, 30.0))  # neighbours overlap by 0.54, their neighbours by 0.25

    assert flags.tolist() == [[index % 2 == 0 for index in range(ROWS)]] * images


def test_deepest_image_of_a_batch_decides_how_many_rounds_there_are(pair: Pair) -> None:
    deep, flat = in_a_row(1, 30.0), random_boxes(2, side=200.0)
    inputs = tuple(torch.cat(parts) for parts in zip(flat, deep, strict=True))

    flags = pair.flags((inputs[0], inputs[1], inputs[2]))

    assert flags[2].sum() == ROWS // 2


def test_equal_scores_are_won_by_the_first_row(pair: Pair) -> None:
    boxes, scores, class_ids = random_boxes(3, side=5.0)

    pair.flags((boxes, (scores * 4).round() / 4, class_ids))
    flags = pair.flags((boxes[:, :1].expand_as(boxes), torch.full_like(scores, 0.5), torch.zeros_like(class_ids)))

    assert flags.nonzero()[1].tolist() == [0, 0, 0]


def test_best_box_may_suppress_all_others(pair: Pair) -> None:
    boxes, scores, class_ids = in_a_row(2, 0.01)

    flags = pair.flags((boxes, scores.flip(1), class_ids))

    assert flags.nonzero()[1].tolist() == [ROWS - 1, ROWS - 1]


def test_boxes_apart_are_all_kept_and_low_scores_are_no_boxes(pair: Pair) -> None:
    boxes, scores, class_ids = in_a_row(2, 150.0)

    assert pair.flags((boxes, scores, class_ids)).all()
    assert not pair.flags((boxes, torch.full_like(scores, SCORE_THRESHOLD), class_ids)).any()


def test_boxes_without_area_and_with_swapped_corners_are_judged_alike(pair: Pair) -> None:
    boxes, scores, class_ids = random_boxes(3, side=5.0)
    points = torch.where((torch.arange(ROWS) % 3 == 0).view(1, -1, 1), boxes[..., [0, 1, 0, 3]], boxes)
    swapped = torch.where((torch.arange(ROWS) % 4 == 0).view(1, -1, 1), points[..., [2, 3, 0, 1]], points)

    flags = pair.flags((swapped, scores, class_ids))

    assert 0 < flags.sum() < flags.size


def test_two_suppressions_in_a_row_are_both_rewritten() -> None:
    pair = pair_of(slim(ConvertedModule(Twice(), random_boxes(2)).model), 2)

    for images in (1, 3):
        flags = pair.flags(random_boxes(images))
        assert 0 < flags.sum() < flags.size


def test_one_class_is_enough() -> None:
    boxes, scores, class_ids = random_boxes(3)
    inputs = (boxes, scores, torch.zeros_like(class_ids))

    flags = pair_of(slim(ConvertedModule(Suppressed(1), inputs).model), 1).flags(inputs)

    assert 0 < flags.sum() < flags.size


def test_nothing_of_the_operator_is_left_and_every_node_has_its_own_name(pair: Pair) -> None:
    counts = op_counts(pair.model.graph.node)

    assert counts["Loop"] == 1
    assert counts.keys().isdisjoint({"NonMaxSuppression", "ScatterND"})
    names = [node.name for node in pair.model.graph.node]
    assert len(set(names)) == len(names)


def test_rows_of_several_classes_are_left_alone() -> None:
    boxes, scores, _ = random_boxes(2)
    model = slim(ConvertedModule(SeveralClassesPerRow(), (boxes, scores)).model)
    before = model.SerializeToString()

    assert use_rounds_for_suppression(model) == 0
    assert model.SerializeToString() == before


@pytest.mark.parametrize("change", ["indices of classes", "fewer boxes than rows", "centres", "other classes count"])
def test_another_use_of_the_operator_is_left_alone(change: str, per_class: bytes) -> None:
    model = onnx.load_model_from_string(per_class)
    operator = next(node for node in model.graph.node if node.op_type == "NonMaxSuppression")
    where = next(node for node in model.graph.node if node.op_type == "Where")
    first_slice = next(node for node in model.graph.node if operator.output[0] in node.input)
    new = {
        "indices of classes": (first_slice, 1, np.array([1], np.int64)),
        "fewer boxes than rows": (operator, 2, np.array([ROWS - 1], np.int64)),
        "centres": (operator, 2, np.array([ROWS], np.int64)),
        "other classes count": (where, 2, np.array(SCORE_THRESHOLD + 0.1, np.float32)),
    }
    node, place, value = new[change]
    model.graph.initializer.append(onnx.numpy_helper.from_array(value, "changed"))
    node.input[place] = "changed"
    if change == "centres":
        del operator.attribute[:]
        operator.attribute.append(onnx.helper.make_attribute("center_point_box", 1))

    assert use_rounds_for_suppression(model) == 0
