"""The order of channels that keeps most magnitude."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import numpy as np
import torch
from torch import Tensor

from saccade.export.compression.sparsity.channel_groups import ChannelGroup, permuted
from saccade.export.compression.sparsity.masks import kept_magnitude
from saccade.export.compression.sparsity.permutation import permute_channels


def still() -> float:
    """A clock that stands, so that searches end by patience."""
    return 0.0


def group_of(size: int, *readers: str) -> ChannelGroup:
    places = np.arange(size)[:, None]
    return ChannelGroup(size, {("before.weight", 0): places, **{(name, 1): places for name in readers}})


def crowded(channels: int, filters: int) -> Tensor:
    """Large channels sit in the same quads, the worst order for 2:4."""
    scale = torch.where(torch.arange(channels) < channels // 2, 1.0, 0.05)
    return torch.randn(filters, channels, generator=torch.Generator().manual_seed(filters)) * scale


def test_crowded_channels_are_spread_out() -> None:
    state = {"before.weight": torch.randn(32, 3), "after.weight": crowded(32, 24)}
    changed, (figure,) = permute_channels(state, [group_of(32, "after.weight")], ["after.weight"], 1.0, still)

    assert figure.before < 0.78
    assert figure.after > 0.93
    assert kept_magnitude(changed["after.weight"]) == figure.after


def test_every_parameter_of_the_group_moves_the_same_way() -> None:
    state = {"before.weight": torch.arange(32.0)[:, None], "after.weight": crowded(32, 24)}
    changed, _ = permute_channels(state, [group_of(32, "after.weight")], ["after.weight"], 1.0, still)
    order = changed["before.weight"][:, 0].long()

    assert order.tolist() != list(range(32))
    assert torch.equal(changed["after.weight"], state["after.weight"][:, order])


def test_no_reader_of_shared_channels_gets_worse() -> None:
    state = {
        "before.weight": torch.randn(32, 3),
        "one.weight": crowded(32, 24),
        "two.weight": crowded(32, 9).flip(1),
        "three.weight": torch.randn(12, 32, 3, 3, generator=torch.Generator().manual_seed(5)),
    }
    readers = ["one.weight", "two.weight", "three.weight"]
    _, figures = permute_channels(state, [group_of(32, *readers)], readers, 1.0, still)

    assert all(figure.after > figure.before for figure in figures)


def test_search_without_time_changes_nothing() -> None:
    def running() -> Callable[[], float]:
        seconds: Iterator[int] = count()
        return lambda: float(next(seconds))

    state = {"before.weight": torch.randn(32, 3), "after.weight": crowded(32, 24)}
    changed, (figure,) = permute_channels(state, [group_of(32, "after.weight")], ["after.weight"], 0.5, running())

    assert figure.before == figure.after
    assert torch.equal(changed["after.weight"], state["after.weight"])


def test_quads_that_straddle_the_group_stay() -> None:
    """Channels 2..9 of a concatenation: only 4..7 are a whole quad, and one quad alone has nothing to exchange."""
    places = np.arange(2, 10)[:, None]
    group = ChannelGroup(8, {("before.weight", 0): places - 2, ("after.weight", 1): places})
    state = {"before.weight": torch.randn(8, 3), "after.weight": crowded(12, 8)}
    changed, _ = permute_channels(state, [group], ["after.weight"], 1.0, still)

    assert torch.equal(changed["after.weight"], state["after.weight"])


def test_order_is_applied_to_every_place_of_a_channel() -> None:
    group = ChannelGroup(2, {("after.weight", 1): np.array([[0, 1], [2, 3]])})
    moved = permuted({"after.weight": torch.tensor([[1.0, 2.0, 3.0, 4.0]])}, group, np.array([1, 0]))

    assert moved["after.weight"].tolist() == [[3.0, 4.0, 1.0, 2.0]]
