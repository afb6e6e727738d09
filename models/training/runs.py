"""Runs one training command: draw samples, train, select, test once, write. Test samples are drawn after training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from saccade.models.networks.layers import trained_parameters
from saccade.models.training.command import Options, ProgressReporter
from saccade.models.training.evaluation import inference_flops
from saccade.models.training.figures import TrainingFigure, save_checkpoint, write_figure
from saccade.models.training.loop import Trainee, TrainingSchedule, train

TRAIN_SEED, TUNING_SEED = 11, 12
# Pictures of seed 13 were looked at while limits and lengths of training were chosen (export/DECISIONS.md, 49).
TEST_SEED = 29


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """What defines one task's training."""

    name: str
    metric: Literal["top1", "map", "miou", "psnr"]
    command: str
    network: Callable[[], nn.Module]
    trainee: Callable[[], Trainee]  # draws the training and tuning samples
    test_metric: Callable[[nn.Module], float]  # draws the test samples
    schedule: TrainingSchedule
    image_size: int
    train_images: int
    tuning_images: int
    test_images: int


def execute(run: TrainingRun, options: Options) -> TrainingFigure:
    """Trains, then writes the checkpoint and its figure."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(run.schedule.seed)
    state_path = options.state_dir / f"{run.name}.pt"
    if options.fresh:
        state_path.unlink(missing_ok=True)
    network = run.network().to(memory_format=torch.channels_last)
    print(f"{run.name}: drawing {run.train_images} training samples", flush=True)
    trainee = run.trainee()
    with ProgressReporter(run.name, run.schedule.steps) as reporter:
        trained = train(network, trainee, run.schedule, state_path, reporter)
    chosen = run.network()
    chosen.load_state_dict(trained.weights, strict=True)
    chosen.eval()
    digest = save_checkpoint(options.checkpoint_dir, run.name, trained.weights)
    figure = TrainingFigure(
        metric=run.metric,
        value=round(run.test_metric(chosen), 4),
        test_images=run.test_images,
        tuning_value=round(trained.tuning_metric, 4),
        tuning_images=run.tuning_images,
        train_images=run.train_images,
        command=run.command,
        seconds=round(trained.seconds, 1),
        core_seconds=round(trained.core_seconds, 1),
        parameters=trained_parameters(chosen),
        flops=inference_flops(chosen, run.image_size),
        weights_sha256=digest,
    )
    write_figure(options.checkpoint_dir, run.name, figure)
    print(f"{run.name}: test {run.metric} {figure.value:.4f} after {figure.seconds:.0f} s of training", flush=True)
    return figure
