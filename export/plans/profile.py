"""Chooses the batch sizes of a plan: every allowed size fits, and the largest is tuned for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saccade.export.errors import GraphError

BatchProfile = tuple[int, int, int]  # smallest, tuned for, largest


def profile_batches(allowed_batch_sizes: Sequence[int]) -> BatchProfile:
    """Returns the profile from the smallest to the largest allowed size, tuned for the largest.

    The scheduler fills the largest batch exactly when requests wait, and device time is scarce then; a single request
    on an idle device has time to spare. Raises GraphError unless the sizes ascend from 1 or more.
    """
    sizes = list(allowed_batch_sizes)
    if not sizes or sizes != sorted(set(sizes)) or sizes[0] < 1:
        raise GraphError(f"allowed batch sizes must ascend from 1 or more without repeats, got {tuple(sizes)}")
    return sizes[0], sizes[-1], sizes[-1]


def add_profile(builder: Any, network: Any, config: Any, batches: BatchProfile) -> BatchProfile:
    """Adds the profile to `config` and returns the batches of the graph: its own size when that is fixed."""
    profile = builder.create_optimization_profile()
    reached = batches
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        batch, *rest = (int(size) for size in tensor.shape)
        sizes = batches if batch < 0 else (batch, batch, batch)
        reached = sizes if batch >= 0 else reached
        profile.set_shape(tensor.name, *((size, *rest) for size in sizes))
    config.add_optimization_profile(profile)
    return reached
