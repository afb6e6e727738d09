"""Trains a compressed network to answer like its dense teacher; the weights best on the tuning split are kept."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from saccade.export.compression.recovery_images import changed_batch
from saccade.export.compression.recovery_loss import Meaning, distillation_loss, label_loss
from saccade.export.compression.sparsity.masks import magnitude_mask
from saccade.export.compression.spec import RecoverySpec
from saccade.models.training.command import autocast
from saccade.models.training.loop import warmed_cosine

Metric = Callable[[fx.GraphModule], float]
_AVERAGE_DECAY = 0.99  # decay of the weights' moving average; the average is what is measured and kept
_WARM_UP_SHARE = 0.05
_LARGEST_GRADIENT = 10.0


@dataclass(frozen=True, slots=True)
class RecoveryPoint:
    """Figures of a recovery after a number of steps."""

    step: int
    loss: float  # mean since the last point; 0 at step 0
    tuning_metric: float
    flip_rate: float  # share of mask entries that changed per step since the last point


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """The images, labels and kind of output that a student learns from."""

    images: NDArray[np.uint8]  # (n, height, width, 3)
    # true classes for `labels_share`; None: not a classifier, or labels are not used
    class_ids: NDArray[np.int64] | None
    meaning: Meaning  # what the raw outputs mean


@dataclass(frozen=True, slots=True, eq=False)
class Recovered:
    weights: dict[str, Tensor]  # the whole state, with masks applied
    masks: dict[str, Tensor]
    history: tuple[RecoveryPoint, ...]
    tuning_metric: float  # the metric that these weights reach


def raw_module(module: fx.GraphModule, first: int) -> fx.GraphModule:
    """Returns an independent copy that answers only the raw outputs, those from number `first` on."""
    raw = copy.deepcopy(module)
    output = next(node for node in raw.graph.nodes if node.op == "output")
    answers = output.args[0]
    assert isinstance(answers, (list, tuple))
    output.args = (tuple(answers[first:]),)
    for node in list(raw.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:
            raw.graph.erase_node(node)  # it counts as an effect, and would keep the answer that nobody reads
        elif node.target is torch.ops.aten.contiguous.default:
            # the memory order of the bytes themselves: a quarter faster to train
            node.kwargs = {"memory_format": torch.channels_last}
    raw.graph._codegen = fx.graph.CodeGen()  # torch.export's own code generator insists on the traced outputs
    raw.graph.eliminate_dead_code()
    raw.recompile()
    return raw


def recover(
    module: fx.GraphModule,
    teacher: fx.GraphModule,
    masks: Mapping[str, Tensor],
    lesson: Lesson,
    spec: RecoverySpec,
    first_raw: int,
    metric: Metric,
    told: Callable[[str], None],
) -> Recovered:
    """Trains `module` in place to answer like `teacher`; `masks` (bool, by weight name) stay applied.

    `first_raw` is the number of the first raw output of both. Raises nothing of its own; with `spec.steps` 0 the
    network is measured and returned as it is.
    """
    student, master = raw_module(module, first_raw), raw_module(teacher, first_raw)
    trained = {
        name: parameter.requires_grad_(True)
        for name, parameter in student.named_parameters()
        if parameter.is_floating_point()
    }
    held = {name: mask.clone() for name, mask in masks.items()}
    average = {name: parameter.detach().clone() for name, parameter in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=spec.peak_lr, weight_decay=0.0)
    history = [RecoveryPoint(0, 0.0, _measured(module, average, held, metric), 0.0)]
    best, best_masks, best_value = _masked(average, held), held, history[0].tuning_metric
    losses: list[float] = []
    flips: list[float] = []
    total = spec.steps + spec.dense_steps
    # Blended images have no label, and a detector would have to unlearn what it finds in them.
    mixes = spec.labels_share == 0.0 and lesson.meaning == "distribution"
    warm_up = max(1, round(_WARM_UP_SHARE * total))
    moving_until = round(spec.moving_mask_share * spec.steps)
    for step in range(total):
        if step == spec.steps:
            # The recipe asked for dense fine-tuning, so the best sparse weights so far are not wanted.
            held, best_value = {}, -math.inf
        is_moving = step < moving_until
        if is_moving:
            held, flip_rate = _moved(trained, held)
            flips.append(flip_rate)
        for group in optimizer.param_groups:
            group["lr"] = warmed_cosine(step, total, warm_up, spec.peak_lr)
        images, rows = changed_batch(lesson.images, step, spec.batch_size, spec.seed, mixes)
        loss = _loss(student, master, trained, held, is_moving, images, rows, lesson, spec)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships it untyped
        if is_moving:
            _decay_masked(trained, held, spec.masked_decay)
        nn.utils.clip_grad_norm_(trained.values(), _LARGEST_GRADIENT)
        optimizer.step()
        _follow(average, trained, step)
        losses.append(float(loss.detach()))
        if (step + 1) % spec.evaluate_every == 0 or step + 1 == total:
            value = _measured(module, average, held, metric)
            mean_flips = float(np.mean(flips)) if flips else 0.0
            if not is_moving and value >= best_value:
                best, best_masks, best_value = _masked(average, held), held, value
            history.append(RecoveryPoint(step + 1, float(np.mean(losses)), value, mean_flips))
            told(f"step {step + 1} of {total}: tuning {value:.4f}, flip rate {mean_flips:.5f}")
            losses, flips = [], []
    state = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()} | best
    module.load_state_dict(state)
    return Recovered(state, best_masks, tuple(history), best_value)


def _loss(
    student: fx.GraphModule,
    master: fx.GraphModule,
    trained: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    is_moving: bool,
    images: Tensor,
    rows: Tensor,
    lesson: Lesson,
    spec: RecoverySpec,
) -> Tensor:
    weights = {name: _effective(tensor, masks.get(name), is_moving) for name, tensor in trained.items()}
    with autocast():
        found: Sequence[Tensor] = torch.func.functional_call(student, weights, (images,))
    loss = torch.zeros(())
    if spec.labels_share < 1.0:
        with torch.no_grad(), autocast():
            wanted: Sequence[Tensor] = master(images)
        loss = loss + (1.0 - spec.labels_share) * distillation_loss(found, wanted, lesson.meaning, spec.temperature)
    if spec.labels_share > 0.0:
        assert lesson.class_ids is not None
        loss = loss + spec.labels_share * label_loss(found, torch.from_numpy(lesson.class_ids)[rows])
    return loss


def _effective(tensor: Tensor, mask: Tensor | None, is_moving: bool) -> Tensor:
    """Returns the masked weight. While masks may change, gradients also reach pruned entries: the straight-through
    estimator of SR-STE (Zhou et al., arXiv 2102.04010).
    """
    if mask is None:
        return tensor
    if is_moving:
        return tensor + (tensor * mask - tensor).detach()
    return tensor * mask


def _moved(trained: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], float]:
    """Chooses masks anew by magnitude; returns them and the share of entries that changed."""
    chosen = {name: magnitude_mask(trained[name]) for name in masks}
    changed = sum(int((chosen[name] != mask).sum()) for name, mask in masks.items())
    return chosen, changed / max(sum(mask.numel() for mask in masks.values()), 1)


def _decay_masked(trained: Mapping[str, Tensor], masks: Mapping[str, Tensor], decay: float) -> None:
    """Adds weight decay to the gradients of pruned entries, so that the masks stop changing (SR-STE)."""
    for name, mask in masks.items():
        gradient = trained[name].grad
        if gradient is not None:
            gradient.add_(trained[name].detach() * ~mask, alpha=decay)


@torch.no_grad()
def _follow(average: Mapping[str, Tensor], trained: Mapping[str, Tensor], step: int) -> None:
    ramped = _AVERAGE_DECAY * (1.0 - math.exp(-(step + 1) / 50.0))
    for name, tensor in trained.items():
        average[name].lerp_(tensor.detach(), 1.0 - ramped)


def _masked(weights: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor * masks[name] if name in masks else tensor.clone() for name, tensor in weights.items()}


def _measured(
    module: fx.GraphModule, weights: Mapping[str, Tensor], masks: Mapping[str, Tensor], metric: Metric
) -> float:
    module.load_state_dict({**module.state_dict(), **_masked(weights, masks)})
    return metric(module)
