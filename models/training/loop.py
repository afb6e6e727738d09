"""The training loop. A resumed run ends with the same weights, and the average that is best on tuning is kept."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Generator, Tensor, nn

from saccade.models.training.state import RunState, load_state, save_state


@dataclass(frozen=True, slots=True)
class TrainingSchedule:
    """The length and rates of a run. On one machine, equal schedules and data give equal weights."""

    steps: int
    batch_size: int
    peak_lr: float
    warmup_steps: int
    weight_decay: float
    average_decay: float  # of the weights' exponential moving average, reached after a ramp
    evaluate_every: int  # steps; the last step is always evaluated
    seed: int


@dataclass(frozen=True, slots=True)
class Spent:
    """Wall and processor seconds over all sittings."""

    seconds: float
    core_seconds: float


class Trainee(Protocol):
    """What differs between tasks: data, loss and tuning metric."""

    @property
    def examples(self) -> int:
        """Training examples; batches are drawn from range(examples)."""

    def loss(self, network: nn.Module, indices: Tensor, rng: Generator) -> Tensor:
        """Scalar loss of a batch; `rng` is the only source of chance."""

    def tuning_metric(self, network: nn.Module) -> float:
        """The task's metric on the tuning split; higher is better."""


class Reporter(Protocol):
    """Shows progress to a person."""

    def step(self, done: int, loss: float) -> None: ...

    def evaluated(self, done: int, metric: float, best: float) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    weights: dict[str, Tensor]  # the average with the best tuning metric
    tuning_metric: float
    seconds: float
    core_seconds: float  # what the processors worked; unlike seconds, hardly changed by other load


def train(
    network: nn.Module, trainee: Trainee, schedule: TrainingSchedule, state_path: Path, reporter: Reporter
) -> Trained:
    """Trains `network` in place and returns the best average. Saves to `state_path` at each evaluation."""
    settings = {name: float(value) for name, value in asdict(schedule).items()}
    optimizer = _optimizer(network, schedule)
    average = copy.deepcopy(network).eval().requires_grad_(False)
    state = load_state(state_path, settings)
    done, spent, best, best_metric = 0, Spent(0.0, 0.0), _weights(average), -math.inf
    if state is not None:
        network.load_state_dict(state.network)
        average.load_state_dict(state.average)
        optimizer.load_state_dict(state.optimizer)
        done, best, best_metric = state.step, state.best, state.best_metric
        spent = Spent(state.seconds, state.core_seconds)
    started = Spent(time.monotonic() - spent.seconds, time.process_time() - spent.core_seconds)
    for step in range(done, schedule.steps):
        loss = _optimise(network, trainee, schedule, optimizer, step)
        _follow(average, network, schedule.average_decay, step)
        reporter.step(step + 1, loss)
        if (step + 1) % schedule.evaluate_every == 0 or step + 1 == schedule.steps:
            metric = trainee.tuning_metric(average)
            if metric >= best_metric:
                best, best_metric = _weights(average), metric
            spent = Spent(time.monotonic() - started.seconds, time.process_time() - started.core_seconds)
            reporter.evaluated(step + 1, metric, best_metric)
            saved = RunState(
                step=step + 1,
                seconds=spent.seconds,
                core_seconds=spent.core_seconds,
                settings=settings,
                network=_weights(network),
                average=_weights(average),
                best=best,
                best_metric=best_metric,
                optimizer=optimizer.state_dict(),
            )
            save_state(state_path, saved)
    return Trained(best, best_metric, spent.seconds, spent.core_seconds)


def learning_rate(step: int, schedule: TrainingSchedule) -> float:
    """The learning rate of a step."""
    return warmed_cosine(step, schedule.steps, schedule.warmup_steps, schedule.peak_lr)


def warmed_cosine(step: int, steps: int, warmup_steps: int, peak_lr: float) -> float:
    """A learning rate: linear warm-up, then half a cosine down to 1 % of the peak."""
    if step < warmup_steps:
        return peak_lr * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak_lr * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * progress)))


def batch_indices(step: int, examples: int, schedule: TrainingSchedule) -> Tensor:
    """Rows (batch_size,) of this step: a fresh seeded permutation per epoch, without its incomplete last batch."""
    per_epoch = max(1, examples // schedule.batch_size)
    epoch, position = divmod(step, per_epoch)
    order = torch.randperm(examples, generator=_generator(schedule.seed, 2 * epoch))
    return order[position * schedule.batch_size : (position + 1) * schedule.batch_size]


def _generator(seed: int, stream: int) -> Generator:
    # Random numbers depend on (seed, step) and never on earlier steps, so that resuming is exact.
    return torch.Generator().manual_seed(seed * 1_000_003 + stream)


def _optimise(
    network: nn.Module, trainee: Trainee, schedule: TrainingSchedule, optimizer: torch.optim.Optimizer, step: int
) -> float:
    network.train()
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, schedule)
    indices = batch_indices(step, trainee.examples, schedule)
    loss = trainee.loss(network, indices, _generator(schedule.seed, 2 * step + 1))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]  # torch ships it untyped
    nn.utils.clip_grad_norm_(network.parameters(), 10.0)
    optimizer.step()
    return float(loss.detach())


def _optimizer(network: nn.Module, schedule: TrainingSchedule) -> torch.optim.Optimizer:
    """AdamW; only matrices and kernels decay, biases and normalisation do not."""
    kernels = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [{"params": kernels, "weight_decay": schedule.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=schedule.peak_lr)


def _weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


@torch.no_grad()
def _follow(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Moves the average towards the network, faster in the first steps."""
    ramped = decay * (1.0 - math.exp(-(step + 1) / 200.0))
    for mine, theirs in _tensor_pairs(average, network):
        if mine.is_floating_point():
            mine.lerp_(theirs, 1.0 - ramped)
        else:
            mine.copy_(theirs)


def _tensor_pairs(average: nn.Module, network: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(average.state_dict().values(), network.state_dict().values(), strict=True)
