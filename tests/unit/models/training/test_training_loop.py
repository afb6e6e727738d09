"""The training loop. Promises held here: resuming changes nothing, batches cover the data, rates follow the plan."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from saccade.models.networks.layers import as_float
from saccade.models.networks.resnet import digits_classifier
from saccade.models.training.augmentation import recoloured, shifted
from saccade.models.training.loop import Trained, TrainingSchedule, batch_indices, learning_rate, train

SCHEDULE = TrainingSchedule(
    steps=6,
    batch_size=4,
    peak_lr=1e-2,
    warmup_steps=2,
    weight_decay=0.01,
    average_decay=0.9,
    evaluate_every=2,
    seed=5,
)


class Stopped(Exception):
    """The test pulls the plug."""


@dataclass
class TinyTrainee:
    """Learns constant colours; can be made to stop as a killed process would."""

    stop_before_step: int | None = None
    losses: int = 0
    examples: int = 10

    def loss(self, network: nn.Module, indices: Tensor, rng: Generator) -> Tensor:
        if self.losses == self.stop_before_step:
            raise Stopped
        self.losses += 1
        noise = 0.1 * torch.rand(len(indices), 3, 32, 32, generator=rng)
        return nn.functional.cross_entropy(network(indices[:, None, None, None] / 10 + noise), indices)

    def tuning_metric(self, network: nn.Module) -> float:
        return float(network(torch.ones(1, 3, 32, 32))[0, 3])


class Silent:
    def step(self, done: int, loss: float) -> None: ...

    def evaluated(self, done: int, metric: float, best: float) -> None: ...


def run(state: Path, trainee: TinyTrainee, schedule: TrainingSchedule = SCHEDULE) -> Trained:
    torch.manual_seed(0)
    return train(digits_classifier(), trainee, schedule, state, Silent())


@pytest.mark.parametrize("stop_before_step", [3, 4, 5])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path, stop_before_step: int) -> None:
    whole = run(tmp_path / "whole.pt", TinyTrainee())
    with pytest.raises(Stopped):
        run(tmp_path / "broken.pt", TinyTrainee(stop_before_step))
    second_sitting = TinyTrainee()
    resumed = run(tmp_path / "broken.pt", second_sitting)
    assert second_sitting.losses < SCHEDULE.steps, "it must not start over"
    assert resumed.tuning_metric == whole.tuning_metric
    assert all(torch.equal(resumed.weights[name], tensor) for name, tensor in whole.weights.items())


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = run(tmp_path / "state.pt", TinyTrainee())
    again = TinyTrainee()
    second = run(tmp_path / "state.pt", again)
    assert again.losses == 0
    assert second.seconds == first.seconds
    assert all(torch.equal(second.weights[name], tensor) for name, tensor in first.weights.items())


def test_a_state_of_another_schedule_is_not_resumed(tmp_path: Path) -> None:
    run(tmp_path / "state.pt", TinyTrainee())
    other = TinyTrainee()
    run(tmp_path / "state.pt", other, TrainingSchedule(4, 4, 1e-2, 2, 0.01, 0.9, 2, seed=6))
    assert other.losses == 4


def test_an_epoch_shows_every_example_at_most_once_and_epochs_differ() -> None:
    first = torch.cat([batch_indices(step, 10, SCHEDULE) for step in range(2)])
    second = torch.cat([batch_indices(step, 10, SCHEDULE) for step in range(2, 4)])
    assert len(set(first.tolist())) == 8
    assert not torch.equal(first, second)


def test_the_rate_warms_up_and_decays_to_a_hundredth() -> None:
    rates = [learning_rate(step, SCHEDULE) for step in range(SCHEDULE.steps + 1)]
    assert rates[0] == pytest.approx(0.5e-2)
    assert max(rates) == pytest.approx(1e-2)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == pytest.approx(1e-4)


def test_augmentation_is_a_function_of_its_generator_and_stays_in_range() -> None:
    images = torch.rand(4, 3, 8, 8)
    first = recoloured(images, Generator().manual_seed(1))
    assert torch.equal(first, recoloured(images, Generator().manual_seed(1)))
    assert not torch.equal(first, recoloured(images, Generator().manual_seed(2)))
    assert 0.0 <= float(first.min()) <= float(first.max()) <= 1.0


def test_masks_move_with_their_pixels() -> None:
    masks = torch.randint(0, 11, (2, 16, 16), dtype=torch.uint8)
    images = as_float(masks[..., None].expand(-1, -1, -1, 3))
    moved, moved_masks, offset = shifted(images, masks, 5, Generator().manual_seed(3))
    assert moved_masks is not None
    assert int(offset.abs().max()) > 0
    assert torch.equal((moved[:, 0] * 255).round().to(torch.uint8), moved_masks)
