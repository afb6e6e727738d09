"""Recovery from the dense teacher: masks hold, answers come back, the best is kept."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from saccade.export.compression.recovery import Lesson, Recovered, raw_module, recover
from saccade.export.compression.recovery_images import changed_batch
from saccade.export.compression.recovery_loss import distillation_loss
from saccade.export.compression.sparsity.masks import has_two_four, random_mask
from saccade.export.compression.spec import RecoverySpec

_IMAGES = np.random.default_rng(0).integers(0, 256, (64, 12, 12, 3)).astype(np.uint8)
_WEIGHT = "body.weight"


class Deploy(nn.Module):
    """Bytes in; an answer and the raw logits out."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.body = nn.Conv2d(16, 16, 3, padding=1)
        self.classify = nn.Linear(16, 4)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = images.permute(0, 3, 1, 2).float() / 255.0
        features = torch.relu(self.body(torch.relu(self.stem(pixels))))
        logits = self.classify(features.mean((2, 3))) * 8.0
        return logits.argmax(1).to(torch.uint8), logits


def traced() -> fx.GraphModule:
    torch.manual_seed(0)
    images = torch.zeros(2, 12, 12, 3, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=64)
    return torch.export.export(Deploy().eval(), (images,), dynamic_shapes=({0: batch},), strict=False).module()


Metric = Callable[[fx.GraphModule], float]


def share_of(class_id: int) -> Metric:
    def metric(module: fx.GraphModule) -> float:
        with torch.no_grad():
            return float((module(torch.from_numpy(_IMAGES))[0] == class_id).float().mean())

    return metric


def closeness(teacher: fx.GraphModule) -> Metric:
    """A metric: minus the distance of a network's logits to the teacher's."""
    images = torch.from_numpy(_IMAGES[:16])
    with torch.no_grad():
        wanted = teacher(images)[1]

    def metric(module: fx.GraphModule) -> float:
        with torch.no_grad():
            return -float((module(images)[1] - wanted).norm() / wanted.norm())

    return metric


def recovered(spec: RecoverySpec, class_id: int | None = None) -> tuple[Recovered, fx.GraphModule]:
    teacher = traced()
    student = copy.deepcopy(teacher)
    mask = random_mask(student.get_parameter(_WEIGHT), 0)
    student.get_parameter(_WEIGHT).data.mul_(mask)
    truth = None if class_id is None else np.full(len(_IMAGES), class_id, np.int64)
    lesson = Lesson(_IMAGES, truth, "distribution")
    metric = closeness(teacher) if class_id is None else share_of(class_id)
    return recover(student, teacher, {_WEIGHT: mask}, lesson, spec, 1, metric, lambda text: None), student


def test_a_student_computes_no_answer() -> None:
    called = {str(node.target) for node in raw_module(traced(), 1).graph.nodes if node.op == "call_function"}

    assert "aten.linear.default" in called
    assert "aten.argmax.default" not in called


def test_answers_come_back_and_the_mask_holds() -> None:
    result, module = recovered(RecoverySpec(steps=60, batch_size=16, evaluate_every=20, peak_lr=3e-3))
    weight = module.get_parameter(_WEIGHT).detach()

    assert result.tuning_metric > result.history[0].tuning_metric + 0.02
    assert has_two_four(weight)
    assert torch.equal(weight != 0, result.masks[_WEIGHT])
    assert torch.equal(weight, result.weights[_WEIGHT])
    assert [point.flip_rate for point in result.history] == [0.0] * 4


def test_no_steps_measure_and_change_nothing() -> None:
    result, module = recovered(RecoverySpec(steps=0))

    assert [point.step for point in result.history] == [0]
    assert has_two_four(module.get_parameter(_WEIGHT).detach())


def test_moving_masks_flip_at_first_and_hold_the_pattern_in_the_end() -> None:
    spec = RecoverySpec(steps=40, batch_size=16, evaluate_every=10, peak_lr=1e-2, moving_mask_share=0.5)
    result, module = recovered(spec)

    assert result.history[1].flip_rate > 0.0
    assert result.history[-1].flip_rate == 0.0
    assert has_two_four(module.get_parameter(_WEIGHT).detach())


def test_dense_steps_at_the_end_let_every_weight_go() -> None:
    result, module = recovered(RecoverySpec(steps=2, dense_steps=20, batch_size=16, evaluate_every=22, peak_lr=1e-2))

    assert result.masks == {}
    assert not has_two_four(module.get_parameter(_WEIGHT).detach())


def test_equal_runs_end_equal() -> None:
    spec = RecoverySpec(steps=6, batch_size=8, evaluate_every=6)

    assert recovered(spec)[0].history == recovered(spec)[0].history


def test_labels_alone_are_plain_fine_tuning() -> None:
    spec = RecoverySpec(steps=30, batch_size=16, evaluate_every=30, labels_share=1.0, peak_lr=1e-2)
    _, module = recovered(spec, class_id=3)  # every image is labelled so
    with torch.no_grad():
        answers = module(torch.from_numpy(_IMAGES))[0]

    assert (answers == 3).all()


def test_raw_module_answers_only_raw_outputs_and_shares_no_weights() -> None:
    module = traced()
    raw = raw_module(module, 1)
    images = torch.from_numpy(_IMAGES[:3])
    with torch.no_grad():
        (found,) = raw(images)
        expected = module(images)[1]
        raw.get_parameter(_WEIGHT).zero_()

    assert torch.equal(found, expected)
    assert module.get_parameter(_WEIGHT).abs().sum() > 0


@pytest.mark.parametrize("meaning", ["distribution", "scored_boxes", "numbers"])
def test_loss_is_zero_for_the_teachers_own_answers_and_positive_for_others(meaning: str) -> None:
    rng = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 5, 2, generator=rng) * 10
    boxes = torch.cat([corners, corners + 5.0], 2)
    scores = torch.rand(2, 5, 3, generator=rng)
    answers = [torch.randn(2, 4, generator=rng)] if meaning == "distribution" else [boxes, scores]
    others = [tensor + 2.0 * torch.rand(tensor.shape, generator=rng) for tensor in answers]

    assert float(distillation_loss(answers, answers, meaning, 2.0)) == pytest.approx(0.0, abs=1e-4)  # type: ignore[arg-type]  # a literal
    assert float(distillation_loss(others, answers, meaning, 2.0)) > 0.01  # type: ignore[arg-type]  # as above


def test_batches_change_with_the_step_and_repeat_by_seed() -> None:
    first, rows = changed_batch(_IMAGES, 1, 8, 0, mixes=True)
    again, _ = changed_batch(_IMAGES, 1, 8, 0, mixes=True)
    later, _ = changed_batch(_IMAGES, 2, 8, 0, mixes=True)

    assert first.shape == (8, 12, 12, 3)
    assert first.dtype == torch.uint8
    assert rows.shape == (8,)
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
