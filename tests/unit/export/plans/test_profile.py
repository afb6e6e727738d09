"""Batch sizes of plans. Promises: every allowed size fits, tuned for the largest."""

from __future__ import annotations

import pytest

from saccade.export.errors import GraphError
from saccade.export.plans.profile import add_profile, profile_batches
from saccade.models.contract.plans import missing_batch_sizes
from tests.support.plan_records import key


@pytest.mark.parametrize(
    ("allowed", "batches"), [((1,), (1, 1, 1)), ((1, 2, 4, 8), (1, 8, 8)), ((4, 16), (4, 16, 16)), ([1, 3], (1, 3, 3))]
)
def test_plan_spans_what_is_allowed_and_is_tuned_for_the_largest(
    allowed: tuple[int, ...], batches: tuple[int, int, int]
) -> None:
    assert profile_batches(allowed) == batches


@pytest.mark.parametrize("allowed", [(), (0, 1), (2, 1), (1, 1)])
def test_sizes_that_do_not_ascend_are_refused(allowed: tuple[int, ...]) -> None:
    with pytest.raises(GraphError, match="must ascend from 1"):
        profile_batches(allowed)


def test_profile_that_lacks_a_requested_size_says_which() -> None:
    assert missing_batch_sizes(key(allowed_batch_sizes=(1, 4)), (1, 2, 8)) == (2, 8)
    assert missing_batch_sizes(key(allowed_batch_sizes=(1, 4)), (4,)) == ()


class Tensor:
    name = "images"

    def __init__(self, batch: int) -> None:
        self.shape = (batch, 8, 8, 3)


class Recorder:
    """Network, builder, config and profile in one; it keeps what it was told."""

    num_inputs = 1

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.told: list[tuple[object, ...]] = []

    def get_input(self, index: int) -> Tensor:
        return Tensor(self.batch)

    def create_optimization_profile(self) -> Recorder:
        return self

    def set_shape(self, *shapes: object) -> None:
        self.told.append(shapes)

    def add_optimization_profile(self, profile: Recorder) -> None:
        self.told.append(("added",))


def test_open_batch_takes_the_profile() -> None:
    network = Recorder(-1)

    assert add_profile(network, network, network, (1, 4, 4)) == (1, 4, 4)
    assert network.told == [("images", (1, 8, 8, 3), (4, 8, 8, 3), (4, 8, 8, 3)), ("added",)]


def test_fixed_batch_keeps_its_own_and_says_so() -> None:
    network = Recorder(1)

    assert add_profile(network, network, network, (1, 4, 4)) == (1, 1, 1)
    assert network.told[0] == ("images", (1, 8, 8, 3), (1, 8, 8, 3), (1, 8, 8, 3))
